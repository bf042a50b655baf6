//! Which authority a node belongs to, remembered apart from the stored updates.

use tsrs_base_types::LockPublic;

use crate::aum::Aum;
use crate::authority::Authority;
use crate::graph::Graph;
use crate::hash::AumHash;
use crate::state::StateId;

/// The authority of a profile and how far it had come. It outlives the stored updates, so that their loss gives control no
/// second chance to present an authority of its own or a chain without its last updates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    /// The name of the authority.
    pub id: StateId,
    /// The update that it was bootstrapped with.
    pub genesis: AumHash,
    /// The newest head that was seen.
    pub head: AumHash,
}

/// What a person demands of the first authority that a node meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpectedAuthority {
    /// Its first update.
    Genesis(AumHash),
    /// A key that has signed its first update and is trusted by it.
    SignedBy(LockPublic),
}

/// How what is presented differs from what is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// It is not valid by itself.
    #[error("the first update is not valid: {0}")]
    Invalid(#[from] crate::aum::AumError),
    /// Another authority.
    #[error("another authority than {0}")]
    OtherAuthority(StateId),
    /// The same authority, but another first update.
    #[error("another first update than {0}")]
    OtherGenesis(AumHash),
    /// The chain does not hold the head that was seen before.
    #[error("the chain lacks update {0}, which was seen before")]
    OlderHead(AumHash),
    /// Not the authority that was demanded.
    #[error("not the authority that was asked for")]
    NotExpected,
}

impl Pin {
    /// The pin of an authority that was just bootstrapped.
    pub const fn new(authority: &Authority) -> Self {
        Self { id: authority.state().id, genesis: authority.oldest(), head: authority.head() }
    }

    /// Checks the first update that control presents for the authority that we belong to.
    pub fn check_genesis(&self, genesis: &Aum) -> Result<(), PinError> {
        let state = Authority::check_first(genesis)?;
        if state.id != self.id {
            return Err(PinError::OtherAuthority(self.id));
        }
        if genesis.hash() != self.genesis {
            return Err(PinError::OtherGenesis(self.genesis));
        }
        Ok(())
    }

    /// Checks an authority that was opened or synchronized: the head seen before is among its updates. It need not be on the active chain,
    /// because a recovery may have undone it.
    pub fn check(&self, authority: &Authority, graph: &Graph) -> Result<(), PinError> {
        if authority.state().id != self.id {
            return Err(PinError::OtherAuthority(self.id));
        }
        if graph.update(self.head).is_none() {
            return Err(PinError::OlderHead(self.head));
        }
        Ok(())
    }

    /// Takes note of a new head of an authority that passed [`Pin::check`].
    pub const fn note_head(&mut self, authority: &Authority) {
        self.head = authority.head();
    }
}

impl ExpectedAuthority {
    /// Reads a demand: a hash of an update, or a key.
    pub fn parse(text: &str) -> Option<Self> {
        let key = text.parse().ok().map(Self::SignedBy);
        key.or_else(|| AumHash::from_argument(text).ok().map(Self::Genesis))
    }

    /// Checks the first update of the authority that control presents.
    pub fn check(&self, genesis: &Aum) -> Result<(), PinError> {
        let state = Authority::check_first(genesis)?;
        let expected = match self {
            Self::Genesis(hash) => genesis.hash() == *hash,
            Self::SignedBy(key) => {
                let id = key.as_bytes().as_slice();
                state.key(id).is_some()
                    && genesis.signatures.iter().any(|signature| signature.key_id.as_deref() == Some(id))
            }
        };
        if expected { Ok(()) } else { Err(PinError::NotExpected) }
    }
}
