//! A small internet with a virtual clock: hosts behind NATs, STUN servers, relays, latency, loss, and flows of data that
//! follow the published paths, as the workers of the engine do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rand_core::RngCore;

use super::*;
use crate::stun;

/// How a host sits in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Shape {
    /// A public address, nothing filtered.
    Open,
    /// One port for all destinations; lets in whatever IP was sent to.
    EasyByAddress,
    /// One port for all destinations; lets in whatever address and port was sent to.
    EasyByPort,
    /// Another port for each destination.
    Hard,
}

pub(super) const SHAPES: [Shape; 4] = [Shape::Open, Shape::EasyByAddress, Shape::EasyByPort, Shape::Hard];

/// Whether two hosts of these shapes can reach each other directly.
pub(super) fn can_connect(a: Shape, b: Shape) -> bool {
    let hard_blocks = |other| matches!(other, Shape::Hard | Shape::EasyByPort);
    !(a == Shape::Hard && hard_blocks(b) || b == Shape::Hard && hard_blocks(a))
}

/// NAT bindings live this long without traffic.
const BINDING_LIFE: Duration = Duration::from_secs(30);
const RELAY_MILLIS: u64 = 30;
/// Engines keep a few packets while a relay is dialled.
const MAX_HELD: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Payload {
    Disco(Vec<u8>),
    Data(usize),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// At the NAT of whoever owns `to`.
    Udp {
        from: SocketAddrV4,
        to: SocketAddrV4,
        payload: Payload,
    },
    /// At a relay.
    AtRelay {
        region: i64,
        from: usize,
        to: NodePublic,
        payload: Payload,
    },
    /// At a host.
    FromRelay {
        region: i64,
        from: usize,
        to: usize,
        payload: Payload,
    },
    PeerGone {
        region: i64,
        host: usize,
        peer: NodePublic,
    },
    Dial {
        host: usize,
        region: i64,
    },
    Https {
        host: usize,
        region: i64,
    },
    Rebound {
        host: usize,
    },
    /// Control tells everybody of this host.
    Netmap {
        of: usize,
    },
    Flow {
        from: usize,
        to: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Binding {
    port: u16,
    to: Option<SocketAddrV4>,
    used: Instant,
}

pub(super) struct Host {
    pub(super) machine: PathMachine<TestRng>,
    pub(super) shape: Shape,
    pub(super) udp_blocked: bool,
    pub(super) tcp_blocked: bool,
    public_ip: Ipv4Addr,
    lan: u8,
    port: u16,
    bindings: Vec<Binding>,
    allowed: BTreeMap<SocketAddrV4, Instant>,
    next_port: u16,
    wanted: BTreeMap<i64, bool>,
    held: Vec<(i64, NodePublic, Payload)>,
    endpoints: Vec<SocketAddrV4>,
    home: Option<RegionId>,
    paths: BTreeMap<NodePublic, SendPath>,
    noted: BTreeSet<NodePublic>,
    last_sent: BTreeMap<NodePublic, Instant>,
    pub(super) sent_datagrams: usize,
}

/// One data packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) sent_at: Instant,
    pub(super) by_udp: Option<Instant>,
    pub(super) by_relay: Option<Instant>,
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) packets: Vec<Packet>,
    pub(super) loss_percent: u32,
    pub(super) udp_millis: u64,
    pub(super) relays_down: BTreeSet<i64>,
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    sequence: u64,
    flows: BTreeSet<(usize, usize)>,
    regions: u8,
    rng: TestRng,
}

impl World {
    /// Hosts of these shapes, each behind a NAT of its own, all in each other's netmap.
    pub(super) fn new(shapes: &[Shape], regions: u8, seed: u64) -> Self {
        let now = Instant::now() + Duration::from_secs(10_000);
        let mut world = Self {
            now,
            hosts: Vec::new(),
            packets: Vec::new(),
            loss_percent: 0,
            udp_millis: 15,
            relays_down: BTreeSet::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            flows: BTreeSet::new(),
            regions,
            rng: TestRng(seed),
        };
        for (n, &shape) in (1u8..).zip(shapes) {
            world.add_host(n, shape);
        }
        world.run(Duration::from_secs(10));
        world
    }

    fn add_host(&mut self, n: u8, shape: Shape) {
        let config = Config { node_key: node_key(n), disco_key: disco_private(n), port_is_fixed: false };
        let mut host = Host {
            machine: PathMachine::new(config, TestRng(self.rng.next_u64())),
            shape,
            udp_blocked: false,
            tcp_blocked: false,
            public_ip: Ipv4Addr::new(203, 0, 113, n),
            lan: n,
            port: 41641,
            bindings: Vec::new(),
            allowed: BTreeMap::new(),
            next_port: 20_000,
            wanted: BTreeMap::new(),
            held: Vec::new(),
            endpoints: Vec::new(),
            home: None,
            paths: BTreeMap::new(),
            noted: BTreeSet::new(),
            last_sent: BTreeMap::new(),
            sent_datagrams: 0,
        };
        host.machine.set_local(&[host.local_ip()], host.port, self.now);
        host.machine.set_regions((1..=self.regions).map(region).collect(), self.now);
        self.hosts.push(host);
        let index = self.hosts.len() - 1;
        self.drain(index);
    }

    /// Puts two hosts behind the same router.
    pub(super) fn share_lan(&mut self, a: usize, b: usize) {
        self.hosts[b].lan = self.hosts[a].lan;
        self.hosts[b].public_ip = self.hosts[a].public_ip;
        self.hosts[b].next_port = 30_000;
        self.rebind(b);
    }

    /// The host moves to another network.
    pub(super) fn roam(&mut self, host: usize, shape: Shape) {
        let [a, b, _, d] = self.hosts[host].public_ip.octets();
        let moved = &mut self.hosts[host];
        moved.public_ip = Ipv4Addr::new(a, b, 114 + u8::try_from(self.rng.next_u32() % 100).unwrap(), d);
        moved.lan = moved.lan.wrapping_add(50);
        moved.shape = shape;
        // Its TCP connections die with the old address.
        let regions: Vec<i64> = moved.wanted.keys().copied().collect();
        for region in regions {
            self.lose_relay(host, region);
        }
        self.rebind(host);
    }

    fn rebind(&mut self, host: usize) {
        self.hosts[host].machine.handle_link_change(LinkChange::Major, self.now);
        self.drain(host);
    }

    fn lose_relay(&mut self, host: usize, region: i64) {
        self.hosts[host].wanted.insert(region, false);
        self.hosts[host].machine.handle_derp(RegionId(region), DerpChange::Lost, self.now);
        self.drain(host);
        self.after(1000, Happening::Dial { host, region });
    }

    /// A relay goes down: all its connections break.
    pub(super) fn stop_relay(&mut self, region: i64) {
        self.relays_down.insert(region);
        for host in 0..self.hosts.len() {
            if self.hosts[host].wanted.get(&region) == Some(&true) {
                self.lose_relay(host, region);
            }
        }
    }

    /// Host `from` sends a data packet to `to` every 50 ms until [`Self::stop_flow`].
    pub(super) fn start_flow(&mut self, from: usize, to: usize) {
        if self.flows.insert((from, to)) {
            self.after(0, Happening::Flow { from, to });
        }
    }

    pub(super) fn start_both(&mut self, a: usize, b: usize) {
        self.start_flow(a, b);
        self.start_flow(b, a);
    }

    pub(super) fn stop_flows(&mut self) {
        self.flows.clear();
    }

    pub(super) fn path(&self, from: usize, to: usize) -> SendPath {
        let peer = self.key(to);
        let path = self.hosts[from].paths.get(&peer).copied().unwrap_or_default();
        assert_eq!(path, self.hosts[from].machine.path(&peer), "events and state agree");
        path
    }

    /// Whether `from` sends to `to` directly and is sure of it.
    pub(super) fn is_direct(&self, from: usize, to: usize) -> bool {
        let path = self.path(from, to);
        path.direct.is_some() && !path.also_derp
    }

    fn key(&self, host: usize) -> NodePublic {
        node_key(u8::try_from(host + 1).unwrap())
    }

    /// The longest time without any arrival of what `from` sent in the last `time`.
    pub(super) fn longest_gap(&self, from: usize, time: Duration) -> Duration {
        let begin = self.now - time;
        let mut arrivals: Vec<Instant> = self
            .packets
            .iter()
            .filter(|packet| packet.from == from && packet.sent_at >= begin)
            .flat_map(|packet| [packet.by_udp, packet.by_relay])
            .flatten()
            .collect();
        arrivals.extend([begin, self.now]);
        arrivals.sort_unstable();
        arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    /// Of what `from` sent in the last `time`: how many, how many arrived by UDP, by relay.
    pub(super) fn counts(&self, from: usize, time: Duration) -> (usize, usize, usize) {
        let recent = |packet: &&Packet| packet.from == from && packet.sent_at >= self.now - time;
        let recent: Vec<&Packet> = self.packets.iter().filter(recent).collect();
        let by_udp = recent.iter().filter(|packet| packet.by_udp.is_some()).count();
        (recent.len(), by_udp, recent.iter().filter(|packet| packet.by_relay.is_some()).count())
    }

    fn after(&mut self, millis: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse((self.now + Duration::from_millis(millis), self.sequence, happening)));
    }

    /// Advances the clock.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let timer = self.hosts.iter().filter_map(|host| host.machine.poll_timeout()).min();
            let next = self.queue.peek().map(|Reverse((at, ..))| *at);
            if let Some(at) = next.filter(|&at| at <= end && timer.is_none_or(|timer| at <= timer)) {
                self.now = self.now.max(at);
                if let Some(Reverse((_, _, happening))) = self.queue.pop() {
                    self.happen(happening);
                }
            } else if let Some(at) = timer.filter(|&at| at <= end) {
                self.now = self.now.max(at);
                for host in 0..self.hosts.len() {
                    if self.hosts[host].machine.poll_timeout().is_some_and(|at| at <= self.now) {
                        self.run_timers(host);
                    }
                }
            } else {
                self.now = end;
                return;
            }
        }
    }

    fn run_timers(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let active: Vec<NodePublic> = host.machine.active_peers().copied().collect();
        for peer in active {
            host.machine.note_sent(&peer, host.last_sent[&peer], self.now);
        }
        host.machine.handle_timeout(self.now);
        self.drain(index);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Udp { from, to, payload } => self.arrive_udp(from, to, payload),
            Happening::AtRelay { region, from, to, payload } => {
                if self.hosts[from].wanted.get(&region) != Some(&true) {
                    return;
                }
                let receiver = (0..self.hosts.len()).find(|&host| self.key(host) == to);
                match receiver.filter(|&host| self.hosts[host].wanted.get(&region) == Some(&true)) {
                    Some(to) => self.after(RELAY_MILLIS, Happening::FromRelay { region, from, to, payload }),
                    None => self.after(RELAY_MILLIS, Happening::PeerGone { region, host: from, peer: to }),
                }
            }
            Happening::FromRelay { region, from, to, payload } => {
                let (node, now) = (self.key(from), self.now);
                let host = &mut self.hosts[to];
                host.machine.note_derp_heard(&node, RegionId(region), now);
                match payload {
                    Payload::Data(packet) => {
                        self.packets[packet].by_relay.get_or_insert(now);
                    }
                    Payload::Disco(bytes) => {
                        host.machine.handle_datagram(
                            Source::Derp { region: RegionId(region), node },
                            &bytes,
                            now,
                        );
                    }
                }
                self.drain(to);
            }
            Happening::PeerGone { region, host, peer } => {
                self.hosts[host].machine.handle_derp(RegionId(region), DerpChange::PeerGone(peer), self.now);
                self.drain(host);
            }
            Happening::Dial { host, region } => self.dial(host, region),
            Happening::Https { host, region } => {
                let works = !self.hosts[host].tcp_blocked && !self.relays_down.contains(&region);
                let latency = works.then(|| Duration::from_millis(40 + region.unsigned_abs()));
                self.hosts[host].machine.handle_https_latency(RegionId(region), latency, self.now);
                self.drain(host);
            }
            Happening::Rebound { host } => {
                let rebound = &mut self.hosts[host];
                rebound.bindings.clear();
                rebound.allowed.clear();
                rebound.next_port = rebound.next_port.wrapping_add(1000).max(20_000);
                let ip = rebound.local_ip();
                rebound.machine.set_local(&[ip], rebound.port, self.now);
                self.drain(host);
            }
            Happening::Netmap { of } => {
                let (key, subject) = (self.key(of), &self.hosts[of]);
                let endpoints: Vec<_> = subject.endpoints.iter().map(|&endpoint| endpoint.into()).collect();
                let peer = PeerConfig {
                    node_key: key,
                    disco_key: Some(*subject.machine.disco_key()),
                    home: subject.home,
                    endpoints,
                    expired: false,
                };
                for host in (0..self.hosts.len()).filter(|&host| host != of) {
                    self.hosts[host].machine.upsert_peer(peer.clone(), self.now);
                    self.drain(host);
                }
            }
            Happening::Flow { from, to } => {
                if self.flows.contains(&(from, to)) {
                    self.send_data(from, to);
                    self.after(50, Happening::Flow { from, to });
                }
            }
        }
    }

    fn dial(&mut self, host: usize, region: i64) {
        let reachable = !self.hosts[host].tcp_blocked && !self.relays_down.contains(&region);
        match self.hosts[host].wanted.get_mut(&region) {
            None | Some(true) => return,
            Some(open) => *open = reachable,
        }
        if !reachable {
            return self.after(1000, Happening::Dial { host, region });
        }
        self.hosts[host].machine.handle_derp(RegionId(region), DerpChange::Connected, self.now);
        let held: Vec<_> = self.hosts[host].held.extract_if(.., |(held, ..)| *held == region).collect();
        for (region, to, payload) in held {
            self.after(RELAY_MILLIS, Happening::AtRelay { region, from: host, to, payload });
        }
        self.drain(host);
    }

    /// A worker sends one packet by the published path.
    fn send_data(&mut self, from: usize, to: usize) {
        let peer = self.key(to);
        let host = &mut self.hosts[from];
        host.last_sent.insert(peer, self.now);
        if host.noted.insert(peer) {
            host.machine.note_sent(&peer, self.now, self.now);
            self.drain(from);
        }
        let path = self.path(from, to);
        let packet = self.packets.len();
        self.packets.push(Packet { from, sent_at: self.now, by_udp: None, by_relay: None });
        if let Some(address) = path.direct {
            self.send_udp(from, address, Payload::Data(packet));
        }
        if let Some(region) = path.derp_now() {
            self.send_relay(from, region.0, peer, Payload::Data(packet));
        }
    }

    fn send_relay(&mut self, from: usize, region: i64, to: NodePublic, payload: Payload) {
        match self.hosts[from].wanted.get(&region) {
            Some(true) => self.after(RELAY_MILLIS, Happening::AtRelay { region, from, to, payload }),
            Some(false) if self.hosts[from].held.len() < MAX_HELD => {
                self.hosts[from].held.push((region, to, payload))
            }
            Some(false) | None => {}
        }
    }

    fn send_udp(&mut self, from: usize, to: SocketAddrV4, payload: Payload) {
        let lost = self.rng.next_u32() % 100 < self.loss_percent;
        let host = &mut self.hosts[from];
        host.sent_datagrams += 1;
        if host.udp_blocked || lost {
            return;
        }
        let same_lan = to.ip().octets()[..3] == host.local_ip().octets()[..3];
        let seen_as = if same_lan {
            SocketAddrV4::new(host.local_ip(), host.port)
        } else {
            host.translate(to, self.now)
        };
        let jitter = u64::from(self.rng.next_u32() % 3);
        self.after(self.udp_millis + jitter, Happening::Udp { from: seen_as, to, payload });
    }

    fn arrive_udp(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: Payload) {
        if let ([192, 0, 2, _], Payload::Disco(bytes)) = (to.ip().octets(), &payload) {
            let tx_id = stun::parse_request(bytes).unwrap();
            let answer = Payload::Disco(stun::response(tx_id, from.into()));
            return self.after(self.udp_millis, Happening::Udp { from: to, to: from, payload: answer });
        }
        let now = self.now;
        let local = self.hosts.iter().position(|host| {
            let near = from.ip().octets()[..3] == host.local_ip().octets()[..3];
            to == SocketAddrV4::new(host.local_ip(), host.port) && (near || host.shape == Shape::Open)
        });
        let receiver = local.or_else(|| self.hosts.iter().position(|host| host.lets_in(from, to, now)));
        let Some(receiver) = receiver.filter(|&host| !self.hosts[host].udp_blocked) else { return };
        match payload {
            Payload::Data(packet) => {
                self.packets[packet].by_udp.get_or_insert(now);
            }
            Payload::Disco(bytes) => {
                self.hosts[receiver].machine.handle_datagram(Source::Udp(from), &bytes, now);
                self.drain(receiver);
            }
        }
    }

    /// What the engine does with a machine's outputs.
    fn drain(&mut self, index: usize) {
        loop {
            if let Some(transmit) = self.hosts[index].machine.poll_transmit() {
                match transmit.to {
                    Destination::Udp(to) => self.send_udp(index, to, Payload::Disco(transmit.bytes)),
                    Destination::Derp { region, node } => {
                        self.send_relay(index, region.0, node, Payload::Disco(transmit.bytes));
                    }
                }
            } else if let Some(event) = self.hosts[index].machine.poll_event() {
                self.take_event(index, event);
            } else {
                return;
            }
        }
    }

    fn take_event(&mut self, index: usize, event: Event) {
        let host = &mut self.hosts[index];
        match event {
            Event::PathChanged { peer, path } => {
                host.paths.insert(peer, path);
            }
            Event::PeerIdle(peer) => {
                host.noted.remove(&peer);
            }
            Event::EndpointsChanged(endpoints) => {
                host.endpoints = endpoints.iter().map(|endpoint| endpoint.address).collect();
                self.after(300, Happening::Netmap { of: index });
            }
            Event::HomeDerpChanged(home) => {
                host.home = home;
                self.after(300, Happening::Netmap { of: index });
            }
            Event::DerpConnect(region) => {
                host.wanted.insert(region.0, false);
                self.after(50, Happening::Dial { host: index, region: region.0 });
            }
            Event::DerpClose(region) => {
                host.wanted.remove(&region.0);
            }
            Event::Rebind => self.after(10, Happening::Rebound { host: index }),
            Event::MeasureHttps(region) => self.after(80, Happening::Https { host: index, region: region.0 }),
            Event::DerpCheck(_)
            | Event::NetInfoChanged(_)
            | Event::ResolveHost(_)
            | Event::Pong { .. }
            | Event::PingTimedOut { .. } => {}
        }
    }
}

impl Host {
    fn local_ip(&self) -> Ipv4Addr {
        let host = self.machine.config.node_key.as_bytes()[0];
        if self.shape == Shape::Open { self.public_ip } else { Ipv4Addr::new(10, 0, self.lan, host) }
    }

    /// The source address that the world sees; opens the NAT for answers.
    fn translate(&mut self, to: SocketAddrV4, now: Instant) -> SocketAddrV4 {
        self.bindings.retain(|binding| now - binding.used < BINDING_LIFE);
        self.allowed.insert(to, now);
        let key = match self.shape {
            Shape::Open => return SocketAddrV4::new(self.public_ip, self.port),
            Shape::EasyByAddress | Shape::EasyByPort => None,
            Shape::Hard => Some(to),
        };
        let at = self.bindings.iter().position(|binding| binding.to == key).unwrap_or_else(|| {
            self.next_port += 1;
            self.bindings.push(Binding { port: self.next_port, to: key, used: now });
            self.bindings.len() - 1
        });
        self.bindings[at].used = now;
        SocketAddrV4::new(self.public_ip, self.bindings[at].port)
    }

    fn lets_in(&self, from: SocketAddrV4, to: SocketAddrV4, now: Instant) -> bool {
        let fresh = |used: Instant| now - used < BINDING_LIFE;
        let Some(binding) =
            self.bindings.iter().find(|binding| binding.port == to.port() && fresh(binding.used))
        else {
            return false;
        };
        let sent_to = |matches: &dyn Fn(&SocketAddrV4) -> bool| {
            self.allowed.iter().any(|(address, used)| matches(address) && fresh(*used))
        };
        *to.ip() == self.public_ip
            && match self.shape {
                Shape::Open => true,
                Shape::EasyByAddress => sent_to(&|address| address.ip() == from.ip()),
                Shape::EasyByPort => sent_to(&|address| *address == from),
                Shape::Hard => binding.to == Some(from),
            }
    }
}
