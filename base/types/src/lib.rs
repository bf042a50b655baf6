//! Vocabulary of the whole workspace: keys (one type per role), ids, NaCl boxes and redaction.
//!
//! The crate does no input or output. Randomness is passed in by the caller, so that a test can seed it.
//! Addresses and prefixes are those of `std::net` and `ipnet`; times on the wire are [`time::WireTime`].
#![forbid(unsafe_code)]

pub mod ids;
pub mod keys;
mod lock;
pub mod nacl;
pub mod redact;
pub mod time;

pub use ids::{NodeId, RegionId, StableNodeId, UserId};
pub use keys::{
    ChallengePublic, DiscoPrivate, DiscoPublic, KeyParseError, LockPublic, MachinePrivate, MachinePublic,
    NodePrivate, NodePublic,
};
pub use lock::LockPrivate;
pub use redact::Redacted;

#[cfg(test)]
mod tests;
