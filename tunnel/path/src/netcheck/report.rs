//! What a netcheck found out, and the part of it that control is told.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use tsrs_base_types::RegionId;

/// Result of one netcheck (data-plane sheet §5.3). `None` means "not known".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// A STUN answer came back.
    pub udp: bool,
    /// An IPv4 STUN request could be sent.
    pub ipv4_can_send: bool,
    /// Whether different destinations see different addresses of ours (a hard NAT). Known from the second answer on.
    pub mapping_varies_by_dest: Option<bool>,
    /// Our address as the first answer had it.
    pub global_v4: Option<SocketAddrV4>,
    /// How often each address of ours was seen.
    pub global_v4_counts: BTreeMap<SocketAddrV4, u32>,
    /// Best round trip to each region that answered.
    pub region_latency: BTreeMap<RegionId, Duration>,
    /// Those of them that were measured by STUN over IPv4 (the others by HTTPS).
    pub region_v4_latency: BTreeMap<RegionId, Duration>,
    /// The home region that follows from it.
    pub preferred_derp: Option<RegionId>,
}

impl Report {
    /// Reflexive addresses that are worth offering to peers: the first one, and any that several servers saw. A hard NAT
    /// gives one-off addresses, which are useless.
    pub fn reflexive_endpoints(&self) -> impl Iterator<Item = SocketAddrV4> {
        let repeated =
            self.global_v4_counts.iter().filter(|&(_, &count)| count > 1).map(|(&address, _)| address);
        self.global_v4.into_iter().chain(repeated.filter(|&address| Some(address) != self.global_v4))
    }
}

/// What control is told about our network; the names are those of `tailcfg.NetInfo`. The caller adds what only the host
/// knows (link type, firewall mode), and that there is no IPv6.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetInfo {
    /// See [`Report::mapping_varies_by_dest`].
    pub mapping_varies_by_dest_ip: Option<bool>,
    /// UDP works to the outside.
    pub working_udp: Option<bool>,
    /// A port mapping exists.
    pub have_port_map: bool,
    /// Home region.
    pub preferred_derp: Option<RegionId>,
    /// Latency to each region over IPv4.
    pub derp_latency_v4: BTreeMap<RegionId, Duration>,
}

impl NetInfo {
    /// Whether the two differ in more than latencies: only then control needs to hear of it.
    pub fn differs_materially(&self, other: &Self) -> bool {
        let without_latency = |info: &Self| Self { derp_latency_v4: BTreeMap::new(), ..info.clone() };
        without_latency(self) != without_latency(other)
    }
}
