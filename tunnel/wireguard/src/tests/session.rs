//! Batches of data messages: padding, order, replay and damage.

use tsrs_tunnel_packet::DropReason;

use super::pair::{A, B, MTU, Pair, packet, sized_packet};
use crate::limits::REJECT_AFTER_MESSAGES;
use crate::replay::WINDOW;
use crate::wire::{DATA_HEADER_LEN, DATA_OVERHEAD};
use crate::*;

fn connected() -> Pair {
    let mut pair = Pair::new();
    pair.connect(A);
    pair
}

/// Packets in wire layout, one behind the other, sealed by A.
fn sealed(pair: &mut Pair, packets: &[Vec<u8>]) -> (Vec<u8>, Vec<Incoming>) {
    let (mut buffer, mut outgoing, mut incoming) = (Vec::new(), Vec::new(), Vec::new());
    for packet in packets {
        let message = Outgoing::new(buffer.len(), packet.len(), MTU);
        let text = message.start + DATA_HEADER_LEN;
        buffer.resize(message.start + message.datagram_len(), 0xee);
        buffer[text..text + packet.len()].copy_from_slice(packet);
        outgoing.push(message);
        incoming.push(Incoming::new(message.start, message.datagram_len()));
    }
    let _ = pair.session(A).seal(&mut buffer, &outgoing, pair.now).unwrap();
    (buffer, incoming)
}

/// Opened by B, with buffer and list left as they were.
fn open_copy(pair: &mut Pair, buffer: &[u8], incoming: &[Incoming]) -> Vec<Outcome> {
    open(pair, &mut buffer.to_vec(), &mut incoming.to_vec())
}

/// Opened by B.
fn open(pair: &mut Pair, buffer: &mut [u8], incoming: &mut [Incoming]) -> Vec<Outcome> {
    let _ = pair.session(B).open(buffer, incoming, pair.now);
    incoming.iter().map(|message| message.outcome).collect()
}

#[test]
fn a_long_batch_of_all_sizes_is_opened_and_cut() {
    let mut pair = connected();
    let packets: Vec<_> = (0..150).map(|number| sized_packet(20 + usize::from(number) * 7, number)).collect();
    let (mut buffer, mut incoming) = sealed(&mut pair, &packets);
    assert!(incoming.iter().all(|message| message.len % 16 == 0));
    open(&mut pair, &mut buffer, &mut incoming);
    for (message, packet) in incoming.iter().zip(&packets) {
        assert_eq!(buffer[message.packet_range().unwrap()], *packet);
    }
}

#[test]
fn counters_go_up_one_by_one_over_batches_and_keepalives() {
    let mut pair = connected();
    let (buffer, incoming) = sealed(&mut pair, &[packet(1), vec![], packet(2)]);
    let (second, _) = sealed(&mut pair, &[packet(3)]);
    let counter =
        |buffer: &[u8], start: usize| u64::from_le_bytes(*buffer[start + 8..].first_chunk().unwrap());
    let first = counter(&buffer, 0);
    assert_eq!(counter(&buffer, incoming[1].start), first + 1);
    assert_eq!(counter(&buffer, incoming[2].start), first + 2);
    assert_eq!(counter(&second, 0), first + 3);
    assert_eq!(buffer[4..8], pair.session(A).remote_index().to_le_bytes());
}

#[test]
fn a_batch_in_any_order_is_accepted_once() {
    let mut pair = connected();
    let (buffer, mut incoming) = sealed(&mut pair, &[packet(1), packet(2), vec![], packet(3)]);
    incoming.reverse();
    let packet = Outcome::Packet { len: 30 };
    assert_eq!(open_copy(&mut pair, &buffer, &incoming), [packet, Outcome::Keepalive, packet, packet]);
    let replayed = [Outcome::Dropped(DropReason::Replay); 4];
    assert_eq!(open_copy(&mut pair, &buffer, &incoming), replayed);
    // The same message twice in one batch.
    let (buffer, incoming) = sealed(&mut pair, &[super::pair::packet(4)]);
    let doubled = [buffer.clone(), buffer].concat();
    let both = [incoming[0], Incoming::new(doubled.len() / 2, incoming[0].len)];
    assert_eq!(open_copy(&mut pair, &doubled, &both), [packet, Outcome::Dropped(DropReason::Replay)]);
}

#[test]
fn what_lies_behind_the_window_is_refused() {
    let mut pair = connected();
    let send = |pair: &mut Pair, counter: u64| {
        pair.session(A).set_send_counter(counter);
        sealed(pair, &[packet(1)])
    };
    let newest = 100_000;
    let accepted = Outcome::Packet { len: 30 };
    let refused = Outcome::Dropped(DropReason::Replay);
    for (counter, outcome) in [
        (newest, accepted),
        (newest - WINDOW, accepted),
        (newest - WINDOW - 1, refused),
        (newest - WINDOW, refused),
        (newest + 1, accepted),
        (newest - WINDOW + 1, accepted),
        (newest - 1, accepted),
    ] {
        let (mut buffer, mut incoming) = send(&mut pair, counter);
        assert_eq!(open(&mut pair, &mut buffer, &mut incoming), [outcome], "{counter}");
    }
}

#[test]
fn damage_touches_one_message_and_never_the_window() {
    let mut pair = connected();
    let (buffer, incoming) = sealed(&mut pair, &[packet(1), packet(2), packet(3)]);
    let (start, len) = (incoming[1].start, incoming[1].len);
    for at in start..start + len {
        // The receiver index is the table's matter: the workers found the session by it.
        if (start + 4..start + 8).contains(&at) {
            continue;
        }
        let mut damaged = buffer.clone();
        damaged[at] ^= 1;
        let mut message = [Incoming::new(start, len)];
        let outcome = open(&mut pair, &mut damaged, &mut message);
        assert_eq!(outcome, [Outcome::Dropped(DropReason::Unauthenticated)], "{at}");
    }
    let whole = open_copy(&mut pair, &buffer, &incoming);
    assert_eq!(whole, [Outcome::Packet { len: 30 }; 3]);
}

#[test]
fn every_truncation_is_refused() {
    let mut pair = connected();
    let (buffer, incoming) = sealed(&mut pair, &[packet(1)]);
    for len in 0..incoming[0].len {
        let mut message = [Incoming::new(0, len)];
        let outcome = open(&mut pair, &mut buffer[..len].to_vec(), &mut message);
        assert_eq!(outcome, [Outcome::Dropped(DropReason::Unauthenticated)], "{len}");
        // Also where the caller says more than there is.
        let mut message = [Incoming::new(0, incoming[0].len)];
        let outcome = open(&mut pair, &mut buffer[..len].to_vec(), &mut message);
        assert_eq!(outcome, [Outcome::Dropped(DropReason::Unauthenticated)], "{len}");
    }
    let message = [Incoming::new(usize::MAX, usize::MAX)];
    open_copy(&mut pair, &buffer, &message);
    assert_eq!(open_copy(&mut pair, &buffer, &incoming), [Outcome::Packet { len: 30 }]);
}

#[test]
fn an_inner_length_that_lies_is_dropped() {
    let mut pair = connected();
    let mut long = packet(1);
    long[2..4].copy_from_slice(&33_u16.to_be_bytes());
    let mut short = packet(2);
    short[2..4].copy_from_slice(&19_u16.to_be_bytes());
    let mut padded = packet(3);
    padded[2..4].copy_from_slice(&32_u16.to_be_bytes());
    let (mut buffer, mut incoming) = sealed(&mut pair, &[long, short, vec![0x55; 30], padded]);
    let dropped = Outcome::Dropped(DropReason::BadInnerLength);
    let outcomes = open(&mut pair, &mut buffer, &mut incoming);
    assert_eq!(outcomes, [dropped, dropped, dropped, Outcome::Packet { len: 32 }]);
}

#[test]
fn messages_outside_the_buffer_are_not_sealed() {
    let mut pair = connected();
    let (session, now) = (pair.session(A), pair.now);
    for (start, packet_len, text_len) in
        [(0, 17, 17), (1, 16, 16), (usize::MAX, 0, 0), (0, 0, usize::MAX), (0, 16, 0), (33, 0, 0)]
    {
        let outgoing = Outgoing { start, packet_len, text_len };
        assert_eq!(session.seal(&mut [0; 48], &[outgoing], now), Err(DropReason::TooBig), "{outgoing:?}");
    }
    assert!(session.seal(&mut [0; 48], &[Outgoing::new(0, 9, MTU)], now).is_ok());
}

#[test]
fn padding_is_zero_whatever_the_buffer_held() {
    let mut pair = connected();
    let (mut buffer, mut incoming) = sealed(&mut pair, &[packet(1), sized_packet(33, 2)]);
    open(&mut pair, &mut buffer, &mut incoming);
    for message in incoming {
        let padding = message.packet_range().unwrap().end..message.start + message.len - 16;
        assert!(!padding.is_empty() && buffer[padding].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn an_unconfirmed_session_receives_and_does_not_send() {
    let mut pair = Pair::new();
    pair.queue(A, &packet(1));
    let initiation = pair.take_outbox(A).remove(0);
    pair.deliver(initiation);
    let unconfirmed = pair.b.receive.values().next().unwrap().clone();
    assert_eq!(unconfirmed.reserve(1, pair.now), Err(DropReason::SessionExpired));
    pair.run();
    assert_eq!(pair.b.received, [packet(1)]);
    assert!(unconfirmed.reserve(1, pair.now).is_ok());
}

#[test]
fn a_counter_above_the_limit_is_refused_although_it_is_authentic() {
    let mut pair = connected();
    let mut buffer = vec![0; DATA_OVERHEAD];
    let reserved = Reserved { first: REJECT_AFTER_MESSAGES };
    assert!(pair.session(A).seal_reserved(reserved, &mut buffer, &[Outgoing::new(0, 0, MTU)]));
    let outcome = open(&mut pair, &mut buffer, &mut [Incoming::new(0, DATA_OVERHEAD)]);
    assert_eq!(outcome, [Outcome::Dropped(DropReason::Replay)]);
}

#[test]
fn workers_can_share_a_session() {
    let mut pair = connected();
    let (session, now) = (pair.session(A), pair.now);
    let firsts: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| (0..100).map(|_| session.reserve(3, now).unwrap().first).collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    let mut sorted = firsts;
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[1] == pair[0] + 3));
}

#[test]
fn nothing_secret_is_printed() {
    let mut pair = connected();
    let text = format!("{:?}", pair.session(A));
    assert!(text.starts_with("Session { peer: [") && text.ends_with("role: Initiator, .. }"), "{text}");
}
