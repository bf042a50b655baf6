//! Which peers of a netmap are kept (Tailnet Lock sheet §12).
//!
//! The result after every change is that of the reference's pass over the full netmap, so a delta is judged more strictly than by the
//! reference, which looks at rotations on full netmaps only. Each change costs what it touches: a signature is verified once, and
//! a change of the trusted keys verifies only what waited for a key.

mod obsolete;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tsrs_base_types::{NodeId, NodePublic};

use crate::ed25519::{Entry, verify_batch};
use crate::nks::{Claim, Refusal, Verified};
use crate::state::State;
use obsolete::Rotations;

/// A peer as the netmap has it.
#[derive(Clone, Copy, Debug)]
pub struct FilterPeer<'a> {
    /// Its id.
    pub id: NodeId,
    /// Its node key.
    pub key: NodePublic,
    /// `KeySignature`, empty if there is none.
    pub signature: &'a [u8],
    /// `UnsignedPeerAPIOnly`.
    pub unsigned_peerapi_only: bool,
}

/// What a peer may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Its node key is signed.
    Signed,
    /// It is not signed, and control says that it may be reached over PeerAPI only. The caller cuts its allowed addresses to its own, gives
    /// it no capability but ingress, and no way to relay.
    PeerApiOnly,
    /// It gets nothing.
    Dropped(DropCause),
}

/// Why a peer is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DropCause {
    /// There is no signature.
    #[error("not signed")]
    Unsigned,
    /// The signature does not allow its node key.
    #[error("{0}")]
    Refused(Refusal),
    /// Its node key was replaced by another.
    #[error("the node key was replaced")]
    Obsolete,
}

/// What the filter allows beside signed peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FilterPolicy {
    /// Drops what is not signed even where control says that PeerAPI may reach it (`LockRequired`).
    pub lock_required: bool,
}

/// Judges the peers of a netmap under the trusted keys of a state.
#[derive(Debug)]
pub struct PeerFilter {
    policy: FilterPolicy,
    trusted: HashSet<Vec<u8>>,
    peers: BTreeMap<NodeId, Peer>,
    rotations: Rotations,
}

#[derive(Debug)]
struct Peer {
    key: NodePublic,
    signature: Box<[u8]>,
    unsigned_peerapi_only: bool,
    check: Check,
    /// What was last reported.
    admission: Admission,
}

#[derive(Debug)]
enum Check {
    /// Not looked at: unsigned peers that are kept anyway.
    None,
    Missing,
    Refused(Refusal),
    /// Not verified: the key is not trusted.
    Untrusted {
        key_id: Vec<u8>,
    },
    Verified(Box<Verified>),
}

impl PeerFilter {
    /// A filter without peers.
    pub fn new(state: &State, policy: FilterPolicy) -> Self {
        Self { policy, trusted: trusted(state), peers: BTreeMap::new(), rotations: Rotations::default() }
    }

    /// Takes a full netmap. Gives every peer whose admission is new or has changed.
    pub fn set_peers<'a>(
        &mut self,
        peers: impl IntoIterator<Item = FilterPeer<'a>>,
    ) -> Vec<(NodeId, Admission)> {
        let mut before = std::mem::take(&mut self.peers);
        let mut reported: HashMap<NodeId, Admission> = HashMap::new();
        let mut unchecked = Vec::new();
        for new in peers {
            let old = before.remove(&new.id);
            if let Some(old) = &old {
                reported.insert(new.id, old.admission);
            }
            let (peer, fresh) = match old.filter(|old| old.is_same(&new)) {
                Some(old) => (old, false),
                None => (Peer::new(&new), true),
            };
            if fresh {
                unchecked.push(new.id);
            }
            self.peers.insert(new.id, peer);
        }
        self.check(&unchecked);
        self.rebuild();
        self.report_all(&reported)
    }

    /// Takes one peer of a delta. Gives it and every other whose admission has changed.
    pub fn upsert(&mut self, peer: FilterPeer<'_>) -> Vec<(NodeId, Admission)> {
        if self.peers.get(&peer.id).is_some_and(|old| old.is_same(&peer)) {
            return Vec::new();
        }
        let mut touched = self.take_out(peer.id);
        let known = self.peers.remove(&peer.id).map(|old| old.admission);
        self.peers.insert(peer.id, Peer::new(&peer));
        self.check(&[peer.id]);
        if let Some(new) = self.peers.get(&peer.id) {
            touched.extend(self.rotations.insert(peer.id, new.key, new.verified()));
        }
        touched.insert(peer.id);
        let mut changes = self.report(touched);
        let unchanged_but_new = known.is_none() && changes.iter().all(|(id, _)| *id != peer.id);
        if let Some(admission) = self.admission(peer.id).filter(|_| unchanged_but_new) {
            changes.push((peer.id, admission));
        }
        changes
    }

    /// Takes note that a peer is gone. Gives the others whose admission has changed.
    pub fn remove(&mut self, id: NodeId) -> Vec<(NodeId, Admission)> {
        let touched = self.take_out(id);
        self.peers.remove(&id);
        self.report(touched)
    }

    /// Takes the keys that are trusted now. Gives the peers whose admission has changed.
    pub fn set_state(&mut self, state: &State) -> Vec<(NodeId, Admission)> {
        let trusted = trusted(state);
        if trusted == self.trusted {
            return Vec::new();
        }
        self.trusted = trusted;
        let mut unchecked = Vec::new();
        for (id, peer) in &mut self.peers {
            match &peer.check {
                Check::Verified(verified) if !self.trusted.contains(&verified.key_id) => {
                    peer.check = Check::Untrusted { key_id: verified.key_id.clone() };
                }
                Check::Untrusted { key_id } if self.trusted.contains(key_id) => unchecked.push(*id),
                Check::Verified(_) | Check::Untrusted { .. } => {}
                Check::None | Check::Missing | Check::Refused(_) => {}
            }
        }
        self.check(&unchecked);
        let reported = self.peers.iter().map(|(id, peer)| (*id, peer.admission)).collect();
        self.rebuild();
        self.report_all(&reported)
    }

    /// Changes the policy. Gives the peers whose admission has changed.
    pub fn set_policy(&mut self, policy: FilterPolicy) -> Vec<(NodeId, Admission)> {
        if policy == self.policy {
            return Vec::new();
        }
        self.policy = policy;
        let all = self.peers.keys().copied().collect();
        self.report(all)
    }

    /// What a peer may do.
    pub fn admission(&self, id: NodeId) -> Option<Admission> {
        self.peers.get(&id).map(|peer| peer.admission)
    }

    /// All peers in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = (NodeId, NodePublic, Admission)> {
        self.peers.iter().map(|(id, peer)| (*id, peer.key, peer.admission))
    }

    fn take_out(&mut self, id: NodeId) -> BTreeSet<NodeId> {
        let Some(peer) = self.peers.get(&id) else { return BTreeSet::new() };
        self.rotations.remove(id, peer.key, peer.verified())
    }

    /// Checks signatures: all that trusted keys made in batches.
    fn check(&mut self, ids: &[NodeId]) {
        let mut claims: Vec<(NodeId, Claim)> = Vec::new();
        for id in ids {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            peer.check = match Self::claim(&self.trusted, peer) {
                Ok(claim) => {
                    claims.push((*id, claim));
                    Check::Missing
                }
                Err(check) => check,
            };
        }
        let entry = |claim: &Claim| {
            let root = claim.root();
            Some(Entry {
                public: root.key_id.try_into().ok()?,
                message: *root.digest.as_bytes(),
                signature: root.signature.try_into().ok()?,
            })
        };
        let (good, bad): (Vec<_>, Vec<_>) = claims
            .into_iter()
            .map(|(id, claim)| (id, entry(&claim), claim))
            .partition(|(_, entry, _)| entry.is_some());
        let entries: Vec<Entry> = good.iter().filter_map(|(_, entry, _)| *entry).collect();
        let verdicts = verify_batch(&entries).into_iter().chain(std::iter::repeat(false));
        for ((id, _, claim), verified) in good.into_iter().chain(bad).zip(verdicts) {
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            peer.check = match verified {
                true => Check::Verified(Box::new(claim.into_verified())),
                false => Check::Refused(Refusal::BadSignature),
            };
        }
    }

    /// A claim that is good but for the signature of its trusted key.
    fn claim(trusted: &HashSet<Vec<u8>>, peer: &Peer) -> Result<Claim, Check> {
        if peer.unsigned_peerapi_only {
            return Err(Check::None);
        }
        if peer.signature.is_empty() {
            return Err(Check::Missing);
        }
        let claim = Claim::read(peer.key, &peer.signature).map_err(Check::Refused)?;
        if !trusted.contains(claim.key_id()) {
            return Err(Check::Untrusted { key_id: claim.key_id().to_vec() });
        }
        claim.check_rotations().map_err(Check::Refused)?;
        Ok(claim)
    }

    fn rebuild(&mut self) {
        self.rotations = Rotations::default();
        let all = self.peers.iter().map(|(id, peer)| (*id, peer.key, peer.verified()));
        self.rotations.fill(all);
    }

    fn judge(&self, peer: &Peer) -> Admission {
        if self.rotations.is_obsolete(&peer.key) && !matches!(peer.check, Check::Missing | Check::Refused(_))
        {
            return Admission::Dropped(DropCause::Obsolete);
        }
        match &peer.check {
            Check::None if self.policy.lock_required => Admission::Dropped(DropCause::Unsigned),
            Check::None => Admission::PeerApiOnly,
            Check::Missing => Admission::Dropped(DropCause::Unsigned),
            Check::Refused(refusal) => Admission::Dropped(DropCause::Refused(*refusal)),
            Check::Untrusted { .. } => Admission::Dropped(DropCause::Refused(Refusal::Untrusted)),
            Check::Verified(_) => Admission::Signed,
        }
    }

    fn report(&mut self, touched: BTreeSet<NodeId>) -> Vec<(NodeId, Admission)> {
        let mut changes = Vec::new();
        for id in touched {
            let Some(admission) = self.peers.get(&id).map(|peer| self.judge(peer)) else { continue };
            let Some(peer) = self.peers.get_mut(&id) else { continue };
            if std::mem::replace(&mut peer.admission, admission) != admission {
                changes.push((id, admission));
            }
        }
        changes
    }

    /// Judges all; gives those that are not in `reported` as they are now.
    fn report_all(&mut self, reported: &HashMap<NodeId, Admission>) -> Vec<(NodeId, Admission)> {
        let all = self.peers.keys().copied().collect();
        self.report(all);
        let now = self.peers.iter().map(|(id, peer)| (*id, peer.admission));
        now.filter(|(id, admission)| reported.get(id) != Some(admission)).collect()
    }
}

impl Peer {
    fn new(peer: &FilterPeer<'_>) -> Self {
        Self {
            key: peer.key,
            signature: peer.signature.into(),
            unsigned_peerapi_only: peer.unsigned_peerapi_only,
            check: Check::Missing,
            admission: Admission::Dropped(DropCause::Unsigned),
        }
    }

    fn is_same(&self, peer: &FilterPeer<'_>) -> bool {
        self.key == peer.key
            && *self.signature == *peer.signature
            && self.unsigned_peerapi_only == peer.unsigned_peerapi_only
    }

    fn verified(&self) -> Option<&Verified> {
        match &self.check {
            Check::Verified(verified) => Some(verified),
            Check::None | Check::Missing | Check::Refused(_) | Check::Untrusted { .. } => None,
        }
    }
}

fn trusted(state: &State) -> HashSet<Vec<u8>> {
    state.keys().iter().map(|key| key.id().to_vec()).collect()
}
