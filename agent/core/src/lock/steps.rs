//! What is to be written to the folder of a chain.

use std::convert::Infallible;
use std::sync::Arc;

use jiff::Timestamp;
use tsrs_control_tka::{AumHash, Graph, Storage, StoredAum, Update};

/// One change of the folder. Each is written as a whole or not at all, and they are written in their order; after a crash between two of
/// them the folder either opens, or does not reach the head that the state file remembers, and is fetched again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreStep {
    /// Nothing that was there before counts.
    Clear,
    /// The file of an update.
    Put(AumHash, Vec<u8>),
    /// Where the active chain begins.
    Ancestor(AumHash),
    /// An update is no longer needed.
    Remove(AumHash),
}

/// A chain in memory that notes what has to be written.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder {
    graph: Graph,
    pub(super) steps: Vec<StoreStep>,
}

impl Recorder {
    pub(super) const fn new(graph: Graph) -> Self {
        Self { graph, steps: Vec::new() }
    }

    /// The steps that write everything anew.
    pub(super) fn all(&self) -> Vec<StoreStep> {
        let mut steps = vec![StoreStep::Clear];
        for hash in self.graph.hashes() {
            let (update, stored_at) = (self.graph.update(hash), self.graph.stored_at(hash));
            steps.extend(update.zip(stored_at).map(|(update, at)| put(update, at)));
        }
        steps.extend(self.graph.last_active_ancestor().map(StoreStep::Ancestor));
        steps
    }
}

impl Storage for Recorder {
    type Error = Infallible;

    fn graph(&self) -> &Graph {
        &self.graph
    }

    fn commit(&mut self, updates: &[Arc<Update>], now: Timestamp) -> Result<(), Infallible> {
        for update in updates {
            self.steps.push(put(update, now));
            self.graph.insert(Arc::clone(update), now);
        }
        Ok(())
    }

    fn set_last_active_ancestor(&mut self, hash: AumHash) -> Result<(), Infallible> {
        self.steps.push(StoreStep::Ancestor(hash));
        self.graph.set_last_active_ancestor(hash);
        Ok(())
    }

    fn purge(&mut self, hashes: &[AumHash], _now: Timestamp) -> Result<(), Infallible> {
        for hash in hashes {
            self.steps.push(StoreStep::Remove(*hash));
            self.graph.remove(*hash);
        }
        Ok(())
    }
}

fn put(update: &Update, stored_at: Timestamp) -> StoreStep {
    let stored = StoredAum { aum: Some(update.aum().clone()), created: Some(stored_at), purged: None };
    StoreStep::Put(update.hash(), stored.encode())
}
