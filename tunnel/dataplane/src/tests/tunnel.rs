//! Packets from one host to the other.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tsrs_base_types::{NodeId, NodePrivate};
use tsrs_tunnel_filter::{Filter, FilterRule, LocalNets, parse_rules};
use tsrs_tunnel_packet::ipv4::{self, protocol};
use tsrs_tunnel_packet::{DropReason, tsmp};
use tsrs_tunnel_path::Source;

use super::pair::{Pair, Seeded, ip, udp};
use crate::notice::MAX_HANDSHAKES;
use crate::policy::Filters;
use crate::{Change, Event, PeerConfig, PeerPatch, Policy, TunnelConfig};

#[test]
fn first_packets_wait_for_the_handshake_and_arrive_in_order() {
    let mut pair = Pair::with_static_paths();
    let packets: Vec<_> = (0..5).map(|number| pair.datagram(0, &format!("early {number}"))).collect();
    pair.send(0, &packets);
    assert_eq!(pair.take_texts(1), ["early 0", "early 1", "early 2", "early 3", "early 4"]);
    assert!(pair.nodes[0].events.contains(&Event::SessionBegun(pair.nodes[1].key)));
    assert!(pair.nodes[1].events.contains(&Event::SessionBegun(pair.nodes[0].key)));
}

#[test]
fn batches_flow_both_ways_without_the_machine() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.take_texts(1);
    for from in [0, 1] {
        let packets: Vec<_> = (0..100).map(|number| pair.datagram(from, &format!("{number:03}"))).collect();
        let flying = pair.collect(from, &packets);
        assert_eq!(flying.len(), 100);
        pair.carry(flying);
        let expected: Vec<_> = (0..100).map(|number| format!("{number:03}")).collect();
        assert_eq!(pair.take_texts(1 - from), expected);
    }
}

#[test]
fn run_of_datagrams_is_opened_at_once_and_its_short_tail_is_dropped() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.take_texts(1);
    let packets: Vec<_> = (0..10).map(|number| pair.datagram(0, &format!("{number}"))).collect();
    let flying = pair.collect(0, &packets);
    let stride = flying[0].bytes.len();
    let mut bytes: Vec<u8> = flying.iter().flat_map(|datagram| datagram.bytes.clone()).collect();
    bytes.push(0x07);
    let source = Source::Udp(pair.nodes[0].underlay);
    let now = pair.now;
    pair.nodes[1].receive_run(source, &bytes, stride, now);
    assert_eq!(pair.take_texts(1).len(), 10);
    assert_eq!(pair.nodes[1].dropped_in(DropReason::BadMessage), 0);
}

#[test]
fn replayed_and_damaged_datagrams_are_dropped_and_counted() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.take_texts(1);
    let flying = pair.collect(0, &[pair.datagram(0, "once")]);
    let mut damaged = flying.clone();
    *damaged[0].bytes.last_mut().unwrap() ^= 1;
    let mut foreign = flying.clone();
    foreign[0].bytes[4] ^= 1;
    pair.carry(damaged);
    pair.carry(foreign);
    pair.carry(flying.clone());
    pair.carry(flying);
    assert_eq!(pair.take_texts(1), ["once"]);
    let receiver = &pair.nodes[1];
    assert_eq!(receiver.dropped_in(DropReason::Unauthenticated), 1);
    assert_eq!(receiver.dropped_in(DropReason::UnknownIndex), 1);
    assert_eq!(receiver.dropped_in(DropReason::Replay), 1);
}

#[test]
fn peer_cannot_send_from_an_address_that_is_not_its_own() {
    let mut pair = Pair::with_static_paths();
    let stranger = Ipv4Addr::new(100, 64, 0, 99);
    let to = pair.nodes[1].tailnet;
    pair.send(0, &[udp(stranger, to, b"forged"), pair.datagram(0, "honest")]);
    assert_eq!(pair.take_texts(1), ["honest"]);
    assert_eq!(pair.nodes[1].dropped_in(DropReason::ForeignSource), 1);
}

#[test]
fn packets_that_are_no_ipv4_never_reach_the_tunnel_or_the_host() {
    let mut pair = Pair::with_static_paths();
    let mut v6 = vec![0; 60];
    v6[0] = 0x60;
    let (from, to) = (pair.nodes[0].tailnet, pair.nodes[1].tailnet);
    let mut short = udp(from, to, b"x");
    short.truncate(24);
    pair.send(0, &[v6, vec![0x45; 3], short]);
    assert!(pair.nodes[1].host.is_empty());
    let sender = &pair.nodes[0];
    assert_eq!(sender.dropped_out(DropReason::NotIpv4), 1);
    assert_eq!(sender.dropped_out(DropReason::TooShort), 1);
    assert_eq!(sender.dropped_out(DropReason::Malformed), 1);
}

#[test]
fn host_is_told_when_nobody_has_the_destination() {
    let mut pair = Pair::with_static_paths();
    let own = pair.nodes[0].tailnet;
    pair.send(0, &[udp(own, Ipv4Addr::new(100, 64, 0, 77), b"anybody?")]);
    let answer = ipv4::parse(&pair.nodes[0].host[0]);
    assert!(answer.is_icmp_error());
    assert_eq!((answer.src, answer.dst), (own, own));
    assert_eq!(pair.nodes[0].dropped_out(DropReason::NoPeer), 1);
}

#[test]
fn answers_to_the_host_have_a_limit() {
    let mut pair = Pair::with_static_paths();
    let own = pair.nodes[0].tailnet;
    let packets = vec![udp(own, Ipv4Addr::new(100, 64, 0, 77), b"scan"); 500];
    pair.send(0, &packets);
    assert!((10..=100).contains(&pair.nodes[0].host.len()));
    assert_eq!(pair.nodes[0].dropped_out(DropReason::NoPeer), 500);
}

#[test]
fn larger_packet_than_the_mtu_is_refused_with_the_mtu() {
    let mut pair = Pair::with_static_paths();
    let packet = udp(pair.nodes[0].tailnet, pair.nodes[1].tailnet, &[0; 1253]);
    assert_eq!(packet.len(), 1281);
    pair.send(0, &[packet]);
    let answer = &pair.nodes[0].host[0];
    assert_eq!((answer[20], answer[21]), (3, 4));
    assert_eq!(u16::from_be_bytes([answer[26], answer[27]]), 1280);
    assert!(pair.nodes[1].host.is_empty());
}

#[test]
fn removed_peer_neither_sends_nor_receives() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "before")]);
    pair.take_texts(1);
    let to_removed = pair.collect(1, &[pair.datagram(1, "late")]);
    let from_removed = pair.collect(0, &[pair.datagram(0, "late")]);
    let (now, key) = (pair.now, pair.nodes[0].key);
    pair.nodes[1].plane.apply(vec![Change::Remove(key)], now);
    pair.settle();
    pair.carry(from_removed);
    assert!(pair.nodes[1].host.is_empty());
    assert_eq!(pair.nodes[1].dropped_in(DropReason::UnknownIndex), 1);
    pair.send(1, &[pair.datagram(1, "to nobody")]);
    assert_eq!(pair.nodes[1].dropped_out(DropReason::NoPeer), 1);
    // What had left before still arrives: the other side knows nothing of it.
    pair.nodes[0].host.clear();
    pair.carry(to_removed);
    assert_eq!(pair.take_texts(0), ["late"]);
    // Its handshakes are not answered either.
    pair.advance(Duration::from_secs(200));
    pair.nodes[1].events.clear();
    pair.send(0, &[pair.datagram(0, "again")]);
    assert!(pair.nodes[1].events.is_empty());
    assert!(pair.nodes[1].dropped_in(DropReason::UnknownPeer) > 0);
}

#[test]
fn peer_with_a_new_key_is_another_peer() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "old key")]);
    pair.take_texts(1);
    let now = pair.now;
    let old = pair.nodes[1].key;
    let fresh = NodePrivate::generate(&mut Seeded(77));
    let config = PeerConfig { key: fresh.public(), ..pair.nodes[1].as_static_peer() };
    pair.nodes[1].key = fresh.public();
    pair.nodes[1].plane.set_node_key(fresh, now);
    pair.nodes[0].plane.apply(vec![Change::Upsert(Box::new(config)), Change::Remove(old)], now);
    pair.settle();
    pair.send(0, &[pair.datagram(0, "new key")]);
    pair.send(1, &[pair.datagram(1, "answer")]);
    assert_eq!(pair.take_texts(1), ["new key"]);
    assert_eq!(pair.take_texts(0), ["answer"]);
}

#[test]
fn restarted_peer_is_greeted_anew_after_its_disco_key_changed() {
    let mut pair = Pair::with_static_paths();
    pair.introduce(super::pair::Node::as_relayed_peer);
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.nodes[0].events.clear();
    let (now, key) = (pair.now, pair.nodes[1].key);
    let patch = |byte| PeerPatch {
        disco_key: Some(tsrs_base_types::DiscoPublic::from_bytes([byte; 32])),
        ..PeerPatch::default()
    };
    pair.nodes[0].plane.apply(vec![Change::Patch(key, patch(9))], now);
    pair.settle();
    assert!(pair.nodes[0].events.contains(&Event::SessionEnded(key)));
    pair.nodes[0].events.clear();
    pair.nodes[0].plane.apply(vec![Change::Patch(key, patch(9))], now);
    pair.settle();
    assert!(!pair.nodes[0].events.contains(&Event::SessionEnded(key)));
}

#[test]
fn repeated_upsert_keeps_the_session() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.nodes[0].events.clear();
    let config = pair.nodes[1].as_static_peer();
    let now = pair.now;
    pair.nodes[0].upsert(config, now);
    pair.settle();
    assert!(pair.nodes[0].events.is_empty());
    assert_eq!(pair.collect(0, &[pair.datagram(0, "same session")]).len(), 1);
}

#[test]
fn long_transfer_goes_on_across_rekeys() {
    let mut pair = Pair::with_static_paths();
    for second in 0..400 {
        pair.send(second % 2, &[pair.datagram(second % 2, &format!("{second}"))]);
        pair.advance(Duration::from_secs(1));
        assert_eq!(pair.take_texts(1 - second % 2), [format!("{second}")]);
    }
    let sessions = |node: usize| {
        let begun = |event: &&Event| matches!(event, Event::SessionBegun(_));
        pair.nodes[node].events.iter().filter(begun).count()
    };
    assert!((4..=5).contains(&sessions(0)), "{}", sessions(0));
}

#[test]
fn idle_tunnel_waits_for_nothing_in_the_end() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.advance(Duration::from_secs(1200));
    let (sent, relayed) = (pair.udp_count, pair.relay_count);
    pair.advance(Duration::from_secs(3600));
    assert_eq!((pair.udp_count, pair.relay_count), (sent, relayed));
    assert_eq!(pair.nodes[0].plane.poll_timeout(), None);
    assert_eq!(pair.nodes[1].plane.poll_timeout(), None);
}

#[test]
fn expired_peer_gets_nothing_and_the_host_is_told() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.take_texts(1);
    let (now, key) = (pair.now, pair.nodes[1].key);
    let patch = PeerPatch { expired: Some(true), ..PeerPatch::default() };
    pair.nodes[0].plane.apply(vec![Change::Patch(key, patch)], now);
    pair.send(0, &[pair.datagram(0, "too late")]);
    assert!(pair.take_texts(1).is_empty());
    assert!(ipv4::parse(&pair.nodes[0].host[0]).is_icmp_error());
    assert_eq!(pair.nodes[0].dropped_out(DropReason::PeerExpired), 1);
}

#[test]
fn closed_policy_lets_nothing_pass() {
    let mut pair = Pair::with_static_paths();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.take_texts(1);
    pair.nodes[1].plane.set_policy(Policy::Closed);
    pair.send(0, &[pair.datagram(0, "in")]);
    pair.send(1, &[pair.datagram(1, "out")]);
    assert!(pair.take_texts(1).is_empty() && pair.take_texts(0).is_empty());
    assert_eq!(pair.nodes[1].dropped_in(DropReason::NoFilter), 1);
    assert_eq!(pair.nodes[1].dropped_out(DropReason::NoFilter), 1);
}

#[test]
fn filter_lets_in_what_a_rule_allows_and_replies_to_what_went_out() {
    let mut pair = Pair::with_static_paths();
    let own = pair.nodes[1].tailnet;
    let local = LocalNets::new([ipnet::Ipv4Net::from(own)]);
    let rule: FilterRule = serde_json::from_str(&format!(
        r#"{{"SrcIPs":["{}"],"DstPorts":[{{"IP":"*","Ports":{{"First":1025,"Last":1025}}}}]}}"#,
        pair.nodes[0].tailnet
    ))
    .unwrap();
    let rules = parse_rules(&[rule]);
    let filters = |shields_up| Filters {
        normal: Filter::new(&rules.matches, local.clone(), &|_| Vec::new()),
        shields_up,
        jailed: Filter::shielded(local.clone()),
    };
    pair.nodes[1].plane.set_policy(Policy::Filtered(Arc::new(filters(false))));
    // The packets of this bench go from port 1024 to port 1025.
    let allowed = pair.datagram(0, "allowed");
    let mut denied = pair.datagram(0, "denied");
    denied[20..24].copy_from_slice(&[0x04, 0x01, 0x04, 0x00]);
    pair.send(0, &[allowed.clone(), denied.clone()]);
    assert_eq!(pair.take_texts(1), ["allowed"]);
    assert_eq!(pair.nodes[1].dropped_in(DropReason::Acl), 1);
    // The same packet is a reply once the flow has gone out.
    pair.send(1, &[pair.datagram(1, "question")]);
    pair.send(0, &[denied.clone()]);
    assert_eq!(pair.take_texts(1), ["denied"]);
    // A jailed peer shares neither rules nor flows.
    let jailed = PeerConfig { jailed: true, ..pair.nodes[0].as_static_peer() };
    let now = pair.now;
    pair.nodes[1].upsert(jailed, now);
    pair.send(0, &[allowed, denied.clone()]);
    assert!(pair.take_texts(1).is_empty());
    pair.send(1, &[pair.datagram(1, "question")]);
    pair.send(0, &[denied]);
    assert_eq!(pair.take_texts(1), ["denied"]);
}

#[test]
fn connection_to_the_peerapi_passes_and_a_refused_one_is_answered() {
    let mut pair = Pair::with_static_paths();
    pair.nodes[1].plane.set_policy(Policy::Closed);
    let config = TunnelConfig {
        addresses: vec![pair.nodes[1].tailnet],
        peerapi_port: 41234,
        ..TunnelConfig::default()
    };
    pair.nodes[1].plane.set_config(config);
    let syn = |pair: &Pair, port: u16| {
        let mut tcp = [0; 20];
        tcp[2..4].copy_from_slice(&port.to_be_bytes());
        tcp[12] = 0x50;
        tcp[13] = 0x02;
        ip(pair.nodes[0].tailnet, pair.nodes[1].tailnet, protocol::TCP, &tcp)
    };
    pair.send(0, &[syn(&pair, 41234), syn(&pair, 22)]);
    assert_eq!(pair.nodes[1].host.len(), 1);
    assert_eq!(ipv4::parse(&pair.nodes[1].host[0]).dst_port, 41234);
    let mut rejected = None;
    for event in &pair.nodes[0].events {
        if let Event::Rejected { dst, reject, .. } = event {
            rejected = Some((*dst, reject.dst_port, reject.reason));
        }
    }
    assert_eq!(rejected, Some((pair.nodes[1].tailnet, 22, tsmp::RejectReason::Acl)));
}

#[test]
fn tsmp_is_answered_and_never_reaches_a_host() {
    let mut pair = Pair::with_static_paths();
    let config = TunnelConfig {
        addresses: vec![pair.nodes[1].tailnet],
        peerapi_port: 4242,
        ..TunnelConfig::default()
    };
    pair.nodes[1].plane.set_config(config);
    let (now, key) = (pair.now, pair.nodes[1].key);
    pair.nodes[0].plane.send_tsmp_ping(&key, *b"12345678", now).unwrap();
    pair.settle();
    let pong = Event::TsmpPong { peer: key, data: *b"12345678", peerapi_port: 4242 };
    assert!(pair.nodes[0].events.contains(&pong));
    // One from the host is an imitation; one of an unknown type is dropped after it was read.
    let (a, b) = (pair.nodes[0].tailnet, pair.nodes[1].tailnet);
    pair.send(0, &[ip(a, b, protocol::TSMP, b"p12345678")]);
    assert_eq!(pair.nodes[0].dropped_out(DropReason::TsmpFromHost), 1);
    pair.nodes[0].plane.send_to_peer(&key, &ip(a, b, protocol::TSMP, b"?unknown"), now).unwrap();
    pair.settle();
    assert!(pair.nodes[0].host.is_empty() && pair.nodes[1].host.is_empty());
}

#[test]
fn disco_key_inside_the_tunnel_is_learned_without_a_new_session() {
    let mut pair = Pair::with_static_paths();
    pair.introduce(super::pair::Node::as_relayed_peer);
    pair.nodes.iter_mut().for_each(|node| node.events.clear());
    let (now, keys) = (pair.now, [pair.nodes[0].key, pair.nodes[1].key]);
    let (a, b) = (pair.nodes[0].tailnet, pair.nodes[1].tailnet);
    // Over static paths, since only the message counts here.
    pair.introduce(|node| PeerConfig { home_derp: None, disco_key: None, ..node.as_static_peer() });
    pair.nodes[0].plane.send_to_peer(&keys[1], &pair.datagram(0, "hello"), now).unwrap();
    pair.settle();
    let told = [&b"a"[..], &[7; 32]].concat();
    let config = pair.nodes[0].as_relayed_peer();
    pair.nodes[1].upsert(config, now);
    pair.settle();
    pair.nodes[1].events.clear();
    pair.nodes[0].plane.send_to_peer(&keys[1], &ip(a, b, protocol::TSMP, &told), now).unwrap();
    pair.settle();
    let learned = tsrs_base_types::DiscoPublic::from_bytes([7; 32]);
    assert!(pair.nodes[1].events.contains(&Event::DiscoKeyLearned { peer: keys[0], key: learned }));
    assert!(!pair.nodes[1].events.contains(&Event::SessionEnded(keys[0])));
}

#[test]
fn own_disco_datagram_inside_the_tunnel_is_dropped_on_both_sides() {
    let mut pair = Pair::with_static_paths();
    let (a, b) = (pair.nodes[0].tailnet, pair.nodes[1].tailnet);
    let disco = |key: &tsrs_base_types::DiscoPublic| {
        [&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac][..], key.as_bytes(), &[0; 40]].concat()
    };
    let of_a = udp(a, b, &disco(&pair.nodes[0].disco.public()));
    let of_b = udp(a, b, &disco(&pair.nodes[1].disco.public()));
    pair.send(0, &[of_a, of_b]);
    assert!(pair.nodes[1].host.is_empty());
    assert_eq!(pair.nodes[0].dropped_out(DropReason::DiscoLoop), 1);
    assert_eq!(pair.nodes[1].dropped_in(DropReason::DiscoLoop), 1);
}

#[test]
fn service_address_is_answered_here_and_never_sent() {
    let mut pair = Pair::with_static_paths();
    let service = Ipv4Addr::new(100, 100, 100, 100);
    let own = pair.nodes[0].tailnet;
    let query = udp(own, service, b"query");
    let mut echo = ip(own, service, protocol::ICMP, &[8, 0, 0xf7, 0xfd, 0, 1, 0, 1]);
    echo[22..24].copy_from_slice(&[0xf7, 0xfd]);
    let flying = pair.collect(0, &[query.clone(), echo]);
    pair.settle();
    assert!(flying.is_empty());
    assert!(pair.nodes[0].events.contains(&Event::Service(query.into_boxed_slice())));
    let reply = ipv4::parse(&pair.nodes[0].host[0]);
    assert!(reply.is_echo_reply());
    assert_eq!((reply.src, reply.dst), (service, own));
}

#[test]
fn handshake_garbage_is_counted_and_answers_nothing() {
    let mut pair = Pair::with_static_paths();
    let source = Source::Udp("198.51.100.9:999".parse().unwrap());
    let now = pair.now;
    for (kind, len) in [(1, 148), (2, 92), (3, 64), (1, 147), (5, 40), (4, 31), (0, 2)] {
        let mut datagram = vec![0xaa; len];
        datagram[..2].copy_from_slice(&[kind, 0]);
        if len > 3 {
            datagram[2..4].copy_from_slice(&[0, 0]);
        }
        pair.nodes[0].receive(source, &datagram, now);
    }
    let before = (pair.udp_count, pair.relay_count);
    pair.settle();
    assert_eq!((pair.udp_count, pair.relay_count), before);
    let dropped: u64 = pair.nodes[0].plane.shared().inbound.drops.iter().map(|(_, count)| count).sum();
    assert_eq!(dropped, 7);
}

#[test]
fn flood_of_handshakes_is_cut_and_does_not_push_out_what_keeps_paths_alive() {
    let mut pair = Pair::with_static_paths();
    let mut initiation = vec![0x55; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    let (source, now) = (Source::Udp("198.51.100.9:999".parse().unwrap()), pair.now);
    let flood = 3 * MAX_HANDSHAKES;
    for _ in 0..flood {
        pair.nodes[0].receive(source, &initiation, now);
    }
    let mut disco = vec![0; 100];
    disco[..6].copy_from_slice(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac]);
    pair.nodes[0].receive(source, &disco, now);
    let lost = u64::try_from(flood - MAX_HANDSHAKES).unwrap();
    assert_eq!(pair.nodes[0].dropped_in(DropReason::SlowPathFull), lost);
    assert!(pair.nodes[0].plane.handle_notices(now), "handshakes are taken some at a time");
    assert_eq!(pair.nodes[0].plane.paths().counters().disco_unknown_sender, 1);
    pair.settle();
    assert_eq!(pair.udp_count, 0, "what does not authenticate is not answered");
}

#[test]
fn subnet_goes_to_the_router_with_the_better_rank_and_falls_back() {
    let mut pair = Pair::with_static_paths();
    let subnet: ipnet::Ipv4Net = "10.9.0.0/16".parse().unwrap();
    let mut first = pair.nodes[1].as_static_peer();
    first.allowed_ips.push(subnet);
    let other = NodePrivate::generate(&mut Seeded(99)).public();
    let second = PeerConfig {
        node_id: NodeId(1),
        endpoints: vec!["192.0.2.99:1".parse().unwrap()],
        allowed_ips: vec![subnet],
        ..PeerConfig::new(other)
    };
    let now = pair.now;
    let holder = |pair: &Pair| {
        let routes = pair.nodes[0].plane.shared().tables.routes();
        routes.peers.lookup("10.9.8.7".parse().unwrap()).map(|slot| *slot.key())
    };
    pair.nodes[0].upsert(first.clone(), now);
    assert_eq!(holder(&pair), Some(first.key));
    pair.nodes[0].upsert(second.clone(), now);
    assert_eq!(holder(&pair), Some(other));
    pair.nodes[0].upsert(PeerConfig { route_score: 1, ..first.clone() }, now);
    assert_eq!(holder(&pair), Some(first.key));
    pair.nodes[0].plane.apply(vec![Change::Remove(first.key)], now);
    assert_eq!(holder(&pair), Some(other));
    pair.nodes[0].upsert(PeerConfig { allowed_ips: Vec::new(), ..second }, now);
    assert_eq!(holder(&pair), None);
}
