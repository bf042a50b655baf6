//! One machine against hand-made messages: each rule of data-plane sheet §2.3, §2.4, §3.3 and §3.4.

use super::limits::*;
use super::*;

const A: &str = "198.51.100.2:41641";
const B: &str = "198.51.100.2:41642";

fn ping(tx_id: u8, n: u8) -> Message {
    Message::Ping { tx_id: TxId([tx_id; 12]), node_key: Some(node_key(n)), padding_len: 0 }
}

fn with_endpoints(n: u8, endpoints: &[&str]) -> PeerConfig {
    PeerConfig { endpoints: endpoints.iter().map(|text| text.parse().unwrap()).collect(), ..peer_config(n) }
}

/// A bench whose peer 2 is active on the trusted path A.
fn trusted() -> Bench {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A, B]), bench.now);
    bench.send_data(2);
    let (_, tx_id) = bench.pinged(2).into_iter().find(|(to, _)| *to == addr(A)).unwrap();
    bench.now += Duration::from_millis(40);
    bench.pong(2, addr(A), tx_id);
    assert_eq!(bench.path(2), SendPath { direct: Some(addr(A)), also_derp: false, derp: Some(RegionId(1)) });
    bench
}

#[test]
fn nothing_is_sent_to_a_peer_without_traffic() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A, B]), bench.now);
    bench.drain();
    assert_eq!(bench.path(2), SendPath { direct: None, also_derp: false, derp: Some(RegionId(1)) });
    assert_eq!(bench.machine.poll_timeout(), None);
    bench.advance(Duration::from_secs(3600));
    assert_eq!(bench.transmits, []);
}

#[test]
fn the_first_packet_pings_all_candidates_and_calls_the_peer() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A, B, "[2001:db8::1]:5"]), bench.now);
    bench.send_data(2);
    let sent = bench.sent_to(2);
    let to: Vec<Destination> = sent.iter().map(|(to, _)| *to).collect();
    let relay = Destination::Derp { region: RegionId(1), node: node_key(2) };
    assert_eq!(to, [Destination::Udp(addr(A)), Destination::Udp(addr(B)), relay]);
    assert!(
        matches!(&sent[0].1, Message::Ping { node_key: Some(key), padding_len: 0, .. } if *key == node_key(1))
    );
    let own = vec![addr("10.0.0.1:41641").into()];
    assert_eq!(sent[2].1, Message::CallMeMaybe { endpoints: own });
    // More packets at once change nothing.
    bench.send_data(2);
    assert_eq!(bench.transmits, []);
}

#[test]
fn an_unanswered_flow_pings_each_candidate_no_more_than_each_five_seconds() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A]), bench.now);
    let mut last: Option<Instant> = None;
    let mut count = 0;
    for _ in 0..600 {
        bench.send_data(2);
        bench.advance(Duration::from_millis(100));
        for _ in bench.pinged(2) {
            assert!(last.is_none_or(|at| bench.now - at >= PING_FLOOR), "pinged too soon");
            last = Some(bench.now);
            count += 1;
        }
    }
    assert!((10..=12).contains(&count), "{count} pings in a minute");
}

#[test]
fn stale_endpoints_are_found_anew_before_a_call() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A]), bench.now);
    bench.advance(ENDPOINTS_FRESH);
    bench.send_data(2);
    let has_call = |bench: &mut Bench| {
        bench.sent_to(2).iter().any(|(_, message)| matches!(message, Message::CallMeMaybe { .. }))
    };
    assert!(bench.machine.netcheck.is_running());
    assert!(!has_call(&mut bench), "not before the netcheck is done");
    bench.advance(Duration::from_secs(4));
    assert!(!bench.machine.netcheck.is_running());
    assert!(has_call(&mut bench));
}

#[test]
fn a_pong_makes_the_pinged_address_the_path_wherever_it_came_from() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A]), bench.now);
    bench.send_data(2);
    let [(_, tx_id)] = bench.pinged(2)[..] else { panic!() };
    bench.pong(2, addr("203.0.113.77:7"), tx_id);
    assert_eq!(bench.path(2).direct, Some(addr(A)));
    let changed = Event::PathChanged { peer: node_key(2), path: bench.path(2) };
    assert!(bench.events.contains(&changed));
    bench.pong(2, addr(A), tx_id);
    assert_eq!(bench.machine.counters().disco_ignored, 1, "a ping is answered once");
}

#[test]
fn pongs_by_derp_and_of_other_peers_prove_nothing() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A]), bench.now);
    bench.machine.upsert_peer(peer_config(3), bench.now);
    bench.send_data(2);
    let [(_, tx_id)] = bench.pinged(2)[..] else { panic!() };
    bench.pong(3, addr(A), tx_id);
    assert_eq!(bench.path(2).direct, None, "another peer's pong");
    bench.pong(2, addr(A), TxId([0; 12]));
    assert_eq!(bench.path(2).direct, None, "unknown ping");
    let message = Message::Pong { tx_id, source: addr(A).into() };
    bench.receive(2, by_derp(2), &message);
    assert_eq!(bench.path(2).direct, None, "by DERP");
    bench.pong(2, addr(A), tx_id);
    assert_eq!(bench.path(2).direct, None, "the pong by DERP has ended the ping");
}

#[test]
fn an_active_path_is_kept_alive_by_heartbeats_and_an_idle_one_expires() {
    let mut bench = trusted();
    for _ in 0..20 {
        bench.send_data(2);
        bench.advance(HEARTBEAT);
        let pings = bench.pinged(2);
        assert!(pings.iter().any(|(to, _)| *to == addr(A)), "a heartbeat");
        for (to, tx_id) in pings.into_iter().filter(|(to, _)| *to == addr(A)) {
            bench.pong(2, to, tx_id);
        }
        assert!(!bench.path(2).also_derp);
    }
    // Nothing is sent any longer: heartbeats go on for 45 s, then all is silent.
    bench.events.clear();
    let mut last_ping = bench.now;
    let start = bench.now;
    for _ in 0..100 {
        bench.advance(Duration::from_secs(1));
        for (to, tx_id) in bench.pinged(2).into_iter().filter(|(to, _)| *to == addr(A)) {
            last_ping = bench.now;
            bench.pong(2, to, tx_id);
        }
    }
    let heard = last_ping - start;
    assert!(heard > SESSION_ACTIVE - HEARTBEAT * 2 && heard <= SESSION_ACTIVE + HEARTBEAT, "{heard:?}");
    assert!(bench.events.contains(&Event::PeerIdle(node_key(2))));
    assert_eq!(bench.path(2), SendPath { direct: Some(addr(A)), also_derp: true, derp: Some(RegionId(1)) });
    assert_eq!(bench.machine.poll_timeout(), None, "silent");
    // The next packet goes both ways and starts anew.
    bench.transmits.clear();
    bench.send_data(2);
    assert_eq!(bench.pinged(2).len(), 2);
}

#[test]
fn a_path_that_dies_is_doubled_by_derp_within_trust_time_and_then_forgotten() {
    let mut bench = trusted();
    let died = bench.now;
    let mut doubled = None;
    let mut forgotten = None;
    for _ in 0..200 {
        bench.send_data(2);
        bench.advance(Duration::from_millis(100));
        if bench.path(2).also_derp && doubled.is_none() {
            doubled = Some(bench.now - died);
        }
        if bench.path(2).direct.is_none() && forgotten.is_none() {
            forgotten = Some(bench.now - died);
        }
    }
    assert!(doubled.unwrap() <= TRUST + Duration::from_millis(100), "{doubled:?}");
    let forgotten = forgotten.unwrap();
    assert!(forgotten > doubled.unwrap() && forgotten <= TRUST + PING_TIMEOUT + HEARTBEAT, "{forgotten:?}");
}

/// Data flows for a time; the peer answers at A after 40 ms, at B after `b_millis`. Gives the addresses that were pinged.
fn flow(bench: &mut Bench, time: Duration, b_millis: u64) -> BTreeSet<SocketAddrV4> {
    let mut pinged = BTreeSet::new();
    let end = bench.now + time;
    let mut answers: Vec<(Instant, SocketAddrV4, TxId)> = Vec::new();
    while bench.now < end {
        bench.send_data(2);
        bench.advance(Duration::from_millis(2));
        for (to, tx_id) in bench.pinged(2) {
            let millis = if to == addr(A) { 40 } else { b_millis };
            pinged.insert(to);
            answers.push((bench.now + Duration::from_millis(millis), to, tx_id));
        }
        for (_, from, tx_id) in answers.extract_if(.., |(at, ..)| *at <= bench.now).collect::<Vec<_>>() {
            bench.pong(2, from, tx_id);
        }
        assert!(!bench.path(2).also_derp);
    }
    pinged
}

#[test]
fn a_path_that_loses_trust_is_looked_for_at_once() {
    let mut bench = trusted();
    let proved = bench.now;
    bench.machine.note_sent(&node_key(2), bench.now, bench.now);
    bench.drain();
    bench.transmits.clear();
    bench.advance(TRUST - Duration::from_millis(1));
    bench.transmits.clear();
    bench.advance(Duration::from_millis(1));
    assert_eq!(bench.now - proved, TRUST);
    assert!(bench.path(2).also_derp);
    let sent = bench.sent_to(2);
    assert!(sent.iter().any(|(to, _)| *to == Destination::Udp(addr(B))), "{sent:?}");
    assert!(sent.iter().any(|(_, message)| matches!(message, Message::CallMeMaybe { .. })));
}

#[test]
fn a_clearly_better_path_replaces_a_trusted_one_and_an_equal_one_does_not() {
    let mut bench = trusted();
    flow(&mut bench, UPGRADE_INTERVAL * 2, 40);
    assert_eq!(bench.path(2).direct, Some(addr(A)));
    flow(&mut bench, UPGRADE_INTERVAL * 2, 30);
    assert_eq!(bench.path(2).direct, Some(addr(B)));
    flow(&mut bench, UPGRADE_INTERVAL * 2, 60);
    assert_eq!(bench.path(2).direct, Some(addr(A)), "and back when it has become slower");
}

#[test]
fn a_path_that_is_fast_enough_is_not_compared_any_more() {
    let mut bench = trusted();
    flow(&mut bench, UPGRADE_INTERVAL * 2, 4);
    assert_eq!(bench.path(2).direct, Some(addr(B)));
    assert!(!flow(&mut bench, UPGRADE_INTERVAL * 2, 4).contains(&addr(A)), "only heartbeats to B");
}

#[test]
fn pings_are_answered_where_they_came_from() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.drain();
    let from = addr("203.0.113.5:999");
    bench.receive(2, Source::Udp(from), &ping(7, 2));
    let pong = |source: &str| Message::Pong { tx_id: TxId([7; 12]), source: source.parse().unwrap() };
    assert_eq!(bench.sent_to(2), [(Destination::Udp(from), pong("203.0.113.5:999"))]);
    assert_eq!(bench.machine.poll_timeout(), None, "answering starts nothing");

    bench.receive(2, by_derp(2), &ping(7, 2));
    let relay = Destination::Derp { region: RegionId(1), node: node_key(2) };
    assert_eq!(bench.sent_to(2), [(relay, pong("127.3.3.40:1"))]);

    // Padded pings and those without a node key are answered too, without padding.
    for (node_key, padding_len) in [(None, 0), (Some(node_key(2)), 1200), (Some(node_key(9)), 0)] {
        let message = Message::Ping { tx_id: TxId([8; 12]), node_key, padding_len };
        bench.receive(2, Source::Udp(addr("203.0.113.6:1")), &message);
        let sent = bench.transmits.pop().unwrap();
        assert_eq!(sent.bytes.len(), 62 + 16 + 2 + 12 + 18);
        bench.receive(2, Source::Udp(addr("203.0.113.7:1")), &ping(1, 2));
        bench.receive(2, Source::Udp(addr("203.0.113.6:1")), &ping(2, 2));
        bench.transmits.clear();
    }
}

#[test]
fn a_repeated_ping_is_answered_once() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.drain();
    for (from, tx_id, answers) in
        [("203.0.113.5:9", 7, 1), ("203.0.113.5:9", 7, 0), ("203.0.113.5:9", 8, 1), ("203.0.113.5:8", 8, 1)]
    {
        bench.receive(2, Source::Udp(addr(from)), &ping(tx_id, 2));
        assert_eq!(bench.transmits.drain(..).len(), answers, "{from} {tx_id}");
    }
}

#[test]
fn only_disco_keys_of_peers_are_listened_to() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.drain();
    bench.receive(3, Source::Udp(addr(A)), &ping(1, 2));
    assert_eq!((bench.transmits.len(), bench.machine.counters().disco_unknown_sender), (0, 1));
    // By DERP the source node must be a peer.
    bench.receive(2, by_derp(9), &ping(1, 2));
    assert_eq!((bench.transmits.len(), bench.machine.counters().disco_ignored), (0, 1));
    let mut damaged = sealed_from(2, &ping(1, 2));
    *damaged.last_mut().unwrap() ^= 1;
    bench.machine.handle_datagram(Source::Udp(addr(A)), &damaged, bench.now);
    assert_eq!(bench.machine.counters().disco_bad_box, 1);
    bench.machine.remove_peer(&node_key(2));
    bench.receive(2, Source::Udp(addr(A)), &ping(1, 2));
    assert_eq!((bench.transmits.len(), bench.machine.counters().disco_unknown_sender), (0, 2));
}

#[test]
fn nodes_that_share_a_disco_key_are_told_apart_by_the_node_key_in_the_ping() {
    let mut bench = Bench::new();
    let shared = PeerConfig { node_key: node_key(3), ..peer_config(2) };
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.machine.upsert_peer(shared, bench.now);
    bench.drain();
    let candidates = |bench: &mut Bench, n: u8| {
        let id = bench.machine.peers.id(&node_key(n)).unwrap();
        bench.machine.paths_mut(id).map_or(0, |paths| paths.candidates.len())
    };
    bench.receive(2, Source::Udp(addr("203.0.113.1:1")), &ping(1, 3));
    assert_eq!((candidates(&mut bench, 2), candidates(&mut bench, 3)), (0, 1));
    // Named none, or one that has not the key: ambiguous, but answered.
    bench.transmits.clear();
    let nameless = Message::Ping { tx_id: TxId([2; 12]), node_key: None, padding_len: 0 };
    bench.receive(2, Source::Udp(addr("203.0.113.2:1")), &nameless);
    bench.receive(2, Source::Udp(addr("203.0.113.3:1")), &ping(3, 9));
    assert_eq!((candidates(&mut bench, 2), candidates(&mut bench, 3)), (0, 1));
    assert_eq!(bench.transmits.len(), 2);
    // With one of them gone it is clear, whichever came first.
    let mut other = Bench::new();
    other.machine.upsert_peer(peer_config(2), other.now);
    other.machine.upsert_peer(PeerConfig { node_key: node_key(3), ..peer_config(2) }, other.now);
    other.machine.remove_peer(&node_key(2));
    other.receive(2, Source::Udp(addr("203.0.113.2:1")), &nameless);
    assert_eq!(candidates(&mut other, 3), 1);
    bench.machine.remove_peer(&node_key(3));
    bench.receive(2, Source::Udp(addr("203.0.113.2:1")), &nameless);
    assert_eq!(candidates(&mut bench, 2), 1);
}

#[test]
fn a_call_counts_over_derp_from_the_holder_of_the_key_only() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.machine.upsert_peer(peer_config(3), bench.now);
    bench.drain();
    bench.events.clear();
    let call =
        Message::CallMeMaybe { endpoints: vec![A.parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()] };
    bench.receive(2, Source::Udp(addr(B)), &call);
    bench.receive(2, by_derp(3), &call);
    assert_eq!(bench.transmits, []);
    // The right one makes us ping at once, though we have nothing to send, and without a call in return.
    bench.receive(2, by_derp(2), &call);
    let sent = bench.sent_to(2);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, Destination::Udp(addr(A)));
    let Message::Ping { tx_id, .. } = sent[0].1 else { panic!() };
    bench.pong(2, addr(A), tx_id);
    assert!(bench.path(2).direct.is_some(), "ready before we send");
    bench.advance(Duration::from_secs(60));
    assert_eq!((bench.transmits.len(), bench.machine.poll_timeout()), (0, None), "no heartbeats follow");
}

#[test]
fn a_call_resets_the_ping_floor_but_not_more_than_once_a_second() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    let call = Message::CallMeMaybe { endpoints: vec![A.parse().unwrap()] };
    let mut pings = 0;
    for _ in 0..100 {
        bench.receive(2, by_derp(2), &call);
        pings += bench.pinged(2).len();
        bench.advance(Duration::from_millis(30));
        bench.transmits.clear();
    }
    assert_eq!(pings, 3, "3 s of calls");
}

#[test]
fn candidates_come_and_go_as_their_sources_say() {
    let mut bench = Bench::new();
    let (c, d) = ("198.51.100.3:1", "198.51.100.4:1");
    bench.machine.upsert_peer(with_endpoints(2, &[A, B]), bench.now);
    let known = |bench: &mut Bench| {
        let id = bench.machine.peers.id(&node_key(2)).unwrap();
        let now = bench.now;
        let paths = bench.machine.peers.get_mut(id).unwrap().paths_mut();
        paths.prune(now);
        let mut known: Vec<String> = paths.candidates.iter().map(|known| known.address.to_string()).collect();
        known.sort_unstable();
        known
    };
    assert_eq!(known(&mut bench), [A, B]);
    let call = |list: &[&str]| Message::CallMeMaybe {
        endpoints: list.iter().map(|text| text.parse().unwrap()).collect(),
    };
    bench.receive(2, by_derp(2), &call(&[B, c]));
    assert_eq!(known(&mut bench), [A, B, c]);
    bench.advance(Duration::from_secs(3600));
    assert_eq!(known(&mut bench), [A, B, c], "never by time");
    bench.receive(2, by_derp(2), &call(&[d]));
    assert_eq!(known(&mut bench), [A, d], "not listed again, though the netmap lists B");
    bench.machine.upsert_peer(with_endpoints(2, &[d]), bench.now);
    assert_eq!(known(&mut bench), [d], "the netmap lists A no longer");
    bench.receive(2, Source::Udp(addr(c)), &ping(1, 2));
    bench.advance(PING_CANDIDATE_LIFE - Duration::from_millis(1));
    assert_eq!(known(&mut bench), [c, d]);
    bench.advance(Duration::from_millis(1));
    assert_eq!(known(&mut bench), [d]);
    bench.receive(2, by_derp(2), &Message::CallMeMaybe { endpoints: vec![] });
    assert_eq!(known(&mut bench), [""; 0]);
}

#[test]
fn a_new_address_that_pings_an_active_peerless_path_is_tried_at_once() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(peer_config(2), bench.now);
    bench.send_data(2);
    bench.transmits.clear();
    bench.receive(2, Source::Udp(addr(A)), &ping(1, 2));
    let sent = bench.sent_to(2);
    assert!(matches!(sent[..], [(_, Message::Ping { .. }), (_, Message::Pong { .. })]), "{sent:?}");
}

#[test]
fn send_errors_kill_the_path_or_ask_for_a_new_socket() {
    let mut bench = trusted();
    bench.machine.handle_send_error(addr(B), SendError::Unreachable, bench.now);
    assert_eq!(bench.path(2).direct, Some(addr(A)));
    bench.machine.handle_send_error(addr(A), SendError::Unreachable, bench.now);
    assert_eq!(bench.path(2), SendPath { direct: None, also_derp: false, derp: Some(RegionId(1)) });

    bench.drain();
    let rebinds = |bench: &mut Bench| {
        bench.drain();
        bench.events.drain(..).filter(|event| *event == Event::Rebind).count()
    };
    for (pause, expected) in [(0, 1), (1, 0), (4, 1)] {
        bench.now += Duration::from_secs(pause);
        bench.machine.handle_send_error(addr(A), SendError::Socket, bench.now);
        assert_eq!(rebinds(&mut bench), expected);
    }
}

#[test]
fn a_major_link_change_forgets_paths_until_the_new_socket_proves_them() {
    let mut bench = trusted();
    bench.events.clear();
    bench.transmits.clear();
    bench.machine.handle_link_change(LinkChange::Major, bench.now);
    bench.drain();
    assert_eq!(bench.path(2).direct, None);
    assert!(bench.events.contains(&Event::Rebind));
    assert!(bench.events.contains(&Event::DerpCheck(RegionId(1))));
    assert_eq!(bench.transmits, [], "nothing on the old socket");
    bench.machine.set_local(&[Ipv4Addr::new(10, 9, 9, 9)], 5000, bench.now);
    bench.drain();
    let stun = bench.transmits.iter().filter(|transmit| transmit.bytes.len() == 40).count();
    assert_eq!(stun, 1);
    assert_eq!(bench.pinged(2).len(), 2, "an active peer is pinged at once");
}

#[test]
fn without_any_link_nothing_is_sent_and_all_connections_are_closed() {
    let mut bench = trusted();
    bench.events.clear();
    bench.transmits.clear();
    bench.machine.handle_link_change(LinkChange::Down, bench.now);
    bench.drain();
    assert!(bench.events.contains(&Event::DerpClose(RegionId(1))));
    bench.send_data(2);
    bench.receive(2, Source::Udp(addr(A)), &ping(1, 2));
    bench.advance(Duration::from_secs(120));
    assert_eq!((bench.transmits.len(), bench.machine.poll_timeout()), (0, None));
    bench.events.clear();
    bench.machine.handle_link_change(LinkChange::Major, bench.now);
    bench.drain();
    assert!(bench.events.contains(&Event::DerpConnect(RegionId(1))));
}

#[test]
fn a_new_disco_key_starts_over_and_an_expired_peer_gets_nothing() {
    let mut bench = trusted();
    let patch = PeerPatch { disco_key: Some(disco_key(3)), ..PeerPatch::default() };
    assert!(bench.machine.patch_peer(&node_key(2), patch, bench.now));
    assert_eq!(bench.path(2).direct, None);
    bench.drain();
    bench.transmits.clear();
    bench.advance(PING_FLOOR);
    bench.send_data(2);
    assert!(!bench.pinged(3).is_empty(), "sealed to the new key");

    let patch = |expired| PeerPatch { expired: Some(expired), ..PeerPatch::default() };
    bench.machine.patch_peer(&node_key(2), patch(true), bench.now);
    bench.drain();
    bench.transmits.clear();
    assert!(bench.path(2).is_none());
    bench.send_data(2);
    bench.advance(Duration::from_secs(60));
    assert_eq!(bench.transmits, []);
    assert_eq!(bench.machine.ping(&node_key(2), 0, bench.now), Err(PingError::Expired));
    bench.machine.patch_peer(&node_key(2), patch(false), bench.now);
    bench.send_data(2);
    assert!(!bench.transmits.is_empty());
    assert!(!bench.machine.patch_peer(&node_key(9), patch(true), bench.now), "unknown peer");
}

#[test]
fn users_pings_report_the_first_answer_or_that_none_came() {
    let mut bench = trusted();
    bench.events.clear();
    bench.transmits.clear();
    // Trusted: only the path in use.
    let id = bench.machine.ping(&node_key(2), 1000, bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.transmits.iter().map(|transmit| transmit.bytes.len()).collect::<Vec<_>>(), [1000]);
    let [(to, tx_id)] = bench.pinged(2)[..] else { panic!() };
    bench.now += Duration::from_millis(12);
    bench.pong(2, to, tx_id);
    let latency = Duration::from_millis(12);
    let pong = Event::Pong { id, peer: node_key(2), via: PongVia::Udp(addr(A)), latency };
    assert!(bench.events.contains(&pong));

    // Untrusted: everything, and the relay's answer counts.
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A, B]), bench.now);
    let id = bench.machine.ping(&node_key(2), 0, bench.now).unwrap();
    bench.drain();
    let sent = bench.sent_to(2);
    let relayed = sent.iter().find_map(|(to, message)| match (to, message) {
        (Destination::Derp { .. }, Message::Ping { tx_id, .. }) => Some(*tx_id),
        _ => None,
    });
    bench.receive(2, by_derp(2), &Message::Pong { tx_id: relayed.unwrap(), source: addr(A).into() });
    let via = PongVia::Derp(RegionId(1));
    assert!(bench.events.contains(&Event::Pong { id, peer: node_key(2), via, latency: Duration::ZERO }));
    assert_eq!(bench.path(2).direct, None);

    bench.events.clear();
    let id = bench.machine.ping(&node_key(2), 0, bench.now).unwrap();
    bench.advance(PING_TIMEOUT);
    assert!(bench.events.contains(&Event::PingTimedOut { id, peer: node_key(2) }));
    let id = bench.machine.ping(&node_key(2), 0, bench.now).unwrap();
    bench.machine.remove_peer(&node_key(2));
    bench.drain();
    assert!(
        bench.events.contains(&Event::PingTimedOut { id, peer: node_key(2) }),
        "a lost peer answers no more"
    );
}

#[test]
fn users_pings_find_a_peer_that_comes_to_its_relay_late() {
    let relayed = |bench: &mut Bench| {
        let sent = bench.sent_to(2);
        let pings = sent.iter().filter_map(|(to, message)| match (to, message) {
            (Destination::Derp { region, .. }, Message::Ping { tx_id, .. }) => Some((*region, *tx_id)),
            _ => None,
        });
        pings.collect::<Vec<_>>()
    };
    let mut bench = Bench::new();
    bench.machine.set_regions(vec![region(1), region(2)], bench.now);
    bench.finish_netcheck();
    bench.machine.upsert_peer(PeerConfig { home: None, ..with_endpoints(2, &[A]) }, bench.now);
    let id = bench.machine.ping(&node_key(2), 0, bench.now).unwrap();
    bench.drain();
    assert_eq!(relayed(&mut bench), [], "no home is known");

    let patch = |home| PeerPatch { home: Some(RegionId(home)), ..PeerPatch::default() };
    bench.advance(Duration::from_millis(300));
    bench.machine.patch_peer(&node_key(2), patch(1), bench.now);
    bench.drain();
    let [(RegionId(1), _)] = relayed(&mut bench)[..] else { panic!("not sent when the home is known") };

    // It is not there yet: the relay may say so more than once, and one other relay may lie.
    let gone = |bench: &mut Bench, region| {
        bench.machine.handle_derp(RegionId(region), DerpChange::PeerGone(node_key(2)), bench.now);
        bench.drain();
    };
    gone(&mut bench, 2);
    bench.advance(Duration::from_secs(1));
    assert_eq!(relayed(&mut bench), []);
    gone(&mut bench, 1);
    gone(&mut bench, 1);
    bench.advance(UNREACHED_RETRY);
    let [(RegionId(1), tx_id)] = relayed(&mut bench)[..] else { panic!("not repeated once") };
    bench.receive(2, by_derp(2), &Message::Pong { tx_id, source: addr(A).into() });
    let pong = |event: &Event| matches!(event, Event::Pong { id: of, .. } if *of == id);
    assert!(bench.events.iter().any(pong));
    gone(&mut bench, 1);
    bench.advance(UNREACHED_RETRY);
    assert_eq!(relayed(&mut bench), [], "answered");

    // A peer without any way, then with a relay; and one that never gets one.
    for (n, home) in [(3, Some(1)), (4, None)] {
        bench.machine.upsert_peer(PeerConfig { home: None, ..peer_config(n) }, bench.now);
        let id = bench.machine.ping(&node_key(n), 0, bench.now).unwrap();
        bench.advance(Duration::from_secs(2));
        assert!(bench.pinged(n).is_empty());
        let Some(home) = home else {
            bench.advance(Duration::from_secs(3));
            assert!(bench.events.contains(&Event::PingTimedOut { id, peer: node_key(n) }));
            continue;
        };
        bench.machine.patch_peer(&node_key(n), patch(home), bench.now);
        bench.drain();
        let sent = bench.sent_to(n);
        assert!(matches!(sent[..], [(Destination::Derp { .. }, Message::Ping { .. })]), "{sent:?}");
    }

    // A peer that never comes: it ends.
    let id = bench.machine.ping(&node_key(2), 0, bench.now).unwrap();
    for _ in 0..100 {
        gone(&mut bench, 1);
        bench.advance(Duration::from_millis(100));
    }
    assert!(bench.events.contains(&Event::PingTimedOut { id, peer: node_key(2) }));
    assert!(relayed(&mut bench).len() <= 11);
}

#[test]
fn users_pings_that_cannot_be_made_say_why() {
    let mut bench = Bench::new();
    let ping = |bench: &mut Bench, n, size| bench.machine.ping(&node_key(n), size, bench.now);
    assert_eq!(ping(&mut bench, 2, 0), Err(PingError::UnknownPeer));
    bench.machine.upsert_peer(PeerConfig { disco_key: None, ..peer_config(2) }, bench.now);
    assert_eq!(ping(&mut bench, 2, 0), Err(PingError::NoDisco));
    bench.machine.upsert_peer(peer_config(4), bench.now);
    assert_eq!(ping(&mut bench, 4, MAX_PING_SIZE + 1), Err(PingError::Size));
    for _ in 0..MAX_OUTSTANDING {
        assert!(ping(&mut bench, 4, 0).is_ok());
    }
    assert_eq!(ping(&mut bench, 4, 0), Err(PingError::NoPath), "too many to one peer");
    bench.machine.upsert_peer(peer_config(5), bench.now);
    for _ in MAX_OUTSTANDING..MAX_CLI_PINGS {
        assert!(ping(&mut bench, 5, 0).is_ok());
    }
    assert_eq!(ping(&mut bench, 5, 0), Err(PingError::TooMany));
    bench.advance(PING_TIMEOUT);
    assert!(ping(&mut bench, 5, 0).is_ok());
}

#[test]
fn floods_of_a_peer_stay_within_the_limits() {
    let mut bench = Bench::new();
    bench.machine.upsert_peer(with_endpoints(2, &[A]), bench.now);
    bench.send_data(2);
    for n in 0..1000u16 {
        bench.receive(
            2,
            Source::Udp(SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), n + 1)),
            &ping(n.to_le_bytes()[0], 2),
        );
    }
    let list: Vec<_> =
        (1..=2000u16).map(|port| SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 2), port).into()).collect();
    bench.receive(2, by_derp(2), &Message::CallMeMaybe { endpoints: list });
    let id = bench.machine.peers.id(&node_key(2)).unwrap();
    let paths = bench.machine.paths_mut(id).unwrap();
    assert_eq!(paths.candidates.len(), MAX_CANDIDATES);
    assert!(paths.candidates.iter().any(|known| known.address == addr(A)), "what the netmap lists stays");
    let netmap: Vec<String> = (1..=500).map(|port| format!("203.0.113.3:{port}")).collect();
    let netmap: Vec<&str> = netmap.iter().map(String::as_str).collect();
    bench.machine.upsert_peer(with_endpoints(2, &netmap), bench.now);
    let id = bench.machine.peers.id(&node_key(2)).unwrap();
    assert!(bench.machine.paths_mut(id).unwrap().candidates.len() <= MAX_CANDIDATES);
}

#[test]
fn without_udp_peers_are_reached_by_derp_only() {
    let mut bench = trusted();
    bench.machine.set_udp_allowed(false, bench.now);
    bench.drain();
    bench.transmits.clear();
    for _ in 0..100 {
        bench.send_data(2);
        bench.advance(Duration::from_secs(1));
    }
    assert_eq!(bench.path(2), SendPath { direct: None, also_derp: false, derp: Some(RegionId(1)) });
    assert_eq!(bench.transmits, [], "no pings, no STUN, no calls");
    assert!(bench.machine.ping(&node_key(2), 0, bench.now).is_ok(), "by the relay");
}

#[test]
fn a_rotated_disco_key_of_our_own_is_used_at_once() {
    let mut bench = trusted();
    bench.machine.set_disco_key(disco_private(7), bench.now);
    assert_eq!(*bench.machine.disco_key(), disco_key(7));
    assert_eq!(bench.path(2).direct, None);
    bench.drain();
    bench.transmits.clear();
    bench.advance(PING_FLOOR);
    bench.send_data(2);
    let sent = bench.transmits.iter().find_map(|transmit| envelope::split(&transmit.bytes)).unwrap();
    assert_eq!(sent.0, disco_key(7));
    assert!(BoxCache::default().open(&disco_private(2), &sent.0, sent.1).is_some());
}
