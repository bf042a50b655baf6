use std::net::IpAddr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};
use tsrs_base_types::{NodeId, NodePublic};
use tsrs_control_netmap::{Netmap, Session};
use tsrs_control_tailcfg::MapResponse;
use tsrs_platform_api::SERVICE_ADDRESS;
use tsrs_tunnel_dataplane::{Change, PeerConfig};
use tsrs_tunnel_dns::Name;

use super::*;

fn node(value: Value) -> Node {
    let mut full = json!({
        "ID": 2, "Name": "beta.lab.test.", "Key": NodePublic::from_bytes([2; 32]), "HomeDERP": 1,
        "Addresses": ["100.64.0.2/32", "fd7a:115c:a1e0::2/128"],
    });
    full.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    serde_json::from_value(full).unwrap()
}

fn netmap(dns: Value) -> std::sync::Arc<Netmap> {
    let frame = json!({"Node": {"ID": 1, "Name": "alpha.lab.test.", "Key": NodePublic::from_bytes([1; 32]),
        "Addresses": ["100.64.0.1/32"]}, "DNSConfig": dns});
    let response: MapResponse = serde_json::from_value(frame).unwrap();
    Session::new().handle(response, jiff::Timestamp::UNIX_EPOCH).unwrap().netmap.unwrap()
}

fn allowed(node: &Node, accept_routes: bool) -> Vec<String> {
    let config = peer_config(node, PeerRules { accept_routes }).unwrap();
    config.allowed_ips.iter().map(ToString::to_string).collect()
}

#[test]
fn a_peer_keeps_its_addresses_and_gets_subnets_only_when_accepted() {
    let peer = node(json!({"AllowedIPs":
        ["100.64.0.2/32", "fd7a:115c:a1e0::2/128", "10.7.0.0/16", "0.0.0.0/0", "::/0", "100.99.1.2/32", "192.0.2.1/32"]}));
    assert_eq!(allowed(&peer, false), ["100.64.0.2/32", "100.99.1.2/32"]);
    assert_eq!(allowed(&peer, true), ["10.7.0.0/16", "100.64.0.2/32", "100.99.1.2/32", "192.0.2.1/32"]);
    assert_eq!(allowed(&node(json!({})), false), ["100.64.0.2/32"], "absent means its own addresses");
}

#[test]
fn who_cannot_be_reached_is_no_peer() {
    let rules = PeerRules::default();
    for (value, there) in [
        (json!({}), true),
        (json!({"HomeDERP": 0}), false),
        (json!({"HomeDERP": 0, "DiscoKey": format!("discokey:{:064x}", 7)}), true),
        (json!({"HomeDERP": 0, "IsWireGuardOnly": true}), true),
        (json!({"Expired": true}), false),
        (json!({"Key": NodePublic::default()}), false),
    ] {
        assert_eq!(peer_config(&node(value.clone()), rules).is_some(), there, "{value}");
    }
}

#[test]
fn cheap_changes_travel_as_patches() {
    let base = peer_config(&node(json!({})), PeerRules::default()).unwrap();
    assert_eq!(peer_difference(Some(&base), Some(&base)), []);
    let moved =
        PeerConfig { home_derp: None, endpoints: vec!["192.0.2.1:1".parse().unwrap()], ..base.clone() };
    let [Change::Patch(key, patch)] = &peer_difference(Some(&base), Some(&moved))[..] else { panic!() };
    assert_eq!(
        (*key, patch.home_derp, patch.endpoints.as_ref().map(Vec::len)),
        (base.key, Some(RegionZero), Some(1))
    );
    let routed = PeerConfig { allowed_ips: Vec::new(), ..base.clone() };
    assert!(matches!(peer_difference(Some(&base), Some(&routed))[..], [Change::Upsert(_)]));
    let mute = PeerConfig { disco_key: None, ..base.clone() };
    let speaking =
        PeerConfig { disco_key: Some(tsrs_base_types::DiscoPublic::from_bytes([7; 32])), ..base.clone() };
    assert!(matches!(peer_difference(Some(&mute), Some(&speaking))[..], [Change::Patch(..)]));
    assert!(matches!(peer_difference(Some(&speaking), Some(&mute))[..], [Change::Upsert(_)]));
    let rekeyed = PeerConfig { key: NodePublic::from_bytes([9; 32]), ..base.clone() };
    assert!(matches!(
        peer_difference(Some(&base), Some(&rekeyed))[..],
        [Change::Remove(_), Change::Upsert(_)]
    ));
}

#[expect(non_upper_case_globals, reason = "reads as the value it stands for")]
const RegionZero: tsrs_base_types::RegionId = tsrs_base_types::RegionId(0);

fn peer_with(prefixes: &[Ipv4Net]) -> PeerConfig {
    PeerConfig { allowed_ips: prefixes.to_vec(), ..PeerConfig::new(NodePublic::from_bytes([1; 32])) }
}

#[test]
fn routes_are_counted_so_that_one_of_two_routers_may_go() {
    let mut table = RouteTable::default();
    let shared = peer_with(&["10.0.0.0/8".parse().unwrap()]);
    table.add(&shared);
    assert!(table.take_changed());
    table.add(&shared);
    assert!(!table.take_changed());
    table.remove(&shared);
    assert!(!table.take_changed());
    assert_eq!(table.routes(None).len(), 1);
    table.remove(&shared);
    assert!(table.take_changed() && table.routes(None).is_empty());
    table.remove(&shared);
    assert!(table.routes(None).is_empty());
}

#[test]
fn many_peers_share_one_route_and_then_change_nothing() {
    let mut table = RouteTable::default();
    let host = |n: u32| Ipv4Net::new_assert((0x6440_0000 + n).into(), 32);
    for n in 0..10_001 {
        table.add(&peer_with(&[host(n)]));
    }
    table.add(&peer_with(&["10.0.0.0/8".parse().unwrap()]));
    let routes: Vec<String> = table.routes(None).iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.0.0.0/8", "100.64.0.0/10"]);
    table.take_changed();
    table.add(&peer_with(&[host(20_000)]));
    table.remove(&peer_with(&[host(20_000)]));
    assert!(!table.take_changed());
    table.remove(&peer_with(&[host(0)]));
    assert!(table.take_changed(), "from here on they are listed again");
    assert_eq!(table.routes(None).len(), 10_001);
    assert_eq!(table.routes(Some(true)).len(), 2);
}

fn dns(wire: Value, accept: bool, can_split: bool) -> DnsWanted {
    let base = DnsBase { can_split, nameservers: vec!["192.0.2.53:53".parse().unwrap()] };
    DnsWanted::new(&netmap(wire), accept, false, &base)
}

fn choose<'a>(wanted: &'a DnsWanted, name: &str) -> Vec<&'a tsrs_tunnel_dns::Upstream> {
    wanted.resolver.routes.choose(&Name::parse(name).unwrap()).iter().collect()
}

#[test]
fn magic_names_are_split_where_the_host_can_split() {
    let wire =
        json!({"Proxied": true, "Domains": ["lab.test"], "Routes": {"corp.test": [{"Addr": "10.0.0.53"}]}});
    let split = dns(wire.clone(), true, true);
    assert_eq!(split.os.nameservers, [IpAddr::V4(SERVICE_ADDRESS)]);
    assert!(!split.os.default_route);
    let domains: Vec<&str> = split.os.match_domains.iter().map(|domain| domain.as_str()).collect();
    assert!(
        domains.contains(&"lab.test")
            && domains.contains(&"corp.test")
            && domains.contains(&"100.100.in-addr.arpa")
    );
    assert_eq!(choose(&split, "x.corp.test").len(), 1);
    assert!(choose(&split, "example.com").is_empty());

    let whole = dns(wire.clone(), true, false);
    assert!(whole.os.default_route);
    assert_eq!(choose(&whole, "example.com").len(), 1, "the rest goes to the host's own servers");

    let declined = dns(wire, false, true);
    assert!(declined.os.is_empty());
    assert!(declined.resolver.local_domains.contains(&Name::parse("lab.test").unwrap()));
}

#[test]
fn global_resolvers_take_everything() {
    let wire = json!({"Proxied": true, "Domains": ["lab.test"], "Resolvers": [{"Addr": "9.9.9.9"}, {"Addr": "bogus"}]});
    let wanted = dns(wire, true, true);
    assert!(wanted.os.default_route);
    assert_eq!(wanted.os.nameservers, [IpAddr::V4(SERVICE_ADDRESS)]);
    assert_eq!(choose(&wanted, "example.com").len(), 1);
    let direct = dns(json!({"Resolvers": [{"Addr": "9.9.9.9"}]}), true, true);
    assert_eq!(direct.os.nameservers, ["9.9.9.9".parse::<IpAddr>().unwrap()]);
    assert!(dns(json!({}), true, true).os.is_empty());
}

#[test]
fn an_expired_key_leaves_no_names() {
    let netmap = netmap(json!({"Proxied": true, "Domains": ["lab.test"]}));
    assert_eq!(DnsWanted::new(&netmap, true, true, &DnsBase::default()), DnsWanted::default());
}

#[test]
fn domains_that_are_none_are_left_out() {
    let wire = json!({"Proxied": true, "Domains": ["lab.test", "a b", "x\nnameserver 9.9.9.9"],
        "Routes": {"bad name": [{"Addr": "10.0.0.53"}], "ok.test": []}});
    let wanted = dns(wire, true, true);
    assert_eq!(wanted.os.search_domains.len(), 1);
    assert!(wanted.os.match_domains.iter().all(|domain| !domain.as_str().contains(['\n', ' '])));
}

#[test]
fn host_names_follow_their_nodes() {
    let mut table = HostTable::default();
    let mut changes = Vec::new();
    let beta = host_entry(&node(json!({})), false).unwrap();
    assert_eq!(beta.addresses, ["100.64.0.2".parse::<IpAddr>().unwrap()]);
    assert_eq!(host_entry(&node(json!({})), true).unwrap().addresses.len(), 2);
    assert_eq!(host_entry(&node(json!({"Name": ""})), false), None);
    table.set(NodeId(2), Some(beta.clone()), &mut changes);
    table.set(NodeId(2), Some(beta.clone()), &mut changes);
    assert_eq!(changes, [HostChange::Set(beta.clone())]);
    changes.clear();
    // A rename takes the old name away and gives the new one.
    let gamma = HostEntry { name: Name::parse("gamma.lab.test").unwrap(), ..beta.clone() };
    table.set(NodeId(2), Some(gamma.clone()), &mut changes);
    assert_eq!(changes, [HostChange::Remove(beta.name), HostChange::Set(gamma.clone())]);
    changes.clear();
    // A name that moved to another node is not taken away with the first.
    table.set(NodeId(3), Some(gamma.clone()), &mut changes);
    changes.clear();
    table.set(NodeId(2), None, &mut changes);
    assert_eq!(changes, []);
    table.set(NodeId(3), None, &mut changes);
    assert_eq!(changes, [HostChange::Remove(gamma.name)]);
}

#[test]
fn records_of_control_are_added_and_taken_away() {
    let mut table = HostTable::default();
    let records = netmap(json!({"ExtraRecords": [
        {"Name": "db.lab.test", "Value": "10.0.0.5"}, {"Name": "db.lab.test", "Type": "AAAA", "Value": "fd00::5"},
        {"Name": "t.lab.test", "Type": "TXT", "Value": "x"}, {"Name": "bad.lab.test", "Value": "nope"}]}));
    let mut changes = Vec::new();
    table.set_records(records.dns(), &mut changes);
    let [HostChange::Set(entry)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(entry.addresses.len(), 2);
    changes.clear();
    table.set_records(records.dns(), &mut changes);
    assert_eq!(changes, []);
    table.set_records(netmap(json!({})).dns(), &mut changes);
    assert_eq!(changes.len(), 1);
}

#[test]
fn the_host_is_described_truthfully_and_in_order() {
    let facts = HostFacts {
        hostname: "alpha".into(),
        os: "linux".into(),
        version: "0.1.0".into(),
        ..HostFacts::default()
    };
    let prefs = tsrs_agent_localapi::Prefs {
        advertise_tags: Some(vec!["tag:b".into(), "tag:a".into(), "tag:b".into()]),
        ..crate::prefs::defaults()
    };
    let subnets = ["10.9.0.0/24".parse().unwrap(), "10.1.0.0/24".parse().unwrap()];
    let info = hostinfo(&facts, &prefs, &subnets);
    assert_eq!(info.request_tags, ["tag:a", "tag:b"]);
    assert_eq!(info.routable_ips.len(), 2);
    assert_eq!(info.routable_ips[0].to_string(), "10.1.0.0/24");
    assert_eq!((info.hostname.as_str(), info.no_logs_no_support, info.app_connector), ("alpha", true, None));
    let named = tsrs_agent_localapi::Prefs { hostname: "other".into(), ..prefs };
    assert_eq!(hostinfo(&facts, &named, &[]).hostname, "other");
}
