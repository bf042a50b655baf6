//! Rules as control sends them, and as they are used (control sheet §15).

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::address::parse_prefixes;

/// Protocols that a rule is for when it names none: TCP, UDP, ICMP, ICMPv6.
const DEFAULT_PROTOCOLS: [u8; 4] = [6, 17, 1, 58];

/// Rules of one filter that are used at most; a filter with more is refused as a whole. Each takes some 200 bytes compiled.
pub const MAX_RULES: usize = 100_000;

/// One rule as control sends it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterRule {
    /// Sources: addresses, or `cap:NAME` for peers with a node capability.
    #[serde(rename = "SrcIPs", deserialize_with = "or_default")]
    pub src_ips: Vec<String>,
    /// An obsolete form; a filter that has it is refused.
    #[serde(rename = "SrcBits", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub src_bits: Vec<i64>,
    /// Destinations with their ports.
    #[serde(rename = "DstPorts", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub dst_ports: Vec<NetPortRange>,
    /// IP protocols; empty for the usual four.
    #[serde(rename = "IPProto", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub ip_proto: Vec<i64>,
    /// What the sources may do with us beside sending packets.
    #[serde(rename = "CapGrant", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub cap_grant: Vec<CapGrant>,
}

/// A destination of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetPortRange {
    /// Addresses.
    #[serde(rename = "IP")]
    pub ip: String,
    /// An obsolete form; a filter that has it is refused.
    #[serde(rename = "Bits", skip_serializing_if = "Option::is_none")]
    pub bits: Option<i64>,
    /// Ports.
    #[serde(rename = "Ports")]
    pub ports: PortRange,
}

/// Ports from first to last, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortRange {
    /// The first.
    #[serde(rename = "First")]
    pub first: u16,
    /// The last.
    #[serde(rename = "Last")]
    pub last: u16,
}

/// A grant of capabilities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CapGrant {
    /// Our addresses for which it counts.
    #[serde(rename = "Dsts", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub dsts: Vec<IpNet>,
    /// Capabilities without a value.
    #[serde(rename = "Caps", deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<String>,
    /// Capabilities with their values.
    #[serde(rename = "CapMap", deserialize_with = "or_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub cap_map: BTreeMap<String, Option<Vec<Value>>>,
}

/// `null` is the same as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// One rule as it is used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Match {
    /// IP protocols.
    pub protocols: Vec<u8>,
    /// Source prefixes.
    pub srcs: Vec<IpNet>,
    /// Node capabilities, any of which makes a peer a source.
    pub src_caps: Vec<String>,
    /// Destinations.
    pub dsts: Vec<DstPorts>,
    /// Granted capabilities.
    pub caps: Vec<CapDst>,
}

/// A destination prefix with its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DstPorts {
    /// The prefix.
    pub net: IpNet,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

/// A capability granted for a prefix of our addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct CapDst {
    /// Our addresses.
    pub dst: IpNet,
    /// The capability.
    pub cap: String,
    /// Its values.
    pub values: Vec<Value>,
}

/// What reading a list of rules gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParsedRules {
    /// The rules in force.
    pub matches: Vec<Match>,
    /// Whether nothing had to be left out. What was left out only makes the filter admit less.
    pub complete: bool,
}

/// Reads rules. A bad address is left out of its rule; an obsolete form, or too many rules, leave out everything.
pub fn parse_rules(rules: &[FilterRule]) -> ParsedRules {
    let obsolete =
        |rule: &FilterRule| !rule.src_bits.is_empty() || rule.dst_ports.iter().any(|dst| dst.bits.is_some());
    if rules.len() > MAX_RULES || rules.iter().any(obsolete) {
        return ParsedRules::default();
    }
    let mut complete = true;
    let matches = rules.iter().map(|rule| parse_rule(rule, &mut complete)).collect();
    ParsedRules { matches, complete }
}

fn parse_rule(rule: &FilterRule, complete: &mut bool) -> Match {
    let mut parsed = Match { protocols: protocols(&rule.ip_proto), ..Match::default() };
    for text in &rule.src_ips {
        match text.strip_prefix("cap:") {
            Some("") => {}
            Some(cap) => parsed.src_caps.push(cap.to_owned()),
            None => match parse_prefixes(text) {
                Ok(prefixes) => parsed.srcs.extend(prefixes),
                Err(_) => *complete = false,
            },
        }
    }
    for dst in &rule.dst_ports {
        match parse_prefixes(&dst.ip) {
            Ok(nets) => {
                let ports = dst.ports;
                parsed.dsts.extend(nets.into_iter().map(|net| DstPorts {
                    net,
                    first: ports.first,
                    last: ports.last,
                }));
            }
            // An empty capability names nobody, as a destination too.
            Err(_) => *complete &= dst.ip == "cap:",
        }
    }
    for grant in &rule.cap_grant {
        let plain = grant.caps.iter().map(|cap| (cap, Vec::new()));
        let valued = grant.cap_map.iter().map(|(cap, values)| (cap, values.clone().unwrap_or_default()));
        for (cap, values) in plain.chain(valued) {
            let each =
                grant.dsts.iter().map(|dst| CapDst { dst: *dst, cap: cap.clone(), values: values.clone() });
            parsed.caps.extend(each);
        }
    }
    parsed
}

fn protocols(numbers: &[i64]) -> Vec<u8> {
    if numbers.is_empty() {
        return DEFAULT_PROTOCOLS.to_vec();
    }
    numbers.iter().filter_map(|number| u8::try_from(*number).ok()).collect()
}

/// Whether rules with destinations admit a source within one of the prefixes. Under Tailnet Lock a filter that does so for a peer
/// without signature is replaced by an empty one.
pub fn admits_any_of(matches: &[Match], prefixes: &[IpNet]) -> bool {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    matches
        .iter()
        .filter(|rule| !rule.dsts.is_empty())
        .flat_map(|rule| &rule.srcs)
        .any(|src| prefixes.iter().any(|prefix| overlap(src, prefix)))
}
