//! A node as the server knows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{DiscoPublic, LockPublic, MachinePublic, NodeId, NodePublic, RegionId};
use tsrs_control_tailcfg::{Base64, CapabilityVersion, EndpointType, Hostinfo};

/// A node as the server knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabNode {
    /// Number.
    pub id: NodeId,
    /// First label of its name.
    pub name: String,
    /// Whether an administrator gave the name; otherwise it follows the host name.
    pub renamed: bool,
    /// Login name of its user; empty for a tagged node.
    pub user: String,
    /// Machine key.
    pub machine: MachinePublic,
    /// Node key.
    pub key: NodePublic,
    /// Disco key, as last told.
    pub disco: DiscoPublic,
    /// Tailnet Lock key, as last told; zero if it never was.
    pub lock_key: LockPublic,
    /// Tailnet Lock signature of the node key; empty if there is none.
    pub key_signature: Base64,
    /// Signature of the node key before, from which the node may make one for the present key.
    pub(crate) renewable_signature: Base64,
    /// Head of the node's Tailnet Lock, as last told; empty without a lock.
    pub lock_head: String,
    /// IPv4 address, the same for ever.
    pub ipv4: Ipv4Addr,
    /// IPv6 address, the same for ever.
    pub ipv6: Ipv6Addr,
    /// What it told about itself.
    pub hostinfo: Hostinfo,
    /// Its candidate addresses.
    pub endpoints: Vec<SocketAddr>,
    /// Where each of them comes from.
    pub endpoint_types: Vec<EndpointType>,
    /// The capability version it claims.
    pub version: CapabilityVersion,
    /// First registration.
    pub created: WireTime,
    /// End of the node key's life; zero is never.
    pub key_expiry: WireTime,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether it is deleted when it goes away.
    pub ephemeral: bool,
    /// Whether an administrator let it in.
    pub authorized: bool,
    /// Routes that an administrator approved, advertised or not.
    pub approved_routes: Vec<IpNet>,
    /// When its last map stream ended.
    pub last_seen: Option<WireTime>,
    /// Map streams that are open. More than one only while an old one is being ended.
    #[serde(skip)]
    pub streams: u32,
    /// Number of its latest map stream; older ones end.
    #[serde(skip)]
    pub(crate) latest_stream: u64,
}

impl LabNode {
    /// Whether a map stream is open.
    pub fn online(&self) -> bool {
        self.streams > 0
    }

    /// Its home region.
    pub fn home_derp(&self) -> RegionId {
        self.hostinfo.net_info.as_ref().map_or(RegionId(0), |info| info.preferred_derp)
    }

    /// Its own addresses as prefixes.
    pub fn addresses(&self) -> Vec<IpNet> {
        vec![IpNet::V4(Ipv4Net::from(self.ipv4)), IpNet::V6(Ipv6Net::from(self.ipv6))]
    }

    /// Whether an address is its own.
    pub fn has_address(&self, address: IpAddr) -> bool {
        address == IpAddr::V4(self.ipv4) || address == IpAddr::V6(self.ipv6)
    }

    /// Routes that it advertises and that are approved.
    pub fn routes(&self) -> impl Iterator<Item = IpNet> {
        self.hostinfo.routable_ips.iter().copied().filter(|route| self.approved_routes.contains(route))
    }

    /// Whether the key's life is over.
    pub fn expired(&self, now: jiff::Timestamp) -> bool {
        self.key_expiry.timestamp().is_some_and(|expiry| expiry <= now)
    }

    /// A TCP service that its Hostinfo names, such as `peerapi4`.
    pub fn service_port(&self, proto: &str) -> Option<u16> {
        self.hostinfo.services.iter().find(|service| service.proto == proto).map(|service| service.port)
    }
}
