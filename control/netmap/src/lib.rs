//! Full and delta map responses folded into immutable snapshots and a list of changes.
//!
//! [`Session`] takes the frames of the map stream and gives, for each, an `Arc<Netmap>` and the [`Change`]s since the
//! one before. A snapshot shares with the one before everything that did not change, so that a frame costs what it
//! changes and not what the tailnet is large: `benches/delta.rs` shows it.
//!
//! The caller keeps the stream alive, bounds the size of a frame, acts on [`Requests`], and decides when an expired key
//! of our own needs a login. Tailnet Lock is not checked here: while [`Netmap::lock_wanted`] is true, the
//! caller must not let peers in that it has not verified; what it lets in makes a view ([`Netmap::with_peers`]).
#![forbid(unsafe_code)]

mod cache;
mod change;
mod clock;
mod health;
mod names;
mod netmap;
mod ordmap;
mod peers;
mod session;
mod view;

pub use cache::{CacheError, read_cache, write_cache};
pub use change::Change;
pub use health::MAX_DISPLAY_MESSAGES;
pub use netmap::Netmap;
pub use peers::{MAX_PEERS, Peers};
pub use session::{Error, MAX_FILTER_CHUNKS, MAX_FILTER_RULES, MAX_USER_PROFILES, Requests, Session, Update};

#[cfg(test)]
mod tests;
