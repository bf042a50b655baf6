//! The relay first, then the direct path, and back.

use std::time::Duration;

use tsrs_tunnel_path::{self as path, Destination};

use super::pair::{Node, Pair, REGION};
use crate::{Change, Event, PeerConfig};

/// The ways by which one packet of a node goes out now.
fn ways(pair: &mut Pair, from: usize) -> Vec<Destination> {
    let packet = pair.datagram(from, "probe");
    let flying = pair.collect(from, &[packet]);
    let ways = flying.iter().map(|datagram| datagram.to).collect();
    pair.carry(flying);
    pair.settle();
    ways
}

/// Both talk long enough to learn of each other's addresses: without STUN servers a netcheck takes its whole time.
fn talk(pair: &mut Pair) {
    for _ in 0..10 {
        for from in [0, 1] {
            pair.send(from, &[pair.datagram(from, "hello")]);
        }
        pair.advance(Duration::from_secs(1));
    }
}

fn direct(node: &Node) -> Destination {
    Destination::Udp(node.underlay)
}

fn relayed(node: &Node) -> Destination {
    Destination::Derp { region: REGION, node: node.key }
}

#[test]
fn handshake_goes_over_the_relay_and_the_data_soon_goes_direct() {
    let mut pair = Pair::with_relay();
    pair.send(0, &[pair.datagram(0, "by relay")]);
    assert_eq!(pair.take_texts(1), ["by relay"]);
    assert!(pair.relay_count > 0);
    talk(&mut pair);
    assert_eq!(ways(&mut pair, 0), [direct(&pair.nodes[1])]);
    pair.take_texts(0);
    pair.send(1, &[pair.datagram(1, "and back")]);
    assert_eq!(pair.take_texts(0), ["and back"]);
    assert_eq!(ways(&mut pair, 1), [direct(&pair.nodes[0])]);
}

#[test]
fn a_peer_that_comes_to_the_relay_late_is_not_kept_waiting() {
    let mut pair = Pair::with_relay();
    pair.udp_open = false;
    pair.relay_open = false;
    pair.send(0, &[pair.datagram(0, "early")]);
    let gone = path::DerpChange::PeerGone(pair.nodes[1].key);
    let now = pair.now;
    pair.nodes[0].plane.handle_derp(REGION, gone, now);
    pair.relay_open = true;
    pair.advance(Duration::from_millis(300));
    assert_eq!(pair.take_texts(1), ["early"]);
}

#[test]
fn everything_works_while_udp_is_blocked() {
    let mut pair = Pair::with_relay();
    pair.udp_open = false;
    for second in 0..200 {
        let from = second % 2;
        pair.send(from, &[pair.datagram(from, &format!("{second}"))]);
        pair.advance(Duration::from_secs(1));
        assert_eq!(pair.take_texts(1 - from), [format!("{second}")]);
    }
    assert_eq!(ways(&mut pair, 0), [relayed(&pair.nodes[1])]);
}

#[test]
fn transfer_survives_the_loss_of_the_direct_path_and_returns_to_it() {
    let mut pair = Pair::with_relay();
    talk(&mut pair);
    assert_eq!(ways(&mut pair, 0), [direct(&pair.nodes[1])]);
    pair.take_texts(1);

    pair.udp_open = false;
    let mut lost = 0;
    for number in 0..60 {
        pair.send(0, &[pair.datagram(0, &format!("{number}"))]);
        pair.advance(Duration::from_millis(500));
        lost += usize::from(pair.take_texts(1) != [format!("{number}")]);
    }
    // Trust lasts 6.5 s, and the last proof of the path is up to 3 s old.
    assert!((1..=14).contains(&lost), "{lost} of 60 lost");
    assert_eq!(ways(&mut pair, 0), [relayed(&pair.nodes[1])]);

    pair.udp_open = true;
    talk(&mut pair);
    assert_eq!(ways(&mut pair, 0), [direct(&pair.nodes[1])]);
}

#[test]
fn duplicates_of_an_unproven_path_reach_the_host_once() {
    let mut pair = Pair::with_relay();
    pair.send(0, &[pair.datagram(0, "hello")]);
    pair.advance(Duration::from_secs(60));
    pair.take_texts(1);
    // Idle for longer than the trust: the first packet goes both ways.
    let packet = pair.datagram(0, "once");
    let flying = pair.collect(0, &[packet]);
    assert_eq!(flying.len(), 2);
    pair.carry(flying);
    pair.settle();
    assert_eq!(pair.take_texts(1), ["once"]);
}

#[test]
fn relay_of_an_unknown_node_is_not_listened_to() {
    let mut pair = Pair::with_relay();
    let stranger = super::pair::node(3, pair.now);
    let mut initiation = vec![0; 148];
    initiation[0] = 1;
    let (source, now) = (path::Source::Derp { region: REGION, node: stranger.key }, pair.now);
    pair.nodes[0].receive(source, &initiation, now);
    pair.settle();
    assert_eq!(pair.nodes[0].dropped_in(tsrs_tunnel_packet::DropReason::UnknownPeer), 1);
}

#[test]
fn active_peer_is_watched_and_an_idle_one_is_left_alone() {
    let mut pair = Pair::with_relay();
    for _ in 0..5 {
        pair.send(0, &[pair.datagram(0, "hello")]);
        pair.advance(Duration::from_secs(20));
    }
    let key = pair.nodes[1].key;
    let idle = Event::Path(path::Event::PeerIdle(key));
    let status = pair.nodes[0].plane.peer_status(&key, pair.now).unwrap();
    assert!(status.path.active && status.path.latency.is_some());
    assert!(status.wireguard.has_session && status.last_sent.is_some());
    pair.advance(Duration::from_secs(600));
    let (udp, relay) = (pair.udp_count, pair.relay_count);
    pair.advance(Duration::from_secs(3600));
    assert_eq!((pair.udp_count, pair.relay_count), (udp, relay));
    assert!(!pair.nodes[0].events.contains(&idle), "it is our own matter");
    // And it wakes up again.
    pair.send(0, &[pair.datagram(0, "still there?")]);
    assert_eq!(pair.take_texts(1).last().map(String::as_str), Some("still there?"));
}

#[test]
fn disco_key_that_was_learned_inside_the_tunnel_repairs_the_path() {
    let mut pair = Pair::with_relay();
    talk(&mut pair);
    // The peer had another disco key in the netmap than it really has, and tells so by TSMP.
    let now = pair.now;
    let wrong = tsrs_base_types::DiscoPublic::from_bytes([9; 32]);
    let stale = PeerConfig { disco_key: Some(wrong), ..pair.nodes[1].as_relayed_peer() };
    pair.nodes[0].plane.apply(vec![Change::Upsert(Box::new(stale))], now);
    pair.send(0, &[pair.datagram(0, "over the relay")]);
    pair.advance(Duration::from_secs(30));
    assert_eq!(ways(&mut pair, 0), [relayed(&pair.nodes[1])]);

    let told = [&b"a"[..], pair.nodes[1].disco.public().as_bytes()].concat();
    let (a, b) = (pair.nodes[0].tailnet, pair.nodes[1].tailnet);
    let packet = super::pair::ip(b, a, tsrs_tunnel_packet::ipv4::protocol::TSMP, &told);
    let (now, to) = (pair.now, pair.nodes[0].key);
    pair.nodes[1].plane.send_to_peer(&to, &packet, now).unwrap();
    pair.settle();
    talk(&mut pair);
    assert_eq!(ways(&mut pair, 0), [direct(&pair.nodes[1])]);
}
