//! Rules of control, and packets under them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use tsrs_tunnel_filter::{
    Filter, FilterRule, FlowTable, LocalNets, Match, admits_any_of, parse_prefixes, parse_rules,
};
use tsrs_tunnel_packet::ipv4::parse;

use crate::input::Input;

/// Most lookups of capabilities.
const MAX_LOOKUPS: usize = 8;

fn local() -> LocalNets {
    LocalNets::new([
        Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 10), 32),
        Ipv4Net::new_assert(Ipv4Addr::new(10, 1, 0, 0), 16),
    ])
}

/// Rules in JSON, or a text that should be a list of prefixes.
pub fn rules(data: &[u8]) {
    let _ = parse_prefixes(&Input::new(data).text());
    let Ok(rules) = serde_json::from_slice::<Vec<FilterRule>>(data) else { return };
    let parsed = parse_rules(&rules);
    let filter = Filter::new(&parsed.matches, local(), &|_| Vec::new());
    for rule in parsed.matches.iter().take(MAX_LOOKUPS) {
        admits_any_of(&parsed.matches, &rule.srcs);
        for src in rule.srcs.iter().take(MAX_LOOKUPS) {
            filter.capabilities().lookup(src.addr(), src.addr());
        }
    }
    check(&filter, &[(0, data)]);
}

/// Packets in both directions under fixed rules.
pub fn packets(data: &[u8]) {
    let mut input = Input::new(data);
    let shielded = input.byte() & 1 == 1;
    let any = |text: &str| parse_prefixes(text).unwrap_or_default();
    let rule = Match { srcs: any("100.64.0.0/10"), protocols: vec![1, 6, 17], ..Match::default() };
    let filter =
        if shielded { Filter::shielded(local()) } else { Filter::new(&[rule], local(), &|_| Vec::new()) };
    let packets: Vec<(u8, &[u8])> = input.records().collect();
    check(&filter, &packets);
}

fn check(filter: &Filter, packets: &[(u8, &[u8])]) {
    let table = FlowTable::default();
    for (kind, packet) in packets {
        let parsed = parse(packet);
        let mut flows = table.batch();
        let verdict = if kind & 1 == 0 {
            filter.check_in(&parsed, packet.len(), &mut flows)
        } else {
            filter.check_out(&parsed, packet.len(), &mut flows)
        };
        if verdict.is_ok() {
            assert!(usize::from(parsed.total_len) <= packet.len(), "a packet passes that is cut off");
        }
    }
}
