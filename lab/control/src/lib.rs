//! A control server with DERP and STUN in one process, **for tests and demonstrations only**.
//!
//! It speaks the real protocols (control sheet; data-plane sheet §4 and §5.1), so that a stock client joins it, but it
//! keeps its keys in clear and lets everybody in who visits its login page. [`LabControl::start`] gives a handle with
//! which a test gives out keys, changes policy and DNS, looks at nodes, and switches on faults; the binary
//! `lab-control` offers the same over a small HTTP API.
//!
//! It behaves like the hosted service where that and headscale differ and a client could rely on the difference by
//! accident: a streaming map request is read-only, a second stream of a node ends the first, Tailnet Lock can be switched
//! on by any node. It has no SSH policy, no certificates; those calls are answered as headscale answers them.
#![forbid(unsafe_code)]

pub mod admin;
mod config;
mod derp;
mod dns;
mod fault;
mod http;
mod identities;
mod keys;
mod listen;
mod noise;
mod policy;
mod server;
mod shared;
mod store;
mod stun;
mod sync;
mod tailnet;
mod tls;

#[cfg(test)]
mod wire_tests;

pub use config::{DerpTrust, LabConfig, RegionConfig, ThreadHook};
pub use derp::DerpStats;
pub use dns::DnsSettings;
pub use fault::{Fault, FaultAction, FaultTarget, Faults, LockCall};
pub use keys::KeySpec;
pub use policy::{Grant, NodeAttr, Policy};
pub use server::LabControl;
pub use tailnet::{LabNode, LockLie, PendingLogin};
