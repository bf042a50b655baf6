//! Disco, STUN and Geneve.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use tsrs_base_types::{DiscoPrivate, RegionId};
use tsrs_tunnel_path::disco::{BoxCache, Message, envelope};
use tsrs_tunnel_path::machine::{Config, DerpChange, PathMachine, PeerConfig, Source};
use tsrs_tunnel_path::netcheck::{Region, StunHost, StunNode};
use tsrs_tunnel_path::{classify, geneve, stun as codec};

use crate::input::{Input, Seeded};
use crate::peer::public_key;

/// The content of a disco packet.
pub fn disco(data: &[u8]) {
    let Ok(message) = Message::parse(data) else { return };
    // Of another version only the type is read, so that what is left out has no form of its own.
    if data.get(1) == Some(&0) {
        let again = Message::parse(&message.to_bytes()).map(without_padding);
        assert_eq!(again, Ok(without_padding(message)));
    }
}

/// A node key of zeros is none, and its bytes are then padding that is not written again.
fn without_padding(mut message: Message) -> Message {
    if let Message::Ping { padding_len, .. } = &mut message {
        *padding_len = 0;
    }
    message
}

/// Requests and responses of STUN.
pub fn stun(data: &[u8]) {
    let request = codec::parse_request(data);
    let response = codec::parse_response(data);
    assert!(request.is_none() || codec::is_stun(data));
    assert!(request.is_none() || response.is_none(), "both a request and a response");
}

/// What a datagram is, and the envelopes that can be read without a key.
pub fn datagram(data: &[u8]) {
    classify(data);
    assert_eq!(envelope::split(data).is_some(), envelope::is_disco(data));
    if let Some(header) = geneve::Header::decode(data) {
        assert_eq!(geneve::Header::decode(&header.encode()), Some(header));
    }
    geneve::Header::parse(data);
    let ours = DiscoPrivate::from_bytes([1; 32]);
    if let Some((sender, sealed)) = envelope::split(data) {
        BoxCache::default().open(&ours, &sender, sealed);
    }
}

const REGION: RegionId = RegionId(1);

fn disco_key(number: u8) -> DiscoPrivate {
    DiscoPrivate::from_bytes([0x80 | number; 32])
}

/// A machine with two peers, a home region and a netcheck under way.
fn path_machine(now: Instant) -> PathMachine<Seeded> {
    let config = Config { node_key: public_key(1), disco_key: disco_key(1), port_is_fixed: false };
    let mut machine = PathMachine::new(config, Seeded(1));
    for number in [2, 3] {
        let peer = PeerConfig {
            node_key: public_key(number),
            disco_key: Some(disco_key(number).public()),
            home: Some(REGION),
            endpoints: vec![SocketAddr::from(([198, 51, 100, number], 41641))],
            expired: false,
        };
        machine.upsert_peer(peer, now);
    }
    machine.set_local(&[Ipv4Addr::new(10, 0, 0, 1)], 41641, now);
    let host = StunHost::Literal(Ipv4Addr::new(192, 0, 2, 1));
    let nodes = vec![StunNode { host, stun_port: Some(3478) }];
    let region = Region { id: REGION, avoid: false, no_measure_no_home: false, score: 1.0, nodes };
    machine.set_regions(vec![region], now);
    machine.handle_derp(REGION, DerpChange::Connected, now);
    machine
}

/// The machine between datagrams, sealed or not, traffic and time.
pub fn machine(data: &[u8]) {
    let mut now = Instant::now();
    let mut machine = path_machine(now);
    let mut boxes = [BoxCache::default(), BoxCache::default()];
    let mut last_request = None;
    for (kind, record) in Input::new(data).records() {
        let number = 2 + (kind & 1);
        let udp = Source::Udp(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, number), 41641));
        let relay = Source::Derp { region: RegionId(1 + i64::from(kind >> 7)), node: public_key(number) };
        let source = if kind & 2 == 0 { udp } else { relay };
        match (kind >> 2) & 7 {
            0 => machine.handle_datagram(source, record, now),
            // A message of the peer, if it is one.
            1..=3 => {
                let Ok(message) = Message::parse(record) else { continue };
                let key = disco_key(number);
                let packet = boxes[usize::from(kind & 1)].seal(
                    &mut Seeded(7),
                    &key,
                    &key.public(),
                    &disco_key(1).public(),
                    &message,
                );
                machine.handle_datagram(source, &packet, now);
            }
            4 => machine.note_sent(&public_key(number), now, now),
            5 => {
                now += Duration::from_millis(u64::from(record.first().copied().unwrap_or(0)) * 50);
                machine.handle_timeout(now);
            }
            // The answer to the last STUN request.
            6 => {
                let Some(tx_id) = last_request else { continue };
                let mut input = Input::new(record);
                let address = SocketAddr::from((input.array::<4>(), u16::from_be_bytes(input.array())));
                machine.handle_datagram(udp, &codec::response(tx_id, address), now);
            }
            _ => machine.handle_derp(REGION, DerpChange::Connected, now),
        }
        while let Some(transmit) = machine.poll_transmit() {
            last_request = codec::parse_request(&transmit.bytes).or(last_request);
        }
        while machine.poll_event().is_some() {}
    }
}
