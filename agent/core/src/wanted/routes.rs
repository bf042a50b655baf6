//! Routes into the tunnel, counted so that one peer's change costs what it changes (client sheet §3.1).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use tsrs_tunnel_dataplane::PeerConfig;

use super::CGNAT;

/// Above so many peers one route stands for all of their addresses; the official client has the same limit.
const MAX_HOST_ROUTES: usize = 10_000;

/// Most subnet routes that are set in the kernel. Far above any tailnet; what is beyond it is not routed.
const MAX_SUBNET_ROUTES: usize = 50_000;

/// How often each prefix is wanted.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    hosts: BTreeMap<Ipv4Net, u32>,
    subnets: BTreeMap<Ipv4Net, u32>,
    changed: bool,
}

impl RouteTable {
    /// Counts the prefixes of a peer.
    pub fn add(&mut self, peer: &PeerConfig) {
        for net in &peer.allowed_ips {
            let before = self.hosts.len() > MAX_HOST_ROUTES;
            let count = self.map(net).entry(*net).or_default();
            *count += 1;
            let first = *count == 1;
            self.note(net, first, before);
        }
    }

    /// Takes the prefixes of a peer out again.
    pub fn remove(&mut self, peer: &PeerConfig) {
        for net in &peer.allowed_ips {
            let before = self.hosts.len() > MAX_HOST_ROUTES;
            let map = self.map(net);
            let Some(count) = map.get_mut(net) else { continue };
            *count -= 1;
            let last = *count == 0;
            if last {
                map.remove(net);
            }
            self.note(net, last, before);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { changed: true, ..Self::default() };
    }

    /// Whether [`Self::routes`] gives something else than at the last call of this function.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The routes to set. `one_cgnat` is the wish of control: one route for all, or one each.
    pub fn routes(&self, one_cgnat: Option<bool>) -> BTreeSet<Ipv4Net> {
        let subnets = self.subnets.keys().take(MAX_SUBNET_ROUTES).copied();
        let collapse = self.hosts.len() > MAX_HOST_ROUTES || one_cgnat == Some(true);
        if collapse && !self.hosts.is_empty() {
            subnets.chain([CGNAT]).collect()
        } else {
            // Collected at once: a set that grows one by one takes several times as long.
            subnets.chain(self.hosts.keys().copied()).collect()
        }
    }

    fn map(&mut self, net: &Ipv4Net) -> &mut BTreeMap<Ipv4Net, u32> {
        if net.prefix_len() == 32 && CGNAT.contains(net) { &mut self.hosts } else { &mut self.subnets }
    }

    /// A prefix came or went. While one route stands for all hosts, that changes nothing for them.
    fn note(&mut self, net: &Ipv4Net, came_or_went: bool, collapsed_before: bool) {
        let is_host = net.prefix_len() == 32 && CGNAT.contains(net);
        let collapsed = self.hosts.len() > MAX_HOST_ROUTES;
        if came_or_went && !(is_host && collapsed && collapsed_before) {
            self.changed = true;
        }
    }
}
