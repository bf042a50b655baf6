//! What the kernel shall hold, and the difference between two such states. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tsrs_platform_api::{NetfilterMode, RouterConfig, SERVICE_ADDRESS};

use crate::nft;

/// Where a prefix of our table leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Into the TUN.
    Tunnel,
    /// Out of the table, on to the host's own routes.
    Throw,
}

/// Everything that the router keeps in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) up: bool,
    /// `None` leaves the MTU as it was found.
    pub(super) mtu: Option<u16>,
    pub(super) addresses: BTreeSet<Ipv4Addr>,
    pub(super) routes: BTreeMap<Ipv4Net, Way>,
    /// Whether the four policy rules exist.
    pub(super) rules: bool,
    pub(super) firewall: Option<nft::Wanted>,
    /// Whether foreign chains that drop by policy accept what our table approved.
    pub(super) divert: bool,
}

impl Model {
    /// The state for this configuration. Without an address there is no tunnel and nothing at all.
    pub(super) fn new(tun: &str, config: &RouterConfig) -> Self {
        if config.addresses.is_empty() {
            return Self::default();
        }
        let service = Ipv4Net::from(SERVICE_ADDRESS);
        let tunnel = config.routes.iter().copied().chain([service]).map(|prefix| (prefix, Way::Tunnel));
        let throw = config.bypass_routes.iter().map(|prefix| (*prefix, Way::Throw));
        Self {
            up: true,
            mtu: Some(config.mtu),
            addresses: config.addresses.iter().copied().collect(),
            // Of two entries for one prefix the later stays.
            routes: tunnel.chain(throw).map(|(prefix, way)| (prefix.trunc(), way)).collect(),
            rules: true,
            firewall: (config.netfilter != NetfilterMode::Off).then(|| nft::Wanted::new(tun, config)),
            divert: config.netfilter == NetfilterMode::On,
        }
    }
}

/// Steps from one state to another, without those of the firewall.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) remove_routes: Vec<(Ipv4Net, Way)>,
    pub(super) remove_addresses: Vec<Ipv4Addr>,
    pub(super) remove_rules: bool,
    pub(super) set_down: bool,
    pub(super) set_mtu: Option<Option<u16>>,
    pub(super) add_addresses: Vec<Ipv4Addr>,
    pub(super) set_up: bool,
    pub(super) add_routes: Vec<(Ipv4Net, Way)>,
    pub(super) add_rules: bool,
}

impl Steps {
    /// The steps that lead from `from` to `to`.
    pub(super) fn between(from: &Model, to: &Model) -> Self {
        let missing_in = |routes: &BTreeMap<Ipv4Net, Way>, others: &BTreeMap<Ipv4Net, Way>| {
            routes
                .iter()
                .filter(|(prefix, way)| others.get(*prefix) != Some(*way))
                .map(|(prefix, way)| (*prefix, *way))
                .collect()
        };
        Self {
            remove_routes: missing_in(&from.routes, &to.routes),
            remove_addresses: from.addresses.difference(&to.addresses).copied().collect(),
            remove_rules: from.rules && !to.rules,
            set_down: from.up && !to.up,
            set_mtu: (from.mtu != to.mtu).then_some(to.mtu),
            add_addresses: to.addresses.difference(&from.addresses).copied().collect(),
            set_up: to.up && !from.up,
            add_routes: missing_in(&to.routes, &from.routes),
            add_rules: to.rules && !from.rules,
        }
    }

    /// What the steps repair, in one word, if they do anything.
    pub(super) fn what(&self) -> Option<&'static str> {
        if *self == Self::default() {
            None
        } else if self.add_rules {
            Some("rules")
        } else if self.set_up || self.set_mtu.is_some() || !self.add_addresses.is_empty() {
            Some("interface")
        } else {
            Some("routes")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn config() -> RouterConfig {
        RouterConfig {
            addresses: vec![Ipv4Addr::new(100, 64, 0, 1)],
            routes: [net("100.64.0.2/32"), net("10.20.0.0/16"), net("10.30.0.0/16")].into(),
            bypass_routes: [net("10.20.30.0/24"), net("10.30.0.0/16")].into(),
            ..RouterConfig::default()
        }
    }

    #[test]
    fn the_service_address_and_the_throw_routes_are_part_of_the_table() {
        let model = Model::new("t", &config());
        assert_eq!(
            model.routes,
            BTreeMap::from([
                (net("10.20.0.0/16"), Way::Tunnel),
                (net("10.20.30.0/24"), Way::Throw),
                (net("10.30.0.0/16"), Way::Throw),
                (net("100.64.0.2/32"), Way::Tunnel),
                (net("100.100.100.100/32"), Way::Tunnel),
            ])
        );
    }

    #[test]
    fn without_an_address_nothing_is_wanted() {
        assert_eq!(Model::new("t", &RouterConfig { addresses: Vec::new(), ..config() }), Model::default());
    }

    #[test]
    fn the_same_state_needs_no_step_and_a_change_only_its_own() {
        let before = Model::new("t", &config());
        assert_eq!(Steps::between(&before, &before), Steps::default());
        let mut changed = config();
        changed.routes.remove(&net("100.64.0.2/32"));
        changed.routes.insert(net("100.64.0.3/32"));
        changed.bypass_routes.remove(&net("10.30.0.0/16"));
        assert_eq!(
            Steps::between(&before, &Model::new("t", &changed)),
            Steps {
                remove_routes: vec![(net("10.30.0.0/16"), Way::Throw), (net("100.64.0.2/32"), Way::Tunnel)],
                add_routes: vec![(net("10.30.0.0/16"), Way::Tunnel), (net("100.64.0.3/32"), Way::Tunnel)],
                ..Steps::default()
            }
        );
    }

    #[test]
    fn all_pairs_of_states_are_reached_by_their_steps() {
        let models = [
            Model::default(),
            Model::new("t", &config()),
            Model::new("t", &RouterConfig { mtu: 1400, routes: BTreeSet::new(), ..config() }),
            Model::new("t", &RouterConfig { addresses: vec![Ipv4Addr::new(100, 64, 0, 9)], ..config() }),
        ];
        for from in &models {
            for to in &models {
                let steps = Steps::between(from, to);
                let mut reached = from.clone();
                for (prefix, _) in &steps.remove_routes {
                    reached.routes.remove(prefix);
                }
                reached.routes.extend(steps.add_routes);
                reached.addresses.retain(|address| !steps.remove_addresses.contains(address));
                reached.addresses.extend(steps.add_addresses);
                reached.rules = (reached.rules && !steps.remove_rules) || steps.add_rules;
                reached.up = (reached.up && !steps.set_down) || steps.set_up;
                reached.mtu = steps.set_mtu.unwrap_or(reached.mtu);
                assert_eq!(&reached, to);
            }
        }
    }
}
