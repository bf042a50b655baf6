//! What one node's map holds, and the difference between two of them as one message.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use jiff::Timestamp;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodeId, StableNodeId, UserId};
use tsrs_control_tailcfg::{
    DerpMap, DisplayMessage, DnsConfig, DnsRecord, DnsRoutes, FilterRule, Hostinfo, MapResponse, Node,
    PeerChange, Resolver, TkaInfo, UserProfile,
};

use super::{LabNode, TAGGED_USER, Tailnet};

/// Name of the one chunk of filter rules.
const FILTER_CHUNK: &str = "base";
/// Reverse zone of the tailnet's IPv6 prefix.
const REVERSE_IPV6: &str = "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa";
/// Second octets of the reverse zones of 100.64.0.0/10.
const REVERSE_IPV4: std::ops::RangeInclusive<u8> = 64..=127;

/// One node's map.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct View {
    node: Node,
    peers: BTreeMap<NodeId, Node>,
    filter: Vec<FilterRule>,
    dns: DnsConfig,
    derp_map: DerpMap,
    profiles: BTreeMap<UserId, UserProfile>,
    messages: BTreeMap<String, DisplayMessage>,
    lock: Option<TkaInfo>,
    domain: String,
}

impl Tailnet {
    /// The present map of a node.
    pub(crate) fn view(&self, id: NodeId, now: Timestamp) -> Option<View> {
        let viewer = self.nodes.get(&id)?;
        let may_see = viewer.authorized && !viewer.expired(now);
        let visible =
            |peer: &&LabNode| may_see && peer.id != id && peer.authorized && self.are_visible(viewer, peer);
        let peers: Vec<&LabNode> = self.nodes.values().filter(visible).collect();
        let profiles = peers.iter().copied().chain([viewer]).map(|node| self.profile(node));
        let mut node = self.node(viewer, now);
        node.cap_map = self.node_attributes(viewer);
        Some(View {
            node,
            profiles: profiles.map(|profile| (profile.id, profile)).collect(),
            peers: peers.iter().map(|peer| (peer.id, self.node(peer, now))).collect(),
            filter: if may_see { self.filter_rules(viewer) } else { Vec::new() },
            dns: self.dns_config(),
            derp_map: self.derp_map.clone(),
            messages: self.messages.clone(),
            lock: self.lock.info(),
            domain: self.base_domain.clone(),
        })
    }

    /// The profile of a node's user.
    pub(crate) fn profile(&self, node: &LabNode) -> UserProfile {
        let id = self.user_id(&node.user);
        let (login_name, display_name) = if id == TAGGED_USER {
            ("tagged-devices".to_owned(), "Tagged Devices".to_owned())
        } else {
            (node.user.clone(), node.user.split('@').next().unwrap_or_default().to_owned())
        };
        UserProfile { id, login_name, display_name, ..UserProfile::default() }
    }

    fn node(&self, node: &LabNode, now: Timestamp) -> Node {
        let own = node.addresses();
        let routes = self.routes_won_by(node);
        let primary_routes: Vec<IpNet> =
            routes.iter().copied().filter(|route| route.prefix_len() > 0).collect();
        Node {
            id: node.id,
            stable_id: StableNodeId(format!("n{}LAB", node.id)),
            name: format!("{}.{}.", node.name, self.base_domain),
            user: self.user_id(&node.user),
            key: node.key,
            key_expiry: node.key_expiry,
            key_signature: node.key_signature.clone(),
            machine: node.machine,
            disco_key: node.disco,
            allowed_ips: Some(own.iter().copied().chain(routes).collect()),
            addresses: own,
            endpoints: node.endpoints.clone(),
            home_derp: node.home_derp(),
            // NetInfo differs after every netcheck, and a map needs nothing of it but the home region.
            hostinfo: Some(std::sync::Arc::new(Hostinfo { net_info: None, ..node.hostinfo.clone() })),
            created: node.created,
            cap: node.version,
            tags: node.tags.clone(),
            primary_routes,
            last_seen: node.last_seen.filter(|_| !node.online()),
            online: Some(node.online()),
            machine_authorized: node.authorized,
            expired: node.expired(now),
            ..Node::default()
        }
    }

    /// Approved routes that lead to this node. Of several nodes with one route the first that is online has it; a
    /// default route is everybody's, since each client chooses its exit node.
    fn routes_won_by(&self, node: &LabNode) -> Vec<IpNet> {
        let beats = |other: &LabNode, route: IpNet| {
            let rank = |node: &LabNode| (!node.online(), node.id);
            other.id != node.id
                && other.authorized
                && other.routes().any(|theirs| theirs == route)
                && rank(other) < rank(node)
        };
        node.routes()
            .filter(|route| route.prefix_len() == 0 || !self.nodes.values().any(|other| beats(other, *route)))
            .collect()
    }

    fn dns_config(&self) -> DnsConfig {
        let resolver = |addr: &String| Resolver { addr: addr.clone(), ..Resolver::default() };
        let mut routes = BTreeMap::new();
        for (suffix, list) in &self.dns.split {
            routes.insert(suffix.clone(), list.iter().map(resolver).collect());
        }
        if self.dns.magic_dns {
            let reverse = REVERSE_IPV4.map(|octet| format!("{octet}.100.in-addr.arpa"));
            for zone in reverse.chain([REVERSE_IPV6.to_owned(), self.base_domain.clone()]) {
                routes.entry(zone).or_default();
            }
        }
        let records = self.dns.extra_records.iter().map(|(name, address)| DnsRecord {
            name: name.clone(),
            value: address.to_string(),
            ..DnsRecord::default()
        });
        DnsConfig {
            resolvers: self.dns.resolvers.iter().map(resolver).collect(),
            routes: DnsRoutes(routes),
            domains: std::iter::once(&self.base_domain).chain(&self.dns.search_domains).cloned().collect(),
            proxied: self.dns.magic_dns,
            extra_records: records.collect(),
            ..DnsConfig::default()
        }
    }
}

impl View {
    /// The first message of a stream.
    pub(crate) fn full(&self, now: Timestamp) -> MapResponse {
        MapResponse {
            node: Some(Box::new(self.node.clone())),
            derp_map: Some(Box::new(self.derp_map.clone())),
            peers: self.peers.values().cloned().collect(),
            dns_config: Some(Box::new(self.dns.clone())),
            domain: self.domain.clone(),
            packet_filters: self.packet_filters(),
            user_profiles: self.profiles.values().cloned().collect(),
            display_messages: self
                .messages
                .iter()
                .map(|(id, text)| (id.clone(), Some(text.clone())))
                .collect(),
            tka_info: self.lock.clone(),
            collect_services: Some(false),
            control_time: Some(WireTime::from(now)),
            ..MapResponse::default()
        }
    }

    /// What makes this map out of an older one; `None` if they are alike.
    pub(crate) fn since(&self, old: &Self, now: Timestamp) -> Option<MapResponse> {
        if self == old {
            return None;
        }
        let mut delta = MapResponse { control_time: Some(WireTime::from(now)), ..MapResponse::default() };
        if self.node != old.node {
            delta.node = Some(Box::new(self.node.clone()));
        }
        for (id, peer) in &self.peers {
            match old.peers.get(id) {
                Some(known) if known == peer => {}
                Some(known) => match patch(known, peer) {
                    Some(change) => delta.peers_changed_patch.push(change),
                    None => delta.peers_changed.push(peer.clone()),
                },
                None => delta.peers_changed.push(peer.clone()),
            }
        }
        delta.peers_removed = old.peers.keys().filter(|id| !self.peers.contains_key(id)).copied().collect();
        if self.filter != old.filter {
            delta.packet_filters = self.packet_filters();
        }
        if self.dns != old.dns {
            delta.dns_config = Some(Box::new(self.dns.clone()));
        }
        if self.derp_map != old.derp_map {
            delta.derp_map = Some(Box::new(self.derp_map.clone()));
        }
        if self.domain != old.domain {
            delta.domain.clone_from(&self.domain);
        }
        if self.lock != old.lock {
            delta.tka_info.clone_from(&self.lock);
        }
        delta.user_profiles = (self.profiles.iter())
            .filter(|(id, new)| old.profiles.get(id) != Some(new))
            .map(|(_, new)| new.clone())
            .collect();
        let ids: BTreeSet<&String> = self.messages.keys().chain(old.messages.keys()).collect();
        for id in ids.into_iter().filter(|id| self.messages.get(*id) != old.messages.get(*id)) {
            delta.display_messages.insert(id.clone(), self.messages.get(id).cloned());
        }
        Some(delta)
    }

    fn packet_filters(&self) -> BTreeMap<String, Option<Vec<FilterRule>>> {
        BTreeMap::from([(FILTER_CHUNK.to_owned(), Some(self.filter.clone()))])
    }
}

/// The change from `old` to `new` as a patch, if a patch can say it (control sheet §12.2).
fn patch(old: &Node, new: &Node) -> Option<PeerChange> {
    let mut change = PeerChange { node_id: new.id, ..PeerChange::default() };
    let mut reached = old.clone();
    if new.home_derp != old.home_derp && new.home_derp.0 != 0 {
        change.derp_region = new.home_derp;
        reached.home_derp = new.home_derp;
    }
    if new.cap != old.cap && new.cap.0 != 0 {
        change.cap = new.cap;
        reached.cap = new.cap;
    }
    if new.endpoints != old.endpoints {
        change.endpoints = Some(new.endpoints.clone());
        reached.endpoints.clone_from(&new.endpoints);
    }
    if new.key != old.key {
        change.key = Some(new.key);
        reached.key = new.key;
        // A patch cannot take a signature away. One that comes without a new key goes with the whole node, so that clients meet both ways.
        if new.key_signature != old.key_signature && !new.key_signature.is_empty() {
            change.key_signature = Some(new.key_signature.clone());
            reached.key_signature.clone_from(&new.key_signature);
        }
    }
    if new.disco_key != old.disco_key {
        change.disco_key = Some(new.disco_key);
        reached.disco_key = new.disco_key;
    }
    if new.key_expiry != old.key_expiry {
        change.key_expiry = Some(new.key_expiry);
        reached.key_expiry = new.key_expiry;
    }
    if new.online != old.online {
        change.online = new.online;
        reached.online = new.online;
    }
    if new.last_seen != old.last_seen {
        change.last_seen = new.last_seen;
        // A patch cannot take the time away; a node that is online needs none.
        reached.last_seen = new.last_seen;
    }
    (reached == *new).then_some(change)
}
