use tsrs_lab_vectors::SeededRng;

use super::pair::{CLIENT, Server, pattern};
use super::*;

#[test]
fn a_destination_that_does_not_take_bytes_holds_the_client_back() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (client, flow) = pair.connected(Server { stalls: true, ..Server::default() });
    let sent = pattern(400_000, 1);
    let (mut to_send, mut nothing): (VecDeque<u8>, _) = (sent.clone().into(), Vec::new());
    let end = pair.now + Duration::from_secs(30);
    pair.run_until("half a minute passes", |pair| {
        pair.move_client(client, &mut to_send, &mut nothing);
        pair.now >= end
    });
    // What the first window allows waits in the stack.
    let bytes = pair.stack.usage().bytes;
    assert!((64 * 1024..300_000).contains(&bytes), "{bytes}");
    pair.servers.get_mut(&flow).unwrap().stalls = false;
    pair.serve_flow(flow);
    pair.run_until("all bytes arrive", |pair| {
        pair.move_client(client, &mut to_send, &mut nothing);
        pair.servers[&flow].received.len() == sent.len()
    });
    assert!(pair.servers[&flow].received == sent);
    assert_eq!(pair.stack.usage().bytes, 0);
}

#[test]
fn a_client_that_does_not_take_bytes_is_asked_for_its_window_as_long_as_it_lives() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let sent = pattern(500_000, 1);
    let (client, flow) =
        pair.connected(Server { to_send: sent.clone().into(), closes: true, ..Server::default() });
    pair.run_for(Duration::from_secs(400));
    assert!(pair.servers[&flow].closed.is_none());
    let bytes = pair.stack.usage().bytes;
    assert!(bytes <= 4 << 20, "{bytes}");
    let (mut nothing, mut received) = (VecDeque::new(), Vec::new());
    pair.run_until("all bytes arrive", |pair| {
        pair.move_client(client, &mut nothing, &mut received);
        received.len() == sent.len()
    });
    assert!(received == sent);
}

#[test]
fn idle_flows_hold_no_memory() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let mut flows = Vec::new();
    for salt in 0..20 {
        let server = Server { to_send: pattern(50_000, salt).into(), ..Server::default() };
        flows.push(pair.connected(server));
    }
    let mut received = vec![Vec::new(); flows.len()];
    pair.run_until("all bytes arrive", |pair| {
        for ((client, _), received) in flows.iter().zip(&mut received) {
            pair.move_client(*client, &mut VecDeque::new(), received);
        }
        received.iter().all(|received| received.len() == 50_000)
    });
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.stack.usage(), FlowUsage { flows: 20, held: 0, bytes: 0 });
}

#[test]
fn memory_stays_within_its_limit_and_everybody_is_served_in_the_end() {
    let limits = FlowLimits { bytes: 256 << 10, bytes_per_peer: 256 << 10, ..FlowLimits::default() };
    let mut pair = Pair::new(Link::CLEAN, limits, 1);
    let mut flows = Vec::new();
    for salt in 0..12 {
        let server = Server { to_send: pattern(100_000, salt).into(), ..Server::default() };
        flows.push(pair.connected(server));
    }
    let mut received = vec![Vec::new(); flows.len()];
    let mut most = 0;
    pair.run_until("all bytes arrive", |pair| {
        most = most.max(pair.stack.usage().bytes);
        for ((client, _), received) in flows.iter().zip(&mut received) {
            pair.move_client(*client, &mut VecDeque::new(), received);
        }
        received.iter().all(|received| received.len() == 100_000)
    });
    for (salt, received) in (0..).zip(&received) {
        assert!(*received == pattern(100_000, salt), "{salt}");
    }
    // One step of one flow may go beyond: its first buffer.
    assert!(most <= (256 + 64 + 16) << 10, "{most}");
}

/// The SYN of a peer.
fn syn(peer: &str) -> Vec<u8> {
    let head = Head {
        src: peer.parse().unwrap(),
        dst: "11.1.2.3:80".parse().unwrap(),
        seq: Seq(1),
        ack: Seq(0),
        flags: SYN,
        window: 1000,
        options: Options::default(),
    };
    let mut packet = Vec::new();
    head.write(0, 536, |_| {}, &mut packet);
    packet
}

#[test]
fn flows_and_held_syns_are_limited_in_all_and_per_peer() {
    let limits =
        FlowLimits { flows: 6, flows_per_peer: 4, held: 5, held_per_peer: 3, ..FlowLimits::default() };
    let now = Instant::now();
    let mut stack = FlowStack::new(pair::NODE, 1280, limits, SeededRng(1), now);
    let open = |stack: &mut FlowStack<SeededRng>, peer: &str| {
        match stack.handle_packet(&syn(peer), true, now) {
            Input::Taken => {}
            input @ (Input::Datagram(_) | Input::Dropped(_)) => {
                assert_eq!(input, Input::Dropped(InputDrop::Limit));
                return None;
            }
        }
        match stack.poll_event() {
            Some(Event::Opening { flow, .. }) => Some(flow),
            other => panic!("{other:?}"),
        }
    };
    let first: Vec<_> = (1..=4).map(|port| open(&mut stack, &format!("100.64.0.9:{port}"))).collect();
    assert_eq!(first.iter().flatten().count(), 3, "three may be held for one peer");
    for flow in first.iter().flatten() {
        stack.accept(*flow, now);
    }
    while stack.poll_event().is_some() {}
    assert!(open(&mut stack, "100.64.0.9:5").is_some());
    assert!(open(&mut stack, "100.64.0.9:6").is_none(), "four for one peer");
    assert!(open(&mut stack, "100.64.0.10:1").is_some());
    assert!(open(&mut stack, "100.64.0.11:1").is_some());
    assert!(open(&mut stack, "100.64.0.12:1").is_none(), "six in all");
    stack.refuse(first[0].unwrap(), Refusal::Reset, now);
    assert_eq!(stack.usage().flows, 6, "an accepted flow cannot be refused");
    stack.abort(first[0].unwrap(), now);
    let mut out = Vec::new();
    while stack.poll_transmit(1000, &mut out).is_some() {}
    while stack.poll_event().is_some() {}
    assert_eq!(stack.usage().flows, 5);
    assert!(open(&mut stack, "100.64.0.12:1").is_some());
}

#[test]
fn peers_take_turns_whatever_the_number_of_their_flows() {
    let now = Instant::now();
    let mut stack = FlowStack::new(pair::NODE, 1280, FlowLimits::default(), SeededRng(1), now);
    let peers = (1..=50).map(|port| format!("100.64.0.9:{port}")).chain(["100.64.0.10:1".to_owned()]);
    for peer in peers {
        stack.handle_packet(&syn(&peer), true, now);
        let Some(Event::Opening { flow, .. }) = stack.poll_event() else { panic!() };
        stack.accept(flow, now);
        while stack.poll_event().is_some() {}
    }
    let mut order = Vec::new();
    let mut out = Vec::new();
    while stack.poll_transmit(1000, &mut out).is_some() {
        order.push(parse(&out).dst);
    }
    assert_eq!(order.len(), 51);
    let other = order.iter().position(|peer| *peer != CLIENT).unwrap();
    assert!(other <= 1, "it waited for {other} packets of the other");
}

#[test]
fn garbage_is_dropped_and_makes_no_flow() {
    let now = Instant::now();
    let mut stack = FlowStack::new(pair::NODE, 1280, FlowLimits::default(), SeededRng(1), now);
    let whole = syn("100.64.0.9:1");
    for len in 0..whole.len() {
        assert_eq!(stack.handle_packet(&whole[..len], true, now), Input::Dropped(InputDrop::Malformed));
    }
    // The checksum is the pseudo-header's alone.
    assert_eq!(stack.handle_packet(&whole, false, now), Input::Dropped(InputDrop::Malformed));
    let mut icmp = whole.clone();
    icmp[9] = 1;
    assert_eq!(stack.handle_packet(&icmp, true, now), Input::Dropped(InputDrop::Protocol));
    assert_eq!(stack.usage(), FlowUsage::default());
    assert!(stack.poll_event().is_none() && stack.poll_timeout().is_none());
}
