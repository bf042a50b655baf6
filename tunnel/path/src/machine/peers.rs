//! All peers of the netmap, found by node key and by disco key. A peer that we never talked to costs some 300 bytes.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV4};

use tsrs_base_types::{DiscoPublic, NodePublic, RegionId};

use super::api::{PeerConfig, SendPath};
use super::limits::MAX_CANDIDATES;
use super::paths::Paths;
use crate::disco::BoxCache;

/// Place of a peer in the table; used again after the peer is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PeerId(u32);

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) node_key: NodePublic,
    pub(super) disco_key: Option<DiscoPublic>,
    pub(super) home: Option<RegionId>,
    pub(super) expired: bool,
    /// What the netmap lists, without what cannot be used.
    pub(super) endpoints: Box<[SocketAddrV4]>,
    /// Only when there was something to remember.
    pub(super) paths: Option<Box<Paths>>,
    /// The path that was told last.
    pub(super) published: SendPath,
    /// The entry of this peer among the timers.
    pub(super) timer: Option<std::time::Instant>,
}

impl Peer {
    pub(super) fn paths_mut(&mut self) -> &mut Paths {
        self.paths.get_or_insert_with(|| Box::new(Paths::new(&self.endpoints)))
    }
}

/// Peers that share a disco key, and the box between us and them. Nearly always one; more when one machine is seen in
/// several tailnets.
#[derive(Debug)]
struct DiscoEntry {
    first: PeerId,
    more: Vec<PeerId>,
    cache: BoxCache,
}

#[derive(Debug, Default)]
pub(super) struct PeerTable {
    slots: Vec<Option<Peer>>,
    free: Vec<PeerId>,
    by_node: HashMap<NodePublic, PeerId>,
    by_disco: HashMap<DiscoPublic, DiscoEntry>,
}

impl PeerTable {
    pub(super) fn id(&self, node_key: &NodePublic) -> Option<PeerId> {
        self.by_node.get(node_key).copied()
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.slots.get(index(id))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.slots.get_mut(index(id))?.as_mut()
    }

    /// Every peer's id, in no order.
    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.by_node.values().copied().collect()
    }

    /// Adds a peer that is not in the table yet. None when the table cannot number it.
    pub(super) fn insert(&mut self, config: PeerConfig) -> Option<PeerId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = PeerId(u32::try_from(self.slots.len()).ok()?);
                self.slots.push(None);
                id
            }
        };
        self.by_node.insert(config.node_key, id);
        let peer = Peer {
            node_key: config.node_key,
            disco_key: None,
            home: usable_home(config.home),
            expired: config.expired,
            endpoints: usable_endpoints(&config.endpoints),
            paths: None,
            published: SendPath::default(),
            timer: None,
        };
        *self.slots.get_mut(index(id))? = Some(peer);
        self.set_disco_key(id, config.disco_key);
        Some(id)
    }

    pub(super) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        self.set_disco_key(id, None);
        let peer = self.slots.get_mut(index(id))?.take()?;
        self.by_node.remove(&peer.node_key);
        self.free.push(id);
        Some(peer)
    }

    /// Returns whether the key changed.
    pub(super) fn set_disco_key(&mut self, id: PeerId, key: Option<DiscoPublic>) -> bool {
        let key = key.filter(|key| !key.is_zero());
        let Some(peer) = self.get_mut(id).filter(|peer| peer.disco_key != key) else { return false };
        let old = std::mem::replace(&mut peer.disco_key, key);
        if let Some(old) = old {
            self.leave_disco_key(id, &old);
        }
        if let Some(key) = key {
            self.by_disco.entry(key).and_modify(|entry| entry.more.push(id)).or_insert_with(|| DiscoEntry {
                first: id,
                more: Vec::new(),
                cache: BoxCache::default(),
            });
        }
        true
    }

    fn leave_disco_key(&mut self, id: PeerId, key: &DiscoPublic) {
        let Some(entry) = self.by_disco.get_mut(key) else { return };
        if entry.first != id {
            entry.more.retain(|other| *other != id);
        } else if let Some(next) = entry.more.pop() {
            entry.first = next;
        } else {
            self.by_disco.remove(key);
        }
    }

    /// Peers with this disco key.
    pub(super) fn with_disco_key(&self, key: &DiscoPublic) -> impl Iterator<Item = PeerId> {
        self.by_disco
            .get(key)
            .into_iter()
            .flat_map(|entry| std::iter::once(entry.first).chain(entry.more.iter().copied()))
    }

    /// Our own disco key changed: all boxes are made anew.
    pub(super) fn forget_boxes(&mut self) {
        self.by_disco.values_mut().for_each(|entry| entry.cache = BoxCache::default());
    }

    /// The box between us and this key; only for keys of peers.
    pub(super) fn box_cache(&mut self, key: &DiscoPublic) -> Option<&mut BoxCache> {
        self.by_disco.get_mut(key).map(|entry| &mut entry.cache)
    }
}

fn index(id: PeerId) -> usize {
    // A u32 fits in every usize that this program runs on; one that does not is in no table.
    usize::try_from(id.0).unwrap_or(usize::MAX)
}

/// Region zero means "none".
pub(super) fn usable_home(home: Option<RegionId>) -> Option<RegionId> {
    home.filter(|region| region.0 > 0)
}

/// The IPv4 ones, as many as candidates are kept.
pub(super) fn usable_endpoints(endpoints: &[SocketAddr]) -> Box<[SocketAddrV4]> {
    let mut usable: Vec<SocketAddrV4> = Vec::new();
    for endpoint in endpoints {
        if let SocketAddr::V4(endpoint) = endpoint
            && super::candidate::is_usable(endpoint)
            && usable.len() < MAX_CANDIDATES
            && !usable.contains(endpoint)
        {
            usable.push(*endpoint);
        }
    }
    usable.into()
}
