//! Making changes (Tailnet Lock sheet §9).

use tsrs_base_types::{LockPrivate, LockPublic};

use crate::aum::{Aum, AumError, AumKind};
use crate::authority::Authority;
use crate::graph::Graph;
use crate::hash::AumHash;
use crate::key::{Key, Meta};
use crate::limits::{CHECKPOINT_EVERY, MAX_KEYS};
use crate::state::{ApplyError, State};

/// Chains signed updates onto the head. They change nothing until they are given to [`Authority::inform`].
#[derive(Debug)]
pub struct UpdateBuilder<'a> {
    signer: &'a LockPrivate,
    start: AumHash,
    state: State,
    head: AumHash,
    updates: Vec<Aum>,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The state has no room for one more key.
    #[error("there are {MAX_KEYS} trusted keys already")]
    TooManyKeys,
    /// An update-key that changes nothing and that every other node would refuse (§7).
    #[error("empty metadata cannot be set")]
    EmptyMeta,
    /// The update would not be valid.
    #[error(transparent)]
    Invalid(#[from] AumError),
    /// The update would not fit the state.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The head has moved since the builder began.
    #[error("the head has moved")]
    HeadMoved,
}

impl<'a> UpdateBuilder<'a> {
    /// Begins at the head. The signer must be trusted when the updates are given in.
    pub fn new(authority: &Authority, signer: &'a LockPrivate) -> Self {
        Self {
            signer,
            start: authority.head,
            state: authority.state.clone(),
            head: authority.head,
            updates: Vec::new(),
        }
    }

    /// Adds a key.
    pub fn add_key(&mut self, key: Key) -> Result<(), BuildError> {
        if self.state.key(key.id()).is_some() {
            return Err(ApplyError::KeyPresent.into());
        }
        if self.state.keys().len() >= MAX_KEYS {
            return Err(BuildError::TooManyKeys);
        }
        self.push(Aum { kind: AumKind::ADD_KEY, key: Some(key), ..Aum::default() })
    }

    /// Removes a key.
    pub fn remove_key(&mut self, key: &LockPublic) -> Result<(), BuildError> {
        let key_id = self.present(key)?;
        self.push(Aum { kind: AumKind::REMOVE_KEY, key_id, ..Aum::default() })
    }

    /// Sets the votes of a key.
    pub fn set_votes(&mut self, key: &LockPublic, votes: u64) -> Result<(), BuildError> {
        let key_id = self.present(key)?;
        self.push(Aum { kind: AumKind::UPDATE_KEY, key_id, votes: Some(votes), ..Aum::default() })
    }

    /// Replaces the metadata of a key.
    pub fn set_meta(&mut self, key: &LockPublic, meta: Meta) -> Result<(), BuildError> {
        let key_id = self.present(key)?;
        if meta.is_empty() {
            return Err(BuildError::EmptyMeta);
        }
        self.push(Aum { kind: AumKind::UPDATE_KEY, key_id, meta: Some(meta), ..Aum::default() })
    }

    /// The updates, with a checkpoint at the end where the chain has had none for [`CHECKPOINT_EVERY`] updates.
    pub fn finish(mut self, authority: &Authority, graph: &Graph) -> Result<Vec<Aum>, BuildError> {
        if authority.head != self.start {
            return Err(BuildError::HeadMoved);
        }
        let back = CHECKPOINT_EVERY.saturating_sub(self.updates.len());
        let mut behind = graph.ancestry(self.start).take(back).peekable();
        let near = self.updates.iter().any(|aum| aum.kind == AumKind::CHECKPOINT)
            || behind
                .any(|update| update.aum().kind == AumKind::CHECKPOINT || update.aum().parent().is_none());
        if !near && !self.updates.is_empty() {
            let mut state = self.state.clone();
            state.last = None;
            self.push(Aum { kind: AumKind::CHECKPOINT, state: Some(Box::new(state)), ..Aum::default() })?;
        }
        Ok(self.updates)
    }

    fn present(&self, key: &LockPublic) -> Result<Option<Vec<u8>>, BuildError> {
        let id = key.as_bytes();
        if self.state.key(id).is_none() {
            return Err(ApplyError::KeyAbsent.into());
        }
        Ok(Some(id.to_vec()))
    }

    fn push(&mut self, mut aum: Aum) -> Result<(), BuildError> {
        aum.prev = Some(self.head.as_bytes().to_vec());
        if !aum.sign(self.signer) {
            return Err(AumError::BadSignature.into());
        }
        aum.validate()?;
        let hash = aum.hash();
        self.state = self.state.apply(&aum, hash)?;
        self.head = hash;
        self.updates.push(aum);
        Ok(())
    }
}
