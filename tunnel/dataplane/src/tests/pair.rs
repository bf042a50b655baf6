//! The bench: two nodes, a network between them that can be cut, and time that is told.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use tsrs_base_types::{DiscoPrivate, NodeId, NodePrivate, NodePublic, RegionId};
pub(super) use tsrs_lab_vectors::SeededRng as Seeded;
use tsrs_tunnel_packet::checksum::Sum;
use tsrs_tunnel_packet::ipv4::protocol;
use tsrs_tunnel_packet::vnet::VirtioNetHdr;
use tsrs_tunnel_packet::{DropReason, gro};
use tsrs_tunnel_path::netcheck::Region;
use tsrs_tunnel_path::{self as path, Destination, Source};

use crate::buffer::Superbuffer;
use crate::inbound::{Inbound, Layout};
use crate::machine::Rng;
use crate::outbound::Outbound;
use crate::{Change, DataPlane, Event, PeerConfig, Policy, Setup, TunnelConfig};

pub(super) const REGION: RegionId = RegionId(1);

/// One node: the machine, both workers, and what its host has received.
pub(super) struct Node {
    pub(super) plane: DataPlane,
    outbound: Outbound,
    inbound: Inbound,
    pub(super) key: NodePublic,
    pub(super) disco: DiscoPrivate,
    pub(super) tailnet: Ipv4Addr,
    pub(super) underlay: SocketAddrV4,
    /// Packets that went to the host, each as one.
    pub(super) host: Vec<Vec<u8>>,
    pub(super) events: Vec<Event>,
}

pub(super) fn node(seed: u64, now: Instant) -> Node {
    let number = u8::try_from(seed).unwrap();
    let mut rng = Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let node_key = NodePrivate::generate(&mut rng);
    let disco = DiscoPrivate::generate(&mut rng);
    let tailnet = Ipv4Addr::new(100, 64, 0, number);
    let config = TunnelConfig {
        addresses: vec![tailnet],
        service_address: Some(Ipv4Addr::new(100, 100, 100, 100)),
        ..TunnelConfig::default()
    };
    let key = node_key.public();
    let setup = Setup {
        node_key,
        disco_key: disco.clone(),
        port_is_fixed: false,
        config,
        policy: Policy::Open,
        wall: Timestamp::from_second(1_700_000_000).unwrap(),
        wake: || (),
    };
    let plane = DataPlane::new(setup, || Rng::new(rng.clone()), now);
    let mut inbound = Inbound::new(Arc::clone(plane.shared()));
    inbound.set_gro(gro::Options { tcp: false, udp: false });
    Node {
        outbound: Outbound::new(Arc::clone(plane.shared()), now),
        inbound,
        plane,
        key,
        disco,
        tailnet,
        underlay: SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, number), 41641),
        host: Vec::new(),
        events: Vec::new(),
    }
}

impl Node {
    /// How this node looks as a peer that is reached at a fixed address.
    pub(super) fn as_static_peer(&self) -> PeerConfig {
        PeerConfig {
            node_id: NodeId(self.tailnet.octets()[3].into()),
            endpoints: vec![SocketAddr::V4(self.underlay)],
            addresses: vec![self.tailnet],
            allowed_ips: vec![Ipv4Net::from(self.tailnet)],
            ..PeerConfig::new(self.key)
        }
    }

    /// How this node looks as a peer that is reached by a relay.
    pub(super) fn as_relayed_peer(&self) -> PeerConfig {
        PeerConfig {
            endpoints: Vec::new(),
            disco_key: Some(self.disco.public()),
            home_derp: Some(REGION),
            ..self.as_static_peer()
        }
    }

    pub(super) fn upsert(&mut self, peer: PeerConfig, now: Instant) {
        self.plane.apply(vec![Change::Upsert(Box::new(peer))], now);
    }

    pub(super) fn dropped_out(&self, reason: DropReason) -> u64 {
        self.plane.shared().outbound.drops.count(reason)
    }

    pub(super) fn dropped_in(&self, reason: DropReason) -> u64 {
        self.plane.shared().inbound.drops.count(reason)
    }
}

/// A datagram on the network.
#[derive(Clone, Debug)]
pub(super) struct Flying {
    pub(super) from: usize,
    pub(super) to: Destination,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Pair {
    pub(super) nodes: [Node; 2],
    pub(super) now: Instant,
    pub(super) udp_open: bool,
    pub(super) relay_open: bool,
    pub(super) udp_count: usize,
    pub(super) relay_count: usize,
}

impl Pair {
    /// Two nodes that do not know each other.
    pub(super) fn strangers() -> Self {
        let now = Instant::now();
        Self {
            nodes: [node(1, now), node(2, now)],
            now,
            udp_open: true,
            relay_open: true,
            udp_count: 0,
            relay_count: 0,
        }
    }

    /// Two nodes that know each other's address.
    pub(super) fn with_static_paths() -> Self {
        let mut pair = Self::strangers();
        pair.introduce(Node::as_static_peer);
        pair
    }

    /// Two nodes that can reach each other by a relay, and tell each other their addresses over it.
    pub(super) fn with_relay() -> Self {
        let mut pair = Self::strangers();
        let now = pair.now;
        for node in &mut pair.nodes {
            let underlay = node.underlay;
            node.plane.with_paths(now, |paths| {
                let region = Region {
                    id: REGION,
                    avoid: false,
                    no_measure_no_home: false,
                    score: 1.0,
                    nodes: Vec::new(),
                };
                paths.set_regions(vec![region], now);
                paths.set_local(&[*underlay.ip()], underlay.port(), now);
            });
        }
        pair.introduce(Node::as_relayed_peer);
        pair
    }

    pub(super) fn introduce(&mut self, how: impl Fn(&Node) -> PeerConfig) {
        let [a, b] = &mut self.nodes;
        a.upsert(how(b), self.now);
        b.upsert(how(a), self.now);
        self.settle();
    }

    /// The host of one node sends packets in one batch; then everything runs until it is quiet.
    pub(super) fn send(&mut self, from: usize, packets: &[Vec<u8>]) {
        let flying = self.collect(from, packets);
        self.carry(flying);
        self.settle();
    }

    /// The same without the network: gives the datagrams.
    pub(super) fn collect(&mut self, from: usize, packets: &[Vec<u8>]) -> Vec<Flying> {
        let now = self.now;
        let node = &mut self.nodes[from];
        let shared = Arc::clone(node.plane.shared());
        let routes = shared.tables.routes();
        let mut flying = Vec::new();
        for packet in packets {
            if let Some(mut routed) = node.outbound.judge(&routes, &VirtioNetHdr::default(), packet, now) {
                while !node.outbound.append(&routes, &mut routed, now) {
                    flush(node, from, now, &mut flying);
                }
            }
        }
        flush(node, from, now, &mut flying);
        flying
    }

    /// Brings datagrams to where they go, unless the network is cut.
    pub(super) fn carry(&mut self, flying: Vec<Flying>) {
        for datagram in flying {
            let sender = &self.nodes[datagram.from];
            let (source, to) = match datagram.to {
                Destination::Udp(addr) => {
                    self.udp_count += 1;
                    let to = self.nodes.iter().position(|node| node.underlay == addr);
                    (Source::Udp(sender.underlay), to.filter(|_| self.udp_open))
                }
                Destination::Derp { region, node } => {
                    self.relay_count += 1;
                    let source = Source::Derp { region, node: sender.key };
                    let to = self.nodes.iter().position(|other| other.key == node);
                    (source, to.filter(|_| self.relay_open && region == REGION))
                }
            };
            if let Some(to) = to {
                self.nodes[to].receive(source, &datagram.bytes, self.now);
            }
        }
    }

    /// Runs both machines until none has anything to say.
    pub(super) fn settle(&mut self) {
        loop {
            let mut flying = Vec::new();
            for (from, node) in self.nodes.iter_mut().enumerate() {
                while node.plane.handle_notices(self.now) {}
                while let Some(transmit) = node.plane.poll_transmit() {
                    flying.push(Flying { from, to: transmit.to, bytes: transmit.datagram });
                }
                while let Some(event) = node.plane.poll_event() {
                    if let Event::Path(path::Event::DerpConnect(region)) = event {
                        let (change, now) = (path::DerpChange::Connected, self.now);
                        node.plane.handle_derp(region, change, now);
                    }
                    node.events.push(event);
                }
                while let Some(packet) = node.plane.poll_to_host() {
                    node.host.push(packet.into_vec());
                }
            }
            if flying.is_empty() {
                return;
            }
            self.carry(flying);
        }
    }

    /// Time passes; timers run when they are due.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let due = self.nodes.iter().filter_map(|node| node.plane.poll_timeout()).min();
            let Some(at) = due.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            for node in &mut self.nodes {
                node.plane.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    /// A UDP packet from one host to the other.
    pub(super) fn datagram(&self, from: usize, text: &str) -> Vec<u8> {
        udp(self.nodes[from].tailnet, self.nodes[1 - from].tailnet, text.as_bytes())
    }

    /// The texts that a host has received, and forgets them.
    pub(super) fn take_texts(&mut self, at: usize) -> Vec<String> {
        let packets = std::mem::take(&mut self.nodes[at].host);
        packets.iter().map(|packet| String::from_utf8_lossy(&packet[28..]).into_owned()).collect()
    }
}

impl Node {
    pub(super) fn receive(&mut self, source: Source, datagram: &[u8], now: Instant) {
        self.receive_run(source, datagram, datagram.len(), now);
    }

    pub(super) fn receive_run(&mut self, source: Source, bytes: &[u8], stride: usize, now: Instant) {
        let shared = Arc::clone(self.plane.shared());
        let (routes, receivers) = (shared.tables.routes(), shared.tables.receivers());
        let mut buffers = [Superbuffer::new()];
        buffers[0][..bytes.len()].copy_from_slice(bytes);
        let layout = Layout::Even { len: bytes.len(), stride };
        let [buffer] = &mut buffers;
        self.inbound.open((&routes, &receivers), (0, buffer), layout, source, now);
        let host = &mut self.host;
        self.inbound.coalesce(&buffers, |write| {
            assert_eq!(write.head.len(), 10, "packets are not joined here");
            host.push(write.pieces.concat());
        });
    }
}

fn flush(node: &mut Node, from: usize, now: Instant, flying: &mut Vec<Flying>) {
    node.outbound.seal(now);
    for run in node.outbound.drain() {
        let path = run.path();
        let derp = path.derp_now().map(|region| Destination::Derp { region, node: *run.peer().key() });
        let ways = path.direct.map(Destination::Udp).into_iter().chain(derp);
        for to in ways {
            let datagrams = run.datagrams().chunks(run.stride());
            flying.extend(datagrams.map(|bytes| Flying { from, to, bytes: bytes.to_vec() }));
        }
    }
}

/// A UDP packet with a right IP checksum and without one of its own.
pub(super) fn udp(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let mut body = [&[0x04, 0x00, 0x04, 0x01][..], &udp_len.to_be_bytes(), &[0, 0]].concat();
    body.extend_from_slice(payload);
    ip(src, dst, protocol::UDP, &body)
}

pub(super) fn ip(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let total_len = u16::try_from(20 + body.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&total_len.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    let checksum = Sum::new().bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(body);
    packet
}
