//! Two nodes, each with its device and its workers, and the network between them.

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tsrs_base_types::{NodePrivate, NodePublic};
pub(super) use tsrs_lab_vectors::SeededRng;
use tsrs_tunnel_packet::DropReason;

use crate::wire::{self, DATA_HEADER_LEN, Kind};
use crate::*;

pub(super) const MTU: u16 = 1280;
/// Longer than anything that one input can cause; a loop that does not end is a defect.
const MAX_STEPS: usize = 10_000;

/// A device and the tables of its workers.
pub(super) struct Node {
    pub(super) device: Device,
    pub(super) receive: HashMap<u32, Arc<Session>>,
    pub(super) send: HashMap<NodePublic, Arc<Session>>,
    /// Inner packets that arrived.
    pub(super) received: Vec<Vec<u8>>,
    pub(super) keepalives: usize,
    pub(super) dropped: Vec<DropReason>,
    pub(super) abandoned: Vec<usize>,
    /// How often the workers told the device about a session.
    pub(super) notices: usize,
    /// Whether unknown keys are let in.
    pub(super) admits: bool,
    /// Where its messages seem to come from.
    pub(super) source: Source,
    outbox: VecDeque<Transmit>,
}

impl Node {
    fn new(seed: u64, wall: Timestamp, now: Instant) -> Self {
        let mut rng = SeededRng(seed);
        let private = NodePrivate::generate(&mut rng);
        let port = u16::try_from(seed % 60_000).unwrap();
        Self {
            device: Device::new(private, MTU, Box::new(rng), wall, now),
            receive: HashMap::new(),
            send: HashMap::new(),
            received: Vec::new(),
            keepalives: 0,
            dropped: Vec::new(),
            abandoned: Vec::new(),
            notices: 0,
            admits: false,
            source: Source::Udp(SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), port))),
            outbox: VecDeque::new(),
        }
    }

    pub(super) fn key(&self) -> NodePublic {
        self.device.public_key()
    }

    /// What a driver does after each input.
    pub(super) fn drain(&mut self) {
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::SessionAdded(session) => {
                    assert!(self.receive.insert(session.local_index(), session).is_none());
                }
                Event::SendSession { peer, session: Some(session) } => {
                    assert!(self.receive.contains_key(&session.local_index()));
                    self.send.insert(peer, session);
                }
                Event::SendSession { peer, session: None } => {
                    self.send.remove(&peer);
                }
                Event::SessionRemoved { local_index, .. } => {
                    assert!(self.receive.remove(&local_index).is_some());
                }
                Event::HandshakeAbandoned { dropped_packets, .. } => self.abandoned.push(dropped_packets),
            }
        }
        while let Some(transmit) = self.device.poll_transmit() {
            self.outbox.push_back(transmit);
        }
    }

    fn note(&mut self, notice: Notice, local_index: u32, now: Instant) {
        if notice == Notice::Wake {
            self.notices += 1;
            self.device.handle_notice(local_index, now);
            self.drain();
        }
    }

    /// Sends as a worker does: by the session if there is one, otherwise over the device.
    fn send(&mut self, peer: NodePublic, packet: &[u8], now: Instant) {
        if let Some(session) = self.send.get(&peer).cloned() {
            let message = Outgoing::new(0, packet.len(), MTU);
            let mut payload = vec![0xee; message.datagram_len()];
            payload[DATA_HEADER_LEN..DATA_HEADER_LEN + packet.len()].copy_from_slice(packet);
            if let Ok(notice) = session.seal(&mut payload, &[message], now) {
                self.outbox.push_back(Transmit { to: Destination::Peer(peer), payload });
                self.note(notice, session.local_index(), now);
                return;
            }
        }
        if let Err(reason) = self.device.send(&peer, packet, now) {
            self.dropped.push(reason);
        }
        self.drain();
    }

    fn take(&mut self, mut datagram: Vec<u8>, source: Source, now: Instant) {
        match Kind::of(&datagram) {
            Some(Kind::Data) => self.take_data(&mut datagram, now),
            _ => {
                let admits = self.admits;
                let taken = self.device.handle_handshake(&datagram, source, &mut |_| admits, now);
                self.dropped.extend(taken.err());
                self.drain();
            }
        }
    }

    fn take_data(&mut self, datagram: &mut [u8], now: Instant) {
        let index = wire::data_receiver(datagram).unwrap();
        let Some(session) = self.receive.get(&index).cloned() else {
            self.dropped.push(DropReason::UnknownIndex);
            return;
        };
        let mut messages = [Incoming::new(0, datagram.len())];
        let notice = session.open(datagram, &mut messages, now);
        match messages[0].outcome {
            Outcome::Packet { .. } => {
                self.received.push(datagram[messages[0].packet_range().unwrap()].to_vec());
            }
            Outcome::Keepalive => self.keepalives += 1,
            Outcome::Dropped(reason) => self.dropped.push(reason),
            Outcome::Pending => panic!("not opened"),
        }
        self.note(notice, index, now);
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    A,
    B,
}
pub(super) use Side::{A, B};

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            A => B,
            B => A,
        }
    }
}

/// A datagram under way.
#[derive(Clone)]
pub(super) struct Flight {
    pub(super) from: Side,
    pub(super) payload: Vec<u8>,
}

impl Flight {
    pub(super) fn kind(&self) -> Kind {
        Kind::of(&self.payload).unwrap()
    }
}

/// One sent datagram in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) at: Duration,
    pub(super) from: Side,
    pub(super) kind: Kind,
    pub(super) len: usize,
}

pub(super) struct Pair {
    pub(super) a: Node,
    pub(super) b: Node,
    pub(super) start: Instant,
    pub(super) now: Instant,
    /// Everything that was sent, also what was lost.
    pub(super) log: Vec<Sent>,
    /// Says what is lost.
    pub(super) loses: Box<dyn FnMut(&Flight) -> bool>,
}

impl Pair {
    /// Two nodes that know each other. `A` has the greater key.
    pub(super) fn new() -> Self {
        Self::with_seeds(1, 2)
    }

    pub(super) fn with_seeds(first: u64, second: u64) -> Self {
        let start = Instant::now();
        let wall = Timestamp::new(1_700_000_000, 0).unwrap();
        let mut nodes = [Node::new(first, wall, start), Node::new(second, wall, start)];
        nodes.sort_by_key(|node| std::cmp::Reverse(node.key()));
        let [a, b] = nodes;
        let mut pair = Self { a, b, start, now: start, log: Vec::new(), loses: Box::new(|_| false) };
        let (a, b) = (pair.a.key(), pair.b.key());
        pair.a.device.add_peer(b).unwrap();
        pair.b.device.add_peer(a).unwrap();
        pair
    }

    pub(super) fn node(&mut self, side: Side) -> &mut Node {
        match side {
            A => &mut self.a,
            B => &mut self.b,
        }
    }

    pub(super) fn key(&self, side: Side) -> NodePublic {
        match side {
            A => self.a.key(),
            B => self.b.key(),
        }
    }

    /// Hands a packet to a node for the other, without delivering anything.
    pub(super) fn queue(&mut self, from: Side, packet: &[u8]) {
        let (peer, now) = (self.key(from.other()), self.now);
        self.node(from).send(peer, packet, now);
    }

    /// Hands a packet to a node for the other and lets the network run until it is quiet.
    pub(super) fn send(&mut self, from: Side, packet: &[u8]) {
        self.queue(from, packet);
        self.run();
    }

    /// Takes what a node has sent.
    pub(super) fn take_outbox(&mut self, from: Side) -> Vec<Flight> {
        let now = self.now;
        let at = now - self.start;
        self.node(from).drain();
        let flights: Vec<_> = self
            .node(from)
            .outbox
            .drain(..)
            .map(|transmit| Flight { from, payload: transmit.payload })
            .collect();
        for flight in &flights {
            self.log.push(Sent { at, from, kind: flight.kind(), len: flight.payload.len() });
        }
        flights
    }

    /// Delivers one datagram.
    pub(super) fn deliver(&mut self, flight: Flight) {
        let (source, now) = (self.node(flight.from).source, self.now);
        self.node(flight.from.other()).take(flight.payload, source, now);
    }

    /// Delivers until nobody has anything to send.
    pub(super) fn run(&mut self) {
        for _ in 0..MAX_STEPS {
            let mut flights = self.take_outbox(A);
            flights.extend(self.take_outbox(B));
            if flights.is_empty() {
                return;
            }
            for flight in flights {
                if !(self.loses)(&flight) {
                    self.deliver(flight);
                }
            }
        }
        panic!("the two sides never stop talking");
    }

    /// Lets time pass; timers run when they are due.
    pub(super) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        for _ in 0..MAX_STEPS {
            let due = [&self.a, &self.b].into_iter().filter_map(|node| node.device.poll_timeout()).min();
            match due {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    let now = self.now;
                    for side in [A, B] {
                        self.node(side).device.handle_timeout(now);
                        self.node(side).drain();
                    }
                    self.run();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the timers never come to rest");
    }

    pub(super) fn advance_secs(&mut self, secs: u64) {
        self.advance(Duration::from_secs(secs));
    }

    /// Everything that was sent since the last call.
    pub(super) fn take_log(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.log)
    }

    /// How many datagrams of a kind a side has sent.
    pub(super) fn count(&self, from: Side, kind: Kind) -> usize {
        self.log.iter().filter(|sent| sent.from == from && sent.kind == kind).count()
    }

    /// The session by which a side sends.
    pub(super) fn session(&mut self, side: Side) -> Arc<Session> {
        let peer = self.key(side.other());
        Arc::clone(&self.node(side).send[&peer])
    }

    /// A handshake that `from` begins, ready for data in both directions.
    pub(super) fn connect(&mut self, from: Side) {
        self.send(from, &packet(1));
        self.send(from.other(), &packet(2));
        assert_eq!(self.node(from).received.pop(), Some(packet(2)));
        assert_eq!(self.node(from.other()).received.pop(), Some(packet(1)));
        self.log.clear();
    }
}

/// An IPv4 packet of 30 bytes whose content names it.
pub(super) fn packet(number: u8) -> Vec<u8> {
    sized_packet(30, number)
}

pub(super) fn sized_packet(len: usize, number: u8) -> Vec<u8> {
    let mut packet = vec![number; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet
}
