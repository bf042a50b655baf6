//! A device under load, and a peer that has to prove its address.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tsrs_base_types::{NodePublic, RegionId};
use tsrs_tunnel_packet::DropReason;

use super::pair::{A, B, Flight, Pair, packet};
use crate::limits::UNDER_LOAD_BACKLOG;
use crate::wire::Kind;
use crate::{Destination, Source};

/// B has a long queue from now on, for one second.
fn load(pair: &mut Pair) {
    let now = pair.now;
    pair.b.device.note_backlog(UNDER_LOAD_BACKLOG, now);
}

fn mac2(flight: &Flight) -> [u8; 16] {
    *flight.payload.last_chunk().unwrap()
}

#[test]
fn under_load_an_initiation_costs_a_cookie_and_goes_through_with_it() {
    let mut pair = Pair::new();
    load(&mut pair);
    pair.send(A, &packet(1));
    let kinds: Vec<_> = pair.take_log().iter().map(|sent| (sent.from, sent.kind)).collect();
    assert_eq!(kinds, [(A, Kind::Initiation), (B, Kind::CookieReply)]);
    assert_eq!(pair.b.dropped, [DropReason::CookieRequired]);
    assert!(pair.b.receive.is_empty());
    pair.advance(Duration::from_millis(4_900));
    load(&mut pair);
    pair.advance(Duration::from_millis(500));
    assert_eq!(pair.b.received, [packet(1)]);
    let kinds: Vec<_> = pair.take_log().iter().map(|sent| (sent.from, sent.kind)).collect();
    assert_eq!(kinds, [(A, Kind::Initiation), (B, Kind::Response), (A, Kind::Data)]);
}

#[test]
fn the_load_is_over_after_a_second() {
    let mut pair = Pair::new();
    pair.b.device.note_backlog(UNDER_LOAD_BACKLOG - 1, pair.now);
    pair.send(A, &packet(1));
    assert_eq!(pair.b.received, [packet(1)]);
    let mut pair = Pair::new();
    load(&mut pair);
    pair.advance(Duration::from_millis(999));
    pair.queue(A, &packet(1));
    let initiation = pair.take_outbox(A).remove(0);
    pair.deliver(initiation.clone());
    assert_eq!(pair.b.dropped, [DropReason::CookieRequired]);
    pair.advance(Duration::from_millis(1));
    pair.deliver(initiation);
    assert_eq!(pair.b.dropped.len(), 1);
}

/// A knows a cookie; its next initiation carries it. The load of B is over.
fn with_cookie() -> (Pair, Flight) {
    let mut pair = Pair::new();
    load(&mut pair);
    pair.send(A, &packet(1));
    pair.loses = Box::new(|_| true);
    pair.advance(Duration::from_millis(4_999));
    pair.loses = Box::new(|_| false);
    pair.b.dropped.clear();
    pair.now += Duration::from_millis(400);
    let now = pair.now;
    pair.a.device.handle_timeout(now);
    let initiation = pair.take_outbox(A).remove(0);
    assert_ne!(mac2(&initiation), [0; 16]);
    (pair, initiation)
}

#[test]
fn a_cookie_is_good_for_its_own_source_only() {
    let (mut pair, initiation) = with_cookie();
    let own = pair.a.source;
    let Source::Udp(address) = own else { panic!("no address") };
    let node = pair.key(A);
    for other in [
        Source::Udp(SocketAddr::from((address.ip(), address.port() ^ 1))),
        Source::Udp(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 2), address.port()))),
        Source::Relay { region: RegionId(1), node },
    ] {
        load(&mut pair);
        pair.a.source = other;
        pair.deliver(initiation.clone());
        assert_eq!(pair.b.dropped.pop(), Some(DropReason::CookieRequired), "{other:?}");
        let now = pair.now;
        let reply = pair.b.device.poll_transmit();
        assert!(reply.is_none(), "drained by the node");
        assert_eq!(pair.take_outbox(B).len(), 1);
        assert!(
            pair.b.device.peer_status(&node).is_some_and(|status| status.last_handshake.is_none()),
            "{now:?}"
        );
    }
    pair.a.source = own;
    pair.deliver(initiation);
    assert!(pair.b.dropped.is_empty());
}

#[test]
fn a_cookie_reply_goes_to_the_source_and_not_to_the_peer() {
    let mut pair = Pair::new();
    load(&mut pair);
    pair.queue(A, &packet(1));
    let initiation = pair.take_outbox(A).remove(0);
    let (source, now) = (pair.a.source, pair.now);
    let taken = pair.b.device.handle_handshake(&initiation.payload, source, &mut |_| false, now);
    assert_eq!(taken, Err(DropReason::CookieRequired));
    assert_eq!(pair.b.device.poll_transmit().unwrap().to, Destination::Source(source));
}

#[test]
fn cookies_die_after_120_seconds_on_both_sides() {
    let (mut pair, initiation) = with_cookie();
    // B's secret was made with the first reply, 5.4 s ago.
    pair.loses = Box::new(|_| true);
    pair.advance(Duration::from_millis(114_500));
    load(&mut pair);
    pair.deliver(initiation.clone());
    pair.take_outbox(B);
    assert!(pair.b.dropped.is_empty());
    pair.advance(Duration::from_millis(200));
    load(&mut pair);
    pair.deliver(initiation);
    assert_eq!(pair.b.dropped, [DropReason::CookieRequired]);
    // And A does not use what it was given any longer.
    let (mut pair, _) = with_cookie();
    pair.loses = Box::new(|_| true);
    for _ in 0..40 {
        pair.queue(A, &packet(1));
        pair.advance_secs(3);
    }
    let key = pair.key(B);
    pair.advance_secs(6);
    pair.a.device.reset_peer(&key);
    let now = pair.now;
    pair.a.device.start_handshake(&key, now).unwrap();
    assert_eq!(mac2(&pair.take_outbox(A)[0]), [0; 16]);
}

#[test]
fn a_response_under_load_costs_a_cookie_too() {
    let mut pair = Pair::new();
    pair.queue(B, &packet(1));
    let initiation = pair.take_outbox(B).remove(0);
    pair.deliver(initiation);
    let response = pair.take_outbox(A).remove(0);
    load(&mut pair);
    pair.deliver(response);
    assert_eq!(pair.b.dropped, [DropReason::CookieRequired]);
    let reply = pair.take_outbox(B).remove(0);
    assert_eq!(reply.kind(), Kind::CookieReply);
    pair.deliver(reply);
    assert!(pair.a.dropped.is_empty());
    // The next handshake of B is answered with the cookie.
    pair.advance(Duration::from_millis(4_800));
    load(&mut pair);
    pair.advance(Duration::from_millis(600));
    assert_eq!(pair.a.received, [packet(1)]);
}

#[test]
fn a_proven_address_gets_its_share_and_no_more() {
    let (mut pair, initiation) = with_cookie();
    load(&mut pair);
    for _ in 0..30 {
        pair.deliver(initiation.clone());
    }
    let count = |reason| pair.b.dropped.iter().filter(|dropped| **dropped == reason).count();
    assert_eq!(count(DropReason::HandshakeRate), 25);
    assert_eq!(count(DropReason::HandshakeReplay), 4);
}

#[test]
fn false_cookie_replies_change_nothing() {
    let mut pair = Pair::new();
    load(&mut pair);
    pair.queue(A, &packet(1));
    let initiation = pair.take_outbox(A).remove(0);
    pair.deliver(initiation);
    let reply = pair.take_outbox(B).remove(0);
    let refused = |pair: &mut Pair, payload: Vec<u8>, reason: DropReason| {
        pair.deliver(Flight { from: B, payload });
        assert_eq!(pair.a.dropped.pop(), Some(reason));
    };
    for at in 8..reply.payload.len() {
        let mut damaged = reply.payload.clone();
        damaged[at] ^= 1;
        refused(&mut pair, damaged, DropReason::Unauthenticated);
    }
    let mut unknown = reply.payload.clone();
    unknown[4] ^= 1;
    refused(&mut pair, unknown, DropReason::UnexpectedReply);
    for len in 0..reply.payload.len() {
        let (source, now) = (pair.b.source, pair.now);
        let taken =
            pair.a.device.handle_handshake(&reply.payload[..len], source, &mut |_: &NodePublic| false, now);
        assert_eq!(taken, Err(DropReason::BadMessage));
    }
    pair.deliver(reply);
    assert!(pair.a.dropped.is_empty());
}
