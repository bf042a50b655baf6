//! Who gets a session, from which messages, in which order.

use std::time::Duration;

use tsrs_base_types::{NodePrivate, NodePublic};
use tsrs_tunnel_packet::DropReason;

use super::pair::{A, B, Flight, Pair, SeededRng, Side, packet};
use crate::limits::MAX_HANDSHAKE_ATTEMPTS;
use crate::wire::{DATA_OVERHEAD, Kind};
use crate::{Role, TooManyPeers};

#[test]
fn the_first_packet_makes_a_session_and_arrives() {
    let mut pair = Pair::new();
    pair.send(A, &packet(1));
    assert_eq!(pair.b.received, [packet(1)]);
    let kinds: Vec<_> = pair.log.iter().map(|sent| (sent.from, sent.kind)).collect();
    assert_eq!(kinds, [(A, Kind::Initiation), (B, Kind::Response), (A, Kind::Data)]);
    assert_eq!(pair.session(A).role(), Role::Initiator);
    assert_eq!(pair.session(B).role(), Role::Responder);
    assert_eq!(pair.session(A).remote_index(), pair.session(B).local_index());
    pair.send(B, &packet(2));
    assert_eq!(pair.a.received, [packet(2)]);
    assert!(pair.a.dropped.is_empty() && pair.b.dropped.is_empty());

    let (key, sent_by_b) = (pair.key(B), pair.b.device.peer_status(&pair.key(A)).unwrap().sent_bytes);
    let status = pair.a.device.peer_status(&key).unwrap();
    assert_eq!(status.last_handshake.unwrap().as_second(), 1_700_000_000);
    assert!(status.has_session);
    assert_eq!(status.sent_bytes, 148 + 32 + DATA_OVERHEAD as u64);
    assert_eq!(status.received_bytes, sent_by_b);
    assert_eq!(sent_by_b, 92 + 32 + DATA_OVERHEAD as u64);
    let received_by_b = pair.b.device.peer_status(&pair.key(A)).unwrap().received_bytes;
    assert_eq!(received_by_b, status.sent_bytes);
}

#[test]
fn packets_wait_in_order_and_the_responder_waits_for_confirmation() {
    let mut pair = Pair::new();
    for number in 0..5 {
        pair.queue(A, &packet(number));
    }
    let initiation = pair.take_outbox(A).remove(0);
    pair.deliver(initiation);
    let response = pair.take_outbox(B).remove(0);
    // B has answered, but A has not proven yet that it has the keys.
    pair.queue(B, &packet(100));
    assert!(pair.take_outbox(B).is_empty());
    assert!(pair.b.send.is_empty());
    pair.deliver(response);
    pair.run();
    assert_eq!(pair.b.received, (0..5).map(packet).collect::<Vec<_>>());
    assert_eq!(pair.a.received, [packet(100)]);
    assert_eq!(pair.count(B, Kind::Initiation), 0);
}

#[test]
fn an_initiator_without_data_confirms_with_a_keepalive() {
    let mut pair = Pair::new();
    let (key, now) = (pair.key(B), pair.now);
    pair.a.device.start_handshake(&key, now).unwrap();
    pair.run();
    assert_eq!(pair.b.keepalives, 1);
    pair.send(B, &packet(1));
    assert_eq!(pair.a.received, [packet(1)]);
    assert_eq!(pair.count(B, Kind::Initiation), 0);
}

#[test]
fn what_did_not_reach_the_peer_is_repeated_sooner_but_ever_later() {
    let mut pair = Pair::new();
    pair.loses = Box::new(|flight| flight.kind() == Kind::Initiation);
    let (key, start) = (pair.key(B), pair.now);
    // A relay that says so of each, also more than once.
    let unreached = |pair: &mut Pair, after: u64| {
        pair.advance(Duration::from_millis(after));
        for _ in 0..2 {
            pair.a.device.note_unreached(&key, pair.now);
        }
        pair.count(A, Kind::Initiation)
    };
    pair.send(A, &packet(1));
    assert_eq!(unreached(&mut pair, 0), 1);
    assert_eq!(unreached(&mut pair, 249), 1);
    assert_eq!(unreached(&mut pair, 1), 2);
    assert_eq!(unreached(&mut pair, 499), 2);
    assert_eq!(unreached(&mut pair, 1), 3);
    for wait in [1, 2, 4] {
        unreached(&mut pair, wait * 1000);
    }
    assert_eq!(pair.count(A, Kind::Initiation), 6);
    // Now the pace is the usual one, and all those do not end the handshake sooner.
    assert_eq!(unreached(&mut pair, 4999), 6);
    assert_eq!(unreached(&mut pair, 335), 7);
    pair.advance(Duration::from_secs(80));
    assert!(pair.a.abandoned.is_empty());
    pair.advance(Duration::from_secs(20));
    assert_eq!(pair.a.abandoned, [1]);
    assert!(pair.now - start < Duration::from_secs(120));

    // Nothing waits for an answer: nothing is sent.
    let sent = pair.count(A, Kind::Initiation);
    unreached(&mut pair, 10_000);
    assert_eq!(pair.count(A, Kind::Initiation), sent);
}

#[test]
fn a_lost_message_is_repeated_after_five_seconds_and_jitter() {
    for lost in [Kind::Initiation, Kind::Response] {
        let mut pair = Pair::new();
        let mut first = true;
        pair.loses = Box::new(move |flight| flight.kind() == lost && std::mem::take(&mut first));
        pair.send(A, &packet(1));
        pair.advance(Duration::from_millis(4999));
        assert!(pair.b.received.is_empty());
        pair.advance(Duration::from_millis(335));
        assert_eq!(pair.b.received, [packet(1)], "{lost:?}");
        assert_eq!(pair.count(A, Kind::Initiation), 2);
    }
}

#[test]
fn a_lost_confirmation_is_made_up_by_the_next_packet() {
    let mut pair = Pair::new();
    let mut first = true;
    pair.loses = Box::new(move |flight| flight.kind() == Kind::Data && std::mem::take(&mut first));
    pair.send(A, &packet(1));
    assert!(pair.b.send.is_empty());
    pair.send(A, &packet(2));
    assert_eq!(pair.b.received, [packet(2)]);
    pair.send(B, &packet(3));
    assert_eq!(pair.a.received, [packet(3)]);
}

#[test]
fn a_silent_peer_is_given_up_after_90_seconds() {
    let mut pair = Pair::new();
    pair.loses = Box::new(|_| true);
    pair.send(A, &packet(1));
    pair.send(A, &packet(2));
    pair.advance_secs(89);
    assert!(pair.a.abandoned.is_empty());
    pair.advance_secs(8);
    assert_eq!(pair.a.abandoned, [2]);
    let times: Vec<_> = pair.log.iter().map(|sent| sent.at).collect();
    assert_eq!(times.len(), usize::try_from(MAX_HANDSHAKE_ATTEMPTS).unwrap());
    for gap in times.windows(2).map(|pair| pair[1] - pair[0]) {
        assert!((5000..=5333).contains(&gap.as_millis()), "{gap:?}");
    }
    // Nothing more until somebody asks again.
    pair.take_log();
    pair.advance_secs(600);
    assert!(pair.log.is_empty());
    assert_eq!(pair.a.device.poll_timeout(), None);
    pair.loses = Box::new(|_| false);
    pair.send(A, &packet(3));
    assert_eq!(pair.b.received, [packet(3)]);
}

#[test]
fn while_packets_come_the_handshake_is_not_given_up() {
    let mut pair = Pair::new();
    pair.loses = Box::new(|_| true);
    for _ in 0..100 {
        pair.send(A, &packet(1));
        pair.advance_secs(3);
    }
    assert!(pair.a.abandoned.is_empty());
    let initiations = pair.count(A, Kind::Initiation);
    assert!((56..=60).contains(&initiations), "{initiations}");
}

/// Two handshakes that begin at once. `pick` chooses which of the messages under way arrives next.
fn simultaneous(mut pick: impl FnMut(&[Flight]) -> usize) -> Pair {
    let mut pair = Pair::new();
    pair.queue(A, &packet(1));
    pair.queue(B, &packet(2));
    let mut under_way = [pair.take_outbox(A), pair.take_outbox(B)].concat();
    while !under_way.is_empty() {
        let flight = under_way.remove(pick(&under_way));
        pair.deliver(flight);
        under_way.extend(pair.take_outbox(A));
        under_way.extend(pair.take_outbox(B));
    }
    assert_eq!((&pair.b.received, &pair.a.received), (&vec![packet(1)], &vec![packet(2)]));
    pair
}

#[test]
fn simultaneous_handshakes_converge_wherever_each_direction_keeps_its_order() {
    for choices in 0..64_u32 {
        let mut step = 0;
        let mut pair = simultaneous(|under_way| {
            let first = if choices >> step & 1 == 0 { A } else { B };
            step += 1;
            under_way.iter().position(|flight| flight.from == first).unwrap_or(0)
        });
        // One more packet each way, and both send by the same session.
        for (side, number) in [(A, 3), (B, 4), (A, 5)] {
            pair.send(side, &packet(number));
        }
        assert_eq!(pair.session(A).remote_index(), pair.session(B).local_index(), "{choices}");
        assert_ne!(pair.session(A).role(), pair.session(B).role(), "{choices}");
        // It is renewed in time by the one side that began it, and neither side repeats anything.
        pair.take_log();
        for _ in 0..13 {
            pair.advance_secs(10);
            pair.send(A, &packet(6));
            pair.send(B, &packet(7));
        }
        let initiations = pair.count(A, Kind::Initiation) + pair.count(B, Kind::Initiation);
        assert_eq!(initiations, 1, "{choices}");
        assert_eq!((pair.a.received.len(), pair.b.received.len()), (15, 16));
    }
}

#[test]
fn simultaneous_handshakes_carry_traffic_without_a_gap_in_every_order() {
    for choices in 0..48_usize {
        let mut rest = choices;
        let mut pair = simultaneous(|under_way| {
            let pick = rest % under_way.len();
            rest /= under_way.len();
            pick
        });
        pair.take_log();
        for second in 1..=400 {
            pair.advance_secs(1);
            assert!(!pair.a.send.is_empty() && !pair.b.send.is_empty(), "{choices} {second}");
            pair.queue(A, &packet(6));
            pair.queue(B, &packet(7));
            pair.run();
            assert_eq!((pair.a.received.len(), pair.b.received.len()), (second + 1, second + 1), "{choices}");
        }
        let initiations = pair.count(A, Kind::Initiation) + pair.count(B, Kind::Initiation);
        assert!((2..=4).contains(&initiations), "{choices} {initiations}");
    }
}

#[test]
fn simultaneous_handshakes_survive_the_loss_of_any_message() {
    for lost in 1..=6 {
        let mut pair = Pair::new();
        let mut number = 0;
        pair.loses = Box::new(move |_| {
            number += 1;
            number == lost
        });
        pair.queue(A, &packet(1));
        pair.queue(B, &packet(2));
        pair.run();
        pair.loses = Box::new(|_| false);
        pair.advance_secs(6);
        pair.send(A, &packet(3));
        pair.send(B, &packet(4));
        pair.advance_secs(6);
        assert_eq!(pair.b.received.last(), Some(&packet(3)), "{lost}");
        assert_eq!(pair.a.received.last(), Some(&packet(4)), "{lost}");
    }
}

#[test]
fn our_own_handshake_survives_that_of_the_peer() {
    let mut pair = Pair::new();
    pair.queue(A, &packet(1));
    pair.queue(B, &packet(2));
    let from_a = pair.take_outbox(A).remove(0);
    let from_b = pair.take_outbox(B).remove(0);
    // Only A's initiation arrives before B's answer is read; B's own is still pending and is answered too.
    pair.deliver(from_a);
    let response = pair.take_outbox(B).remove(0);
    pair.deliver(from_b);
    let answer = pair.take_outbox(A).remove(0);
    assert_eq!((response.kind(), answer.kind()), (Kind::Response, Kind::Response));
    pair.deliver(answer);
    assert_eq!(pair.session(B).role(), Role::Initiator);
    pair.run();
    assert_eq!(pair.a.received, [packet(2)]);
    assert!(pair.a.dropped.is_empty() && pair.b.dropped.is_empty());
}

#[test]
fn a_session_that_the_peer_began_ends_a_handshake_of_ours() {
    let mut pair = Pair::new();
    pair.queue(A, &packet(1));
    // A's initiation is lost, and B begins one of its own.
    assert_eq!(pair.take_outbox(A).len(), 1);
    pair.send(B, &packet(2));
    assert_eq!((&pair.a.received, &pair.b.received), (&vec![packet(2)], &vec![packet(1)]));
    pair.take_log();
    pair.advance_secs(9);
    assert!(pair.log.is_empty());
}

#[test]
fn strangers_are_answered_only_when_they_are_admitted() {
    let mut pair = Pair::new();
    let a = pair.key(A);
    pair.b.device.remove_peer(&a);
    pair.send(A, &packet(1));
    assert_eq!(pair.b.dropped, [DropReason::UnknownPeer]);
    assert_eq!((pair.b.device.peer_count(), pair.b.receive.len()), (0, 0));
    pair.b.admits = true;
    pair.advance_secs(6);
    assert_eq!(pair.b.received, [packet(1)]);
    assert_eq!(pair.b.device.peer_count(), 1);
}

#[test]
fn a_node_is_not_its_own_peer() {
    let mut pair = Pair::new();
    let (own, now) = (pair.key(A), pair.now);
    assert_eq!(pair.a.device.add_peer(own), Ok::<(), TooManyPeers>(()));
    assert_eq!(pair.a.device.peer_count(), 1);
    assert_eq!(pair.a.device.send(&own, &packet(1), now), Err(DropReason::NoPeer));
    // A key of small order cannot be a peer either.
    assert_eq!(pair.a.device.send(&NodePublic::default(), &packet(1), now), Err(DropReason::NoPeer));
}

/// An initiation and its response, recorded.
fn recorded() -> (Pair, Flight, Flight) {
    let mut pair = Pair::new();
    pair.queue(A, &packet(1));
    let initiation = pair.take_outbox(A).remove(0);
    pair.deliver(initiation.clone());
    let response = pair.take_outbox(B).remove(0);
    pair.deliver(response.clone());
    pair.run();
    (pair, initiation, response)
}

#[test]
fn a_repeated_or_older_initiation_is_refused_also_after_the_peer_was_idle() {
    let (mut pair, initiation, response) = recorded();
    pair.advance_secs(1);
    pair.deliver(initiation.clone());
    assert_eq!(pair.b.dropped.pop(), Some(DropReason::HandshakeReplay));
    pair.deliver(response);
    assert_eq!(pair.a.dropped.pop(), Some(DropReason::UnexpectedReply));
    pair.advance_secs(600);
    assert!(pair.b.receive.is_empty());
    pair.deliver(initiation);
    assert_eq!(pair.b.dropped.pop(), Some(DropReason::HandshakeReplay));
    assert!(pair.b.receive.is_empty());
}

#[test]
fn initiations_closer_than_20_ms_are_refused() {
    let (mut pair, ..) = recorded();
    // The peer starts anew with a clock that is ahead, as often as it likes.
    let mut newer = |ahead: u64| {
        let key = pair.key(B);
        pair.a.device.reset_peer(&key);
        let later = pair.now + Duration::from_secs(ahead);
        pair.a.device.start_handshake(&key, later).unwrap();
        pair.take_outbox(A).remove(0)
    };
    let (first, second) = (newer(10), newer(20));
    pair.advance(Duration::from_millis(19));
    pair.deliver(first.clone());
    assert_eq!(pair.b.dropped.pop(), Some(DropReason::HandshakeFlood));
    pair.advance(Duration::from_millis(1));
    pair.deliver(first);
    pair.deliver(second.clone());
    assert_eq!(pair.b.dropped, [DropReason::HandshakeFlood]);
    pair.advance(Duration::from_millis(20));
    pair.deliver(second);
    assert_eq!(pair.b.dropped.len(), 1);
    assert_eq!(pair.take_outbox(B).len(), 2);
}

#[test]
fn every_damaged_or_cut_handshake_message_is_refused_without_a_trace() {
    let mut pair = Pair::new();
    pair.queue(A, &packet(1));
    let initiation = pair.take_outbox(A).remove(0);
    sweep(&mut pair, &initiation, B);
    pair.deliver(initiation);
    let response = pair.take_outbox(B).remove(0);
    sweep(&mut pair, &response, A);
    pair.deliver(response);
    pair.run();
    assert_eq!(pair.b.received, [packet(1)]);
}

fn sweep(pair: &mut Pair, good: &Flight, receiver: Side) {
    let (source, now) = (pair.node(good.from).source, pair.now);
    let device = &mut pair.node(receiver).device;
    let mut refused = |message: &[u8]| {
        let result = device.handle_handshake(message, source, &mut |_| true, now);
        assert!(result.is_err(), "{message:?}");
        assert!(device.poll_transmit().is_none() && device.poll_event().is_none());
        assert_eq!(device.peer_count(), 1);
    };
    for len in 0..good.payload.len() {
        refused(&good.payload[..len]);
    }
    // MAC2 is not looked at without load.
    for at in 0..good.payload.len() - 16 {
        let mut damaged = good.payload.clone();
        damaged[at] ^= 0x40;
        refused(&damaged);
    }
    let mut longer = good.payload.clone();
    longer.push(0);
    refused(&longer);
}

#[test]
fn a_removed_peer_can_neither_send_nor_receive_by_sessions_that_workers_still_hold() {
    for reset in [false, true] {
        let mut pair = Pair::new();
        pair.connect(A);
        let held = pair.session(A);
        let (key, now) = (pair.key(B), pair.now);
        pair.queue(B, &packet(9));
        let late = pair.take_outbox(B).remove(0);
        if reset {
            pair.a.device.reset_peer(&key);
        } else {
            pair.a.device.remove_peer(&key);
        }
        pair.a.drain();
        assert!(pair.a.send.is_empty() && pair.a.receive.is_empty());
        assert_eq!(held.reserve(1, now), Err(DropReason::SessionExpired));
        pair.a.receive.insert(held.local_index(), held);
        pair.deliver(late);
        assert_eq!(pair.a.dropped, [DropReason::SessionExpired]);
        pair.a.receive.clear();
        assert_eq!(pair.a.device.peer_count(), usize::from(reset));
        assert_eq!(pair.a.device.poll_timeout(), None);
        // The next packet starts over.
        pair.advance_secs(1);
        pair.send(A, &packet(3));
        assert_eq!(pair.b.received, [packet(3)]);
    }
}

#[test]
fn a_peer_that_lost_its_keys_gets_a_new_session_with_the_next_packet() {
    let mut pair = Pair::new();
    pair.connect(A);
    let key = pair.key(A);
    pair.b.device.reset_peer(&key);
    pair.b.drain();
    pair.send(A, &packet(1));
    assert_eq!(pair.b.dropped, [DropReason::UnknownIndex]);
    pair.send(B, &packet(2));
    assert_eq!(pair.a.received, [packet(2)]);
    pair.send(A, &packet(3));
    assert_eq!(pair.b.received, [packet(3)]);
}

#[test]
fn a_new_private_key_ends_all_sessions() {
    let mut pair = Pair::new();
    pair.connect(A);
    let old = pair.key(A);
    pair.a.device.set_private_key(NodePrivate::generate(&mut SeededRng(77)));
    pair.a.drain();
    assert!(pair.a.send.is_empty() && pair.a.receive.is_empty());
    assert_ne!(pair.key(A), old);
    pair.advance_secs(1);
    pair.b.admits = true;
    pair.send(A, &packet(1));
    assert_eq!(pair.b.received, [packet(1)]);
    assert_eq!(pair.b.device.peer_count(), 2);
}
