//! The packet filter's input: rules, local networks, shields.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use tsrs_agent_localapi::Prefs;
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::FilterRule;

use super::own_addresses;

/// What the filter is compiled from (data-plane sheet §8.5).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterWanted {
    /// The rules of control; empty lets nobody start anything.
    pub rules: Vec<Arc<[FilterRule]>>,
    /// Our own addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// Subnets that are advertised; destinations behind this node.
    pub subnets: Vec<Ipv4Net>,
    /// Only answers may come in.
    pub shields_up: bool,
}

/// The filter that netmap and prefs ask for. `subnets` are the advertised routes in effect.
pub fn filter(netmap: &Netmap, prefs: &Prefs, subnets: &[Ipv4Net]) -> FilterWanted {
    FilterWanted {
        rules: netmap.filter_chunks().values().map(Arc::clone).collect(),
        addresses: own_addresses(netmap.self_node()),
        subnets: subnets.to_vec(),
        shields_up: prefs.shields_up,
    }
}
