//! Node keys that rotations have replaced.

use std::collections::{BTreeSet, HashMap};

use tsrs_base_types::{NodeId, NodePublic};

use crate::nks::{SigKind, Verified};

/// Which node keys are obsolete, and why:
///
/// - every previous key that a valid rotation names;
/// - of the rotations that began with a direct signature for the same wrapping key, all but the longest, and all if the two longest
///   are equally long. Those that the first rule has made obsolete do not take part.
///
/// The reference lets a group see what the groups before it made obsolete, in an order that is not defined. Here groups do not see
/// one another, which never keeps a peer that the reference drops in some order.
#[derive(Debug, Default)]
pub(super) struct Rotations {
    by_key: HashMap<NodePublic, BTreeSet<NodeId>>,
    /// How many rotations name a key as previous.
    previous: HashMap<NodePublic, usize>,
    groups: HashMap<Vec<u8>, Group>,
    /// In how many groups a key has lost.
    lost: HashMap<NodePublic, usize>,
    group_of: HashMap<NodeId, Vec<u8>>,
}

#[derive(Debug, Default)]
struct Group {
    members: HashMap<NodeId, (NodePublic, usize)>,
    losers: Vec<NodePublic>,
}

impl Rotations {
    pub(super) fn is_obsolete(&self, key: &NodePublic) -> bool {
        self.previous.contains_key(key) || self.lost.contains_key(key)
    }

    /// Fills an empty table.
    pub(super) fn fill<'a>(
        &mut self,
        peers: impl Iterator<Item = (NodeId, NodePublic, Option<&'a Verified>)>,
    ) {
        for (id, key, verified) in peers {
            self.note(id, key, verified);
        }
        let groups: Vec<Vec<u8>> = self.groups.keys().cloned().collect();
        groups.iter().for_each(|group| {
            self.decide(group);
        });
    }

    /// Adds a peer; gives the peers whose keys may have become obsolete or fresh.
    pub(super) fn insert(
        &mut self,
        id: NodeId,
        key: NodePublic,
        verified: Option<&Verified>,
    ) -> BTreeSet<NodeId> {
        self.note(id, key, verified);
        self.settle(id, verified)
    }

    /// Takes a peer away; gives the peers whose keys may have become obsolete or fresh.
    pub(super) fn remove(
        &mut self,
        id: NodeId,
        key: NodePublic,
        verified: Option<&Verified>,
    ) -> BTreeSet<NodeId> {
        if let Some(peers) = self.by_key.get_mut(&key) {
            peers.remove(&id);
            if peers.is_empty() {
                self.by_key.remove(&key);
            }
        }
        if let Some(rotation) = verified.and_then(|verified| verified.rotation.as_ref()) {
            rotation.previous.iter().for_each(|key| decrease(&mut self.previous, key));
        }
        let group = self.group_of.remove(&id);
        if let Some(group) = group.as_ref().and_then(|name| self.groups.get_mut(name)) {
            group.members.remove(&id);
        }
        let mut touched = self.settle(id, verified);
        if let Some(name) = group {
            touched.extend(self.decide(&name));
        }
        touched
    }

    fn note(&mut self, id: NodeId, key: NodePublic, verified: Option<&Verified>) {
        self.by_key.entry(key).or_default().insert(id);
        let Some(rotation) = verified.and_then(|verified| verified.rotation.as_ref()) else { return };
        for previous in &rotation.previous {
            *self.previous.entry(*previous).or_default() += 1;
        }
        if rotation.initial.kind() == SigKind::DIRECT {
            let [_, _, _, wrapping] = rotation.initial.members();
            let group = self.groups.entry(wrapping.to_vec()).or_default();
            group.members.insert(id, (key, rotation.previous.len()));
            self.group_of.insert(id, wrapping.to_vec());
        }
    }

    /// Decides the groups that a changed peer belongs to or whose members it names.
    fn settle(&mut self, id: NodeId, verified: Option<&Verified>) -> BTreeSet<NodeId> {
        let rotation = verified.and_then(|verified| verified.rotation.as_ref());
        let named = rotation.into_iter().flat_map(|rotation| &rotation.previous);
        let mut touched: BTreeSet<NodeId> =
            named.filter_map(|key| self.by_key.get(key)).flatten().copied().collect();
        let groups: BTreeSet<Vec<u8>> =
            touched.iter().chain([&id]).filter_map(|id| self.group_of.get(id)).cloned().collect();
        for group in &groups {
            touched.extend(self.decide(group));
        }
        touched
    }

    /// Finds out who loses in a group; gives the peers whose keys have changed sides.
    fn decide(&mut self, name: &[u8]) -> BTreeSet<NodeId> {
        let Some(group) = self.groups.get_mut(name) else { return BTreeSet::new() };
        let mut taking_part: Vec<(usize, NodePublic)> = group
            .members
            .values()
            .filter(|(key, _)| !self.previous.contains_key(key))
            .map(|(key, length)| (*length, *key))
            .collect();
        taking_part.sort_unstable_by(|a, b| b.cmp(a));
        let tie = matches!(taking_part.as_slice(), [(first, _), (second, _), ..] if first == second);
        let losers: Vec<NodePublic> =
            taking_part.into_iter().skip(usize::from(!tie)).map(|(_, key)| key).collect();
        let before = std::mem::replace(&mut group.losers, losers.clone());
        if group.members.is_empty() {
            self.groups.remove(name);
        }
        for key in &losers {
            *self.lost.entry(*key).or_default() += 1;
        }
        before.iter().for_each(|key| decrease(&mut self.lost, key));
        before.iter().chain(&losers).filter_map(|key| self.by_key.get(key)).flatten().copied().collect()
    }
}

fn decrease(counts: &mut HashMap<NodePublic, usize>, key: &NodePublic) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
