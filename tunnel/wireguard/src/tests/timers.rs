//! The timers of data-plane sheet §1.4, on a virtual clock.

use std::time::Duration;

use tsrs_tunnel_packet::DropReason;

use super::pair::{A, B, Pair, Side, packet};
use crate::Role;
use crate::limits::MAX_TIMEOUTS_PER_CALL;
use crate::wire::Kind;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Connected by a handshake of A.
fn connected() -> Pair {
    let mut pair = Pair::new();
    pair.connect(A);
    pair
}

#[test]
fn the_initiator_renews_when_it_sends_after_120_seconds() {
    let mut pair = connected();
    let first = pair.session(A);
    pair.advance(millis(119_999));
    pair.take_log();
    pair.send(A, &packet(1));
    assert_eq!(pair.count(A, Kind::Initiation), 0);
    pair.advance(millis(1));
    pair.send(A, &packet(2));
    assert_eq!(pair.count(A, Kind::Initiation), 1);
    let second = pair.session(A);
    assert_ne!(first.local_index(), second.local_index());
    assert_eq!(second.role(), Role::Initiator);
    assert_eq!(pair.b.received, [packet(1), packet(2)]);
    // Both are by the same new session, and it is renewed once.
    pair.send(B, &packet(3));
    pair.send(A, &packet(4));
    assert_eq!(pair.session(B).local_index(), second.remote_index());
    assert_eq!(pair.count(A, Kind::Initiation) + pair.count(B, Kind::Initiation), 1);
}

#[test]
fn the_responder_never_renews_by_age() {
    let mut pair = connected();
    for _ in 0..17 {
        pair.advance_secs(10);
        pair.take_log();
        // A answers by keepalives only, which renew too when they are sent after 120 s.
        pair.loses = Box::new(|flight| flight.from == A);
        pair.send(B, &packet(1));
        assert_eq!(pair.count(B, Kind::Initiation), 0);
    }
}

#[test]
fn a_session_under_way_is_used_until_the_new_one_stands() {
    let mut pair = connected();
    pair.advance_secs(121);
    pair.loses = Box::new(|flight| flight.kind() != Kind::Data);
    pair.send(A, &packet(1));
    pair.send(A, &packet(2));
    pair.send(B, &packet(3));
    assert_eq!(pair.b.received, [packet(1), packet(2)]);
    assert_eq!(pair.a.received, [packet(3)]);
    // Messages that were sent by the old session are read after the change.
    pair.loses = Box::new(|_| false);
    pair.queue(B, &packet(4));
    let late = pair.take_outbox(B);
    pair.advance_secs(6);
    assert_ne!(pair.session(A).created(), pair.start);
    for flight in late {
        pair.deliver(flight);
    }
    assert_eq!(pair.a.received.last(), Some(&packet(4)));
}

#[test]
fn the_initiator_renews_when_it_receives_data_after_165_seconds() {
    let mut pair = connected();
    pair.advance_secs(118);
    pair.send(B, &packet(0));
    // A's keepalive falls at 128 s and would renew the session already; it is not what is tested here.
    pair.send(A, &packet(0));
    pair.advance(millis(46_999));
    pair.take_log();
    pair.queue(B, &packet(1));
    let early = pair.take_outbox(B).remove(0);
    pair.deliver(early);
    assert!(pair.take_outbox(A).is_empty());
    pair.advance(millis(1));
    pair.send(B, &packet(2));
    assert_eq!(pair.count(A, Kind::Initiation), 1);
    assert_eq!(pair.count(B, Kind::Response), 1);
    assert_eq!(pair.a.received, [packet(0), packet(1), packet(2)]);
}

#[test]
fn keys_are_used_until_180_seconds_and_not_a_moment_longer() {
    let mut pair = connected();
    let (by_a, by_b) = (pair.session(A), pair.session(B));
    pair.loses = Box::new(|flight| flight.kind() != Kind::Data);
    pair.advance(millis(179_999));
    assert!(by_a.reserve(1, pair.now).is_ok());
    pair.send(B, &packet(1));
    assert_eq!(pair.a.received, [packet(1)]);
    pair.queue(B, &packet(2));
    let late = pair.take_outbox(B).remove(0);
    // A worker that has not seen the event yet refuses as well.
    let held = pair.a.receive.clone();
    pair.advance(millis(1));
    assert!(pair.a.send.is_empty() && pair.a.receive.is_empty());
    assert_eq!(by_a.reserve(1, pair.now), Err(DropReason::SessionExpired));
    assert_eq!(by_b.reserve(1, pair.now), Err(DropReason::SessionExpired));
    pair.a.receive = held;
    pair.deliver(late);
    assert_eq!(pair.a.dropped, [DropReason::SessionExpired]);
}

#[test]
fn received_data_is_answered_by_a_keepalive_after_10_seconds() {
    let mut pair = connected();
    pair.advance_secs(30);
    pair.take_log();
    let keepalives = pair.a.keepalives;
    pair.send(A, &packet(1));
    pair.advance(millis(9_999));
    assert_eq!(pair.a.keepalives, keepalives);
    pair.advance(millis(1));
    assert_eq!(pair.a.keepalives, keepalives + 1);
    // A keepalive is not answered, and nothing else happens.
    pair.advance_secs(60);
    assert_eq!(pair.log.len(), 2);
}

#[test]
fn no_keepalive_where_data_was_sent_in_time() {
    let mut pair = connected();
    pair.advance_secs(30);
    (pair.a.keepalives, pair.b.keepalives) = (0, 0);
    for _ in 0..8 {
        pair.send(A, &packet(1));
        pair.advance_secs(5);
        pair.send(B, &packet(2));
        pair.advance_secs(4);
    }
    assert_eq!(pair.a.keepalives + pair.b.keepalives, 0);
    // A steady stream in one direction gets a keepalive each 10 s.
    let before = pair.a.keepalives;
    for _ in 0..40 {
        pair.send(A, &packet(3));
        pair.advance_secs(1);
    }
    assert!((3..=4).contains(&(pair.a.keepalives - before)), "{}", pair.a.keepalives - before);
}

#[test]
fn a_keepalive_that_finds_no_session_is_not_sent() {
    let mut pair = connected();
    pair.advance_secs(175);
    pair.loses = Box::new(|flight| flight.kind() != Kind::Data);
    pair.send(A, &packet(1));
    assert_eq!(pair.b.received, [packet(1)]);
    pair.take_log();
    pair.advance_secs(30);
    assert_eq!(pair.count(B, Kind::Data), 0);
}

#[test]
fn silence_after_sent_data_is_answered_by_a_handshake_after_15_seconds() {
    let mut pair = connected();
    pair.advance_secs(40);
    pair.take_log();
    pair.loses = Box::new(|flight| flight.from == B);
    pair.send(A, &packet(1));
    pair.advance(millis(14_999));
    assert_eq!(pair.count(A, Kind::Initiation), 0);
    pair.advance(millis(335));
    assert_eq!(pair.count(A, Kind::Initiation), 1);
    pair.loses = Box::new(|_| false);
    pair.advance_secs(6);
    assert_eq!(pair.count(A, Kind::Initiation), 2);
    pair.send(A, &packet(2));
    pair.send(B, &packet(3));
    assert_eq!(pair.a.received, [packet(3)]);
}

#[test]
fn keepalives_are_not_waited_for() {
    let mut pair = connected();
    pair.advance_secs(40);
    pair.take_log();
    // B sends one packet, A answers with a keepalive, and neither expects more.
    pair.send(B, &packet(1));
    pair.advance_secs(75);
    let kinds: Vec<_> = pair.log.iter().map(|sent| (sent.from, sent.kind)).collect();
    assert_eq!(kinds, [(B, Kind::Data), (A, Kind::Data)]);
}

#[test]
fn everything_is_forgotten_540_seconds_after_the_last_session() {
    let mut pair = connected();
    pair.advance(millis(539_000));
    for side in [A, B] {
        let key = pair.key(side.other());
        assert!(pair.node(side).device.poll_timeout().is_some());
        assert!(!pair.node(side).device.peer_status(&key).unwrap().has_session);
    }
    pair.advance_secs(1);
    for side in [A, B] {
        let key = pair.key(side.other());
        assert_eq!(pair.node(side).device.poll_timeout(), None);
        let status = pair.node(side).device.peer_status(&key).unwrap();
        assert!(status.sent_bytes > 0 && status.received_bytes > 0 && status.last_handshake.is_some());
        assert_eq!(pair.node(side).device.peer_count(), 1);
    }
    pair.send(B, &packet(1));
    assert_eq!(pair.a.received, [packet(1)]);
}

#[test]
fn workers_speak_up_once_and_then_stay_quiet() {
    let mut pair = connected();
    pair.advance_secs(30);
    let before = (pair.a.notices, pair.b.notices);
    for number in 0..200 {
        pair.send(A, &packet(number));
        pair.send(B, &packet(number));
        pair.advance(millis(10));
    }
    let (a, b) = (pair.a.notices - before.0, pair.b.notices - before.1);
    assert!(a <= 1 && b <= 1, "{a} {b}");
    // Also over minutes, where the device looks at the traffic by itself.
    for _ in 0..60 {
        pair.send(A, &packet(1));
        pair.send(B, &packet(1));
        pair.advance_secs(1);
    }
    let (a, b) = (pair.a.notices - before.0, pair.b.notices - before.1);
    assert!(a <= 8 && b <= 8, "{a} {b}");
}

#[test]
fn an_idle_pair_wakes_only_for_the_ends_of_keys() {
    let mut pair = connected();
    pair.advance_secs(30);
    for side in [A, B] {
        let now = pair.now;
        let wait = pair.node(side).device.poll_timeout().unwrap() - now;
        assert_eq!(wait, Duration::from_secs(150), "{side:?}");
    }
}

#[test]
fn a_sleep_of_hours_ends_in_one_new_session() {
    for sleeper in [A, B] {
        let mut pair = connected();
        pair.now += Duration::from_secs(8 * 3600);
        pair.take_log();
        pair.send(sleeper, &packet(1));
        pair.advance(millis(10));
        pair.send(sleeper.other(), &packet(2));
        assert_eq!(pair.node(sleeper).received, [packet(2)]);
        assert_eq!(pair.node(sleeper.other()).received, [packet(1)]);
        let initiations = pair.count(A, Kind::Initiation) + pair.count(B, Kind::Initiation);
        assert_eq!(initiations, 1);
    }
}

#[test]
fn many_timers_are_run_in_several_calls() {
    let mut pair = Pair::new();
    let count = MAX_TIMEOUTS_PER_CALL + 10;
    let now = pair.now;
    for number in 0..count {
        let mut raw = [9; 32];
        raw[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let peer = tsrs_base_types::NodePublic::from_bytes(raw);
        pair.a.device.start_handshake(&peer, now).unwrap();
    }
    assert_eq!(pair.take_outbox(A).len(), count);
    let later = now + millis(5_400);
    pair.a.device.handle_timeout(later);
    assert_eq!(pair.take_outbox(A).len(), MAX_TIMEOUTS_PER_CALL);
    assert!(pair.a.device.poll_timeout().unwrap() <= later);
    pair.a.device.handle_timeout(later);
    assert_eq!(pair.take_outbox(A).len(), 10);
    assert!(pair.a.device.poll_timeout().unwrap() > later);
}

#[test]
fn both_directions_keep_a_busy_tunnel_alive_for_an_hour() {
    let mut pair = connected();
    let mut sent = 0;
    for second in 0..3600_u32 {
        let side = if second % 3 == 0 { A } else { B };
        pair.send(side, &packet(1));
        sent += 1;
        pair.advance_secs(1);
    }
    assert_eq!(pair.a.received.len() + pair.b.received.len(), sent);
    let initiations = |side: Side| pair.count(side, Kind::Initiation);
    assert_eq!((initiations(A), initiations(B)), (29, 0));
    assert!(pair.a.dropped.is_empty() && pair.b.dropped.is_empty());
}
