//! Which updates may be forgotten (Tailnet Lock sheet §16).

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::aum::AumKind;
use crate::authority::Authority;
use crate::chain::{ChainError, active_chain};
use crate::graph::{Graph, Storage};
use crate::hash::AumHash;
use crate::limits::{COMPACT_MIN_AGE_DAYS, COMPACT_MIN_CHAIN, MAX_CHAIN_SCAN};

/// What is always kept.
#[derive(Clone, Copy, Debug)]
pub struct CompactionRules {
    /// Updates behind the head.
    pub min_chain: usize,
    /// How long ago an update was stored.
    pub min_age: SignedDuration,
}

impl Default for CompactionRules {
    fn default() -> Self {
        Self { min_chain: COMPACT_MIN_CHAIN, min_age: SignedDuration::from_hours(24 * COMPACT_MIN_AGE_DAYS) }
    }
}

impl CompactionRules {
    /// The usual rules; but where more is stored than another node can follow, age protects nothing.
    pub fn fitting(graph: &Graph) -> Self {
        let usual = Self::default();
        if graph.len() > MAX_CHAIN_SCAN { Self { min_age: SignedDuration::ZERO, ..usual } } else { usual }
    }
}

/// What to forget, and where the active chain begins then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CompactionPlan {
    /// To be stored first.
    pub last_active_ancestor: AumHash,
    /// To be purged afterwards in this order, children before parents.
    pub purge: Vec<AumHash>,
}

impl Authority {
    /// Forgets what is old. True if anything was.
    pub fn compact<S: Storage>(
        &mut self,
        storage: &mut S,
        rules: CompactionRules,
        now: Timestamp,
    ) -> Result<bool, S::Error> {
        let plan = plan_compaction(storage.graph(), self.head, rules, now);
        if plan.purge.is_empty() {
            return Ok(false);
        }
        // What cannot be opened afterwards is not purged.
        let mut after = storage.graph().clone();
        plan.purge.iter().for_each(|hash| after.remove(*hash));
        let opens: Result<_, ChainError> = active_chain(&after, Some(plan.last_active_ancestor));
        let Ok(chain) = opens else { return Ok(false) };
        if chain.head != self.head {
            return Ok(false);
        }
        storage.set_last_active_ancestor(plan.last_active_ancestor)?;
        storage.purge(&plan.purge, now)?;
        self.oldest = chain.oldest;
        Ok(true)
    }
}

/// Finds out what may be forgotten without changing the active chain or losing a fork that may still win.
pub fn plan_compaction(
    graph: &Graph,
    head: AumHash,
    rules: CompactionRules,
    now: Timestamp,
) -> CompactionPlan {
    let nothing = |oldest| CompactionPlan { last_active_ancestor: oldest, purge: Vec::new() };
    let is_young =
        |hash| graph.stored_at(hash).is_some_and(|stored| now.duration_since(stored) < rules.min_age);
    let chain: Vec<AumHash> = graph.ancestry(head).map(|update| update.hash()).collect();
    let Some(oldest) = chain.last().copied() else { return nothing(head) };
    let is_checkpoint =
        |hash: AumHash| graph.update(hash).is_some_and(|update| update.aum().kind == AumKind::CHECKPOINT);
    let candidate = (rules.min_chain..chain.len())
        .find(|index| chain.get(*index).is_some_and(|hash| is_checkpoint(*hash) && !is_young(*hash)));
    // No candidate: the chain is short, or all of it is young.
    let Some(mut ancestor) = candidate else { return nothing(oldest) };

    let mut kept: HashSet<AumHash> = chain.iter().take(ancestor + 1).copied().collect();
    kept.extend(graph.hashes().filter(|hash| is_young(*hash)));
    let mut open: Vec<AumHash> = kept.iter().copied().collect();
    while let Some(hash) = open.pop() {
        let children = graph.children(hash).map(|update| update.hash());
        open.extend(children.filter(|child| kept.insert(*child)));
    }

    // The way from every kept update back to one that is kept, or to the chain before the ancestor, which moves back then.
    let on_chain: HashMap<AumHash, usize> =
        chain.iter().enumerate().map(|(index, hash)| (*hash, index)).collect();
    let starts: Vec<AumHash> =
        kept.iter().copied().filter(|hash| chain.get(ancestor) != Some(hash)).collect();
    let candidate = ancestor;
    for start in starts {
        for update in graph.ancestry(start).skip(1) {
            let hash = update.hash();
            if let Some(index) = on_chain.get(&hash).filter(|index| **index > candidate) {
                ancestor = ancestor.max(*index);
                break;
            }
            if !kept.insert(hash) {
                break;
            }
        }
    }
    if ancestor > candidate {
        let checkpoint =
            (ancestor..chain.len()).find(|index| chain.get(*index).is_some_and(|hash| is_checkpoint(*hash)));
        let Some(index) = checkpoint else { return nothing(oldest) };
        ancestor = index;
        kept.extend(chain.iter().take(ancestor + 1).copied());
    }
    let last_active_ancestor = chain.get(ancestor).copied().unwrap_or(oldest);
    CompactionPlan { last_active_ancestor, purge: children_first(graph, &kept) }
}

/// All that is not kept, children before parents.
fn children_first(graph: &Graph, kept: &HashSet<AumHash>) -> Vec<AumHash> {
    let mut doomed: Vec<AumHash> = graph.hashes().filter(|hash| !kept.contains(hash)).collect();
    doomed.sort_unstable();
    let among: HashSet<AumHash> = doomed.iter().copied().collect();
    let parent = |hash: &AumHash| {
        graph.update(*hash).and_then(|update| update.aum().parent()).filter(|hash| among.contains(hash))
    };
    let mut children: HashMap<AumHash, usize> = HashMap::new();
    for parent in doomed.iter().filter_map(parent) {
        *children.entry(parent).or_default() += 1;
    }
    let mut ready: Vec<AumHash> =
        doomed.iter().copied().filter(|hash| !children.contains_key(hash)).collect();
    let mut order = Vec::with_capacity(doomed.len());
    while let Some(hash) = ready.pop() {
        order.push(hash);
        let Some(parent) = parent(&hash) else { continue };
        if let Some(left) = children.get_mut(&parent) {
            *left -= 1;
            if *left == 0 {
                ready.push(parent);
            }
        }
    }
    order
}
