//! Nodes and changes of nodes (sheet §12).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{DiscoPublic, MachinePublic, NodeId, NodePublic, RegionId, StableNodeId, UserId};

use crate::{Base64, CapMap, CapabilityVersion, Hostinfo, Resolver};

wire! {
    /// A node of the tailnet: ourselves or a peer.
    struct Node {
        /// Keys all deltas.
        keep "ID" id: NodeId,
        /// For users and storage.
        keep "StableID" stable_id: StableNodeId,
        /// Full DNS name with trailing dot.
        keep "Name" name: String,
        /// The owner.
        keep "User" user: UserId,
        /// Who shared the node in, if not the owner.
        omit "Sharer" sharer: UserId,
        /// WireGuard key.
        keep "Key" key: NodePublic,
        /// When the key expires; zero means never.
        omit "KeyExpiry" key_expiry: WireTime,
        /// Tailnet Lock signature of the key.
        omit "KeySignature" key_signature: Base64,
        /// Machine key.
        omit "Machine" machine: MachinePublic,
        /// Disco key; zero means that the node speaks no disco.
        omit "DiscoKey" disco_key: DiscoPublic,
        /// The node's own addresses.
        keep_addrs "Addresses" addresses: Vec<IpNet>,
        /// What is routed to the node. `None` on the wire means "as `addresses`"; an empty list means nothing.
        opt_addrs "AllowedIPs" allowed_ips: Option<Vec<IpNet>>,
        /// Candidate addresses.
        addrs "Endpoints" endpoints: Vec<SocketAddr>,
        /// Home region in the old form `127.3.3.40:<region>`; counts only when `home_derp` is zero.
        omit "DERP" legacy_derp: String,
        /// Home DERP region; zero means unknown.
        omit "HomeDERP" home_derp: RegionId,
        /// The host; often reduced for peers.
        omit "Hostinfo" hostinfo: Option<Arc<Hostinfo>>,
        /// When the node was created.
        omit "Created" created: WireTime,
        /// Capability version of the node. headscale writes the viewer's own here.
        omit "Cap" cap: CapabilityVersion,
        /// Tags; a tagged node has no user in policies.
        omit "Tags" tags: Vec<String>,
        /// The routes that this node is the primary router of.
        addrs "PrimaryRoutes" primary_routes: Vec<IpNet>,
        /// When the node was last connected to control; `None` when unknown.
        omit "LastSeen" last_seen: Option<WireTime>,
        /// Whether the node is connected to control; `None` when unknown.
        omit "Online" online: Option<bool>,
        /// Device approval of ourselves.
        omit "MachineAuthorized" machine_authorized: bool,
        /// Capabilities in the old form, without values.
        omit "Capabilities" capabilities: Vec<String>,
        /// Capabilities with values.
        omit "CapMap" cap_map: CapMap,
        /// The node is not signed under Tailnet Lock and may reach our PeerAPI only.
        omit "UnsignedPeerAPIOnly" unsigned_peer_api_only: bool,
        /// Name for people; computed by the client.
        omit "ComputedName" computed_name: String,
        /// Name for people, with the host name where that differs; computed by the client.
        omit "ComputedNameWithHost" computed_name_with_host: String,
        /// Log id for flow logs.
        omit "DataPlaneAuditLogID" data_plane_audit_log_id: String,
        /// The key has expired.
        omit "Expired" expired: bool,
        /// The IPv4 address by which this peer knows us, if not our own.
        addr "SelfNodeV4MasqAddrForThisPeer" self_node_v4_masq_addr_for_this_peer: Option<IpAddr>,
        /// The IPv6 address by which this peer knows us, if not our own.
        addr "SelfNodeV6MasqAddrForThisPeer" self_node_v6_masq_addr_for_this_peer: Option<IpAddr>,
        /// A plain WireGuard peer: no disco, no DERP.
        omit "IsWireGuardOnly" is_wireguard_only: bool,
        /// The peer may not open connections to us.
        omit "IsJailed" is_jailed: bool,
        /// Resolvers while this plain WireGuard peer is the exit node.
        list "ExitNodeDNSResolvers" exit_node_dns_resolvers: Vec<Resolver>,
    }

    /// A change of a peer. Only the members that are present change something.
    struct PeerChange {
        /// The peer. Unknown ones are ignored.
        keep "NodeID" node_id: NodeId,
        /// New home region, unless zero.
        omit "DERPRegion" derp_region: RegionId,
        /// New capability version, unless zero.
        omit "Cap" cap: CapabilityVersion,
        /// Replaces the capabilities.
        omit "CapMap" cap_map: Option<CapMap>,
        /// Replaces the endpoints; an empty list clears them.
        opt_addrs "Endpoints" endpoints: Option<Vec<SocketAddr>>,
        /// New WireGuard key.
        omit "Key" key: Option<NodePublic>,
        /// New signature of the key.
        omit "KeySignature" key_signature: Option<Base64>,
        /// New disco key.
        omit "DiscoKey" disco_key: Option<DiscoPublic>,
        /// New connection state.
        omit "Online" online: Option<bool>,
        /// New time of the last connection.
        omit "LastSeen" last_seen: Option<WireTime>,
        /// New expiry; the zero time clears it.
        omit "KeyExpiry" key_expiry: Option<WireTime>,
    }
}

impl Node {
    /// What is routed to the node: `allowed_ips`, or `addresses` where that is absent.
    pub fn routes(&self) -> &[IpNet] {
        self.allowed_ips.as_deref().unwrap_or(&self.addresses)
    }

    /// Whether the node has a capability, in the map or in the old list.
    pub fn has_cap(&self, name: &str) -> bool {
        self.cap_map.contains(name) || self.capabilities.iter().any(|capability| capability == name)
    }

    /// The user to show for the node: who shared it in, otherwise its owner.
    pub fn sharer_or_user(&self) -> UserId {
        if self.sharer == UserId::default() { self.user } else { self.sharer }
    }

    /// The home DERP region, also where only the old form is there. `None` when unknown.
    pub fn derp_region(&self) -> Option<RegionId> {
        if self.home_derp != RegionId::default() {
            return Some(self.home_derp);
        }
        let region = self.legacy_derp.strip_prefix("127.3.3.40:")?.parse::<u16>().ok()?;
        (region != 0).then_some(RegionId(region.into()))
    }
}
