//! Peers as the data plane knows them.

use ipnet::{IpNet, Ipv4Net};
use tsrs_base_types::{DiscoPublic, RegionId};
use tsrs_control_tailcfg::Node;
use tsrs_tunnel_dataplane::{Change, PeerConfig, PeerPatch};

use super::{CGNAT, own_addresses};

/// Which routes of peers are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRules {
    /// Subnet routes are accepted.
    pub accept_routes: bool,
}

/// A peer as the data plane needs it; `None` for one that cannot be reached by any means (data-plane sheet §1.8).
pub fn peer_config(node: &Node, rules: PeerRules) -> Option<PeerConfig> {
    let disco_key =
        (node.disco_key != DiscoPublic::default() && !node.is_wireguard_only).then_some(node.disco_key);
    let home_derp = (node.home_derp != RegionId::default()).then_some(node.home_derp);
    let reachable = disco_key.is_some() || home_derp.is_some() || node.is_wireguard_only;
    if node.key.is_zero() || node.expired || !reachable {
        return None;
    }
    let addresses = own_addresses(node);
    let accepted = |net: &Ipv4Net| {
        let own = net.prefix_len() == 32 && (CGNAT.contains(net) || addresses.contains(&net.addr()));
        // A default route counts only for the selected exit node, and none can be selected yet.
        own || (rules.accept_routes && net.prefix_len() != 0)
    };
    let mut allowed_ips: Vec<Ipv4Net> = node
        .routes()
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(net.trunc()),
            IpNet::V6(_) => None,
        })
        .filter(accepted)
        .collect();
    allowed_ips.sort_unstable();
    allowed_ips.dedup();
    Some(PeerConfig {
        node_id: node.id,
        disco_key,
        home_derp,
        endpoints: node.endpoints.clone(),
        addresses,
        allowed_ips,
        jailed: node.is_jailed,
        ..PeerConfig::new(node.key)
    })
}

/// The step from one configuration of a node to the next; empty when there is no difference.
pub fn peer_difference(before: Option<&PeerConfig>, after: Option<&PeerConfig>) -> Vec<Change> {
    match (before, after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![Change::Upsert(Box::new(after.clone()))],
        (Some(before), None) => vec![Change::Remove(before.key)],
        (Some(before), Some(after)) if before.key != after.key => {
            vec![Change::Remove(before.key), Change::Upsert(Box::new(after.clone()))]
        }
        (Some(before), Some(after)) => patch(before, after),
    }
}

/// The cheap facts travel as a patch; anything else replaces the peer.
fn patch(before: &PeerConfig, after: &PeerConfig) -> Vec<Change> {
    let as_patched = PeerConfig {
        disco_key: after.disco_key.or(before.disco_key),
        home_derp: after.home_derp,
        endpoints: after.endpoints.clone(),
        ..before.clone()
    };
    if as_patched != *after {
        return vec![Change::Upsert(Box::new(after.clone()))];
    }
    let patch = PeerPatch {
        disco_key: after.disco_key.filter(|_| before.disco_key != after.disco_key),
        home_derp: (before.home_derp != after.home_derp).then(|| after.home_derp.unwrap_or_default()),
        endpoints: (before.endpoints != after.endpoints).then(|| after.endpoints.clone()),
        expired: None,
    };
    if patch == PeerPatch::default() { Vec::new() } else { vec![Change::Patch(after.key, patch)] }
}
