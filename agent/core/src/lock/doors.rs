//! Which peers may be seen.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use tsrs_base_types::{NodeId, NodePublic};
use tsrs_control_netmap::{Change, Netmap, Peers};
use tsrs_control_tailcfg::Node;
use tsrs_control_tka::{Admission, FilterPeer, FilterPolicy, PeerFilter, State};

/// Peers of one update above which all are judged together, which verifies their signatures in batches.
const MAX_SINGLE_UPDATES: usize = 32;

/// Decides about peers, and keeps the list of those that are not seen.
#[derive(Debug, Default)]
pub struct Doors {
    way: Way,
    hidden: Arc<Hidden>,
}

/// The peers that are not seen, with the reason.
pub type Hidden = BTreeMap<NodeId, String>;

/// Who comes in.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// There is no lock: everybody.
    Free,
    /// A lock was announced and is not verified: whoever was in before, with the key of then.
    Announced,
    /// A lock is demanded, or was verified once and its chain is not here: nobody.
    None,
    /// The lock is verified: whom the keys of this state sign.
    Signed(&'a State, FilterPolicy),
}

/// An [`Entry`], with what is needed to judge by it.
#[derive(Debug, Default)]
enum Way {
    #[default]
    Open,
    Before(HashSet<NodePublic>),
    Shut,
    Locked(Box<PeerFilter>),
}

impl Doors {
    /// Brings the view of a netmap to a newer netmap and to other doors, and says what is different in it. `changes` are those of the netmap
    /// itself, `view` is what was seen before. `in_use` says whether its peers were let into the tunnel.
    pub fn pass(
        &mut self,
        entry: Entry<'_>,
        full: &Arc<Netmap>,
        changes: Vec<Change>,
        view: Option<&Arc<Netmap>>,
        in_use: bool,
    ) -> (Arc<Netmap>, Vec<Change>) {
        let mut touched = match self.turn(entry, view.filter(|_| in_use)) {
            Turned::Same => Some(Vec::new()),
            Turned::These(ids) => Some(ids),
            Turned::All => None,
        };
        if matches!(self.way, Way::Open) && touched.is_some() {
            return (Arc::clone(full), changes);
        }
        self.forget_gone(full.peers(), &changes);
        if let Some(ids) = &mut touched {
            ids.extend(changes.iter().filter_map(peer_of).map(|node| node.id));
        }
        let mut ids: Vec<NodeId> = match touched {
            Some(ids) if ids.len() <= MAX_SINGLE_UPDATES => self.judge_some(full, ids),
            Some(_) | None => self.judge_all(full, view),
        };
        ids.sort_unstable();
        ids.dedup();
        let mut peers = view.map(|view| view.peers().clone()).unwrap_or_default();
        let seen = self.show(&mut peers, full, &ids);
        let rest = changes.into_iter().filter(|change| peer_of(change).is_none());
        let changes = seen.into_iter().chain(rest).collect();
        match self.way {
            // Nobody is kept out: the view is the netmap.
            Way::Open => (Arc::clone(full), changes),
            Way::Before(_) | Way::Shut | Way::Locked(_) => (Arc::new(full.with_peers(peers)), changes),
        }
    }

    /// Who leaves, or changes its key, does not come back as the one that it was.
    fn forget_gone(&mut self, full: &Peers, changes: &[Change]) {
        let Way::Before(keys) = &mut self.way else { return };
        let gone = |change: &Change| matches!(change, Change::PeerRemoved(_));
        let renewed = |change: &Change| matches!(change, Change::PeerChanged { before, after } if before.key != after.key);
        if changes.iter().any(|change| gone(change) || renewed(change)) {
            let here: HashSet<NodePublic> =
                full.iter().map(|node| full.original(node.id).unwrap_or(node).key).collect();
            keys.retain(|key| here.contains(key));
        }
    }

    /// The peers that are not seen, with the reason.
    pub const fn hidden(&self) -> &Arc<Hidden> {
        &self.hidden
    }

    /// Why a peer is not seen; `None` if it is.
    fn refusal(&self, full: &Peers, node: &Node) -> Option<String> {
        let unverified = || Some("Tailnet Lock is not verified".to_owned());
        match &self.way {
            Way::Open => None,
            // The key that control gave; that of an expired peer was made unusable here.
            Way::Before(keys) if keys.contains(&full.original(node.id).map_or(node.key, |node| node.key)) => {
                None
            }
            Way::Before(_) | Way::Shut => unverified(),
            Way::Locked(filter) => match filter.admission(node.id) {
                Some(Admission::Signed | Admission::PeerApiOnly) => None,
                Some(Admission::Dropped(cause)) => Some(cause.to_string()),
                None => unverified(),
            },
        }
    }

    /// Takes the way that is wanted.
    fn turn(&mut self, entry: Entry<'_>, seen: Option<&Arc<Netmap>>) -> Turned {
        let next = match (entry, &mut self.way) {
            (Entry::Free, Way::Open) | (Entry::Announced, Way::Before(_)) | (Entry::None, Way::Shut) => {
                return Turned::Same;
            }
            (Entry::Signed(state, policy), Way::Locked(filter)) => {
                let mut ids: Vec<NodeId> = filter.set_state(state).into_iter().map(|(id, _)| id).collect();
                ids.extend(filter.set_policy(policy).into_iter().map(|(id, _)| id));
                return Turned::These(ids);
            }
            (Entry::Announced, Way::Open) => {
                // Who came in while there was no lock.
                let peers = seen.map(|view| view.peers());
                let keys = peers
                    .into_iter()
                    .flat_map(|peers| peers.iter().map(|node| peers.original(node.id).unwrap_or(node).key));
                Way::Before(keys.collect())
            }
            // From behind other doors nobody new comes in.
            (Entry::Announced, Way::Shut | Way::Locked(_)) => Way::Before(HashSet::new()),
            (Entry::Free, _) => Way::Open,
            (Entry::None, _) => Way::Shut,
            (Entry::Signed(state, policy), _) => Way::Locked(Box::new(PeerFilter::new(state, policy))),
        };
        self.way = next;
        Turned::All
    }

    fn judge_all(&mut self, full: &Netmap, view: Option<&Arc<Netmap>>) -> Vec<NodeId> {
        if let Way::Locked(filter) = &mut self.way {
            filter.set_peers(full.peers().iter().map(|node| claim(full.peers(), node)));
        }
        let before = view.into_iter().flat_map(|view| view.peers().iter());
        before.chain(full.peers().iter()).map(|node| node.id).collect()
    }

    fn judge_some(&mut self, full: &Netmap, ids: Vec<NodeId>) -> Vec<NodeId> {
        let Way::Locked(filter) = &mut self.way else { return ids };
        let mut touched = ids.clone();
        // Those that are gone first: a node key that moves from one to another is not there twice.
        for id in ids.iter().filter(|id| full.peers().get(**id).is_none()) {
            touched.extend(filter.remove(*id).into_iter().map(|(id, _)| id));
        }
        for node in ids.iter().filter_map(|id| full.peers().get(*id)) {
            touched.extend(filter.upsert(claim(full.peers(), node)).into_iter().map(|(id, _)| id));
        }
        touched
    }

    /// Shows what may be seen: what goes first, then what changes, then what comes.
    fn show(&mut self, peers: &mut Peers, full: &Netmap, ids: &[NodeId]) -> Vec<Change> {
        let (mut gone, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for id in ids {
            let node = full.peers().get(*id);
            let refusal = node.and_then(|node| self.refusal(full.peers(), node));
            let seen = node.filter(|_| refusal.is_none());
            self.note_hidden(*id, refusal);
            match peers.show(*id, seen) {
                Some(change @ Change::PeerRemoved(_)) => gone.push(change),
                Some(change @ Change::PeerAdded(_)) => new.push(change),
                Some(change) => changed.push(change),
                None => {}
            }
        }
        gone.into_iter().chain(changed).chain(new).collect()
    }

    fn note_hidden(&mut self, id: NodeId, refusal: Option<String>) {
        if self.hidden.get(&id) != refusal.as_ref() {
            // Readers may hold the list as it was.
            let hidden = Arc::make_mut(&mut self.hidden);
            match refusal {
                Some(refusal) => hidden.insert(id, refusal),
                None => hidden.remove(&id),
            };
        }
    }
}

enum Turned {
    Same,
    These(Vec<NodeId>),
    All,
}

/// What a peer shows at the door: what control sent, also of a peer that expired here meanwhile.
fn claim<'a>(full: &'a Peers, node: &'a Arc<Node>) -> FilterPeer<'a> {
    let node = full.original(node.id).unwrap_or(node);
    FilterPeer {
        id: node.id,
        key: node.key,
        signature: &node.key_signature.0,
        unsigned_peerapi_only: node.unsigned_peer_api_only,
    }
}

/// The peer that a change is about.
fn peer_of(change: &Change) -> Option<&Arc<Node>> {
    let (before, after) = change.peer();
    after.or(before)
}
