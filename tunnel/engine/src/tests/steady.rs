//! The workers in steady state, driven by hand: what a batch costs.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ipnet::Ipv4Net;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use rand_core::OsRng;
use tokio::sync::Notify;
use tsrs_base_types::{DiscoPrivate, NodePrivate, NodePublic};
use tsrs_platform_api::TunOffload;
use tsrs_tunnel_dataplane::machine::Rng;
use tsrs_tunnel_dataplane::{Change, DataPlane, PeerConfig, Policy, Setup, TunnelConfig};
use tsrs_tunnel_path::Destination;

use super::host::{Unmarked, udp};
use crate::clock::Clock;
use crate::offload::{Disabled, Switches};
use crate::sys::counting::allocations;
use crate::tun::{READ_LEN, TunQueue};
use crate::udp::Underlay;
use crate::worker::receive::Receiver;
use crate::worker::transmit::Transmitter;
use crate::worker::{Plant, PlantParts};

/// Packets of a burst: as many as a run holds.
const BURST: usize = 64;

struct Side {
    plane: DataPlane,
    plant: Arc<Plant>,
    transmitter: Transmitter,
    receiver: Receiver,
    tun: OwnedFd,
    key: NodePublic,
    tailnet: Ipv4Addr,
    buffer: Vec<u8>,
}

fn side(number: u8) -> Side {
    let (tun, engine_end) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_NONBLOCK).unwrap();
    for end in [&tun, &engine_end] {
        setsockopt(end, sockopt::SndBuf, &(1 << 20)).unwrap();
    }
    let switches = Switches::new(Disabled::default());
    let tun_queue = TunQueue::new(engine_end, TunOffload::default(), &switches).unwrap();
    let (underlay, _) = Underlay::bind(0, &Unmarked, &switches).unwrap();
    let clock = Clock::new();
    let tailnet = Ipv4Addr::new(100, 64, 0, number);
    let node_key = NodePrivate::generate(&mut OsRng);
    let key = node_key.public();
    let setup = Setup {
        node_key,
        disco_key: DiscoPrivate::generate(&mut OsRng),
        port_is_fixed: false,
        config: TunnelConfig { addresses: vec![tailnet], ..TunnelConfig::default() },
        policy: Policy::Open,
        wall: jiff::Timestamp::now(),
        wake: || (),
    };
    let plane = DataPlane::new(setup, || Rng::new(OsRng), clock.now());
    let shared = Arc::clone(plane.shared());
    let slow = Arc::new(Notify::new());
    let plant = Plant::new(PlantParts { shared, tun: tun_queue, underlay, switches, clock, slow }).unwrap();
    let plant = Arc::new(plant);
    Side {
        plane,
        transmitter: Transmitter::new(Arc::clone(&plant)).unwrap(),
        receiver: Receiver::new(Arc::clone(&plant)).unwrap(),
        plant,
        tun,
        key,
        tailnet,
        buffer: vec![0; READ_LEN],
    }
}

impl Side {
    fn add(&mut self, other: &Self) {
        let port = other.plant.underlay.load().port();
        let peer = PeerConfig {
            endpoints: vec![SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))],
            allowed_ips: vec![Ipv4Net::from(other.tailnet)],
            ..PeerConfig::new(other.key)
        };
        self.plane.apply(vec![Change::Upsert(Box::new(peer))], self.plant.clock.now());
    }

    fn write(&self, packet: &[u8]) {
        nix::unistd::write(&self.tun, packet).unwrap();
    }

    /// How many packets the host finds, and takes them.
    fn take_all(&self) -> usize {
        let mut buffer = [0; 2048];
        std::iter::from_fn(|| nix::unistd::read(self.tun.as_fd(), &mut buffer).ok()).count()
    }

    fn transmit(&mut self) {
        while self.transmitter.batch(&mut self.buffer).unwrap() {}
    }

    fn receive(&mut self) {
        while self.receiver.receive() {}
    }

    fn run_machine(&mut self) {
        let now = self.plant.clock.now();
        while self.plane.handle_notices(now) {}
        while let Some(transmit) = self.plane.poll_transmit() {
            if let Destination::Udp(addr) = transmit.to {
                self.plant.underlay.load().send_one(addr, &transmit.datagram).unwrap();
            }
        }
    }
}

/// Two sides with a session in both directions, warmed up.
fn warm() -> [Side; 2] {
    let mut sides = [side(1), side(2)];
    let [a, b] = &mut sides;
    a.add(b);
    b.add(a);
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0)] {
            burst(&mut sides, from, to);
            for _ in 0..3 {
                for side in &mut sides {
                    side.receive();
                    side.run_machine();
                }
            }
        }
    }
    for side in &sides {
        let _ = side.take_all();
    }
    sides
}

fn burst(sides: &mut [Side; 2], from: usize, to: usize) {
    let packet = udp(sides[from].tailnet, sides[to].tailnet, &[7; 64]);
    (0..BURST).for_each(|_| sides[from].write(&packet));
    sides[from].transmit();
    sides[to].receive();
}

#[test]
fn batches_of_the_fast_path_allocate_nothing() {
    let mut sides = warm();
    for _ in 0..10 {
        for (from, to) in [(0, 1), (1, 0)] {
            let packet = udp(sides[from].tailnet, sides[to].tailnet, &[7; 64]);
            (0..BURST).for_each(|_| sides[from].write(&packet));
            let before = allocations();
            sides[from].transmit();
            sides[to].receive();
            assert_eq!(allocations(), before);
            assert_eq!(sides[to].take_all(), BURST);
        }
    }
}

#[test]
fn burst_costs_one_send_and_one_or_two_receives() {
    let mut sides = warm();
    let calls = |sides: &[Side; 2]| {
        let [a, b] = sides.each_ref().map(|side| &side.plant.counters);
        (a.tun_reads.value(), a.send_calls.value(), b.receive_calls.value())
    };
    let before = calls(&sides);
    burst(&mut sides, 0, 1);
    let after = calls(&sides);
    assert_eq!(sides[1].take_all(), BURST);
    assert_eq!(after.0 - before.0, BURST as u64);
    assert_eq!(after.1 - before.1, 1);
    assert!((1..=2).contains(&(after.2 - before.2)));
}
