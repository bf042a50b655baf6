//! Rules compiled for lookup by source: sorted, disjoint source ranges, each with the rules that name it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::Range;

use ipnet::IpNet;

use crate::ranges::{RangeSet, V4Range};
use crate::rules::Match;

/// Most entries of the index by source, repeated ones counted. Rules whose sources overlap in ever new ways need an entry
/// for each pair of them, which a message of a few megabytes could drive beyond any memory; a tailnet of 20,000 nodes with 400
/// rules for each stays below. What needs more is not indexed, and each packet looks at all rules.
const MAX_INDEX_ENTRIES: usize = 1 << 23;

/// A rule's IPv4 destinations and protocols.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    protocols: [u64; 4],
    dsts: Vec<Dst>,
}

#[derive(Clone, Copy, Debug)]
struct Dst {
    addresses: V4Range,
    first_port: u16,
    last_port: u16,
}

impl Rule {
    /// `None` if the rule has no IPv4 destination: then it matches no packet.
    fn new(rule: &Match) -> Option<Self> {
        let dsts: Vec<Dst> = rule
            .dsts
            .iter()
            .filter_map(|dst| match dst.net {
                IpNet::V4(net) => {
                    Some(Dst { addresses: net.into(), first_port: dst.first, last_port: dst.last })
                }
                IpNet::V6(_) => None,
            })
            .collect();
        let mut protocols = [0; 4];
        for protocol in &rule.protocols {
            protocols[usize::from(protocol >> 6)] |= 1 << (protocol & 63);
        }
        (!dsts.is_empty()).then_some(Self { protocols, dsts })
    }

    fn has_protocol(&self, protocol: u8) -> bool {
        self.protocols[usize::from(protocol >> 6)] & (1 << (protocol & 63)) != 0
    }

    fn dsts_of(&self, address: u32) -> impl Iterator<Item = &Dst> {
        self.dsts.iter().filter(move |dst| dst.addresses.first <= address && address <= dst.addresses.last)
    }

    /// TCP, UDP, SCTP: protocol, destination and port.
    pub(crate) fn matches_port(&self, protocol: u8, dst: Ipv4Addr, port: u16) -> bool {
        self.has_protocol(protocol)
            && self.dsts_of(dst.into()).any(|dst| dst.first_port <= port && port <= dst.last_port)
    }

    /// ICMP: the destination alone, whatever protocols and ports the rule is for.
    pub(crate) fn matches_address(&self, dst: Ipv4Addr) -> bool {
        self.dsts_of(dst.into()).next().is_some()
    }

    /// Protocols without ports: named by the rule, with all ports.
    pub(crate) fn matches_portless(&self, protocol: u8, dst: Ipv4Addr) -> bool {
        self.has_protocol(protocol)
            && self.dsts_of(dst.into()).any(|dst| dst.first_port == 0 && dst.last_port == u16::MAX)
    }
}

/// Rules, found by the source of a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct BySource {
    rules: Vec<Rule>,
    /// First addresses of the ranges, in order; a range ends where the next begins.
    starts: Vec<u32>,
    /// For each range, its part of `lists`.
    parts: Vec<Range<usize>>,
    /// Indices of rules; equal lists are stored once.
    lists: Vec<u32>,
    /// The sources of each rule, where the rules need more than [`MAX_INDEX_ENTRIES`]; the index is then empty.
    unindexed: Vec<RangeSet>,
}

impl BySource {
    /// Compiles rules whose IPv4 sources `sources` gives.
    pub(crate) fn new<'a>(matches: impl Iterator<Item = (&'a Match, RangeSet)>) -> Self {
        let mut compiled = Self::default();
        let mut edges: Vec<(u64, bool, u32)> = Vec::new();
        for (rule, sources) in matches {
            let Some(rule) = Rule::new(rule).filter(|_| !sources.ranges().is_empty()) else { continue };
            // `parse_rules` bounds the number of rules far below this.
            let Ok(index) = u32::try_from(compiled.rules.len()) else { break };
            for range in sources.ranges() {
                edges.push((range.first.into(), true, index));
                edges.push((u64::from(range.last) + 1, false, index));
            }
            compiled.rules.push(rule);
            compiled.unindexed.push(sources);
        }
        edges.sort_unstable();
        if compiled.sweep(&edges) {
            compiled.unindexed = Vec::new();
        } else {
            let Self { rules, unindexed, .. } = compiled;
            compiled = Self { rules, unindexed, ..Self::default() };
        }
        compiled
    }

    /// Walks the edges in order and stores the set of rules that are open behind each. `false` if that becomes too much.
    fn sweep(&mut self, edges: &[(u64, bool, u32)]) -> bool {
        let mut entries = 0;
        let mut open = std::collections::BTreeSet::new();
        let mut known = HashMap::<Vec<u32>, Range<usize>>::new();
        for group in edges.chunk_by(|a, b| a.0 == b.0) {
            for (_, opens, rule) in group {
                if *opens {
                    open.insert(*rule);
                } else {
                    open.remove(rule);
                }
            }
            // Behind the last address nothing begins.
            let Ok(start) = u32::try_from(group[0].0) else { break };
            entries += open.len();
            if entries > MAX_INDEX_ENTRIES {
                return false;
            }
            let list: Vec<u32> = open.iter().copied().collect();
            let part = known.entry(list).or_insert_with_key(|list| {
                let begin = self.lists.len();
                self.lists.extend_from_slice(list);
                begin..self.lists.len()
            });
            self.starts.push(start);
            self.parts.push(part.clone());
        }
        true
    }

    /// The rules that name a source.
    pub(crate) fn rules_of(&self, source: Ipv4Addr) -> impl Iterator<Item = &Rule> {
        let after = self.starts.partition_point(|start| *start <= u32::from(source));
        let part = after.checked_sub(1).map_or(0..0, |index| self.parts[index].clone());
        let indexed =
            self.lists[part].iter().filter_map(|index| self.rules.get(usize::try_from(*index).ok()?));
        let unindexed =
            self.unindexed.iter().zip(&self.rules).filter(move |(sources, _)| sources.contains(source));
        indexed.chain(unindexed.map(|(_, rule)| rule))
    }
}
