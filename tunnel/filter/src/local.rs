//! Which destinations are ours: own addresses and advertised routes (data-plane sheet §8.5).

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::ranges::{RangeSet, V4Range};

/// Networks that an advertised default route does not open: a guest gets the Internet and not the LAN.
const NOT_INTERNET: [([u8; 4], u8); 6] = [
    ([10, 0, 0, 0], 8),
    ([172, 16, 0, 0], 12),
    ([192, 168, 0, 0], 16),
    ([169, 254, 0, 0], 16),
    ([224, 0, 0, 0], 4),
    ([100, 64, 0, 0], 10),
];

/// Destinations that packets of peers may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalNets(RangeSet);

impl LocalNets {
    /// From own addresses and advertised routes. A default route among them counts as it stands; shrink it before.
    pub fn new(nets: impl IntoIterator<Item = Ipv4Net>) -> Self {
        Self(nets.into_iter().collect())
    }

    /// From ranges.
    pub fn from_ranges(ranges: impl IntoIterator<Item = V4Range>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// Whether an address is ours.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.contains(address)
    }
}

/// What an advertised default route stands for: everything but the prefixes of local interfaces and the private ranges, with
/// the host's own addresses put back unless they are private.
pub fn shrunk_default_route(interface_prefixes: &[Ipv4Net], host_addresses: &[Ipv4Addr]) -> RangeSet {
    let everything: RangeSet = std::iter::once(V4Range { first: 0, last: u32::MAX }).collect();
    let lans: RangeSet = interface_prefixes.iter().copied().collect();
    let reserved: RangeSet =
        NOT_INTERNET.iter().map(|(octets, len)| Ipv4Net::new_assert((*octets).into(), *len)).collect();
    let own =
        host_addresses.iter().map(|address| V4Range { first: (*address).into(), last: (*address).into() });
    let open = everything.without(&lans);
    let with_own: RangeSet = open.ranges().iter().copied().chain(own).collect();
    with_own.without(&reserved)
}
