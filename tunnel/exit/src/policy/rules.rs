//! The operator's own lists.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::RangeInclusive;

use ipnet::Ipv4Net;

/// Rules of one list at most: they are gone through for each flow and each datagram.
pub const MAX_RULE_COUNT: usize = 256;

/// Matches a flow when all three parts do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Addresses of peers inside the tunnel; 0.0.0.0/0 for all.
    pub peers: Ipv4Net,
    /// Destinations; 0.0.0.0/0 for all.
    pub destinations: Ipv4Net,
    /// Destination ports.
    pub ports: RangeInclusive<u16>,
}

impl Rule {
    pub(super) fn matches(&self, peer: Ipv4Addr, destination: SocketAddrV4) -> bool {
        self.peers.contains(&peer)
            && self.destinations.contains(destination.ip())
            && self.ports.contains(&destination.port())
    }
}

/// A list is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} rules are more than the {MAX_RULE_COUNT} that a list may have")]
pub struct RuleLimitError(usize);

impl RuleLimitError {
    pub(super) const fn check(rules: &[Rule]) -> Result<(), Self> {
        if rules.len() > MAX_RULE_COUNT { Err(Self(rules.len())) } else { Ok(()) }
    }
}
