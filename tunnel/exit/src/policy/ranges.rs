//! What an address is by the registries of IANA.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// State of the IANA IPv4 Special-Purpose Address Registry that [`classify`] follows. Of its blocks the table leaves out those that are
/// globally reachable, except for the two anycast addresses in 192.0.0.0/24: they mean whatever is nearest to the proxy.
/// Multicast comes from the IANA IPv4 Address Space Registry.
pub const REGISTRY_DATE: &str = "2020-09-04";

/// What kind of address a destination is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Routed on the public internet. The only class that goes to a proxy.
    Global,
    /// 0.0.0.0/8.
    ThisNetwork,
    /// RFC 1918.
    Private,
    /// 100.64.0.0/10: carrier-grade NAT, and the addresses of the tailnet.
    Shared,
    /// 127.0.0.0/8.
    Loopback,
    /// 169.254.0.0/16.
    LinkLocal,
    /// Where a cloud answers its virtual machines, and gives them its secrets.
    Metadata,
    /// 192.0.0.0/24.
    ProtocolAssignments,
    /// Ranges for examples in texts.
    Documentation,
    /// 198.18.0.0/15.
    Benchmarking,
    /// 192.88.99.0/24, once for relays of 6to4.
    RelayAnycast,
    /// 224.0.0.0/4.
    Multicast,
    /// 240.0.0.0/4.
    Reserved,
    /// 255.255.255.255.
    Broadcast,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "globally routable",
            Self::ThisNetwork => "in 0.0.0.0/8 (\"this network\")",
            Self::Private => "a private address",
            Self::Shared => "an address of the tailnet or of a carrier's NAT",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "the metadata service of a cloud",
            Self::ProtocolAssignments => "in 192.0.0.0/24 (protocol assignments)",
            Self::Documentation => "an address for documentation",
            Self::Benchmarking => "in 198.18.0.0/15 (benchmarking)",
            Self::RelayAnycast => "in 192.88.99.0/24 (former 6to4 relays)",
            Self::Multicast => "a multicast address",
            Self::Reserved => "in 240.0.0.0/4 (reserved)",
            Self::Broadcast => "the broadcast address",
        })
    }
}

/// The most specific prefix comes first.
pub(super) const RANGES: &[(Ipv4Net, Class)] = &[
    // RFC 8190, RFC 919 §7
    (net([255, 255, 255, 255], 32), Class::Broadcast),
    // Where most clouds have it, inside of RFC 3927.
    (net([169, 254, 169, 254], 32), Class::Metadata),
    // Azure has it at an address that is routable elsewhere.
    (net([168, 63, 129, 16], 32), Class::Metadata),
    // RFC 6890 §2.1
    (net([192, 0, 0, 0], 24), Class::ProtocolAssignments),
    // RFC 5737
    (net([192, 0, 2, 0], 24), Class::Documentation),
    (net([198, 51, 100, 0], 24), Class::Documentation),
    (net([203, 0, 113, 0], 24), Class::Documentation),
    // RFC 7526
    (net([192, 88, 99, 0], 24), Class::RelayAnycast),
    // RFC 3927
    (net([169, 254, 0, 0], 16), Class::LinkLocal),
    // RFC 1918
    (net([192, 168, 0, 0], 16), Class::Private),
    // RFC 2544
    (net([198, 18, 0, 0], 15), Class::Benchmarking),
    // RFC 1918
    (net([172, 16, 0, 0], 12), Class::Private),
    // RFC 6598
    (net([100, 64, 0, 0], 10), Class::Shared),
    // RFC 791 §3.2
    (net([0, 0, 0, 0], 8), Class::ThisNetwork),
    // RFC 1918
    (net([10, 0, 0, 0], 8), Class::Private),
    // RFC 1122 §3.2.1.3
    (net([127, 0, 0, 0], 8), Class::Loopback),
    // RFC 5771
    (net([224, 0, 0, 0], 4), Class::Multicast),
    // RFC 1112 §4
    (net([240, 0, 0, 0], 4), Class::Reserved),
];

const fn net([a, b, c, d]: [u8; 4], len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

/// What kind of address this is.
pub fn classify(ip: Ipv4Addr) -> Class {
    RANGES.iter().find(|(range, _)| range.contains(&ip)).map_or(Class::Global, |(_, class)| *class)
}
