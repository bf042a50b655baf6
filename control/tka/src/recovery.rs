//! Revoking keys that are in the wrong hands: a checkpoint that forks the chain from before they were trusted (Tailnet Lock
//! sheet §17, `revoke-keys`).

use tsrs_base_types::LockPublic;

use crate::aum::{Aum, AumKind};
use crate::authority::Authority;
use crate::chain::{ChainError, state_at};
use crate::graph::{Graph, Update};
use crate::hash::AumHash;
use crate::limits::MAX_CHAIN_SCAN;
use crate::state::State;

/// Why no recovery update could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// None of the keys is trusted now.
    #[error("none of the keys is trusted")]
    NotTrusted,
    /// Nobody would be trusted afterwards.
    #[error("not all trusted keys can be revoked")]
    AllKeys,
    /// The chain cannot be followed.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

impl Authority {
    /// The update, not signed yet, that revokes `keys`. It forks from `fork_from`, or from the last update at which none of the keys was
    /// trusted but `ours` was. It takes effect once it carries signatures that weigh more than what now follows that update.
    pub fn revocation(
        &self,
        graph: &Graph,
        keys: &[LockPublic],
        ours: &LockPublic,
        fork_from: Option<AumHash>,
    ) -> Result<Aum, RecoveryError> {
        let revoked: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes().as_slice()).collect();
        let parent = match fork_from {
            Some(hash) => hash,
            None => {
                if !revoked.iter().any(|id| self.state.key(id).is_some()) {
                    return Err(RecoveryError::NotTrusted);
                }
                self.fork_point(graph, &revoked, ours)?
            }
        };
        let state = self.state.without_keys(&revoked);
        if state.keys().is_empty() {
            return Err(RecoveryError::AllKeys);
        }
        Ok(Aum {
            kind: AumKind::CHECKPOINT,
            prev: Some(parent.as_bytes().to_vec()),
            state: Some(Box::new(state)),
            ..Aum::default()
        })
    }

    /// Forward over the active chain, remembering the last place that fits; the beginning if none does.
    fn fork_point(
        &self,
        graph: &Graph,
        revoked: &[&[u8]],
        ours: &LockPublic,
    ) -> Result<AumHash, RecoveryError> {
        let fits = |state: &State| {
            state.key(ours.as_bytes()).is_some() && !revoked.iter().any(|id| state.key(id).is_some())
        };
        let mut state = state_at(graph, self.oldest)?;
        let mut best = self.oldest;
        for update in self.chain_after(graph, self.oldest)? {
            state = state.apply(update.aum(), update.hash()).map_err(ChainError::from)?;
            if fits(&state) {
                best = update.hash();
            }
        }
        Ok(best)
    }

    /// Whether an update would win over what now follows its parent, once given in.
    pub fn would_win(&self, graph: &Graph, aum: &Aum) -> Result<bool, ChainError> {
        let update = std::sync::Arc::new(Update::new(aum.clone()));
        let parent = aum.parent().ok_or(ChainError::BadFirst(update.hash()))?;
        let on_chain = graph.ancestry(self.head).take(MAX_CHAIN_SCAN).any(|update| update.hash() == parent);
        let state = state_at(graph, parent)?;
        let siblings = graph.children(parent).chain([&update]);
        let picked = crate::chain::pick(&state, siblings).map(|picked| picked.hash());
        Ok(on_chain && picked == Some(update.hash()))
    }
}
