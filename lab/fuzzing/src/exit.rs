//! What proxies answer, where they are said to be, and what peers send through them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tsrs_tunnel_exit::flow::{Event, FlowLimits, FlowStack, Refusal};
use tsrs_tunnel_exit::policy::{Destination, Policy, PolicyConfig, Verdict};
use tsrs_tunnel_exit::proxy::{
    CredentialSource, Credentials, Handshake, Outcome, ProxyUrl, Purpose, Step, split_udp, udp_header,
};

use tsrs_tunnel_packet::gso::SuperPacket;
use tsrs_tunnel_packet::icmp::Unreachable;
use tsrs_tunnel_packet::ipv4::{Class, parse};

use crate::input::{Input, Seeded};

const PROXY: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 8);

/// Answers of a SOCKS5 proxy.
pub fn socks5(data: &[u8]) {
    handshake("socks5://11.0.0.8:1080", data);
}

/// Answers of an HTTP proxy.
pub fn http(data: &[u8]) {
    handshake("http://11.0.0.8:3128", data);
}

/// Datagrams of a proxy's relay.
pub fn udp(data: &[u8]) {
    let Ok((sender, payload)) = split_udp(data) else { return };
    assert!(data.ends_with(payload));
    if let Some(destination) = admitted(sender) {
        assert_eq!(udp_header(destination), data[..data.len() - payload.len()]);
    }
}

/// What the operator wrote about a proxy.
pub fn texts(data: &[u8]) {
    let text = Input::new(data).text();
    if let Ok(url) = text.parse::<ProxyUrl>() {
        assert_eq!(url.to_string().parse::<ProxyUrl>().as_ref(), Ok(&url));
    }
    if let Ok(source) = text.parse::<CredentialSource>() {
        assert_eq!(source.to_string(), text);
    }
    if let Ok(credentials) = Credentials::parse(data) {
        assert_eq!(format!("{credentials:?}"), "Credentials([redacted])");
    }
}

/// The first byte tells what is asked for, with or without credentials, and the size of pieces.
fn handshake(proxy: &str, data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let purpose = match (kind & 3, admitted(SocketAddrV4::new(Ipv4Addr::new(11, 1, 2, 3), 443))) {
        (0 | 1, Some(destination)) => Purpose::Connect(destination),
        (2, _) => Purpose::Associate { proxy: PROXY },
        _ => Purpose::Health,
    };
    let credentials = (kind & 4 != 0).then(|| Credentials::parse(b"user:secret").ok()).flatten();
    let Ok(proxy) = proxy.parse() else { return };
    let now = Instant::now();
    let Ok(mut handshake) = Handshake::new(&proxy, purpose, credentials.as_ref(), now) else { return };
    for piece in input.rest().chunks(usize::from(kind >> 3).max(1)) {
        if let Some(message) = handshake.poll_transmit() {
            // Exposed to look at its length.
            assert!(message.expose().len() < 1024);
        }
        match handshake.handle_input(piece, now) {
            Ok(Step::Pending) => {}
            Ok(Step::Done { consumed, outcome }) => {
                assert!((1..=piece.len()).contains(&consumed));
                if let Outcome::Associated(relay) = outcome {
                    assert_eq!(*relay.ip(), PROXY);
                }
                return;
            }
            Err(error) => {
                error.blame();
                return;
            }
        }
    }
}

fn admitted(address: SocketAddrV4) -> Option<Destination> {
    let policy = Policy::new(PolicyConfig::default()).ok()?;
    match policy.judge(Ipv4Addr::new(100, 64, 0, 9), address) {
        Verdict::Proxy(destination) => Some(destination),
        Verdict::Subnet | Verdict::Refused(_) => None,
    }
}

/// Packets of peers, and what the relay and the clock do between them. The stack's numbers depend on its seed alone, so a seed can hold a
/// whole connection.
pub fn flows(data: &[u8]) {
    let limits =
        FlowLimits { flows: 8, held: 4, bytes: 1 << 20, bytes_per_peer: 1 << 20, ..FlowLimits::default() };
    let mut now = Instant::now();
    let mut stack = FlowStack::new(PROXY, 1280, limits, Seeded(1), now);
    let mut flows = Vec::new();
    let mut out = Vec::new();
    for (kind, record) in Input::new(data).records() {
        let flow = flows.get(usize::from(kind >> 4)).copied();
        match (kind & 0x0f, flow) {
            (0, _) => drop(stack.handle_packet(record, false, now)),
            (1, _) => drop(stack.handle_packet(record, true, now)),
            (2, _) => {
                now += Duration::from_millis(u64::from(kind) * 50);
                stack.handle_timeout(now);
            }
            (3, Some(flow)) => stack.accept(flow, now),
            (4, Some(flow)) => stack.refuse(flow, Refusal::Unreachable(Unreachable::Host), now),
            (5, Some(flow)) => {
                let taken = stack.push(flow, record, now);
                assert!(taken <= record.len());
            }
            (6, Some(flow)) => {
                let len = stack.peek(flow, 0).len();
                stack.consume(flow, len, now);
            }
            (7, Some(flow)) => stack.close(flow, now),
            (8, Some(flow)) => stack.abort(flow, now),
            (9, _) => stack.refuse_packet(record, Unreachable::AdminProhibited),
            _ => {}
        }
        while let Some(event) = stack.poll_event() {
            if let Event::Opening { flow, .. } = event {
                flows.push(flow);
            }
        }
        while let Some(header) = stack.poll_transmit(4096, &mut out) {
            assert!(SuperPacket::new(&header, &out).is_ok());
            assert_ne!(parse(&out).class, Class::Unknown);
        }
        let usage = stack.usage();
        assert!(usage.flows <= limits.flows && usage.held <= limits.held && usage.bytes <= limits.bytes * 2);
    }
}
