//! The stored updates as a graph, and where they are stored (Tailnet Lock sheet §9, §16).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;

use crate::aum::Aum;
use crate::hash::AumHash;

/// An update with its hash, so that it is encoded once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Update {
    hash: AumHash,
    aum: Aum,
}

impl Update {
    /// Hashes an update.
    pub fn new(aum: Aum) -> Self {
        Self { hash: aum.hash(), aum }
    }

    /// Its name.
    pub const fn hash(&self) -> AumHash {
        self.hash
    }

    /// What it says.
    pub const fn aum(&self) -> &Aum {
        &self.aum
    }
}

/// The updates that are stored, by hash and by parent. All of them fit in memory, because compaction bounds their number.
#[derive(Clone, Default, Debug)]
pub struct Graph {
    nodes: HashMap<AumHash, Node>,
    /// By parent, which need not be stored itself; in the order of storing.
    children: HashMap<AumHash, Vec<AumHash>>,
    last_active_ancestor: Option<AumHash>,
}

#[derive(Clone, Debug)]
struct Node {
    update: Arc<Update>,
    stored_at: Timestamp,
}

impl Graph {
    /// An update by hash.
    pub fn update(&self, hash: AumHash) -> Option<&Arc<Update>> {
        self.nodes.get(&hash).map(|node| &node.update)
    }

    /// When an update was stored.
    pub fn stored_at(&self, hash: AumHash) -> Option<Timestamp> {
        self.nodes.get(&hash).map(|node| node.stored_at)
    }

    /// The stored updates whose parent is `hash`.
    pub fn children(&self, hash: AumHash) -> impl Iterator<Item = &Arc<Update>> {
        self.children.get(&hash).into_iter().flatten().filter_map(|child| self.update(*child))
    }

    /// All that are stored, in no order.
    pub fn hashes(&self) -> impl Iterator<Item = AumHash> {
        self.nodes.keys().copied()
    }

    /// How many are stored.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is stored.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where the active chain begins, as stored.
    pub const fn last_active_ancestor(&self) -> Option<AumHash> {
        self.last_active_ancestor
    }

    /// Takes note of an update that is now stored. One that was there stays, with its time.
    pub fn insert(&mut self, update: Arc<Update>, stored_at: Timestamp) {
        let hash = update.hash();
        if self.nodes.contains_key(&hash) {
            return;
        }
        if let Some(parent) = update.aum().parent() {
            self.children.entry(parent).or_default().push(hash);
        }
        self.nodes.insert(hash, Node { update, stored_at });
    }

    /// Takes note that an update is no longer stored.
    pub fn remove(&mut self, hash: AumHash) {
        let Some(node) = self.nodes.remove(&hash) else { return };
        let Some(parent) = node.update.aum().parent() else { return };
        if let Some(siblings) = self.children.get_mut(&parent) {
            siblings.retain(|sibling| *sibling != hash);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
    }

    /// Takes note of where the active chain begins.
    pub const fn set_last_active_ancestor(&mut self, hash: AumHash) {
        self.last_active_ancestor = Some(hash);
    }

    /// From `hash` back over stored parents, itself first.
    pub fn ancestry(&self, hash: AumHash) -> impl Iterator<Item = &Arc<Update>> {
        std::iter::successors(self.update(hash), |update| self.update(update.aum().parent()?))
    }
}

/// Where updates are kept.
///
/// A storage on disk reads everything when it is opened, keeps the [`Graph`], and changes it only after the disk. It may be
/// stopped at any write: what is given in one call is written in the order given, each update as a whole or not at all.
pub trait Storage {
    /// What can go wrong when writing.
    type Error: std::error::Error;

    /// What is stored.
    fn graph(&self) -> &Graph;

    /// Stores verified updates, parents before children.
    fn commit(&mut self, updates: &[Arc<Update>], now: Timestamp) -> Result<(), Self::Error>;

    /// Stores where the active chain begins.
    fn set_last_active_ancestor(&mut self, hash: AumHash) -> Result<(), Self::Error>;

    /// Forgets updates, children before parents: stopped halfway, what is left of an old chain must not touch the new one.
    fn purge(&mut self, hashes: &[AumHash], now: Timestamp) -> Result<(), Self::Error>;
}

/// A storage that is lost with the process.
#[derive(Clone, Default, Debug)]
pub struct MemoryStorage {
    graph: Graph,
}

impl MemoryStorage {
    /// A storage that holds `graph`.
    pub const fn new(graph: Graph) -> Self {
        Self { graph }
    }
}

impl Storage for MemoryStorage {
    type Error = Infallible;

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn commit(&mut self, updates: &[Arc<Update>], now: Timestamp) -> Result<(), Infallible> {
        updates.iter().for_each(|update| self.graph.insert(Arc::clone(update), now));
        Ok(())
    }

    fn set_last_active_ancestor(&mut self, hash: AumHash) -> Result<(), Infallible> {
        self.graph.set_last_active_ancestor(hash);
        Ok(())
    }

    fn purge(&mut self, hashes: &[AumHash], _now: Timestamp) -> Result<(), Infallible> {
        hashes.iter().for_each(|hash| self.graph.remove(*hash));
        Ok(())
    }
}
