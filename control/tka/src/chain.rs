//! Which chain of the stored updates is active (Tailnet Lock sheet §9).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::aum::AumKind;
use crate::graph::{Graph, Update};
use crate::hash::AumHash;
use crate::limits::MAX_STORED_UPDATES;
use crate::state::{ApplyError, State};

/// Why no active chain could be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// An update that is needed is not stored.
    #[error("update {0} is not stored")]
    Missing(AumHash),
    /// Longer than the limit.
    #[error("more than {MAX_STORED_UPDATES} updates")]
    TooLong,
    /// A first update of a kind that cannot be first.
    #[error("{0} cannot be a first update")]
    BadFirst(AumHash),
    /// A stored update does not fit where it stands.
    #[error("stored update does not fit: {0}")]
    Apply(#[from] ApplyError),
    /// Nothing is stored.
    #[error("nothing is stored")]
    Empty,
    /// Several chains, and none or more than one begins where the active one should.
    #[error("no single chain leads on from the last active ancestor")]
    NoSingleChain,
}

/// The active chain: where it begins, where it ends, and the state there.
#[derive(Clone, Debug)]
pub(crate) struct ActiveChain {
    pub(crate) oldest: AumHash,
    pub(crate) head: AumHash,
    pub(crate) state: State,
}

/// The state after a stored update: from the nearest checkpoint before it, or from the first update, forward along the way.
pub(crate) fn state_at(graph: &Graph, hash: AumHash) -> Result<State, ChainError> {
    let mut way: Vec<&Arc<Update>> = Vec::new();
    let mut update = graph.update(hash).ok_or(ChainError::Missing(hash))?;
    let mut state = loop {
        if way.len() > MAX_STORED_UPDATES {
            return Err(ChainError::TooLong);
        }
        if let (AumKind::CHECKPOINT, Some(state)) = (update.aum().kind, &update.aum().state) {
            let mut state = State::clone(state);
            state.last = Some(update.hash());
            break state;
        }
        let Some(parent) = update.aum().parent() else {
            if !matches!(update.aum().kind, AumKind::NO_OP | AumKind::ADD_KEY) {
                return Err(ChainError::BadFirst(update.hash()));
            }
            break State::default().apply(update.aum(), update.hash())?;
        };
        way.push(update);
        update = graph.update(parent).ok_or(ChainError::Missing(parent))?;
    };
    for update in way.into_iter().rev() {
        state = state.apply(update.aum(), update.hash())?;
    }
    Ok(state)
}

/// The one of several siblings that the active chain goes on with, under the state of their parent.
pub fn pick<'a>(
    state: &State,
    siblings: impl IntoIterator<Item = &'a Arc<Update>>,
) -> Option<&'a Arc<Update>> {
    let mut siblings = siblings.into_iter();
    let first = siblings.next()?;
    let Some(second) = siblings.next() else { return Some(first) };
    let rank = |update: &Arc<Update>| {
        let removes = update.aum().kind == AumKind::REMOVE_KEY;
        (update.aum().weight(state), removes, std::cmp::Reverse(update.hash()))
    };
    [first, second].into_iter().chain(siblings).max_by_key(|update| rank(update))
}

/// Finds the active chain. `ancestor` decides where several beginnings are stored.
pub(crate) fn active_chain(graph: &Graph, ancestor: Option<AumHash>) -> Result<ActiveChain, ChainError> {
    let oldest = oldest(graph, ancestor)?;
    let mut state = state_at(graph, oldest)?;
    let mut head = oldest;
    for _ in 0..MAX_STORED_UPDATES {
        let Some(next) = pick(&state, graph.children(head)) else {
            return Ok(ActiveChain { oldest, head, state });
        };
        state = state.apply(next.aum(), next.hash())?;
        head = next.hash();
    }
    Err(ChainError::TooLong)
}

/// The beginning of the active chain: walks back from every head.
fn oldest(graph: &Graph, ancestor: Option<AumHash>) -> Result<AumHash, ChainError> {
    // Where the walk from an update ends, and whether it comes upon the ancestor after the update itself.
    let mut known: HashMap<AumHash, (AumHash, bool)> = HashMap::new();
    let mut oldest = HashSet::new();
    let mut through_ancestor = HashSet::new();
    for head in graph.hashes().filter(|hash| graph.children(*hash).next().is_none()) {
        let mut way = Vec::new();
        let mut end = (head, false);
        for update in graph.ancestry(head) {
            if let Some(result) = known.get(&update.hash()) {
                end = (result.0, result.1 || Some(update.hash()) == ancestor);
                break;
            }
            if way.len() > MAX_STORED_UPDATES {
                return Err(ChainError::TooLong);
            }
            way.push(update.hash());
            end = (update.hash(), false);
        }
        for hash in way.into_iter().rev() {
            known.insert(hash, end);
            if Some(hash) == ancestor && hash != head {
                end.1 = true;
            }
        }
        oldest.insert(end.0);
        if end.1 {
            through_ancestor.insert(end.0);
        }
    }
    let candidates = if oldest.len() > 1 { through_ancestor } else { oldest };
    let mut candidates = candidates.into_iter();
    match (candidates.next(), candidates.next()) {
        (Some(oldest), None) => Ok(oldest),
        (None, _) if graph.is_empty() => Err(ChainError::Empty),
        _ => Err(ChainError::NoSingleChain),
    }
}
