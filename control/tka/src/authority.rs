//! The authority: the head of the active chain and the state there (Tailnet Lock sheet §9).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use tsrs_base_types::{LockPrivate, LockPublic, NodePublic};

use crate::aum::{Aum, AumError, AumKind};
use crate::chain::{ChainError, active_chain, pick, state_at};
use crate::graph::{Graph, Storage, Update};
use crate::hash::AumHash;
use crate::limits::{MAX_INFORM_UPDATES, MAX_STORED_UPDATES};
use crate::nks::{Refusal, Verified};
use crate::state::{ApplyError, State};

/// Whom a tailnet trusts now, and how it came to that.
///
/// The storage is not held, only named in each call: always the one that the authority was opened or bootstrapped with.
#[derive(Clone, Debug)]
pub struct Authority {
    pub(crate) oldest: AumHash,
    pub(crate) head: AumHash,
    pub(crate) state: State,
}

/// Why updates were not taken. Nothing is stored then, unless writing failed halfway.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The storage holds updates already.
    #[error("there is an authority already")]
    NotEmpty,
    /// The first update must be a checkpoint.
    #[error("not a checkpoint")]
    NotCheckpoint,
    /// More than [`MAX_INFORM_UPDATES`] at once.
    #[error("{0} updates are more than {MAX_INFORM_UPDATES}")]
    TooMany(usize),
    /// The storage would hold more than [`MAX_STORED_UPDATES`].
    #[error("more than {MAX_STORED_UPDATES} updates")]
    Full,
    /// An update without a parent, which only a bootstrap may take.
    #[error("update {0} has no parent")]
    NoParent(AumHash),
    /// An update is not valid where it stands.
    #[error("update {hash}: {error}")]
    Invalid {
        /// The update.
        hash: AumHash,
        /// What is wrong with it.
        error: AumError,
    },
    /// An update is valid but does not fit the state where it stands.
    #[error("update {hash}: {error}")]
    Apply {
        /// The update.
        hash: AumHash,
        /// Why it does not fit.
        error: ApplyError,
    },
    /// The chain behind an update, or the new active chain, cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The storage could not write.
    #[error("storage: {0}")]
    Storage(E),
}

impl Authority {
    /// Makes the first update of a new authority.
    pub fn create(state: State, signer: &LockPrivate) -> Result<Aum, AumError> {
        let mut genesis = Aum { kind: AumKind::CHECKPOINT, state: Some(Box::new(state)), ..Aum::default() };
        if !genesis.sign(signer) {
            return Err(AumError::BadSignature);
        }
        if let Some(state) = genesis.state.clone() {
            genesis.verify(&state, true)?;
        }
        Ok(genesis)
    }

    /// Checks that an update may begin an authority: a checkpoint that is valid under its own state. A later checkpoint of a chain may
    /// be used as well.
    pub fn check_first(aum: &Aum) -> Result<&State, AumError> {
        let state = aum.state.as_deref().filter(|_| aum.kind == AumKind::CHECKPOINT);
        let state = state.ok_or(AumError::Members(aum.kind))?;
        aum.verify(state, true)?;
        Ok(state)
    }

    /// Begins with a checkpoint in a storage that is empty.
    pub fn bootstrap<S: Storage>(
        storage: &mut S,
        genesis: Aum,
        now: Timestamp,
    ) -> Result<Self, UpdateError<S::Error>> {
        if !storage.graph().is_empty() {
            return Err(UpdateError::NotEmpty);
        }
        if genesis.kind != AumKind::CHECKPOINT {
            return Err(UpdateError::NotCheckpoint);
        }
        let update = Arc::new(Update::new(genesis));
        let hash = update.hash();
        let mut state =
            Self::check_first(update.aum()).map_err(|error| UpdateError::Invalid { hash, error })?.clone();
        state.last = Some(hash);
        storage.commit(&[update], now).map_err(UpdateError::Storage)?;
        storage.set_last_active_ancestor(hash).map_err(UpdateError::Storage)?;
        Ok(Self { oldest: hash, head: hash, state })
    }

    /// Finds the active chain of what is stored. What is stored was verified when it came in and is not verified again.
    pub fn open(graph: &Graph) -> Result<Self, ChainError> {
        let chain = active_chain(graph, graph.last_active_ancestor())?;
        Ok(Self { oldest: chain.oldest, head: chain.head, state: chain.state })
    }

    /// Takes updates, each after its parent. Those that are stored already are passed over. True if the head has moved.
    pub fn inform<S: Storage>(
        &mut self,
        storage: &mut S,
        updates: Vec<Aum>,
        now: Timestamp,
    ) -> Result<bool, UpdateError<S::Error>> {
        if updates.len() > MAX_INFORM_UPDATES {
            return Err(UpdateError::TooMany(updates.len()));
        }
        let updates = updates.into_iter().map(|aum| Arc::new(Update::new(aum))).collect();
        let (fresh, next) = self.after(storage.graph(), updates)?;
        if storage.graph().len() + fresh.len() > MAX_STORED_UPDATES {
            return Err(UpdateError::Full);
        }
        storage.commit(&fresh, now).map_err(UpdateError::Storage)?;
        let moved = next.head != self.head;
        *self = next;
        Ok(moved)
    }

    /// Verifies updates and finds out what follows from them: those to store, and the authority afterwards.
    fn after<E>(
        &self,
        graph: &Graph,
        updates: Vec<Arc<Update>>,
    ) -> Result<(Vec<Arc<Update>>, Self), UpdateError<E>> {
        let mut states = States::new(self, &updates);
        let mut fresh: Vec<Arc<Update>> = Vec::with_capacity(updates.len());
        let mut fresh_hashes = HashSet::new();
        // Whether all of them lead on from the head one after the other, so that the last is the new head.
        let mut straight = Some(self.clone());
        for update in updates {
            let (hash, aum) = (update.hash(), update.aum());
            let parent = aum.parent();
            if graph.update(hash).is_some() || fresh_hashes.contains(&hash) {
                straight = None;
                if let Some(parent) = parent {
                    states.note_child_done(parent);
                }
                continue;
            }
            let parent = parent.ok_or(UpdateError::NoParent(hash))?;
            let state = states.at(graph, parent)?;
            aum.verify(state, false).map_err(|error| UpdateError::Invalid { hash, error })?;
            let next = state.apply(aum, hash).map_err(|error| UpdateError::Apply { hash, error })?;
            straight = straight.filter(|before| before.head == parent).map(|before| Self {
                oldest: before.oldest,
                head: hash,
                state: next.clone(),
            });
            states.note_child_done(parent);
            states.insert(hash, next);
            fresh_hashes.insert(hash);
            fresh.push(update);
        }
        if let Some(next) = straight {
            return Ok((fresh, next));
        }
        // The graph as it will be. Shared updates make the copy cheap beside the verification.
        let mut after = graph.clone();
        fresh.iter().for_each(|update| after.insert(Arc::clone(update), Timestamp::UNIX_EPOCH));
        let chain = active_chain(&after, Some(self.oldest))?;
        Ok((fresh, Self { oldest: chain.oldest, head: chain.head, state: chain.state }))
    }

    /// The newest update of the active chain.
    pub const fn head(&self) -> AumHash {
        self.head
    }

    /// The oldest update of the active chain that is stored.
    pub const fn oldest(&self) -> AumHash {
        self.oldest
    }

    /// Whom the head trusts.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Whether the head trusts a key.
    pub fn trusts(&self, key: &LockPublic) -> bool {
        self.state.key(key.as_bytes()).is_some()
    }

    /// Whether `signature` allows `node` now.
    pub fn authorize(&self, node: NodePublic, signature: &[u8]) -> Result<Verified, Refusal> {
        self.state.authorize(node, signature)
    }

    /// Updates of the active chain from the head back, for display.
    pub fn log<'a>(&self, graph: &'a Graph) -> impl Iterator<Item = &'a Arc<Update>> {
        graph.ancestry(self.head)
    }

    /// The active chain forward from an update on it, that update not included.
    pub(crate) fn chain_after<'a>(
        &self,
        graph: &'a Graph,
        from: AumHash,
    ) -> Result<Vec<&'a Arc<Update>>, ChainError> {
        let mut chain = Vec::new();
        for update in graph.ancestry(self.head).take_while(|update| update.hash() != from) {
            if chain.len() == MAX_STORED_UPDATES {
                return Err(ChainError::TooLong);
            }
            chain.push(update);
        }
        chain.reverse();
        Ok(chain)
    }

    /// The children that an update has beside the active one, and whether the active one wins: for display of forks.
    pub fn forks_at<'a>(&self, graph: &'a Graph, hash: AumHash) -> Result<Vec<&'a Arc<Update>>, ChainError> {
        let state = state_at(graph, hash)?;
        let active = pick(&state, graph.children(hash)).map(|update| update.hash());
        Ok(graph.children(hash).filter(|update| Some(update.hash()) != active).collect())
    }
}

/// The states that a batch still needs: each is dropped after the last update that stands on it.
struct States {
    at: HashMap<AumHash, State>,
    /// Updates of the batch still to come, by parent.
    waiting: HashMap<AumHash, usize>,
}

impl States {
    fn new(authority: &Authority, updates: &[Arc<Update>]) -> Self {
        let mut waiting = HashMap::new();
        for parent in updates.iter().filter_map(|update| update.aum().parent()) {
            *waiting.entry(parent).or_insert(0) += 1;
        }
        Self { at: HashMap::from([(authority.head, authority.state.clone())]), waiting }
    }

    fn at(&mut self, graph: &Graph, hash: AumHash) -> Result<&State, ChainError> {
        match self.at.entry(hash) {
            std::collections::hash_map::Entry::Occupied(state) => Ok(state.into_mut()),
            std::collections::hash_map::Entry::Vacant(slot) => Ok(slot.insert(state_at(graph, hash)?)),
        }
    }

    fn insert(&mut self, hash: AumHash, state: State) {
        if self.waiting.contains_key(&hash) {
            self.at.insert(hash, state);
        }
    }

    fn note_child_done(&mut self, parent: AumHash) {
        if let Some(left) = self.waiting.get_mut(&parent) {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.waiting.remove(&parent);
                self.at.remove(&parent);
            }
        }
    }
}
