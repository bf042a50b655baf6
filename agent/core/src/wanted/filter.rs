//! The packet filter: control's rules compiled for the tunnel (data-plane sheet §8.5).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg as wire;
use tsrs_tunnel_filter::{
    CapGrant, Filter, FilterRule, LocalNets, NetPortRange, PortRange, admits_any_of, parse_rules,
};

use super::own_addresses;

/// The filter in force, and what is to be said about it.
#[derive(Clone, Debug)]
pub struct FilterWanted {
    /// Decides about packets.
    pub filter: Arc<Filter>,
    /// Answers what peers may do with us; the rules count here also behind shields.
    pub grants: Arc<Filter>,
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
        let rules: Vec<FilterRule> = netmap.filter_rules().map(rule).collect();
        let parsed = parse_rules(&rules);
        let unsigned: Vec<IpNet> = netmap
            .peers()
            .iter()
            .filter(|node| node.unsigned_peer_api_only)
            .flat_map(|node| node.addresses.iter().copied())
            .collect();
        let holders = |cap: &str| -> Vec<IpAddr> {
            let having = netmap.peers().iter().filter(|node| node.has_cap(cap));
            having.flat_map(|node| node.addresses.iter().map(IpNet::addr)).collect()
        };
        let names_capabilities = parsed.matches.iter().any(|rule| !rule.src_caps.is_empty());
        let grants = Arc::new(Filter::new(&parsed.matches, local.clone(), &holders));
        let problem = if admits_any_of(&parsed.matches, &unsigned) {
            Some("it lets in a peer that Tailnet Lock has not signed")
        } else if !rules.is_empty() && parsed.matches.is_empty() {
            Some("it has rules of an obsolete form, or too many")
        } else {
            None
        };
        let filter = if shields_up || problem.is_some() {
            Arc::new(Filter::shielded(local))
        } else {
            Arc::clone(&grants)
        };
        Self { filter, grants, names_capabilities, problem }
    }
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
