//! Netcheck: what kind of network this node is on (data-plane sheet §5).
//!
//! [`Netcheck`] makes one report after the other. It is sans-IO and stands on its own, so that `tsrs-agent netcheck` can run
//! it without an agent.

mod home;
mod plan;
mod report;
mod run;

pub use report::{NetInfo, Report};
pub use run::{Netcheck, NetcheckEvent, NetcheckTransmit};

use std::net::Ipv4Addr;

use tsrs_base_types::RegionId;

/// What netcheck needs to know of a DERP region.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Its number.
    pub id: RegionId,
    /// Measured, and made home only if it already is.
    pub avoid: bool,
    /// Never measured, never home.
    pub no_measure_no_home: bool,
    /// Factor on its latency when the home is chosen: below 1 prefers it. From `HomeParams.RegionScore`; 1 when absent.
    pub score: f64,
    /// Its STUN servers, in the order of the map.
    pub nodes: Vec<StunNode>,
}

/// One server of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunNode {
    /// Where it is.
    pub host: StunHost,
    /// UDP port of STUN; absent when the node has none.
    pub stun_port: Option<u16>,
}

/// How the IPv4 address of a server is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StunHost {
    /// Given in the map.
    Literal(Ipv4Addr),
    /// By DNS; asked for by [`NetcheckEvent::Resolve`].
    Name(String),
    /// The node says that it has no IPv4 address.
    Unreachable,
}

#[cfg(test)]
mod tests;
