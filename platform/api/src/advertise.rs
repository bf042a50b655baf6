//! Which prefixes a node may offer to others as a subnet route.
//!
//! What a subnet route names is forwarded by the kernel with the host's own address as source. A public prefix would
//! therefore be an exit without the proxy. So the rule asks what a prefix *contains*, not how long it is.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use thiserror::Error;

/// The private networks of RFC 1918 §3.
const PRIVATE: [Ipv4Net; 3] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

/// Ranges that are no subnet of anybody: RFC 6890 §2.2 and RFC 5771.
const NEVER: [(Ipv4Net, NeverReason); 6] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8), NeverReason::ThisNetwork),
    (Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8), NeverReason::Loopback),
    (Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16), NeverReason::LinkLocal),
    (Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10), NeverReason::Tailnet),
    (Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4), NeverReason::Multicast),
    (Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4), NeverReason::Reserved),
];

/// Why a prefix may not be advertised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// 0.0.0.0/0 or ::/0: being an exit node is another setting.
    #[error("{0} is the default route: offer this node as an exit node instead, which needs a proxy")]
    DefaultRoute(IpNet),
    /// It contains addresses that are routed on the public internet.
    #[error(
        "{0} contains globally routable addresses: only prefixes inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16, \
         or on-link on one of this host's interfaces, can be advertised"
    )]
    GloballyRoutable(Ipv4Net),
    /// It overlaps a range that is no subnet of anybody.
    #[error("{0} overlaps {1}, which cannot be a subnet route")]
    Never(Ipv4Net, NeverReason),
    /// The address has bits set beyond the prefix length.
    #[error("{0} has bits set behind its prefix length: write {1}")]
    HostBits(Ipv4Net, Ipv4Net),
    /// The data path of the agent carries IPv4.
    #[error("{0} is an IPv6 prefix, and subnet routes are IPv4 only")]
    Ipv6(IpNet),
}

/// Ranges that cannot be a subnet route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeverReason {
    /// 0.0.0.0/8.
    ThisNetwork,
    /// 127.0.0.0/8.
    Loopback,
    /// 169.254.0.0/16.
    LinkLocal,
    /// 100.64.0.0/10: the addresses of the nodes themselves.
    Tailnet,
    /// 224.0.0.0/4.
    Multicast,
    /// 240.0.0.0/4.
    Reserved,
}

impl fmt::Display for NeverReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThisNetwork => "0.0.0.0/8 (\"this network\")",
            Self::Loopback => "127.0.0.0/8 (loopback)",
            Self::LinkLocal => "169.254.0.0/16 (link-local)",
            Self::Tailnet => "100.64.0.0/10 (the tailnet's own addresses)",
            Self::Multicast => "224.0.0.0/4 (multicast)",
            Self::Reserved => "240.0.0.0/4 (reserved)",
        })
    }
}

/// Whether `prefix` may be advertised, given the prefixes that are on-link on this host's interfaces (without the
/// agent's own TUN).
///
/// Allowed is what lies inside RFC 1918, or inside one on-link prefix. Everything else is refused, however small.
/// An on-link prefix counts only from a length of /8 on: an interface configured as 0.0.0.0/0 or 0.0.0.0/1 makes the
/// internet no neighbour.
pub fn advertisable(prefix: IpNet, on_link: &[Ipv4Net]) -> Result<Ipv4Net, Refusal> {
    if prefix.prefix_len() == 0 {
        return Err(Refusal::DefaultRoute(prefix));
    }
    let IpNet::V4(prefix) = prefix else { return Err(Refusal::Ipv6(prefix)) };
    if prefix.trunc() != prefix {
        return Err(Refusal::HostBits(prefix, prefix.trunc()));
    }
    let overlaps = |other: &Ipv4Net| other.contains(&prefix) || prefix.contains(other);
    if PRIVATE.iter().any(|private| private.contains(&prefix)) {
        return Ok(prefix);
    }
    if let Some((_, reason)) = NEVER.iter().find(|(range, _)| range.contains(&prefix)) {
        return Err(Refusal::Never(prefix, *reason));
    }
    if on_link.iter().any(|link| link.prefix_len() >= MIN_ON_LINK_LEN && link.trunc().contains(&prefix)) {
        return match NEVER.iter().find(|(range, _)| overlaps(range)) {
            Some((_, reason)) => Err(Refusal::Never(prefix, *reason)),
            None => Ok(prefix),
        };
    }
    Err(Refusal::GloballyRoutable(prefix))
}

/// Shortest on-link prefix that is believed: no local network is larger than a former class A network.
const MIN_ON_LINK_LEN: u8 = 8;
