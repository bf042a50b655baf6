//! Counters, queues and memory end where they should.

use tsrs_tunnel_packet::DropReason;

use super::pair::{A, B, Pair, packet, sized_packet};
use crate::limits::{MAX_STAGED_BYTES, MAX_STAGED_PACKETS, REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES};
use crate::wire::Kind;

#[test]
fn many_messages_under_one_key_renew_it_on_either_side() {
    for side in [A, B] {
        let mut pair = Pair::new();
        pair.connect(A);
        pair.session(side).set_send_counter(REKEY_AFTER_MESSAGES - 1);
        pair.send(side, &packet(1));
        assert_eq!(pair.count(side, Kind::Initiation), 0);
        pair.send(side, &packet(2));
        // After a handshake of its own the side waits five seconds before it begins another.
        pair.advance_secs(6);
        assert_eq!(pair.count(side, Kind::Initiation), 1);
        assert_eq!(pair.node(side.other()).received, [packet(1), packet(2)]);
    }
}

#[test]
fn no_counter_is_used_at_or_above_the_limit() {
    let mut pair = Pair::new();
    pair.connect(A);
    let (session, now) = (pair.session(A), pair.now);
    session.set_send_counter(REJECT_AFTER_MESSAGES - 2);
    assert_eq!(session.reserve(3, now), Err(DropReason::CounterExhausted));
    assert_eq!(session.reserve(2, now).map(|reserved| reserved.first), Ok(REJECT_AFTER_MESSAGES - 2));
    for _ in 0..10_000 {
        assert_eq!(session.reserve(64, now), Err(DropReason::CounterExhausted));
    }
    // The packet waits for a new session instead.
    pair.advance_secs(6);
    pair.send(A, &packet(1));
    assert_eq!(pair.b.received, [packet(1)]);
    assert_ne!(pair.session(A).local_index(), session.local_index());
}

#[test]
fn the_last_counter_below_the_limit_is_accepted() {
    let mut pair = Pair::new();
    pair.connect(A);
    pair.session(A).set_send_counter(REJECT_AFTER_MESSAGES - 1);
    pair.send(A, &packet(1));
    assert_eq!(pair.b.received, [packet(1)]);
}

#[test]
fn the_oldest_waiting_packet_gives_way() {
    let mut pair = Pair::new();
    pair.loses = Box::new(|_| true);
    let count = u8::try_from(MAX_STAGED_PACKETS + 2).unwrap();
    for number in 0..count {
        pair.send(A, &packet(number));
    }
    assert_eq!(pair.a.dropped, [DropReason::StagedFull; 2]);
    pair.loses = Box::new(|_| false);
    pair.advance_secs(6);
    assert_eq!(pair.b.received, (2..count).map(packet).collect::<Vec<_>>());
}

#[test]
fn waiting_packets_of_all_peers_share_one_bound_and_give_it_back() {
    let mut pair = Pair::new();
    let now = pair.now;
    let large = sized_packet(60_000, 1);
    let fitting = MAX_STAGED_BYTES / large.len();
    let peer =
        |number: usize| tsrs_base_types::NodePublic::from_bytes([u8::try_from(number + 1).unwrap(); 32]);
    for number in 0..fitting {
        assert_eq!(pair.a.device.send(&peer(number), &large, now), Ok(()), "{number}");
    }
    assert_eq!(pair.a.device.send(&peer(fitting), &large, now), Err(DropReason::StagedFull));
    pair.a.device.remove_peer(&peer(0));
    assert_eq!(pair.a.device.send(&peer(fitting), &large, now), Ok(()));
    // Abandoned handshakes give it back too.
    pair.loses = Box::new(|_| true);
    pair.advance_secs(100);
    assert_eq!(pair.a.abandoned.len(), fitting);
    for number in 0..fitting {
        assert_eq!(pair.a.device.send(&peer(number), &large, pair.now), Ok(()), "{number}");
    }
}

#[test]
fn packets_that_are_none_are_refused() {
    let mut pair = Pair::new();
    let (key, now) = (pair.key(B), pair.now);
    for len in [0, 65_536] {
        assert_eq!(pair.a.device.send(&key, &vec![0; len], now), Err(DropReason::TooBig));
    }
    assert!(pair.take_outbox(A).is_empty());
}
