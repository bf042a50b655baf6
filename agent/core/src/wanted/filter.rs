//! The packet filter: control's rules compiled for the tunnel (data-plane sheet §8.5).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg as wire;
use tsrs_tunnel_dataplane::policy::Filters;
use tsrs_tunnel_filter::{
    CapGrant, Capabilities, Filter, FilterRule, LocalNets, Match, NetPortRange, PortRange, admits_any_of,
    parse_rules,
};

use super::own_addresses;

/// The filter in force, and what is to be said about it. Copies share it.
#[derive(Clone, Debug)]
pub struct FilterWanted {
    /// Decides about packets.
    pub filters: Arc<Filters>,
    /// Answers what peers may do with us where `filters` do not: the rules count here also behind shields.
    grants: Option<Arc<Filter>>,
    /// Whether rules name peers by capability, so that a change of any peer may change the filter.
    pub names_capabilities: bool,
    /// Why the rules of control are not in force; nothing may come in then.
    pub problem: Option<&'static str>,
}

impl FilterWanted {
    /// Compiles the rules of a netmap. `subnets` are the advertised routes in effect.
    pub fn new(netmap: &Netmap, shields_up: bool, subnets: &[Ipv4Net]) -> Self {
        let own = own_addresses(netmap.self_node()).into_iter().map(Ipv4Net::from);
        let local = LocalNets::new(own.chain(subnets.iter().copied()));
        let rules = parsed_rules(netmap);
        let problem = problem(netmap, &rules);
        let holders = |cap: &str| -> Vec<IpAddr> {
            let having = netmap.peers().iter().filter(|node| node.has_cap(cap));
            having.flat_map(|node| node.addresses.iter().map(IpNet::addr)).collect()
        };
        let compiled = Filter::new(&rules, local.clone(), &holders);
        let jailed = Filter::shielded(local.clone());
        let (normal, grants) = if shields_up || problem.is_some() {
            (Filter::shielded(local), Some(Arc::new(compiled)))
        } else {
            (compiled, None)
        };
        Self {
            filters: Arc::new(Filters { normal, shields_up, jailed }),
            grants,
            names_capabilities: rules.iter().any(|rule| !rule.src_caps.is_empty()),
            problem,
        }
    }

    /// What peers may do with us.
    pub fn capabilities(&self) -> &Capabilities {
        self.grants.as_deref().unwrap_or(&self.filters.normal).capabilities()
    }
}

/// Why rules cannot be trusted.
fn problem(netmap: &Netmap, rules: &[Match]) -> Option<&'static str> {
    let unsigned: Vec<IpNet> = netmap
        .peers()
        .iter()
        .filter(|node| node.unsigned_peer_api_only)
        .flat_map(|node| node.addresses.iter().copied())
        .collect();
    if admits_any_of(rules, &unsigned) {
        return Some("it lets in a peer that Tailnet Lock has not signed");
    }
    let refused = rules.is_empty() && netmap.filter_rules().next().is_some();
    refused.then_some("it has rules of an obsolete form, or too many")
}

/// The rules of a netmap as they are used; empty also when they cannot be.
pub fn parsed_rules(netmap: &Netmap) -> Vec<Match> {
    let rules: Vec<FilterRule> = netmap.filter_rules().map(rule).collect();
    parse_rules(&rules).matches
}

fn rule(rule: &wire::FilterRule) -> FilterRule {
    let dst = |dst: &wire::NetPortRange| NetPortRange {
        ip: dst.ip.clone(),
        bits: dst.bits,
        ports: PortRange { first: dst.ports.first, last: dst.ports.last },
    };
    let grant = |grant: &wire::CapGrant| CapGrant {
        dsts: grant.dsts.clone(),
        caps: grant.caps.clone(),
        cap_map: grant
            .cap_map
            .iter()
            .map(|(name, values)| {
                let values = values.iter().filter_map(|value| value.read().ok()).collect();
                (name.to_owned(), Some(values))
            })
            .collect(),
    };
    FilterRule {
        src_ips: rule.src_ips.clone(),
        src_bits: rule.src_bits.clone(),
        dst_ports: rule.dst_ports.iter().map(dst).collect(),
        ip_proto: rule.ip_proto.clone(),
        cap_grant: rule.cap_grant.iter().map(grant).collect(),
    }
}
