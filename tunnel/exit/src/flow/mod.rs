//! Where the flows of peers end: TCP and UDP in the place of the destinations, without input and output.
//!
//! A SYN is held until the caller says what became of it: [`FlowStack::accept`] answers it, [`FlowStack::refuse`] resets it or tells why by
//! ICMP. A peer never sees "connected" for a destination that is not there.
//!
//! The cost of a packet does not depend on the number of flows: they are found by hash, their timers are in order, and only flows that have
//! something to send are looked at. Peers take turns in sending, and the flows of a peer among themselves. Buffers have memory only while they
//! hold something.
//!
//! After each input the driver drains [`FlowStack::poll_event`] and [`FlowStack::poll_transmit`]; a whole batch of packets counts as one
//! input. Packets come from the data plane, which has checked that the source belongs to the peer.

mod chunks;
mod datagram;
mod limits;
mod segment;
mod seq;
mod slots;
mod tcp;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rand_core::{CryptoRng, RngCore};
use tsrs_tunnel_packet::icmp::{self, Unreachable};
use tsrs_tunnel_packet::ipv4::tcp_flag::{ACK, RST, SYN};
use tsrs_tunnel_packet::ipv4::{Class, parse};
use tsrs_tunnel_packet::vnet::VirtioNetHdr;

pub use datagram::{Datagram, write_datagram};
pub use limits::{FlowLimits, FlowUsage};
pub use slots::FlowId;
pub use tcp::CloseReason;

use chunks::CHUNK_LEN;
use limits::Account;
use segment::{Head, Options, Segment, ends, quote};
use seq::Seq;
use slots::{Flow, Offer, Slots, State};
use tcp::{Connection, DEFAULT_MSS, Opening, Sizes};

/// How long a SYN is held at most. The dialer gives up earlier.
const HELD_LIMIT: Duration = Duration::from_secs(30);
/// Answers that belong to no flow and wait to be sent: resets and ICMP. Beyond that they are lost; the peer asks again.
const MAX_LOOSE_COUNT: usize = 256;

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// It was taken.
    Taken,
    /// A datagram, for the caller.
    Datagram(Datagram<'a>),
    /// It is dropped.
    Dropped(InputDrop),
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputDrop {
    /// It is no whole TCP segment or datagram, a fragment, or its checksum is wrong.
    Malformed,
    /// Another protocol than TCP and UDP.
    Protocol,
    /// There are too many flows, of this peer or in all, or too many that wait for a proxy.
    Limit,
}

/// What the caller has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer wants to connect. Its SYN is held until [`FlowStack::accept`] or [`FlowStack::refuse`].
    Opening {
        /// The flow.
        flow: FlowId,
        /// Address and port of the peer, inside the tunnel.
        peer: SocketAddrV4,
        /// Where it wants to connect to.
        destination: SocketAddrV4,
    },
    /// Something changed: there may be bytes to take, room to give some, or the peer ended its direction.
    Changed(FlowId),
    /// The flow is over, and its id means nothing any more.
    Closed(FlowId, CloseReason),
}

/// How a SYN is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As a host does on whose port nobody listens.
    Reset,
    /// As a router does that cannot or may not carry it.
    Unreachable(Unreachable),
}

/// See the module's documentation.
pub struct FlowStack<R> {
    /// Address of this node in the tunnel: who sends ICMP.
    own_address: Ipv4Addr,
    mtu: usize,
    account: Account,
    random: R,
    slots: Slots,
    by_ends: HashMap<(SocketAddrV4, SocketAddrV4), FlowId>,
    timers: BTreeSet<(Instant, FlowId)>,
    /// Peers that have flows with something to send, and those flows.
    turns: VecDeque<Ipv4Addr>,
    turns_of: HashMap<Ipv4Addr, VecDeque<FlowId>>,
    events: VecDeque<Event>,
    /// Flows that were held back while memory was short.
    starved: VecDeque<FlowId>,
    loose: VecDeque<(VirtioNetHdr, Vec<u8>)>,
    now: Instant,
}

impl<R: RngCore + CryptoRng> FlowStack<R> {
    /// A stack without flows. `mtu` is that of the tunnel.
    pub fn new(own_address: Ipv4Addr, mtu: u16, limits: FlowLimits, random: R, now: Instant) -> Self {
        Self {
            own_address,
            mtu: usize::from(mtu),
            account: Account::new(limits),
            random,
            slots: Slots::default(),
            by_ends: HashMap::new(),
            timers: BTreeSet::new(),
            turns: VecDeque::new(),
            turns_of: HashMap::new(),
            events: VecDeque::new(),
            starved: VecDeque::new(),
            loose: VecDeque::new(),
            now,
        }
    }

    /// How much of the limits is used.
    pub fn usage(&self) -> FlowUsage {
        self.account.usage()
    }

    /// Takes a packet of a peer: one segment, or a run of them that was joined. `checksum_is_known` tells that its transport checksum was
    /// verified.
    pub fn handle_packet<'a>(
        &mut self,
        packet: &'a [u8],
        checksum_is_known: bool,
        now: Instant,
    ) -> Input<'a> {
        self.now = now;
        let parsed = parse(packet);
        match parsed.class {
            Class::Tcp => {
                let Some(segment) = Segment::parse(&parsed, packet, checksum_is_known) else {
                    return Input::Dropped(InputDrop::Malformed);
                };
                let (peer, destination) = ends(&parsed);
                self.handle_segment(peer, destination, &segment)
            }
            Class::Udp => match Datagram::parse(&parsed, packet, checksum_is_known) {
                Some(datagram) => Input::Datagram(datagram),
                None => Input::Dropped(InputDrop::Malformed),
            },
            Class::Unknown | Class::LaterFragment => Input::Dropped(InputDrop::Malformed),
            Class::Sctp | Class::Icmp | Class::Igmp | Class::Tsmp | Class::Other => {
                Input::Dropped(InputDrop::Protocol)
            }
        }
    }

    fn handle_segment(
        &mut self,
        peer: SocketAddrV4,
        destination: SocketAddrV4,
        segment: &Segment<'_>,
    ) -> Input<'static> {
        let is_syn = segment.flags & (SYN | ACK | RST) == SYN;
        let known = self.by_ends.get(&(peer, destination)).copied();
        let Some(id) = known else {
            if is_syn {
                return self.open(peer, destination, segment);
            }
            self.reset_unknown(peer, destination, segment);
            return Input::Taken;
        };
        let may_store = self.account.has_memory(*peer.ip());
        let now = self.now;
        let Some(flow) = self.slots.get_mut(id) else { return Input::Taken };
        match &mut flow.state {
            // Its SYN again, or the end of a peer that does not want to wait.
            State::Held(opening) => {
                if segment.has(RST) && segment.seq == opening.seq.plus(1) {
                    self.remove(id, CloseReason::Reset);
                }
                Input::Taken
            }
            State::Live(connection) => {
                if is_syn && connection.is_remembered() {
                    self.remove(id, CloseReason::Finished);
                    return self.open(peer, destination, segment);
                }
                connection.handle_segment(segment, may_store, now);
                if !may_store {
                    self.starve(id);
                }
                self.settle(id);
                Input::Taken
            }
        }
    }

    fn open(
        &mut self,
        peer: SocketAddrV4,
        destination: SocketAddrV4,
        segment: &Segment<'_>,
    ) -> Input<'static> {
        if !self.account.open(*peer.ip()) {
            return Input::Dropped(InputDrop::Limit);
        }
        let opening = Opening { seq: segment.seq, options: segment.options, window: segment.window };
        let id = self.slots.insert(Flow::held(peer, destination, opening));
        self.by_ends.insert((peer, destination), id);
        self.schedule(id, Some(self.now + HELD_LIMIT));
        self.events.push_back(Event::Opening { flow: id, peer, destination });
        Input::Taken
    }

    /// RFC 9293 §3.10.7.1.
    fn reset_unknown(&mut self, peer: SocketAddrV4, destination: SocketAddrV4, segment: &Segment<'_>) {
        if segment.has(RST) {
            return;
        }
        let (seq, ack, flags) = if segment.has(ACK) {
            (segment.ack, Seq(0), RST)
        } else {
            (Seq(0), segment.seq.plus(segment.len()), RST | ACK)
        };
        self.push_reset(peer, destination, seq, ack, flags);
    }

    fn push_reset(&mut self, peer: SocketAddrV4, destination: SocketAddrV4, seq: Seq, ack: Seq, flags: u8) {
        if self.loose.len() >= MAX_LOOSE_COUNT {
            return;
        }
        let options = Options::default();
        let head = Head { src: destination, dst: peer, seq, ack, flags, window: 0, options };
        let mut packet = Vec::new();
        let header = head.write(0, usize::from(DEFAULT_MSS), |_| {}, &mut packet);
        self.loose.push_back((header, packet));
    }

    /// Tells a peer by ICMP that a packet of it is not carried.
    pub fn refuse_packet(&mut self, packet: &[u8], reason: Unreachable) {
        if self.loose.len() >= MAX_LOOSE_COUNT {
            return;
        }
        let mut message = [0; icmp::MAX_LEN];
        if let Some(len) = icmp::unreachable(reason, self.own_address, packet, &mut message) {
            self.loose.push_back((VirtioNetHdr::default(), message[..len].to_vec()));
        }
    }

    /// The proxy said yes: the peer's SYN is answered.
    pub fn accept(&mut self, flow: FlowId, now: Instant) {
        self.now = now;
        let first = Seq(self.random.next_u32());
        let limits = self.account.limits();
        let sizes = Sizes { mtu: self.mtu, send: limits.send_bytes, receive: limits.receive_bytes };
        let Some(held) = self.slots.get_mut(flow) else { return };
        let State::Held(opening) = &held.state else { return };
        let connection = Connection::accept(held.peer, held.destination, *opening, first, sizes, now);
        held.state = State::Live(Box::new(connection));
        self.account.accept(*held.peer.ip());
        self.settle(flow);
    }

    /// The proxy said no, or the policy.
    pub fn refuse(&mut self, flow: FlowId, refusal: Refusal, now: Instant) {
        self.now = now;
        let Some(held) = self.slots.get_mut(flow) else { return };
        let State::Held(opening) = &held.state else { return };
        let (peer, destination, seq) = (held.peer, held.destination, opening.seq);
        match refusal {
            Refusal::Reset => self.push_reset(peer, destination, Seq(0), seq.plus(1), RST | ACK),
            Refusal::Unreachable(reason) => self.refuse_packet(&quote(peer, destination, seq), reason),
        }
        self.remove(flow, CloseReason::Aborted);
    }

    /// Bytes of the peer that wait, from `offset` on, as many as lie in one piece of memory.
    pub fn peek(&self, flow: FlowId, offset: usize) -> &[u8] {
        self.live(flow).map_or(&[], |connection| connection.peek(offset))
    }

    /// Whether the peer ended its direction. What it sent before can still be taken.
    pub fn peer_ended(&self, flow: FlowId) -> bool {
        self.live(flow).is_some_and(Connection::peer_ended)
    }

    /// The first bytes of the peer are taken.
    pub fn consume(&mut self, flow: FlowId, len: usize, now: Instant) {
        self.now = now;
        let Some(peer) = self.slots.get(flow).map(|flow| *flow.peer.ip()) else { return };
        let may_grow = self.account.has_memory(peer);
        if let Some(connection) = self.live_mut(flow) {
            connection.consume(len, may_grow, now);
        }
        if !may_grow {
            self.starve(flow);
        }
        self.settle(flow);
    }

    /// Bytes that can be given for the peer now. [`Event::Changed`] tells when there are more.
    pub fn capacity(&mut self, flow: FlowId) -> usize {
        let Some(peer) = self.slots.get(flow).map(|flow| *flow.peer.ip()) else { return 0 };
        if !self.account.has_memory(peer) {
            self.starve(flow);
            return 0;
        }
        self.live(flow).map_or(0, Connection::capacity)
    }

    /// Gives bytes for the peer. Takes as many as there is room for.
    pub fn push(&mut self, flow: FlowId, data: &[u8], now: Instant) -> usize {
        self.now = now;
        let Some(connection) = self.live_mut(flow) else { return 0 };
        let len = connection.push(data);
        self.settle(flow);
        len
    }

    /// No more bytes for the peer will come.
    pub fn close(&mut self, flow: FlowId, now: Instant) {
        self.now = now;
        if let Some(connection) = self.live_mut(flow) {
            connection.close();
        }
        self.settle(flow);
    }

    /// Ends a flow with a reset.
    pub fn abort(&mut self, flow: FlowId, now: Instant) {
        self.now = now;
        if let Some(connection) = self.live_mut(flow) {
            connection.abort();
        }
        self.settle(flow);
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Retransmits, asks silent peers, forgets what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(flow) = self.slots.get_mut(id) else { continue };
            flow.timer = None;
            match &mut flow.state {
                State::Held(_) => self.refuse(id, Refusal::Unreachable(Unreachable::Host), now),
                State::Live(connection) => {
                    connection.handle_timeout(now);
                    self.settle(id);
                }
            }
        }
    }

    /// The next thing that the caller has to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Changed(id) = event
            && let Some(flow) = self.slots.get_mut(id)
        {
            flow.told = false;
        }
        Some(event)
    }

    /// Writes the next packet for a peer: one segment, or a run of up to `max_payload` bytes to be cut by the offload header. Checksums of
    /// TCP are left to who cuts it.
    pub fn poll_transmit(&mut self, max_payload: usize, out: &mut Vec<u8>) -> Option<VirtioNetHdr> {
        if let Some((header, packet)) = self.loose.pop_front() {
            out.clear();
            out.extend_from_slice(&packet);
            return Some(header);
        }
        let max_payload = max_payload.min(MAX_RUN_LEN);
        while let Some(peer) = self.turns.pop_front() {
            let Some(turns) = self.turns_of.get_mut(&peer) else { continue };
            let first = turns.pop_front();
            if turns.is_empty() {
                self.turns_of.remove(&peer);
            } else {
                self.turns.push_back(peer);
            }
            let Some(id) = first else { continue };
            let now = self.now;
            let Some(flow) = self.slots.get_mut(id) else { continue };
            flow.queued = false;
            let State::Live(connection) = &mut flow.state else { continue };
            let header = connection.poll_transmit(max_payload, now, out);
            if header.is_some() {
                self.settle(id);
                return header;
            }
            let closed = connection.closed();
            self.schedule_live(id);
            if let Some(reason) = closed {
                self.remove(id, reason);
            }
        }
        None
    }

    fn live(&self, id: FlowId) -> Option<&Connection> {
        match &self.slots.get(id)?.state {
            State::Live(connection) => Some(connection),
            State::Held(_) => None,
        }
    }

    fn live_mut(&mut self, id: FlowId) -> Option<&mut Connection> {
        match &mut self.slots.get_mut(id)?.state {
            State::Live(connection) => Some(connection),
            State::Held(_) => None,
        }
    }

    /// After anything happened to a connection: its memory, its timer, its turn to send, and word to the caller.
    fn settle(&mut self, id: FlowId) {
        let Some(flow) = self.slots.get_mut(id) else { return };
        let State::Live(connection) = &flow.state else { return };
        let peer = *flow.peer.ip();
        let bytes = connection.allocated() * CHUNK_LEN;
        let before = std::mem::replace(&mut flow.bytes, bytes);
        let offer = Offer {
            readable: connection.readable(),
            ended: connection.peer_ended(),
            capacity: connection.capacity(),
        };
        let is_better = offer.is_better_than(std::mem::replace(&mut flow.offer, offer));
        let has_word = is_better && !std::mem::replace(&mut flow.told, true);
        let waits = !std::mem::replace(&mut flow.queued, true);
        self.account.note_bytes(peer, before, bytes);
        if has_word {
            self.events.push_back(Event::Changed(id));
        }
        if waits {
            let turns = self.turns_of.entry(peer).or_default();
            if turns.is_empty() {
                self.turns.push_back(peer);
            }
            turns.push_back(id);
        }
        self.schedule_live(id);
        if bytes < before {
            self.feed();
        }
    }

    fn schedule_live(&mut self, id: FlowId) {
        let wanted = self.live(id).and_then(Connection::poll_timeout);
        self.schedule(id, wanted);
    }

    /// A timer that goes off too early is set again then: most are moved away before they do.
    fn schedule(&mut self, id: FlowId, wanted: Option<Instant>) {
        let Some(flow) = self.slots.get_mut(id) else { return };
        let Some(wanted) = wanted else { return };
        if flow.timer.is_some_and(|timer| timer <= wanted) {
            return;
        }
        if let Some(timer) = flow.timer.replace(wanted) {
            self.timers.remove(&(timer, id));
        }
        self.timers.insert((wanted, id));
    }

    fn starve(&mut self, id: FlowId) {
        if let Some(flow) = self.slots.get_mut(id)
            && !std::mem::replace(&mut flow.starved, true)
        {
            self.starved.push_back(id);
        }
    }

    /// Memory was given back: those that were held back go on.
    fn feed(&mut self) {
        for _ in 0..self.starved.len() {
            let Some(id) = self.starved.pop_front() else { return };
            let now = self.now;
            let Some(flow) = self.slots.get_mut(id) else { continue };
            if !self.account.has_memory(*flow.peer.ip()) {
                self.starved.push_back(id);
                continue;
            }
            flow.starved = false;
            if let State::Live(connection) = &mut flow.state {
                connection.consume(0, true, now);
            }
            self.settle(id);
        }
    }

    fn remove(&mut self, id: FlowId, reason: CloseReason) {
        let Some(flow) = self.slots.remove(id) else { return };
        self.by_ends.remove(&(flow.peer, flow.destination));
        if let Some(timer) = flow.timer {
            self.timers.remove(&(timer, id));
        }
        let is_held = matches!(flow.state, State::Held(_));
        self.account.close(*flow.peer.ip(), is_held, flow.bytes);
        self.events.push_back(Event::Closed(id, reason));
        if flow.bytes > 0 {
            self.feed();
        }
    }
}

/// Most payload of a run: an IPv4 packet with its headers is not longer than 65535 bytes.
const MAX_RUN_LEN: usize = 65_535 - 20 - 60;

#[cfg(test)]
mod tests;
