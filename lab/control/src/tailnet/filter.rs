//! From the policy to packet-filter rules and to who sees whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use tsrs_control_tailcfg::{CapGrant, CapMap, FilterRule, NetPortRange, PortRange, RawMessage, cap};

use super::{LabNode, Tailnet};
use crate::policy::{Grant, NodeAttr, Policy};

/// All nodes and all addresses.
const ANYBODY: &str = "*";

/// Checks that every selector and port can be read, so that a mistake in a test is loud.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    for grant in &policy.grants {
        for spec in &grant.ip {
            Ports::parse(spec)?;
        }
    }
    Ok(())
}

/// `ip` of a grant: protocols and ports.
#[derive(Debug)]
struct Ports {
    protocols: Vec<i64>,
    range: PortRange,
}

impl Ports {
    fn parse(text: &str) -> Result<Self> {
        let (protocol, ports) = text.split_once(':').unwrap_or(("", text));
        let protocols = match protocol {
            "" => vec![],
            "tcp" => vec![6],
            "udp" => vec![17],
            "icmp" => vec![1, 58],
            number => vec![number.parse().with_context(|| format!("protocol of {text:?}"))?],
        };
        let (first, last) = match ports {
            ANYBODY => (0, u16::MAX),
            range => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let port = |port: &str| port.parse::<u16>().with_context(|| format!("port of {text:?}"));
                (port(first)?, port(last)?)
            }
        };
        if first > last {
            bail!("empty port range {text:?}");
        }
        Ok(Self { protocols, range: PortRange { first, last } })
    }
}

impl Tailnet {
    /// The rules that let traffic in at `viewer`.
    pub(crate) fn filter_rules(&self, viewer: &LabNode) -> Vec<FilterRule> {
        self.policy.grants.iter().flat_map(|grant| self.rules_of(grant, viewer)).collect()
    }

    /// Whether `viewer` and `peer` are on each other's map: one may reach the other in some way.
    pub(crate) fn are_visible(&self, viewer: &LabNode, peer: &LabNode) -> bool {
        let reaches = |grant: &Grant, from: &LabNode, to: &LabNode| {
            grant.src.iter().any(|selector| selects(selector, from))
                && grant.dst.iter().any(|selector| selects(selector, to) || selects_route(selector, to))
        };
        self.policy.grants.iter().any(|grant| reaches(grant, viewer, peer) || reaches(grant, peer, viewer))
    }

    /// Attributes of a node: the baseline, and what the policy adds.
    pub(crate) fn node_attributes(&self, node: &LabNode) -> CapMap {
        let mut map = CapMap::default();
        for name in [cap::node::IS_ADMIN, cap::node::FILE_SHARING, cap::node::TAILNET_LOCK] {
            map.insert_name(name);
        }
        let hits = |attr: &&NodeAttr| attr.target.iter().any(|selector| selects(selector, node));
        for attr in self.policy.node_attrs.iter().filter(hits) {
            attr.attr.iter().for_each(|name| map.insert_name(name));
            fill(&mut map, &attr.values);
        }
        map
    }

    fn rules_of(&self, grant: &Grant, viewer: &LabNode) -> Vec<FilterRule> {
        let src_ips: Vec<String> = grant.src.iter().flat_map(|selector| self.sources(selector)).collect();
        let destinations: Vec<String> =
            grant.dst.iter().flat_map(|selector| destinations(selector, viewer)).collect();
        if src_ips.is_empty() || destinations.is_empty() {
            return Vec::new();
        }
        let mut rules = Vec::new();
        // `check` has been through every entry when the policy was set.
        for ports in grant.ip.iter().filter_map(|spec| Ports::parse(spec).ok()) {
            let dst_ports = destinations.iter().map(|ip| NetPortRange {
                ip: ip.clone(),
                ports: ports.range.clone(),
                ..NetPortRange::default()
            });
            rules.push(FilterRule {
                src_ips: src_ips.clone(),
                dst_ports: dst_ports.collect(),
                ip_proto: ports.protocols,
                ..FilterRule::default()
            });
        }
        if !grant.app.is_empty() {
            let mut cap_map = CapMap::default();
            fill(&mut cap_map, &grant.app);
            let cap_grant = vec![CapGrant { dsts: viewer.addresses(), cap_map, ..CapGrant::default() }];
            rules.push(FilterRule { src_ips, cap_grant, ..FilterRule::default() });
        }
        rules
    }

    fn sources(&self, selector: &str) -> Vec<String> {
        if selector == ANYBODY {
            return vec![ANYBODY.to_owned()];
        }
        if let Some(prefix) = parse_prefix(selector) {
            return vec![prefix.to_string()];
        }
        let chosen = self.nodes.values().filter(|node| selects(selector, node));
        chosen.flat_map(|node| [node.ipv4.to_string(), node.ipv6.to_string()]).collect()
    }
}

/// What a destination selector means at `viewer`.
fn destinations(selector: &str, viewer: &LabNode) -> Vec<String> {
    if selector == ANYBODY {
        return vec![ANYBODY.to_owned()];
    }
    if selects_route(selector, viewer) {
        return vec![selector.to_owned()];
    }
    if selects(selector, viewer) {
        return vec![viewer.ipv4.to_string(), viewer.ipv6.to_string()];
    }
    Vec::new()
}

/// Whether a selector means this node.
fn selects(selector: &str, node: &LabNode) -> bool {
    if selector == ANYBODY || selector == node.name || node.tags.iter().any(|tag| tag == selector) {
        return true;
    }
    if !node.user.is_empty() && selector == node.user {
        return true;
    }
    parse_prefix(selector).is_some_and(|prefix| node.addresses().iter().any(|own| prefix.contains(own)))
}

/// Whether a selector is a prefix behind this node.
fn selects_route(selector: &str, node: &LabNode) -> bool {
    let Some(prefix) = parse_prefix(selector) else { return false };
    node.routes().any(|route| route.contains(&prefix) || prefix.contains(&route))
}

fn parse_prefix(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn fill(map: &mut CapMap, values: &BTreeMap<String, Vec<serde_json::Value>>) {
    for (name, list) in values {
        // A JSON value can always be written as JSON.
        let raw = list.iter().filter_map(|value| RawMessage::from_value(value).ok()).collect();
        map.insert(name, raw);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_every_form_and_nonsense_is_refused() {
        let parse =
            |text| Ports::parse(text).map(|ports| (ports.protocols, ports.range.first, ports.range.last));
        assert_eq!(parse("*").unwrap(), (vec![], 0, 65535));
        assert_eq!(parse("22").unwrap(), (vec![], 22, 22));
        assert_eq!(parse("tcp:80").unwrap(), (vec![6], 80, 80));
        assert_eq!(parse("udp:1-9").unwrap(), (vec![17], 1, 9));
        assert_eq!(parse("icmp:*").unwrap(), (vec![1, 58], 0, 65535));
        assert_eq!(parse("132:5").unwrap(), (vec![132], 5, 5));
        for bad in ["", "tcp", "tcp:", "tcp:9-1", "x:1", "80-", "65536"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
