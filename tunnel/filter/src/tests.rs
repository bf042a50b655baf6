//! The reference's cases, and what they leave out.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use serde_json::Value;
use tsrs_lab_vectors::{hex, json, load};
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::ipv4::parse;

use crate::*;

#[derive(Deserialize)]
struct PacketFile {
    cases: Vec<PacketCase>,
}

#[derive(Deserialize)]
struct PacketCase {
    name: String,
    #[serde(default)]
    rules: Option<Vec<FilterRule>>,
    #[serde(default)]
    rules_parse_ok: bool,
    local_nets: Vec<IpNet>,
    #[serde(default)]
    shields_up: bool,
    #[serde(default)]
    src_node_caps: BTreeMap<IpAddr, Vec<String>>,
    packets: Vec<PacketStep>,
}

#[derive(Deserialize)]
struct PacketStep {
    bytes: String,
    dir: String,
    verdict: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    note: String,
}

fn v4_only(nets: &[IpNet]) -> impl Iterator<Item = Ipv4Net> + '_ {
    nets.iter().filter_map(|net| match net {
        IpNet::V4(net) => Some(*net),
        IpNet::V6(_) => None,
    })
}

/// Where we are stricter or differ harmlessly, by the property that the README of the cases names.
fn is_quirk(bytes: &[u8]) -> bool {
    let Some(first) = bytes.first() else { return false };
    // An IPv4 header length below 20 bytes is read by the reference and refused here.
    let short_header = first >> 4 == 4 && first & 0x0f < 5;
    // ICMP types 12 and 18: the reference takes one for the other.
    let icmp = bytes.get(9) == Some(&1);
    let header_len = usize::from(first & 0x0f) * 4;
    let swapped_type = icmp && matches!(bytes.get(header_len), Some(12 | 18));
    short_header || swapped_type
}

fn run(file: &str) -> (usize, usize) {
    let (mut compared, mut quirks) = (0, 0);
    for case in load::<PacketFile>(file).cases {
        let local = LocalNets::new(v4_only(&case.local_nets));
        let parsed = parse_rules(&case.rules.unwrap_or_default());
        assert_eq!(parsed.complete, case.rules_parse_ok, "{}", case.name);
        let holders = |cap: &str| {
            let holding = case.src_node_caps.iter().filter(|(_, caps)| caps.iter().any(|held| held == cap));
            holding.map(|(address, _)| *address).collect()
        };
        let filter = if case.shields_up {
            Filter::shielded(local)
        } else {
            Filter::new(&parsed.matches, local, &holders)
        };
        let table = FlowTable::default();
        for step in case.packets {
            let bytes = hex(&step.bytes);
            // IPv6 is refused whole: this build carries none.
            let v6 = bytes.first().is_some_and(|first| first >> 4 == 6);
            if v6 || is_quirk(&bytes) {
                quirks += 1;
                continue;
            }
            let packet = parse(&bytes);
            let mut flows = table.batch();
            let verdict = match step.dir.as_str() {
                "in" => filter.check_in(&packet, bytes.len(), &mut flows),
                _ => filter.check_out(&packet, bytes.len(), &mut flows),
            };
            let context = format!("{}: {} {} {}", case.name, step.dir, step.note, step.bytes);
            match verdict {
                Ok(()) => assert_eq!(step.verdict, "accept", "{context}"),
                Err(reason) => {
                    assert_eq!(step.verdict, "drop", "{context}: {reason:?}");
                    assert_eq!(reason.metric_label(), step.reason, "{context}");
                }
            }
            compared += 1;
        }
    }
    (compared, quirks)
}

#[test]
fn malformed_and_special_packets_agree_with_the_reference() {
    // 100 short headers, 60 swapped ICMP types, 10 packets of IPv6.
    assert_eq!(run("filter/packets4-edge.json"), (2088 - 170, 170));
}

#[test]
fn rules_agree_with_the_reference() {
    assert_eq!(run("filter/packets4-rules.json"), (1980, 0));
}

#[test]
fn random_rules_and_packets_agree_with_the_reference() {
    assert_eq!(run("filter/packets4-random.json"), (1955, 45));
}

#[test]
fn flows_are_forgotten_in_the_order_of_the_reference() {
    assert_eq!(run("filter/flow-table.json"), (530, 0));
}

#[test]
fn rules_are_read_as_the_reference_reads_them() {
    let file = json("filter/rule-parse.json");
    for case in file["cases"].as_array().unwrap() {
        let rules: Vec<FilterRule> = serde_json::from_value(case["rules"].clone()).unwrap();
        let parsed = parse_rules(&rules);
        assert_eq!(parsed.complete, case["parse_ok"], "{}", case["name"]);
        let wanted = case["matches"].as_array().unwrap();
        assert_eq!(parsed.matches.len(), wanted.len(), "{}", case["name"]);
        for (rule, wanted) in parsed.matches.iter().zip(wanted) {
            let mut caps: Vec<Value> = rule
                .caps
                .iter()
                .map(
                    |grant| serde_json::json!({ "cap": grant.cap, "dst": grant.dst, "values": grant.values }),
                )
                .collect();
            caps.sort_by_key(|grant| grant["cap"].to_string());
            let dsts: Vec<Value> = rule
                .dsts
                .iter()
                .map(|dst| serde_json::json!({ "net": dst.net, "first": dst.first, "last": dst.last }))
                .collect();
            let ours = serde_json::json!({
                "protos": rule.protocols, "srcs": rule.srcs, "src_caps": rule.src_caps, "dsts": dsts, "caps": caps,
            });
            assert_eq!(&ours, wanted, "{}", case["name"]);
        }
    }
}

/// The map sequences of the reference say how many of the netmap's rules are in force after each response.
#[test]
fn rules_of_netmaps_count_as_in_the_reference() {
    let mut counted = 0;
    for file in ["netmap/hand-picked.json", "netmap/random.json"] {
        for case in json(file)["cases"].as_array().unwrap() {
            let (mut rules, mut wanted) = (Value::Null, Value::Null);
            for step in case["steps"].as_array().unwrap() {
                let changed = &step["changed"];
                rules = changed.get("packet_filter_rules").cloned().unwrap_or(rules);
                wanted = changed.get("packet_filter_matches").cloned().unwrap_or(wanted);
                let rules: Vec<FilterRule> = Option::deserialize(&rules).unwrap().unwrap_or_default();
                assert_eq!(parse_rules(&rules).matches.len(), wanted, "{}", case["name"]);
                counted += 1;
            }
        }
    }
    assert!(counted > 500);
}

#[test]
fn capabilities_agree_with_the_reference() {
    for case in json("filter/capabilities.json")["cases"].as_array().unwrap() {
        let rules: Vec<FilterRule> = serde_json::from_value(case["rules"].clone()).unwrap();
        let filter = Filter::new(&parse_rules(&rules).matches, LocalNets::default(), &|_| Vec::new());
        for lookup in case["lookups"].as_array().unwrap() {
            let address = |key: &str| lookup[key].as_str().unwrap().parse().unwrap();
            let found = filter.capabilities().lookup(address("src"), address("dst"));
            assert_eq!(serde_json::to_value(found).unwrap(), lookup["caps"], "{} {lookup}", case["name"]);
        }
    }
}

#[test]
fn unsigned_peers_close_the_filter_as_in_the_reference() {
    for case in json("filter/unsigned-peers.json")["cases"].as_array().unwrap() {
        let rules: Option<Vec<FilterRule>> = serde_json::from_value(case["rules"].clone()).unwrap();
        let matches = parse_rules(&rules.unwrap_or_default()).matches;
        let unsigned =
            case["peers"].as_array().unwrap().iter().filter(|peer| peer["unsigned_peerapi_only"] == true);
        let prefixes: Vec<IpNet> = unsigned
            .flat_map(|peer| peer["allowed_ips"].as_array().into_iter().flatten())
            .map(|prefix| prefix.as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(admits_any_of(&matches, &prefixes), case["block_all"], "{}", case["name"]);
    }
}

#[test]
fn a_default_route_is_shrunk_as_in_the_reference() {
    for case in json("filter/shrink-default-route.json")["cases"].as_array().unwrap() {
        if case["route"] != "0.0.0.0/0" {
            continue;
        }
        let list = |key: &str| case[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
        let prefixes: Vec<Ipv4Net> =
            list("local_interface_prefixes").filter_map(|text| text.parse().ok()).collect();
        let addresses: Vec<Ipv4Addr> = list("host_ips").filter_map(|text| text.parse().ok()).collect();
        let shrunk = shrunk_default_route(&prefixes, &addresses);
        let shown = shrunk
            .ranges()
            .iter()
            .map(|range| format!("{}-{}", Ipv4Addr::from(range.first), Ipv4Addr::from(range.last)));
        assert_eq!(shown.collect::<Vec<_>>(), list("ranges").collect::<Vec<_>>(), "{}", case["name"]);
    }
}

/// A UDP packet.
fn udp(src: [u8; 4], dst: [u8; 4], dst_port: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&src);
    packet.extend_from_slice(&dst);
    packet.extend_from_slice(&[0x10, 0]);
    packet.extend_from_slice(&dst_port.to_be_bytes());
    packet.extend_from_slice(&[0, 8, 0, 0]);
    packet
}

fn check(filter: &Filter, packet: &[u8]) -> Result<(), DropReason> {
    filter.check_in(&parse(packet), packet.len(), &mut FlowTable::default().batch())
}

#[test]
fn a_filter_without_netmap_lets_nothing_in_and_says_what_refused() {
    let packet = udp([100, 64, 0, 1], [100, 64, 0, 10], 53);
    assert_eq!(check(&Filter::closed(), &packet), Err(DropReason::NotLocal));
    let local = || LocalNets::new(["100.64.0.10/32".parse().unwrap()]);
    assert_eq!(check(&Filter::shielded(local()), &packet), Err(DropReason::ShieldsUp));
    assert_eq!(check(&Filter::new(&[], local(), &|_| Vec::new()), &packet), Err(DropReason::Acl));
}

#[test]
fn many_sources_are_told_apart_at_their_borders() {
    let rules: Vec<FilterRule> = (0..2000u16)
        .map(|index| FilterRule {
            src_ips: vec![format!("100.{}.{}.0/25", 64 + index / 256, index % 256)],
            dst_ports: vec![NetPortRange {
                ip: "*".into(),
                ports: PortRange { first: index, last: index },
                ..Default::default()
            }],
            ..Default::default()
        })
        .collect();
    let local = LocalNets::new(["10.0.0.1/32".parse().unwrap()]);
    let filter = Filter::new(&parse_rules(&rules).matches, local, &|_| Vec::new());
    for index in [0u16, 1, 255, 256, 1999] {
        let [high, low] = [u8::try_from(64 + index / 256).unwrap(), u8::try_from(index % 256).unwrap()];
        let from = |last| udp([100, high, low, last], [10, 0, 0, 1], index);
        assert_eq!(check(&filter, &from(0)), Ok(()), "{index}");
        assert_eq!(check(&filter, &from(127)), Ok(()), "{index}");
        assert_eq!(check(&filter, &from(128)), Err(DropReason::Acl), "{index}");
        assert_eq!(check(&filter, &udp([100, high, low, 1], [10, 0, 0, 1], index + 1)), Err(DropReason::Acl));
    }
}

/// Each range begins inside all before it and ends after them, so that an index would need every pair of them.
#[test]
fn rules_whose_sources_overlap_beyond_measure_still_decide() {
    let port = |index: u32| u16::try_from(index).unwrap();
    let rules: Vec<FilterRule> = (0..4000u32)
        .map(|index| FilterRule {
            src_ips: vec![format!(
                "{}-{}",
                Ipv4Addr::from(0x6440_0000 + index),
                Ipv4Addr::from(0x6450_0000 + index)
            )],
            dst_ports: vec![NetPortRange {
                ip: "*".into(),
                ports: PortRange { first: port(index), last: port(index) },
                ..Default::default()
            }],
            ..Default::default()
        })
        .collect();
    let local = LocalNets::new(["10.0.0.1/32".parse().unwrap()]);
    let filter = Filter::new(&parse_rules(&rules).matches, local, &|_| Vec::new());
    for index in [0u32, 1, 2000, 3999] {
        let from = |address: u32| udp(address.to_be_bytes(), [10, 0, 0, 1], port(index));
        assert_eq!(check(&filter, &from(0x6440_0000 + index)), Ok(()));
        assert_eq!(check(&filter, &from(0x6450_0000 + index)), Ok(()));
        assert_eq!(check(&filter, &from(0x6440_0000 + index - 1)), Err(DropReason::Acl));
        assert_eq!(check(&filter, &from(0x6450_0000 + index + 1)), Err(DropReason::Acl));
    }
}

#[test]
fn ranges_reach_to_the_last_address() {
    let all: RangeSet = std::iter::once(V4Range { first: 0, last: u32::MAX }).collect();
    assert!(all.contains(Ipv4Addr::BROADCAST) && all.contains(Ipv4Addr::UNSPECIFIED));
    assert_eq!(all.without(&all), RangeSet::default());
    let rule = FilterRule {
        src_ips: vec!["255.255.255.0-255.255.255.255".into()],
        dst_ports: vec![NetPortRange { ip: "*".into(), ..Default::default() }],
        ..Default::default()
    };
    let local = LocalNets::new(["10.0.0.1/32".parse().unwrap()]);
    let filter = Filter::new(&parse_rules(&[rule]).matches, local, &|_| Vec::new());
    assert_eq!(check(&filter, &udp([255, 255, 255, 255], [10, 0, 0, 1], 0)), Ok(()));
    assert_eq!(check(&filter, &udp([255, 255, 254, 255], [10, 0, 0, 1], 0)), Err(DropReason::Acl));
}

#[test]
fn too_many_rules_leave_a_filter_that_admits_nothing() {
    let rules = vec![FilterRule { src_ips: vec!["*".into()], ..Default::default() }; MAX_RULES + 1];
    assert_eq!(parse_rules(&rules), ParsedRules::default());
}

#[test]
fn mutated_rule_documents_do_not_panic() {
    let text = serde_json::to_string(&json("filter/rule-parse.json")["cases"][30]["rules"]).unwrap();
    for at in 0..text.len() {
        for byte in [b'0', b'"', b'-', b'/', b'{', 0xff] {
            let mut mutated = text.clone().into_bytes();
            mutated[at] = byte;
            if let Ok(rules) = serde_json::from_slice::<Vec<FilterRule>>(&mutated) {
                let _ = Filter::new(&parse_rules(&rules).matches, LocalNets::default(), &|_| Vec::new());
            }
        }
    }
}
