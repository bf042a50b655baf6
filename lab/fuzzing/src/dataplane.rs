//! The joined data plane: datagrams of anybody and of a peer, packets of the host.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use jiff::Timestamp;
use tsrs_base_types::{DiscoPrivate, NodeId, RegionId};
use tsrs_tunnel_dataplane::buffer::Superbuffer;
use tsrs_tunnel_dataplane::inbound::{Inbound, Layout};
use tsrs_tunnel_dataplane::machine::Rng;
use tsrs_tunnel_dataplane::outbound::Outbound;
use tsrs_tunnel_dataplane::policy::Filters;
use tsrs_tunnel_dataplane::{Change, DataPlane, PeerConfig, Policy, Setup, TunnelConfig};
use tsrs_tunnel_filter::{Filter, LocalNets, Match, parse_prefixes};
use tsrs_tunnel_packet::vnet::VirtioNetHdr;
use tsrs_tunnel_path::machine::{DerpChange, Source};
use tsrs_tunnel_path::netcheck::Region;

use crate::input::{Input, Seeded};
use crate::peer::{MTU, Peer, private_key, public_key};

const OURS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const THEIRS: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const UNDERLAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 41641);
const REGION: RegionId = RegionId(1);

struct Bench {
    plane: DataPlane,
    inbound: Inbound,
    outbound: Outbound,
    peer: Peer,
    now: Instant,
}

impl Bench {
    /// A node with one peer, with which it has a session.
    fn new() -> Self {
        let now = Instant::now();
        let local = || LocalNets::new([Ipv4Net::from(OURS)]);
        let rule = Match {
            srcs: parse_prefixes("100.64.0.0/10").unwrap_or_default(),
            protocols: vec![1, 6, 17],
            ..Match::default()
        };
        let filters = Filters {
            normal: Filter::new(&[rule], local(), &|_| Vec::new()),
            shields_up: false,
            jailed: Filter::shielded(local()),
        };
        let setup = Setup {
            node_key: private_key(1),
            disco_key: DiscoPrivate::from_bytes([0x81; 32]),
            port_is_fixed: false,
            config: TunnelConfig {
                addresses: vec![OURS],
                mtu: MTU,
                service_address: Some(Ipv4Addr::new(100, 100, 100, 100)),
                ..TunnelConfig::default()
            },
            policy: Policy::Filtered(Arc::new(filters)),
            wall: Timestamp::UNIX_EPOCH,
            wake: || (),
        };
        let mut plane = DataPlane::new(setup, || Rng::new(Seeded(1)), now);
        plane.with_paths(now, |paths| {
            let region =
                Region { id: REGION, avoid: false, no_measure_no_home: false, score: 1.0, nodes: Vec::new() };
            paths.set_regions(vec![region], now);
            paths.set_local(&[Ipv4Addr::new(192, 0, 2, 1)], 41641, now);
            paths.handle_derp(REGION, DerpChange::Connected, now);
        });
        let config = PeerConfig {
            disco_key: Some(DiscoPrivate::from_bytes([0x82; 32]).public()),
            node_id: NodeId(2),
            home_derp: Some(REGION),
            endpoints: vec![SocketAddr::V4(UNDERLAY)],
            addresses: vec![THEIRS],
            allowed_ips: vec![Ipv4Net::from(THEIRS)],
            ..PeerConfig::new(public_key(2))
        };
        plane.apply(vec![Change::Upsert(Box::new(config))], now);
        let inbound = Inbound::new(Arc::clone(plane.shared()));
        let outbound = Outbound::new(Arc::clone(plane.shared()), now);
        let mut bench = Self { plane, inbound, outbound, peer: Peer::new(2, now), now };
        // Known and different, so it cannot fail.
        let _ = bench.peer.device.start_handshake(&public_key(1), now);
        for _ in 0..2 {
            for message in bench.peer.drain() {
                bench.receive(Source::Udp(UNDERLAY), &message, message.len());
            }
            bench.drain();
        }
        bench
    }

    fn receive(&mut self, source: Source, bytes: &[u8], stride: usize) {
        let shared = Arc::clone(self.plane.shared());
        let (routes, receivers) = (shared.tables.routes(), shared.tables.receivers());
        let mut buffers = [Superbuffer::new()];
        let len = bytes.len().min(buffers[0].len());
        buffers[0][..len].copy_from_slice(&bytes[..len]);
        let [buffer] = &mut buffers;
        self.inbound.open((&routes, &receivers), (0, buffer), Layout::Even { len, stride }, source, self.now);
        self.inbound.coalesce(&buffers, |write| {
            assert!(write.head.len() >= 10);
            write.pieces.iter().for_each(|piece| assert!(!piece.is_empty(), "an empty piece"));
        });
    }

    fn send(&mut self, offload: &VirtioNetHdr, packet: &[u8]) {
        let shared = Arc::clone(self.plane.shared());
        let routes = shared.tables.routes();
        if let Some(mut routed) = self.outbound.judge(&routes, offload, packet, self.now) {
            while !self.outbound.append(&routes, &mut routed, self.now) {
                self.flush();
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        self.outbound.seal(self.now);
        for run in self.outbound.drain() {
            assert!(run.datagrams().len() <= run.stride() * run.count().max(1));
        }
    }

    fn drain(&mut self) {
        while self.plane.handle_notices(self.now) {}
        while let Some(transmit) = self.plane.poll_transmit() {
            self.peer.take(&transmit.datagram, self.now);
        }
        self.peer.drain();
        while self.plane.poll_event().is_some() {}
        while self.plane.poll_to_host().is_some() {}
    }
}

/// Datagrams by UDP and by a relay: as they are, and as any packet in a right data message of the peer.
pub fn inbound(data: &[u8]) {
    let mut bench = Bench::new();
    for (kind, record) in Input::new(data).records() {
        let source = if kind & 1 == 0 {
            Source::Udp(UNDERLAY)
        } else {
            Source::Derp { region: REGION, node: public_key(2) }
        };
        match (kind >> 1) & 3 {
            0 => bench.receive(source, record, usize::from(kind >> 3) * 16 + 1),
            1 => bench.plane.handle_datagram(source, record, bench.now),
            2 => {
                let Some(datagram) = bench.peer.seal(record, bench.now) else { panic!("no session") };
                bench.receive(source, &datagram, datagram.len());
            }
            // A run of equal parts of the record.
            _ => {
                let part_len = record.len().div_ceil(1 + usize::from(kind >> 4)).max(1);
                let parts = record.chunks(part_len);
                let run: Vec<Vec<u8>> = parts.filter_map(|part| bench.peer.seal(part, bench.now)).collect();
                let stride = run.first().map_or(1, Vec::len);
                bench.receive(source, &run.concat(), stride);
            }
        }
        bench.drain();
    }
    bench.now += Duration::from_secs(200);
    bench.plane.handle_timeout(bench.now);
    bench.drain();
}

/// Packets of the host with their offload headers, to the peer and elsewhere.
pub fn outbound(data: &[u8]) {
    let mut bench = Bench::new();
    for (_, record) in Input::new(data).records() {
        let Some((offload, packet)) = VirtioNetHdr::split(record) else { continue };
        bench.send(&offload, packet);
        bench.drain();
    }
}
