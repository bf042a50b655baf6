//! The machine alone, two machines, and a small simulated internet.

mod home;
mod pair;
mod scale;
mod scenarios;
mod sim;
mod walk;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use tsrs_base_types::{DiscoPrivate, DiscoPublic, NodePublic, RegionId};

use super::*;
use crate::disco::{BoxCache, Message, TxId, envelope};
use crate::netcheck::{Region, StunHost, StunNode};
use tsrs_lab_vectors::SeededRng as TestRng;

fn node_key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

fn disco_private(n: u8) -> DiscoPrivate {
    DiscoPrivate::from_bytes([0x80 | n; 32])
}

fn disco_key(n: u8) -> DiscoPublic {
    disco_private(n).public()
}

fn addr(text: &str) -> SocketAddrV4 {
    text.parse().unwrap()
}

/// Region `id` with one STUN server at 192.0.2.`id`.
fn region(id: u8) -> Region {
    let host = StunHost::Literal(Ipv4Addr::new(192, 0, 2, id));
    Region {
        id: RegionId(id.into()),
        avoid: false,
        no_measure_no_home: false,
        score: 1.0,
        nodes: vec![StunNode { host, stun_port: Some(3478) }],
    }
}

/// A peer without addresses that lives in region 1.
fn peer_config(n: u8) -> PeerConfig {
    PeerConfig {
        node_key: node_key(n),
        disco_key: Some(disco_key(n)),
        home: Some(RegionId(1)),
        endpoints: Vec::new(),
        expired: false,
    }
}

/// One machine (node 1), and what it put out.
struct Bench {
    now: Instant,
    machine: PathMachine<TestRng>,
    transmits: Vec<Transmit>,
    events: Vec<Event>,
}

impl Bench {
    /// A machine that knows region 1, its own address, and that its relay is connected.
    fn new() -> Self {
        let config = Config { node_key: node_key(1), disco_key: disco_private(1), port_is_fixed: false };
        let mut bench = Self {
            now: Instant::now() + Duration::from_secs(1000),
            machine: PathMachine::new(config, TestRng(1)),
            transmits: Vec::new(),
            events: Vec::new(),
        };
        let now = bench.now;
        bench.machine.set_local(&[Ipv4Addr::new(10, 0, 0, 1)], 41641, now);
        bench.machine.set_regions(vec![region(1)], now);
        bench.machine.handle_derp(RegionId(1), DerpChange::Connected, now);
        bench.finish_netcheck();
        bench
    }

    /// Lets the netcheck under way end without answers.
    fn finish_netcheck(&mut self) {
        self.drain();
        for _ in 0..20 {
            let Some(at) = self.machine.netcheck.poll_timeout() else { break };
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        assert!(!self.machine.netcheck.is_running());
        self.transmits.clear();
        self.events.clear();
    }

    fn drain(&mut self) {
        loop {
            if let Some(transmit) = self.machine.poll_transmit() {
                self.transmits.push(transmit);
            } else if let Some(event) = self.machine.poll_event() {
                if let Event::MeasureHttps(region) = event {
                    self.machine.handle_https_latency(region, Some(Duration::from_millis(30)), self.now);
                }
                self.events.push(event);
            } else {
                break;
            }
        }
    }

    /// Advances the clock, running every timer on the way.
    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.machine.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// A disco message from node `n`.
    fn receive(&mut self, n: u8, source: Source, message: &Message) {
        let packet = sealed_from(n, message);
        self.machine.handle_datagram(source, &packet, self.now);
        self.drain();
    }

    /// The disco messages to node `n` that went out since the last call, with where to.
    fn sent_to(&mut self, n: u8) -> Vec<(Destination, Message)> {
        let opened = self.transmits.drain(..).filter_map(|transmit| {
            let (sender, sealed) = envelope::split(&transmit.bytes)?;
            assert_eq!(sender, disco_key(1));
            let plain = BoxCache::default().open(&disco_private(n), &sender, sealed)?;
            Some((transmit.to, Message::parse(&plain).unwrap()))
        });
        opened.collect()
    }

    /// Addresses that node `n` was pinged at since the last call, with the pings' ids.
    fn pinged(&mut self, n: u8) -> Vec<(SocketAddrV4, TxId)> {
        let pings = self.sent_to(n).into_iter().filter_map(|(to, message)| match (to, message) {
            (Destination::Udp(to), Message::Ping { tx_id, .. }) => Some((to, tx_id)),
            _ => None,
        });
        pings.collect()
    }

    /// Node `n` answers a ping.
    fn pong(&mut self, n: u8, from: SocketAddrV4, tx_id: TxId) {
        let message = Message::Pong { tx_id, source: addr("203.0.113.1:41641").into() };
        self.receive(n, Source::Udp(from), &message);
    }

    fn send_data(&mut self, n: u8) {
        self.machine.note_sent(&node_key(n), self.now, self.now);
        self.drain();
    }

    fn path(&self, n: u8) -> SendPath {
        self.machine.path(&node_key(n))
    }
}

fn sealed_from(n: u8, message: &Message) -> Vec<u8> {
    let mut rng = TestRng(u64::from(n) << 32 | 77);
    BoxCache::default().seal(&mut rng, &disco_private(n), &disco_key(n), &disco_key(1), message)
}

fn by_derp(n: u8) -> Source {
    Source::Derp { region: RegionId(1), node: node_key(n) }
}
