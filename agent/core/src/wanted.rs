//! What netmap and prefs ask of the tunnel and of the host, in the types of those who carry it out.
//!
//! Everything a peer adds is computed from that peer alone, so that a change of one costs the same whatever the size of
//! the tailnet.

mod dns;
mod filter;
mod hostinfo;
mod peers;
mod relays;
mod routes;

pub use dns::{DnsBase, DnsWanted, HostChange, HostEntry, HostTable, host_entry, shown as shown_dns};
pub use filter::{FilterWanted, parsed_rules};
pub use hostinfo::{HostFacts, hostinfo};
pub use peers::{PeerRules, peer_config, peer_difference};
pub use relays::{endpoint, net_info, relays};
pub use routes::RouteTable;

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use tsrs_control_tailcfg::Node;

/// Addresses that Tailscale nodes have.
pub(crate) const CGNAT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// The IPv4 addresses of a node itself.
pub fn own_addresses(node: &Node) -> Vec<Ipv4Addr> {
    node.addresses
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) if net.prefix_len() == 32 => Some(net.addr()),
            IpNet::V4(_) | IpNet::V6(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
