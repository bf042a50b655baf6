//! Tailnet Lock: who may say which nodes belong to a tailnet, so that its control server cannot slip one in.
//!
//! An [`Authority`] is a chain of signed updates ([`Aum`]) that ends in a [`State`]: the keys that the tailnet trusts. They sign node
//! keys ([`NodeKeySignature`]), and a peer whose node key nobody trusted has signed is dropped ([`PeerFilter`]). Files are read
//! beside the sections that their heads name.
//!
//! The caller talks to control, stores updates behind [`Storage`], remembers which authority a profile belongs to ([`Pin`]), and
//! drops what the filter says. Nothing here does input or output, reads a clock, or trusts what it is given.
#![forbid(unsafe_code)]

pub mod argument;
mod aum;
mod authkey;
mod authority;
mod builder;
mod cbor;
mod chain;
mod compact;
mod deeplink;
mod disablement;
pub mod ed25519;
mod filter;
mod graph;
mod hash;
mod key;
pub mod limits;
mod nks;
mod pin;
mod recovery;
mod state;
mod stored;
mod sync;

pub use aum::{Aum, AumError, AumKind, AumSignature};
pub use authkey::{MAX_WRAPPED_CHARS, WrappedAuthKey, wrapping_key_meta};
pub use authority::{Authority, UpdateError};
pub use builder::{BuildError, UpdateBuilder};
pub use cbor::DecodeError;
pub use chain::{ChainError, pick};
pub use compact::{CompactionPlan, CompactionRules, plan_compaction};
pub use deeplink::{LinkError, MAX_LINK_CHARS, SigningLink};
pub use disablement::{DeriveError, DisablementSecret, MAX_SECRET_BYTES};
pub use filter::{Admission, DropCause, FilterPeer, FilterPolicy, PeerFilter};
pub use graph::{Graph, MemoryStorage, Storage, Update};
pub use hash::{AumHash, HashParseError, SigDigest};
pub use key::{Key, KeyError, Meta};
pub use nks::{NodeKeySignature, Refusal, ReplaceError, Rotation, SigKind, SignError, Verified};
pub use pin::{ExpectedAuthority, Pin, PinError};
pub use recovery::RecoveryError;
pub use state::{ApplyError, CheckpointError, State, StateId};
pub use stored::{StoredAum, StoredError};
pub use sync::{SyncError, SyncOffer};

#[cfg(test)]
mod tests;
