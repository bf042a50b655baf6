use smoltcp::socket::tcp::State as ClientState;
use tsrs_tunnel_packet::ipv4::tcp_flag::FIN;

use super::pair::{CLIENT, NODE, Server};
use super::*;

#[test]
fn a_syn_is_held_until_the_proxy_answers() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let client = pair.connect();
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.opened.len(), 1, "the repeated SYNs are one flow");
    assert_eq!(pair.opened[0].1, "11.1.2.3:80".parse().unwrap());
    assert!(pair.sent.is_empty(), "the client was answered before the proxy");
    assert_eq!(pair.client(client).state(), ClientState::SynSent);
    assert_eq!(pair.stack.usage().held, 1);
    let flow = pair.opened[0].0;
    pair.servers.insert(flow, Server::default());
    let now = pair.now;
    pair.stack.accept(flow, now);
    pair.run_until("the client is connected", |pair| pair.client(client).may_send());
    assert_eq!(pair.stack.usage(), FlowUsage { flows: 1, held: 0, bytes: 0 });
}

#[test]
fn a_refused_syn_is_reset() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let client = pair.connect();
    pair.run_until("a SYN arrives", |pair| !pair.opened.is_empty());
    let (flow, now) = (pair.opened[0].0, pair.now);
    pair.stack.refuse(flow, Refusal::Reset, now);
    pair.run_until("the client is told", |pair| pair.client(client).state() == ClientState::Closed);
    assert_eq!(pair.stack.usage(), FlowUsage::default());
}

#[test]
fn a_prohibited_syn_is_answered_by_icmp_about_it() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    pair.connect();
    pair.run_until("a SYN arrives", |pair| !pair.opened.is_empty());
    let (flow, now) = (pair.opened[0].0, pair.now);
    pair.stack.refuse(flow, Refusal::Unreachable(Unreachable::AdminProhibited), now);
    pair.drain();
    let [message] = pair.sent.as_slice() else { panic!("{:?}", pair.sent) };
    let parsed = parse(message);
    assert_eq!((parsed.src, parsed.dst, parsed.icmp_type, parsed.icmp_code), (NODE, CLIENT, 3, 13));
    let quoted = parse(&message[28..]);
    assert_eq!((quoted.src, quoted.dst, quoted.dst_port), (CLIENT, [11, 1, 2, 3].into(), 80));
    assert_eq!(quoted.tcp_flags, SYN);
}

#[test]
fn a_syn_that_nobody_decides_on_is_refused_in_the_end() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    pair.connect();
    pair.run_for(HELD_LIMIT + Duration::from_secs(1));
    assert_eq!(pair.stack.usage().held, 0);
    assert_eq!(parse(&pair.sent[0]).icmp_type, 3);
}

#[test]
fn a_segment_of_no_flow_is_reset_and_a_reset_is_not() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    let (peer, destination) = ("100.64.0.9:5".parse().unwrap(), "11.1.2.3:80".parse().unwrap());
    for (flags, answer) in
        [(ACK, Some(RST)), (FIN, Some(RST | ACK)), (SYN | ACK, Some(RST)), (RST, None), (RST | ACK, None)]
    {
        let options = Options::default();
        let head = Head { src: peer, dst: destination, seq: Seq(9), ack: Seq(77), flags, window: 1, options };
        let mut packet = Vec::new();
        head.write(0, 536, |_| {}, &mut packet);
        assert_eq!(pair.stack.handle_packet(&packet, true, pair.now), Input::Taken);
        pair.sent.clear();
        pair.drain();
        assert_eq!(pair.sent.first().map(|packet| parse(packet).tcp_flags), answer, "{flags:#x}");
    }
    assert!(pair.opened.is_empty());
}

#[test]
fn a_client_that_does_not_finish_the_handshake_is_given_up() {
    let mut pair = Pair::new(Link::CLEAN, FlowLimits::default(), 1);
    pair.connect();
    pair.run_until("a SYN arrives", |pair| !pair.opened.is_empty());
    let flow = pair.opened[0].0;
    pair.servers.insert(flow, Server::default());
    pair.link = Link { loss: 100, ..Link::CLEAN };
    let now = pair.now;
    pair.stack.accept(flow, now);
    pair.run_until("it is given up", |pair| pair.servers[&flow].closed.is_some());
    assert_eq!(pair.servers[&flow].closed, Some(CloseReason::PeerGone));
    let waited = pair.now - now;
    assert!((30..70).contains(&waited.as_secs()), "{waited:?}");
    assert_eq!(pair.stack.usage(), FlowUsage::default());
}
