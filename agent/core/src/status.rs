//! The answer of `status`, the netmap in the official client's form, and the other reads.

mod lock;

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, SocketAddrV4};

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use tsrs_agent_localapi::notify::{EngineStatus, LivePeer};
use tsrs_agent_localapi::status::{DEPRECATED_CAPABILITIES, TailnetStatus};
use tsrs_agent_localapi::{BackendState, PeerStatus, Status, UserProfile, WhoIs};
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodePublic, RegionId, UserId};
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::{CapMap, DerpMap, FilterRule, Node, RawMessage, Service, cap};
use tsrs_tunnel_filter::{CapDst, Capabilities, DstPorts, Match};

use crate::agent::Snapshot;
use crate::wanted::{parsed_rules, shown_dns};

pub use lock::{lock_status, lock_update};

/// What the engine knows at one moment.
#[derive(Clone, Debug, Default)]
pub struct LiveStatus {
    /// Where peers may reach us.
    pub endpoints: Vec<SocketAddr>,
    /// Our home region.
    pub home_derp: Option<RegionId>,
    /// Connected relays.
    pub live_derp_count: usize,
    /// Peers that were spoken to.
    pub peers: HashMap<NodePublic, PeerLive>,
}

/// One peer as the engine sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PeerLive {
    /// The direct path in use.
    pub direct: Option<SocketAddrV4>,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Last handshake.
    pub last_handshake: Option<Timestamp>,
    /// When data was last sent.
    pub last_write: Option<Timestamp>,
    /// Traffic flowed lately.
    pub active: bool,
    /// There is a session.
    pub has_session: bool,
}

/// `TaildropTarget` of peers: files cannot be sent, because the own node has not got the capability to.
const TAILDROP_MISSING_CAP: u8 = 4;

/// Builds the answer of `status`.
pub fn status(snapshot: &Snapshot, live: &LiveStatus, with_peers: bool) -> Status {
    let mut status = Status {
        version: snapshot.version.clone(),
        tun: true,
        backend_state: snapshot.state,
        have_node_key: snapshot.have_node_key,
        auth_url: snapshot.auth_url.clone().unwrap_or_default(),
        health: Some(snapshot.health_texts.clone()),
        self_node: Some(blank_self(snapshot)),
        ..Status::default()
    };
    let Some(netmap) = &snapshot.netmap else { return status };
    status.tailscale_ips = Some(addresses(netmap.self_node()));
    status.magic_dns_suffix = netmap.magic_dns_suffix().to_owned();
    status.current_tailnet = Some(TailnetStatus {
        name: netmap.domain().to_owned(),
        magic_dns_suffix: netmap.magic_dns_suffix().to_owned(),
        magic_dns_enabled: netmap.dns().proxied,
    });
    status.cert_domains = non_empty(&netmap.dns().cert_domains);
    status.extra_records = non_empty(&netmap.dns().extra_records);
    status.self_node = Some(self_status(snapshot, netmap, live));
    let mut users = BTreeMap::new();
    note_user(&mut users, netmap, netmap.self_node());
    if with_peers {
        let mut peers = BTreeMap::new();
        for node in netmap.peers().iter() {
            note_user(&mut users, netmap, node);
            peers.insert(node.key, peer_status(node, netmap.derp_map(), live.peers.get(&node.key)));
        }
        status.peer = (!peers.is_empty()).then_some(peers);
    }
    status.user = Some(users);
    status
}

fn note_user(users: &mut BTreeMap<UserId, UserProfile>, netmap: &Netmap, node: &Node) {
    for id in [node.user, node.sharer] {
        if let Some(user) = netmap.user_profile(id).filter(|_| !users.contains_key(&id)) {
            users.insert(id, user.as_ref().clone());
        }
    }
}

fn non_empty<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn addresses(node: &Node) -> Vec<IpAddr> {
    node.addresses.iter().map(IpNet::addr).collect()
}

/// This node before the first netmap.
fn blank_self(snapshot: &Snapshot) -> PeerStatus {
    let prefs = &snapshot.prefs;
    let host_name = if prefs.hostname.is_empty() { &snapshot.hostname } else { &prefs.hostname };
    PeerStatus {
        public_key: snapshot.node_key,
        host_name: host_name.clone(),
        os: snapshot.os.clone(),
        addrs: Some(Vec::new()),
        ..PeerStatus::default()
    }
}

fn self_status(snapshot: &Snapshot, netmap: &Netmap, live: &LiveStatus) -> PeerStatus {
    let node = netmap.self_node();
    let names = [DEPRECATED_CAPABILITIES].into_iter().chain(node.cap_map.names()).map(str::to_owned);
    PeerStatus {
        public_key: snapshot.node_key,
        host_name: blank_self(snapshot).host_name,
        addrs: Some(live.endpoints.iter().map(SocketAddr::to_string).collect()),
        relay: live.home_derp.map(|region| region_code(netmap.derp_map(), region)).unwrap_or_default(),
        online: snapshot.control_online,
        last_seen: WireTime::ZERO,
        taildrop_target: 0,
        capabilities: Some(names.collect()),
        cap_map: (!node.cap_map.is_empty()).then(|| node.cap_map.clone()),
        in_magic_sock: false,
        in_engine: false,
        expired: snapshot.key_expired,
        peer_api_url: None,
        ..peer_status(node, netmap.derp_map(), None)
    }
}

fn peer_status(node: &Node, relays: &DerpMap, live: Option<&PeerLive>) -> PeerStatus {
    let live = live.copied().unwrap_or_default();
    let host = node.hostinfo.as_deref();
    let routes = node.routes();
    let default_routes = routes.iter().filter(|net| net.prefix_len() == 0).count();
    let time = |at: Option<Timestamp>| at.map_or(WireTime::ZERO, WireTime::from);
    let online = node.online.unwrap_or_default();
    PeerStatus {
        id: node.stable_id.clone(),
        node_id: node.id,
        public_key: node.key,
        host_name: host.map(|host| host.hostname.clone()).unwrap_or_default(),
        dns_name: node.name.clone(),
        os: host.map(|host| host.os.clone()).unwrap_or_default(),
        user_id: node.user,
        alt_sharer_user_id: node.sharer,
        tailscale_ips: Some(addresses(node)),
        allowed_ips: Some(routes.to_vec()),
        tags: non_empty(&node.tags),
        primary_routes: non_empty(&node.primary_routes),
        addrs: None,
        cur_addr: live.direct.map(|addr| addr.to_string()).unwrap_or_default(),
        relay: region_code(relays, node.home_derp),
        peer_relay: String::new(),
        rx_bytes: live.rx_bytes,
        tx_bytes: live.tx_bytes,
        created: node.created,
        last_write: time(live.last_write),
        last_seen: if online { WireTime::ZERO } else { node.last_seen.unwrap_or_default() },
        last_handshake: time(live.last_handshake),
        online,
        exit_node: false,
        exit_node_option: default_routes == 2,
        active: live.active,
        peer_api_url: non_empty(&peer_api_urls(node)),
        taildrop_target: TAILDROP_MISSING_CAP,
        no_file_sharing_reason: String::new(),
        capabilities: None,
        cap_map: (!node.cap_map.is_empty()).then(|| node.cap_map.clone()),
        ssh_host_keys: host.and_then(|host| non_empty(&host.ssh_host_keys)),
        sharee_node: host.is_some_and(|host| host.sharee_node),
        in_network_map: true,
        in_magic_sock: true,
        in_engine: live.has_session,
        expired: node.expired,
        key_expiry: (!node.key_expiry.is_zero()).then_some(node.key_expiry),
        location: host
            .and_then(|host| host.location.as_ref())
            .and_then(|location| serde_json::to_value(location).ok()),
    }
}

fn region_code(relays: &DerpMap, region: RegionId) -> String {
    relays.region(region).map(|region| region.region_code.clone()).unwrap_or_default()
}

/// Base URLs of a peer's PeerAPI, one per family that it serves.
pub fn peer_api_urls(node: &Node) -> Vec<String> {
    let Some(host) = &node.hostinfo else { return Vec::new() };
    let port =
        |proto: &str| host.services.iter().find(|service| service.proto == proto).map(|service| service.port);
    let url = |net: &IpNet| {
        let proto = match net {
            IpNet::V4(_) => Service::PEER_API4,
            IpNet::V6(_) => Service::PEER_API6,
        };
        port(proto).map(|port| format!("http://{}", SocketAddr::new(net.addr(), port)))
    };
    node.addresses.iter().filter_map(url).collect()
}

/// Statistics of the engine in the form of the bus.
pub fn engine_status(live: &LiveStatus) -> EngineStatus {
    let sessions = live.peers.iter().filter(|(_, peer)| peer.has_session);
    let live_peers: BTreeMap<NodePublic, LivePeer> = sessions
        .map(|(key, peer)| {
            let entry = LivePeer {
                node_key: *key,
                tx_bytes: peer.tx_bytes,
                rx_bytes: peer.rx_bytes,
                last_handshake: peer.last_handshake.map_or(WireTime::ZERO, WireTime::from),
            };
            (*key, entry)
        })
        .collect();
    EngineStatus {
        rx_bytes: live.peers.values().map(|peer| peer.rx_bytes).sum(),
        tx_bytes: live.peers.values().map(|peer| peer.tx_bytes).sum(),
        live_count: live_peers.len(),
        live_derp_count: live.live_derp_count,
        live_peers,
    }
}

/// What `whois` may be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoIsAddr {
    /// An address, with or without a port.
    Ip(IpAddr),
    /// A node key.
    Key(NodePublic),
}

impl WhoIsAddr {
    /// Reads the parameter `addr`; `None` is a 400.
    pub fn parse(text: &str) -> Option<Self> {
        if text.starts_with(NodePublic::PREFIX) {
            return text.parse().ok().map(Self::Key);
        }
        let ip = text.parse::<IpAddr>().or_else(|_| text.parse::<SocketAddr>().map(|addr| addr.ip()));
        ip.ok().map(Self::Ip)
    }
}

/// Who owns an address; `None` if nobody.
pub fn whois(snapshot: &Snapshot, addr: WhoIsAddr) -> Option<WhoIs> {
    let netmap = snapshot.netmap.as_ref()?;
    let node = match addr {
        WhoIsAddr::Ip(ip) => netmap.node_by_addr(ip),
        WhoIsAddr::Key(key) => netmap.node_by_key(&key).filter(|_| !key.is_zero()),
    }?;
    let user = netmap.user_profile(node.user).map_or_else(
        || UserProfile { id: node.user, ..UserProfile::default() },
        |user| user.as_ref().clone(),
    );
    let granted = snapshot.filter.as_ref().map(|filter| granted(filter.capabilities(), netmap, node));
    let cap_map = granted.filter(|caps| !caps.is_empty());
    Some(WhoIs { node: Some(Box::new(Node::clone(node))), user_profile: Some(user), cap_map })
}

/// What the rules let a node do with us (data-plane sheet §8.5, capability lookup).
fn granted(grants: &Capabilities, netmap: &Netmap, node: &Node) -> CapMap {
    let mut found: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let own = addresses(netmap.self_node());
    for (src, dst) in addresses(node).into_iter().flat_map(|src| own.iter().map(move |dst| (src, *dst))) {
        for (name, values) in grants.lookup(src, dst) {
            let known = found.entry(name).or_default();
            // A grant for both families is one grant.
            known.extend(values.into_iter().filter(|value| !known.contains(value)).collect::<Vec<_>>());
        }
    }
    let mut caps = CapMap::default();
    // What Tailnet Lock has not signed may at most bring traffic from outside (Tailnet Lock sheet §12).
    found.retain(|name, _| !node.unsigned_peer_api_only || name == cap::peer::INGRESS);
    for (name, values) in found {
        caps.insert(&name, values.iter().filter_map(|value| RawMessage::from_value(value).ok()).collect());
    }
    caps
}

/// The netmap in the official client's form: `debug netmap`, and the bus for older clients.
pub fn netmap_json(netmap: &Netmap, node_key: NodePublic) -> Value {
    let node = netmap.self_node();
    let rules: Vec<&FilterRule> = netmap.filter_rules().collect();
    let users = netmap.user_profiles_in_use();
    json!({
        "Cached": netmap.is_cached(),
        "SelfNode": **node,
        "AllCaps": node.cap_map.names().collect::<Vec<_>>(),
        "NodeKey": node_key,
        "MachineKey": node.machine,
        "Peers": netmap.peers().iter().map(AsRef::as_ref).collect::<Vec<&Node>>(),
        "DNS": shown_dns(netmap),
        "PacketFilter": filter_json(netmap),
        "PacketFilterRules": (!rules.is_empty()).then_some(rules),
        "SSHPolicy": netmap.ssh_policy().map(AsRef::as_ref),
        "CollectServices": netmap.collect_services(),
        "DERPMap": **netmap.derp_map(),
        "DisplayMessages": match netmap.display_messages() {
            messages if messages.is_empty() => Value::Null,
            messages => json!(messages),
        },
        "TKAEnabled": netmap.lock_head().is_some(),
        "TKAHead": netmap.lock_head().unwrap_or("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        "Domain": netmap.domain(),
        "DomainAuditLogID": netmap.audit_log_id(),
        "UserProfiles": users.into_iter().map(|(id, user)| (id.to_string(), json!(**user))).collect::<serde_json::Map<_, _>>(),
    })
}

/// The rules of the packet filter in the form that the official client shows after parsing.
pub fn filter_json(netmap: &Netmap) -> Vec<Value> {
    parsed_rules(netmap).iter().map(parsed_rule).collect()
}

/// A rule in the form that the official client shows after parsing; its prefixes are read again by that client.
fn parsed_rule(rule: &Match) -> Value {
    let destination =
        |dst: &DstPorts| json!({"Net": dst.net, "Ports": {"First": dst.first, "Last": dst.last}});
    let grant = |grant: &CapDst| json!({"Dst": grant.dst, "Cap": grant.cap, "Values": grant.values});
    json!({
        "IPProto": rule.protocols,
        "Srcs": rule.srcs,
        "SrcCaps": (!rule.src_caps.is_empty()).then_some(&rule.src_caps),
        "Dsts": rule.dsts.iter().map(destination).collect::<Vec<_>>(),
        "Caps": rule.caps.iter().map(grant).collect::<Vec<_>>(),
    })
}

/// Whether the agent counts as connected for calls that need the tailnet.
pub fn is_running(snapshot: &Snapshot) -> bool {
    snapshot.state == BackendState::Running
}

#[cfg(test)]
mod tests;
