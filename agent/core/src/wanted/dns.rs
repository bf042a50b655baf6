//! DNS: what the resolver answers and whom it asks, and what the host is told (data-plane sheet §9.6, control sheet §16).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tsrs_base_types::NodeId;
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::{DnsConfig as WireDns, Node, Resolver, cap};
use tsrs_platform_api::{DnsConfig, MatchDomain, SERVICE_ADDRESS};
use tsrs_tunnel_dns::{Config, Name, Routes, Upstream};

/// Most resolvers of one suffix; a server that sends more has them cut.
const MAX_UPSTREAMS: usize = 16;

/// What the host's own DNS can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsBase {
    /// Whether names can be split by domain.
    pub can_split: bool,
    /// The host's own servers, as they were before anything was changed.
    pub nameservers: Vec<SocketAddr>,
}

/// What the two sides of DNS are to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsWanted {
    /// For the host.
    pub os: DnsConfig,
    /// For the resolver at the service address.
    pub resolver: Config,
}

impl DnsWanted {
    /// What netmap and prefs ask for. With an expired key nothing at all, also at the service address.
    pub fn new(netmap: &Netmap, accept_dns: bool, key_expired: bool, base: &DnsBase) -> Self {
        if key_expired {
            return Self::default();
        }
        let dns = netmap.dns();
        let mut local_domains = Vec::new();
        let mut routes = Routes::default();
        let mut matches = Vec::new();
        if dns.proxied {
            local_domains.extend(magic_suffixes(netmap.magic_dns_suffix()));
        }
        for (suffix, resolvers) in dns.routes.iter() {
            let Ok(name) = Name::parse(suffix) else { continue };
            let upstreams = upstreams(resolvers);
            if resolvers.is_empty() {
                local_domains.push(suffix.clone());
            } else if upstreams.is_empty() {
                continue;
            }
            routes.insert(name, upstreams);
            matches.push(suffix.clone());
        }
        let mut resolver = Config {
            routes,
            local_domains: local_domains.iter().filter_map(|name| Name::parse(name).ok()).collect(),
            no_tcp: netmap.has_self_cap(cap::node::DNS_FORWARDER_DISABLE_TCP_RETRIES),
        };
        matches.extend(local_domains);
        matches.extend(
            dns.extra_records
                .iter()
                .map(|record| record.name.clone())
                .filter(|name| {
                    // A record outside every suffix gets a route of its own.
                    !name.is_empty() && !matches.iter().any(|suffix| lies_in(name, suffix))
                })
                .collect::<Vec<_>>(),
        );
        let mut match_domains: Vec<MatchDomain> =
            matches.iter().filter_map(|name| MatchDomain::new(name)).collect();
        match_domains.sort_unstable();
        match_domains.dedup();
        let search_domains: Vec<MatchDomain> =
            dns.domains.iter().filter_map(|name| MatchDomain::new(name)).collect();

        let default = upstreams(&dns.resolvers);
        let os = match (accept_dns, default.is_empty(), match_domains.is_empty()) {
            (false, _, _) => DnsConfig::default(),
            (true, true, true) => DnsConfig { search_domains, ..DnsConfig::default() },
            (true, false, true) if plain_only(&default) => DnsConfig {
                nameservers: default.iter().filter_map(plain_address).collect(),
                search_domains,
                default_route: true,
                ..DnsConfig::default()
            },
            (true, false, _) => {
                resolver.routes.insert(Name::default(), default);
                service(match_domains, search_domains, true)
            }
            (true, true, false) if base.can_split => service(match_domains, search_domains, false),
            (true, true, false) => {
                let own = base.nameservers.iter().copied().map(Upstream::Plain).collect();
                resolver.routes.insert(Name::default(), own);
                service(match_domains, search_domains, true)
            }
        };
        Self { os, resolver }
    }
}

fn service(
    match_domains: Vec<MatchDomain>,
    search_domains: Vec<MatchDomain>,
    default_route: bool,
) -> DnsConfig {
    DnsConfig { nameservers: vec![IpAddr::V4(SERVICE_ADDRESS)], match_domains, search_domains, default_route }
}

/// Suffixes that are the tailnet's own: its names, and the addresses of its nodes in both families.
fn magic_suffixes(suffix: &str) -> Vec<String> {
    let reverse = (64..128).map(|n| format!("{n}.100.in-addr.arpa"));
    let mut out: Vec<String> = reverse.chain(["0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa".to_owned()]).collect();
    if !suffix.is_empty() {
        out.push(suffix.to_owned());
    }
    out
}

fn lies_in(name: &str, suffix: &str) -> bool {
    let (name, suffix) = (name.trim_matches('.'), suffix.trim_matches('.'));
    name.eq_ignore_ascii_case(suffix)
        || (name.len() > suffix.len()
            && name.is_char_boundary(name.len() - suffix.len())
            && name[name.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
            && name.as_bytes()[name.len() - suffix.len() - 1] == b'.')
}

fn upstreams(resolvers: &[Resolver]) -> Vec<Upstream> {
    resolvers.iter().filter_map(|resolver| Upstream::parse(&resolver.addr)).take(MAX_UPSTREAMS).collect()
}

fn plain_only(upstreams: &[Upstream]) -> bool {
    upstreams.iter().all(|upstream| plain_address(upstream).is_some())
}

fn plain_address(upstream: &Upstream) -> Option<IpAddr> {
    match upstream {
        Upstream::Plain(address) if address.port() == 53 => Some(address.ip()),
        Upstream::Plain(_) | Upstream::Https { .. } | Upstream::PeerApi { .. } => None,
    }
}

/// The DNS configuration as status and `dns-config` show it: with MagicDNS' own suffixes as empty routes, as the official
/// client shows them.
pub fn shown(netmap: &Netmap) -> WireDns {
    let mut dns = WireDns::clone(netmap.dns());
    if dns.proxied && dns.routes.0.is_empty() {
        let reverse = magic_suffixes("");
        dns.routes.0.extend(reverse.into_iter().map(|suffix| (suffix, Vec::new())));
    }
    dns
}

/// A name in the host table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The full name.
    pub name: Name,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether names below it resolve to it.
    pub with_subdomains: bool,
}

/// What a node adds to the host table; `None` for one without a usable name.
///
/// Only IPv4 addresses for nodes that have some, because nothing else is carried, unless control asks for both.
pub fn host_entry(node: &Node, with_ipv6: bool) -> Option<HostEntry> {
    let name = Name::parse(&node.name).ok().filter(|name| !name.is_root())?;
    let is_v4 = |net: &&IpNet| matches!(net, IpNet::V4(_));
    let has_v4 = node.addresses.iter().any(|net| is_v4(&net));
    let addresses: Vec<IpAddr> =
        node.addresses.iter().filter(|net| with_ipv6 || !has_v4 || is_v4(net)).map(IpNet::addr).collect();
    if addresses.is_empty() {
        return None;
    }
    Some(HostEntry { name, addresses, with_subdomains: node.has_cap(cap::node::DNS_SUBDOMAIN_RESOLVE) })
}

/// A change of the host table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostChange {
    /// The name has these addresses now.
    Set(HostEntry),
    /// The name is gone.
    Remove(Name),
}

/// The host table as it was handed out, so that each change says what differs.
///
/// Two nodes may carry one name for a moment while it moves; the name goes to the one that came last.
#[derive(Clone, Debug, Default)]
pub struct HostTable {
    by_node: HashMap<NodeId, HostEntry>,
    by_name: HashMap<Name, NodeId>,
    records: HashMap<Name, Vec<IpAddr>>,
}

impl HostTable {
    /// Sets or forgets what a node adds, and tells what differs.
    pub fn set(&mut self, id: NodeId, entry: Option<HostEntry>, changes: &mut Vec<HostChange>) {
        let before = self.by_node.get(&id);
        if before == entry.as_ref() {
            return;
        }
        let old_name = before.map(|before| before.name.clone());
        let new_name = entry.as_ref().map(|entry| entry.name.clone());
        let gone =
            old_name.filter(|old| Some(old) != new_name.as_ref() && self.by_name.get(old) == Some(&id));
        if let Some(old) = &gone {
            self.by_name.remove(old);
        }
        changes.extend(gone.map(HostChange::Remove));
        match entry {
            Some(entry) => {
                self.by_name.insert(entry.name.clone(), id);
                self.by_node.insert(id, entry.clone());
                changes.push(HostChange::Set(entry));
            }
            None => {
                self.by_node.remove(&id);
            }
        }
    }

    /// Sets the records that control adds, and tells what differs.
    pub fn set_records(&mut self, dns: &WireDns, changes: &mut Vec<HostChange>) {
        let mut records: HashMap<Name, Vec<IpAddr>> = HashMap::new();
        for record in &dns.extra_records {
            let known = matches!(record.kind.as_str(), "" | "A" | "AAAA");
            let parsed = Name::parse(&record.name).ok().zip(record.value.parse::<IpAddr>().ok());
            if let Some((name, address)) = parsed.filter(|(name, _)| known && !name.is_root()) {
                records.entry(name).or_default().push(address);
            }
        }
        for gone in self.records.keys().filter(|name| !records.contains_key(*name)) {
            changes.push(HostChange::Remove(gone.clone()));
        }
        for (name, addresses) in
            records.iter().filter(|(name, addresses)| self.records.get(*name) != Some(*addresses))
        {
            changes.push(HostChange::Set(HostEntry {
                name: name.clone(),
                addresses: addresses.clone(),
                with_subdomains: false,
            }));
        }
        self.records = records;
    }

    /// Forgets everything, and tells so.
    pub fn clear(&mut self, changes: &mut Vec<HostChange>) {
        let Self { by_name, records, .. } = std::mem::take(self);
        changes.extend(by_name.into_keys().chain(records.into_keys()).map(HostChange::Remove));
    }
}
