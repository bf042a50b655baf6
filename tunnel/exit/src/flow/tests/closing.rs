use smoltcp::socket::tcp::State as ClientState;

use super::pair::{Server, pattern};
use super::*;

#[test]
fn the_end_of_the_clients_direction_leaves_the_other_open() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (client, flow) = pair.connected(Server::default());
    pair.client(client).send_slice(b"request").unwrap();
    pair.client(client).close();
    pair.run_until("the end arrives", |pair| pair.servers[&flow].peer_ended);
    assert_eq!(pair.servers[&flow].received, b"request");
    let answer = pattern(100_000, 1);
    let server = pair.servers.get_mut(&flow).unwrap();
    server.to_send.extend(&answer);
    server.closes = true;
    pair.serve_flow(flow);
    let (mut nothing, mut received) = (VecDeque::new(), Vec::new());
    pair.run_until("the answer arrives", |pair| {
        pair.move_client(client, &mut nothing, &mut received);
        received.len() == answer.len()
    });
    assert!(received == answer);
    pair.run_until("it closes", |pair| pair.servers[&flow].closed.is_some());
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::Finished));
}

#[test]
fn the_end_of_the_destinations_direction_leaves_the_other_open() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (client, flow) = pair.connected(Server { closes: true, ..Server::default() });
    let now = pair.now;
    pair.stack.close(flow, now);
    pair.run_until("the client sees the end", |pair| pair.client(client).state() == ClientState::CloseWait);
    let sent = pattern(50_000, 2);
    let (mut to_send, mut nothing): (VecDeque<u8>, _) = (sent.clone().into(), Vec::new());
    pair.run_until("bytes arrive", |pair| {
        pair.move_client(client, &mut to_send, &mut nothing);
        pair.servers[&flow].received.len() == sent.len()
    });
    assert!(pair.servers[&flow].received == sent);
    pair.client(client).close();
    pair.run_until("the client is done", |pair| pair.client(client).state() == ClientState::Closed);
    assert!(pair.servers[&flow].closed.is_none(), "we ended first, so we remember it");
    pair.run_until("it is forgotten", |pair| pair.servers[&flow].closed.is_some());
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::Finished));
}

#[test]
fn a_reset_of_either_side_ends_it() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (client, flow) = pair.connected(Server::default());
    pair.client(client).abort();
    pair.run_until("it closes", |pair| pair.servers[&flow].closed.is_some());
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::Reset));

    let (client, flow) = pair.connected(Server::default());
    let now = pair.now;
    pair.stack.abort(flow, now);
    pair.run_until("the client is told", |pair| pair.client(client).state() == ClientState::Closed);
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::Aborted));
    assert_eq!(pair.stack.usage(), FlowUsage::default());
}

#[test]
fn a_reset_with_another_number_than_the_next_ends_nothing() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (client, flow) = pair.connected(Server::default());
    let local = pair.client(client).local_endpoint().unwrap();
    let peer = SocketAddrV4::new(pair::CLIENT, local.port);
    let syn_ack = pair.sent.iter().find(|packet| parse(packet).tcp_flags == SYN | ACK).unwrap().clone();
    let next = Segment::parse(&parse(&syn_ack), &syn_ack, false).unwrap().ack;
    for distance in [1, 1000, 65_000, 70_000] {
        let head = Head {
            src: peer,
            dst: "11.1.2.3:80".parse().unwrap(),
            seq: next.plus(distance),
            ack: Seq(0),
            flags: RST,
            window: 0,
            options: Options::default(),
        };
        let mut packet = Vec::new();
        head.write(0, 536, |_| {}, &mut packet);
        pair.stack.handle_packet(&packet, true, pair.now);
    }
    pair.run_for(Duration::from_secs(1));
    assert!(pair.servers[&flow].closed.is_none());
    assert!(pair.client(client).may_send());
}

#[test]
fn a_client_that_vanishes_is_found_out_while_data_is_under_way() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let server = Server { to_send: pattern(100_000, 1).into(), ..Server::default() };
    let (_, flow) = pair.connected(server);
    pair.link = Link { loss: 100, ..Link::CLEAN };
    let vanished = pair.now;
    pair.run_until("it is found out", |pair| pair.servers[&flow].closed.is_some());
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::PeerGone));
    let after = pair.now - vanished;
    assert!((60..300).contains(&after.as_secs()), "{after:?}");
    assert_eq!(pair.stack.usage(), FlowUsage::default());
}

#[test]
fn a_client_that_vanishes_is_found_out_while_nothing_happens() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (client, flow) = pair.connected(Server::default());
    pair.run_for(Duration::from_secs(500));
    assert!(pair.servers[&flow].closed.is_none() && pair.client(client).may_send(), "it is only idle");
    pair.link = Link { loss: 100, ..Link::CLEAN };
    pair.run_for(Duration::from_secs(120 + 7 * 20));
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::PeerGone));
}
