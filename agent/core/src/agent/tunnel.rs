//! Tunnel and host: what is wanted of them, and the step from what was asked for before.
//!
//! Going up, what lets traffic through comes last: filter, own side, peers, then routes, then names. Going down it is
//! the other way round.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use rand_core::CryptoRngCore;
use tsrs_agent_localapi::prefs::NetfilterMode as PrefsNetfilterMode;
use tsrs_base_types::{NodePrivate, NodePublic};
use tsrs_control_netmap::{Change, Netmap};
use tsrs_control_tailcfg::{DerpMap, Node, cap};
use tsrs_platform_api::{DnsConfig, NetfilterMode, RouterConfig, SERVICE_ADDRESS};
use tsrs_tunnel_dataplane::{Change as PeerStep, PeerConfig, Policy, TunnelConfig};
use tsrs_tunnel_dns::Config as ResolverConfig;

use super::{APPLY_RETRY, Action, Agent, EngineEvent, Now, TunnelAction, joined};
use crate::health::Problem;
use crate::wanted::{
    CGNAT, DnsWanted, FilterWanted, HostChange, HostTable, PeerRules, RouteTable, host_entry, own_addresses,
    peer_config, peer_difference,
};

/// What has to be computed again.
#[derive(Debug, Default)]
struct Dirty {
    own: bool,
    filter: bool,
    dns: bool,
    relays: bool,
    records: bool,
}

/// What was asked of tunnel and host.
#[derive(Debug, Default)]
pub(super) struct Tunnel {
    live: bool,
    dirty: Dirty,
    rules: PeerRules,
    names_with_ipv6: bool,
    routes: RouteTable,
    hosts: HostTable,
    /// Peers that offer subnet routes.
    offering: HashSet<NodePublic>,
    filter: Option<FilterWanted>,
    config: TunnelConfig,
    relays: Arc<DerpMap>,
    router: RouterConfig,
    router_ok: bool,
    dns: DnsConfig,
    dns_failed: bool,
    resolver: ResolverConfig,
    udp_port: Option<u16>,
    /// What the engine was told last of control.
    control_told: Option<bool>,
    live_derp_count: usize,
    live_peer_count: usize,
    pub(super) retry_at: Option<Instant>,
}

impl Tunnel {
    /// Whether peers are in the tunnel.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    pub(super) fn is_up(&self) -> bool {
        self.live && self.router_ok && !self.router.addresses.is_empty()
    }

    pub(super) fn has_contact(&self) -> bool {
        self.live_derp_count > 0 || self.live_peer_count > 0
    }

    pub(super) fn routes_offered(&self) -> bool {
        !self.offering.is_empty()
    }

    /// The netmap is gone, and with it what followed from it.
    pub(super) fn forget_filter(&mut self) {
        self.filter = None;
    }

    pub(super) fn dirty_all(&mut self) {
        self.dirty = Dirty { own: true, filter: true, dns: true, relays: true, records: true };
    }

    pub(super) fn note_changes(&mut self, changes: &[Change]) {
        let by_capability = self.filter.as_ref().is_some_and(|filter| filter.names_capabilities);
        for change in changes {
            match change {
                Change::SelfNode => {
                    self.dirty.own = true;
                    self.dirty.filter = true;
                    self.dirty.dns = true;
                }
                Change::DerpMap => self.dirty.relays = true,
                Change::Dns => {
                    self.dirty.dns = true;
                    self.dirty.records = true;
                }
                Change::PacketFilter => self.dirty.filter = true,
                Change::PeerRemoved(_) | Change::PeerAdded(_) => self.dirty.filter |= by_capability,
                Change::PeerChanged { before, after } => {
                    let moved = before.addresses != after.addresses || before.cap_map != after.cap_map;
                    self.dirty.filter |= by_capability && moved;
                }
                Change::Domain
                | Change::CollectServices
                | Change::UserProfiles
                | Change::DisplayMessages
                | Change::SshPolicy
                | Change::Tka
                | Change::AuditLogId
                | Change::DialPlan
                | Change::Cached => {}
            }
        }
    }

    fn config_of(&self, node: &Node) -> Option<PeerConfig> {
        peer_config(node, self.rules)
    }

    /// Brings one peer from one version to the next.
    fn step(&mut self, before: Option<&Node>, after: Option<&Node>, steps: &mut Vec<PeerStep>) {
        let (old, new) =
            (before.and_then(|node| self.config_of(node)), after.and_then(|node| self.config_of(node)));
        self.swap(before.zip(old.as_ref()), after.zip(new.as_ref()));
        steps.extend(peer_difference(old.as_ref(), new.as_ref()));
    }

    fn swap(&mut self, old: Option<(&Node, &PeerConfig)>, new: Option<(&Node, &PeerConfig)>) {
        let same_routes = match (&old, &new) {
            (Some((_, old)), Some((_, new))) => old.allowed_ips == new.allowed_ips,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if let Some((node, config)) = old {
            self.offering.remove(&node.key);
            if !same_routes {
                self.routes.remove(config);
            }
        }
        if let Some((node, config)) = new {
            if offers_routes(node) {
                self.offering.insert(node.key);
            }
            if !same_routes {
                self.routes.add(config);
            }
        }
    }
}

/// Whether a node routes more than itself: subnets, default routes left out.
fn offers_routes(node: &Node) -> bool {
    node.routes().iter().any(|net| match net {
        IpNet::V4(net) => net.prefix_len() != 0 && !node.addresses.contains(&IpNet::V4(*net)),
        IpNet::V6(_) => false,
    })
}

impl<R: CryptoRngCore> Agent<R> {
    /// The key that the engine works with; a throw-away one while there is none, so that nobody is answered.
    pub(super) fn tell_node_key(&mut self) {
        let key = self.state.profiles.current().login.node_key.clone();
        let key = key.unwrap_or_else(|| NodePrivate::generate(&mut self.rng));
        self.actions.push_back(Action::Tunnel(TunnelAction::NodeKey(key)));
    }

    /// Takes an event of the engine.
    pub fn handle_engine(&mut self, event: EngineEvent, now: Now) {
        match event {
            EngineEvent::UdpPort { port, wanted } => {
                self.tunnel.udp_port = Some(port);
                self.tunnel.dirty.own = true;
                let text = format!("{wanted} is taken by another program; {port} is used instead");
                let taken = wanted != 0 && wanted != port;
                self.health.note(Problem::UdpPortTaken, taken.then_some(text.as_str()), now.mono, now.wall);
            }
            EngineEvent::Contact { live_derp_count, live_peer_count } => {
                self.tunnel.live_derp_count = live_derp_count;
                self.tunnel.live_peer_count = live_peer_count;
            }
            EngineEvent::HomeDerp(region) => {
                let missing = self.tunnel.live && region.is_none();
                self.health.note(Problem::NoDerpHome, missing.then_some(""), now.mono, now.wall);
            }
            EngineEvent::HomeConnected(connected) => {
                let lost = self.tunnel.live && !connected;
                self.health.note(Problem::NoDerpConnection, lost.then_some(""), now.mono, now.wall);
            }
        }
        self.settle(now);
    }

    /// The host's network matches, or why it does not; `warnings` are sentences about what works less well than asked.
    pub fn handle_router_done(&mut self, result: Result<(), String>, warnings: &[String], now: Now) {
        self.tunnel.router_ok = result.is_ok();
        let warnings = joined(warnings);
        self.health.note(Problem::ForeignFirewall, warnings.as_deref(), now.mono, now.wall);
        self.note_applied(Problem::RouterFailed, result, now);
    }

    /// The host's name resolution matches, or why it does not.
    pub fn handle_dns_done(&mut self, result: Result<(), String>, now: Now) {
        self.tunnel.dns_failed = result.is_err();
        self.note_applied(Problem::DnsSetFailed, result, now);
    }

    fn note_applied(&mut self, problem: Problem, result: Result<(), String>, now: Now) {
        let error = result.err();
        self.health.note(problem, error.as_deref(), now.mono, now.wall);
        if error.is_some() {
            self.tunnel.retry_at.get_or_insert(now.mono + APPLY_RETRY);
        }
        self.settle(now);
    }

    pub(super) fn settle_tunnel(&mut self, live: bool, now: Now) {
        match (self.tunnel.live, live) {
            (false, true) => self.bring_up(now),
            (true, false) => self.take_down(),
            (true, true) | (false, false) => {}
        }
        if self.tunnel.control_told != Some(self.control_online) {
            self.tunnel.control_told = Some(self.control_online);
            self.actions.push_back(Action::Tunnel(TunnelAction::ControlReachable(self.control_online)));
        }
        self.retry(now);
        self.settle_filter(now);
        if self.tunnel.live {
            self.settle_own_side();
            self.settle_peers();
            self.settle_host();
            self.settle_names(now);
        }
    }

    fn retry(&mut self, now: Now) {
        if self.tunnel.retry_at.take_if(|at| *at <= now.mono).is_none() {
            return;
        }
        if !self.tunnel.router_ok {
            self.actions.push_back(Action::Router(self.tunnel.router.clone()));
        }
        if self.tunnel.dns_failed {
            self.actions.push_back(Action::Dns(self.tunnel.dns.clone()));
        }
    }

    fn bring_up(&mut self, now: Now) {
        let Some(_) = &self.netmap else { return };
        self.tunnel.live = true;
        self.tunnel.rules = self.peer_rules();
        self.tunnel.dirty_all();
        self.actions.push_back(Action::Tunnel(TunnelAction::Up(true)));
        self.settle_filter(now);
        self.settle_own_side();
        let Some(netmap) = self.netmap.clone() else { return };
        self.tunnel.names_with_ipv6 = netmap.has_self_cap(cap::node::MAGICDNS_AAAA);
        let (mut steps, mut names) = (Vec::with_capacity(netmap.peers().len()), Vec::new());
        for node in std::iter::once(netmap.self_node()).chain(netmap.peers().iter()) {
            let entry = host_entry(node, self.tunnel.names_with_ipv6);
            self.tunnel.hosts.set(node.id, entry, &mut names);
        }
        for node in netmap.peers().iter() {
            self.tunnel.step(None, Some(node), &mut steps);
        }
        self.send_steps(steps);
        self.send_names(names);
    }

    fn take_down(&mut self) {
        self.tunnel.live = false;
        if self.tunnel.dns != DnsConfig::default() {
            self.tunnel.dns = DnsConfig::default();
            self.actions.push_back(Action::Dns(DnsConfig::default()));
        }
        if self.tunnel.router != RouterConfig::default() {
            self.tunnel.router = RouterConfig::default();
            self.actions.push_back(Action::Router(RouterConfig::default()));
        }
        self.tunnel.config = TunnelConfig::default();
        self.tunnel.relays = Arc::default();
        self.tunnel.resolver = ResolverConfig::default();
        self.tunnel.routes = RouteTable::default();
        self.tunnel.offering.clear();
        self.tunnel.live_peer_count = 0;
        self.tunnel.live_derp_count = 0;
        let mut names = Vec::new();
        self.tunnel.hosts.clear(&mut names);
        // `Up(false)` makes the engine forget peers and relays.
        for action in [
            TunnelAction::Policy(Policy::Closed),
            TunnelAction::Config(TunnelConfig::default()),
            TunnelAction::DerpMap(Arc::default()),
            TunnelAction::Up(false),
        ] {
            self.actions.push_back(Action::Tunnel(action));
        }
        self.send_names(names);
        self.actions.push_back(Action::Resolver(ResolverConfig::default()));
        for problem in [
            Problem::NoDerpHome,
            Problem::NoDerpConnection,
            Problem::RouterFailed,
            Problem::DnsSetFailed,
            Problem::ForeignFirewall,
            Problem::RouterContested,
            Problem::ResolvConfOverwritten,
        ] {
            self.health.clear(problem);
        }
    }

    pub(super) fn settle_filter(&mut self, now: Now) {
        if !std::mem::take(&mut self.tunnel.dirty.filter) {
            return;
        }
        let Some(netmap) = &self.netmap else { return };
        let shields_up = self.state.profiles.current().prefs.shields_up;
        let wanted = FilterWanted::new(netmap, shields_up, &self.subnets());
        self.health.note(Problem::InvalidPacketFilter, wanted.problem, now.mono, now.wall);
        if self.tunnel.live {
            let policy = Policy::Filtered(Arc::clone(&wanted.filters));
            self.actions.push_back(Action::Tunnel(TunnelAction::Policy(policy)));
        }
        self.tunnel.filter = Some(wanted);
    }

    /// What peers may do with us.
    pub(super) fn filter(&self) -> Option<&FilterWanted> {
        self.tunnel.filter.as_ref()
    }

    fn settle_own_side(&mut self) {
        let Some(netmap) = self.netmap.clone() else { return };
        let config = TunnelConfig {
            addresses: own_addresses(netmap.self_node()),
            service_address: Some(SERVICE_ADDRESS),
            ..TunnelConfig::default()
        };
        if self.tunnel.config != config {
            self.tunnel.config = config.clone();
            self.actions.push_back(Action::Tunnel(TunnelAction::Config(config)));
        }
        if std::mem::take(&mut self.tunnel.dirty.relays) && self.tunnel.relays != *netmap.derp_map() {
            self.tunnel.relays = Arc::clone(netmap.derp_map());
            self.actions.push_back(Action::Tunnel(TunnelAction::DerpMap(Arc::clone(netmap.derp_map()))));
        }
    }

    /// Applies what a netmap changed; peers that did not change are not looked at.
    pub(super) fn apply_peer_changes(&mut self, changes: &[Change], netmap: &Netmap) {
        if !self.tunnel.live {
            return;
        }
        let (mut steps, mut names) = (Vec::new(), Vec::new());
        let with_ipv6 = self.tunnel.names_with_ipv6;
        for change in changes {
            if *change == Change::SelfNode {
                let node = netmap.self_node();
                self.tunnel.hosts.set(node.id, host_entry(node, with_ipv6), &mut names);
            }
            let (before, after) = change.peer();
            let Some(id) = before.or(after).map(|node| node.id) else { continue };
            self.tunnel.step(before.map(AsRef::as_ref), after.map(AsRef::as_ref), &mut steps);
            let entry = after.and_then(|node| host_entry(node, with_ipv6));
            self.tunnel.hosts.set(id, entry, &mut names);
        }
        self.send_steps(steps);
        self.send_names(names);
    }

    /// Looks at every peer again when a rule for all of them changed.
    fn settle_peers(&mut self) {
        let Some(netmap) = self.netmap.clone() else { return };
        let mut steps = Vec::new();
        let rules = self.peer_rules();
        let old_rules = std::mem::replace(&mut self.tunnel.rules, rules);
        if old_rules != rules {
            for node in netmap.peers().iter() {
                let old = peer_config(node, old_rules);
                let new = self.tunnel.config_of(node);
                self.tunnel
                    .swap(old.as_ref().map(|old| (&**node, old)), new.as_ref().map(|new| (&**node, new)));
                steps.extend(peer_difference(old.as_ref(), new.as_ref()));
            }
        }
        self.send_steps(steps);
        let with_ipv6 = netmap.has_self_cap(cap::node::MAGICDNS_AAAA);
        if with_ipv6 != self.tunnel.names_with_ipv6 {
            self.tunnel.names_with_ipv6 = with_ipv6;
            let mut names = Vec::new();
            for node in std::iter::once(netmap.self_node()).chain(netmap.peers().iter()) {
                self.tunnel.hosts.set(node.id, host_entry(node, with_ipv6), &mut names);
            }
            self.send_names(names);
        }
    }

    fn settle_host(&mut self) {
        let own = std::mem::take(&mut self.tunnel.dirty.own);
        if !self.tunnel.routes.take_changed() && !own {
            return;
        }
        let Some(netmap) = &self.netmap else { return };
        let prefs = &self.state.profiles.current().prefs;
        let one_cgnat = match () {
            () if netmap.has_self_cap(cap::node::ONE_CGNAT_ENABLE) => Some(true),
            () if netmap.has_self_cap(cap::node::ONE_CGNAT_DISABLE) => Some(false),
            () => None,
        };
        let uplink_in_cgnat =
            self.link.on_link().iter().any(|net| CGNAT.contains(net) || net.contains(&CGNAT));
        let router = RouterConfig {
            addresses: own_addresses(netmap.self_node()),
            routes: self.tunnel.routes.routes(one_cgnat),
            advertised: self.subnets().into_iter().collect(),
            snat: !prefs.no_snat,
            stateful: prefs.no_stateful_filtering == Some(false),
            drop_spoofed: !uplink_in_cgnat && !netmap.has_self_cap(cap::node::DISABLE_LINUX_CGNAT_DROP_RULE),
            netfilter: netfilter(prefs.netfilter_mode),
            udp_port: self.tunnel.udp_port,
            ..RouterConfig::default()
        };
        if router != self.tunnel.router {
            self.tunnel.router_ok = false;
            self.tunnel.router = router.clone();
            self.actions.push_back(Action::Router(router));
        }
    }

    fn settle_names(&mut self, now: Now) {
        let Some(netmap) = self.netmap.clone() else { return };
        if std::mem::take(&mut self.tunnel.dirty.records) {
            let mut names = Vec::new();
            self.tunnel.hosts.set_records(netmap.dns(), &mut names);
            self.send_names(names);
        }
        if !std::mem::take(&mut self.tunnel.dirty.dns) {
            return;
        }
        let accept = self.state.profiles.current().prefs.corp_dns;
        let wanted = DnsWanted::new(&netmap, accept, self.is_key_expired(now.wall), &self.dns_base);
        if wanted.resolver != self.tunnel.resolver {
            self.tunnel.resolver = wanted.resolver.clone();
            self.actions.push_back(Action::Resolver(wanted.resolver));
        }
        if wanted.os != self.tunnel.dns {
            self.tunnel.dns = wanted.os.clone();
            self.actions.push_back(Action::Dns(wanted.os));
        }
    }

    fn peer_rules(&self) -> PeerRules {
        PeerRules { accept_routes: self.state.profiles.current().prefs.route_all }
    }

    fn send_steps(&mut self, steps: Vec<PeerStep>) {
        if !steps.is_empty() {
            self.actions.push_back(Action::Tunnel(TunnelAction::Peers(steps)));
        }
    }

    fn send_names(&mut self, names: Vec<HostChange>) {
        if !names.is_empty() {
            self.actions.push_back(Action::Hosts(names));
        }
    }

    /// Settings or links changed: everything small is compared again.
    pub(super) fn reconsider(&mut self) {
        self.tunnel.dirty.own = true;
        self.tunnel.dirty.filter = true;
        self.tunnel.dirty.dns = true;
    }

    pub(super) fn tunnel_contact(&self) -> (Option<u16>, usize) {
        (self.tunnel.udp_port, self.tunnel.live_derp_count)
    }
}

fn netfilter(number: i64) -> NetfilterMode {
    match PrefsNetfilterMode::from_number(number) {
        Some(PrefsNetfilterMode::Off) => NetfilterMode::Off,
        Some(PrefsNetfilterMode::NoDivert) => NetfilterMode::NoDivert,
        Some(PrefsNetfilterMode::On) | None => NetfilterMode::On,
    }
}
