//! Joins the tunnel crates, owns the order of the steps and publishes the fast-path tables.
#![forbid(unsafe_code)]

pub mod buffer;
pub mod config;
pub mod counters;
mod disco_loop;
pub mod inbound;
pub mod machine;
pub mod notice;
pub mod outbound;
pub mod policy;
mod rate;
pub mod shared;
pub mod tables;

pub use config::{Change, PeerConfig, PeerPatch, TunnelConfig};
pub use machine::{DataPlane, Event, PeerStatus, Setup, Transmit};
pub use policy::Policy;
pub use shared::Shared;

#[cfg(test)]
mod tests;
