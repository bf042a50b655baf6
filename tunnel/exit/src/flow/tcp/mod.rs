//! One TCP connection with a peer, in the place of a destination (RFC 9293).
//!
//! It begins when the proxy said yes: the peer's SYN was held until then. Both directions end on their own.

mod cubic;
mod receiver;
mod rto;
mod scoreboard;
mod sender;

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use tsrs_tunnel_packet::ipv4::tcp_flag::{ACK, FIN, PSH, RST, SYN};
use tsrs_tunnel_packet::vnet::VirtioNetHdr;

use super::segment::{Head, Options, Range, Segment};
use super::seq::Seq;
use receiver::{Arrival, INITIAL_WINDOW, Receiver};
use sender::{AckOutcome, Negotiated, Piece, Sender};

/// Shift of the windows that we advertise: enough for the largest buffer (RFC 7323 §2).
pub(super) const WINDOW_SCALE: u8 = 7;
/// How long the acknowledgement of a single segment waits for company (RFC 9293 §3.8.6.3 allows half a second).
const ACK_DELAY: Duration = Duration::from_millis(40);
/// How long a connection that we ended first is remembered, so that the peer's repeated FIN finds an answer: its first repetitions. Two
/// lives of a segment (RFC 9293 §3.6.1) would be minutes, but no old packet lives in the tunnel, which throws them away, and two thousand
/// connections a second have to fit into the limit on flows meanwhile.
const TIME_WAIT: Duration = Duration::from_secs(3);
/// How long nothing may come from a peer before it is asked whether it is still there (RFC 9293 §3.8.4). Shorter than the two hours there:
/// a client that fell asleep holds a connection at the proxy.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
/// Pause between such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Questions without an answer after which the peer is gone.
const KEEPALIVE_COUNT: u32 = 6;
/// SYN-ACKs sent in all, with doubling pauses from one second: about half a minute.
const MAX_SYN_ACKS: u32 = 5;
/// Pause between two acknowledgements of segments that are not acceptable (RFC 5961 §7), so that two ends do not keep each other busy.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);

/// Smallest MSS that is believed: anything less would make a packet of every few bytes (RFC 9293 §3.7.1 has 536 as the default, and some
/// links carry less).
const MIN_MSS: u16 = 216;
/// MSS of a peer that names none (RFC 9293 §3.7.1).
pub(super) const DEFAULT_MSS: u16 = 536;

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// Both directions ended.
    Finished,
    /// The peer reset it.
    Reset,
    /// The peer does not answer.
    PeerGone,
    /// The caller ended it.
    Aborted,
}

/// The peer's SYN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) seq: Seq,
    pub(super) options: Options,
    pub(super) window: u16,
}

/// Limits of one connection, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Largest packet in the tunnel.
    pub(super) mtu: usize,
    /// Most that is buffered towards the peer.
    pub(super) send: usize,
    /// Most that is buffered from the peer.
    pub(super) receive: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The SYN-ACK is sent again until the peer acknowledges it.
    SynReceived {
        count: u32,
        deadline: Instant,
    },
    Open,
    TimeWait {
        until: Instant,
    },
    Closed(CloseReason),
}

#[derive(Debug)]
pub(super) struct Connection {
    state: State,
    destination: SocketAddrV4,
    peer: SocketAddrV4,
    opening: Opening,
    first: Seq,
    sender: Sender,
    receiver: Receiver,
    /// The largest payload that we take.
    own_mss: usize,
    /// The largest payload that we send.
    mss: usize,
    window_scaling: bool,
    sack: bool,
    fin_acked: bool,
    /// Whether our end went out before the peer's came in: then it is on us to remember the connection.
    ended_first: bool,
    syn_ack_due: bool,
    ack_due: bool,
    ack_deadline: Option<Instant>,
    unacknowledged: usize,
    reset_due: bool,
    started: Instant,
    last_heard: Instant,
    keepalives: u32,
    last_challenge: Option<Instant>,
}

impl Connection {
    /// Answers a SYN. `first` is our first number, which nobody can guess (RFC 6528).
    pub(super) fn accept(
        peer: SocketAddrV4,
        destination: SocketAddrV4,
        opening: Opening,
        first: Seq,
        sizes: Sizes,
        now: Instant,
    ) -> Self {
        let own_mss = sizes.mtu.saturating_sub(40);
        let peer_mss = opening.options.mss.unwrap_or(DEFAULT_MSS).max(MIN_MSS);
        let mss = own_mss.min(usize::from(peer_mss));
        let window_scaling = opening.options.window_scale.is_some();
        let sack = opening.options.sack_permitted;
        let receive = if window_scaling { sizes.receive } else { sizes.receive.min(INITIAL_WINDOW - 1) };
        let negotiated = Negotiated {
            una: first.plus(1),
            mss,
            scale: opening.options.window_scale.unwrap_or(0),
            sack,
            window: usize::from(opening.window),
            seq: opening.seq,
        };
        Self {
            state: State::SynReceived { count: 0, deadline: now },
            destination,
            peer,
            opening,
            first,
            own_mss,
            sender: Sender::new(&negotiated, sizes.send, now),
            receiver: Receiver::new(opening.seq.plus(1), mss, receive),
            mss,
            window_scaling,
            sack,
            fin_acked: false,
            ended_first: false,
            syn_ack_due: true,
            ack_due: false,
            ack_deadline: None,
            unacknowledged: 0,
            reset_due: false,
            started: now,
            last_heard: now,
            keepalives: 0,
            last_challenge: None,
        }
    }

    /// Pieces of memory that its buffers hold.
    pub(super) const fn allocated(&self) -> usize {
        self.sender.allocated() + self.receiver.allocated()
    }

    /// Why it is over, if it is. It may still have a last segment to send.
    pub(super) const fn closed(&self) -> Option<CloseReason> {
        match self.state {
            State::Closed(reason) => Some(reason),
            State::SynReceived { .. } | State::Open | State::TimeWait { .. } => None,
        }
    }

    /// Whether it is only remembered: a new SYN of the peer may take its place (RFC 9293 §3.10.7.4).
    pub(super) const fn is_remembered(&self) -> bool {
        matches!(self.state, State::TimeWait { .. })
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Bytes of the peer that wait to be taken.
    pub(super) const fn readable(&self) -> usize {
        self.receiver.ready()
    }

    /// Whether the peer's end follows behind them.
    pub(super) const fn peer_ended(&self) -> bool {
        self.receiver.is_ended()
    }

    /// Bytes of the peer from `offset` on, as many as lie in one piece of memory.
    pub(super) fn peek(&self, offset: usize) -> &[u8] {
        self.receiver.peek(offset)
    }

    /// The first bytes of the peer are taken.
    pub(super) fn consume(&mut self, len: usize, may_grow: bool, now: Instant) {
        self.receiver.consume(len, self.sender.round_trip(), now);
        self.ack_due |= self.receiver.open_window(may_grow);
        self.finish(now);
    }

    /// Bytes that can be given for the peer now.
    pub(super) fn capacity(&self) -> usize {
        if self.is_open() { self.sender.capacity() } else { 0 }
    }

    /// Takes bytes for the peer, as many as there is room for.
    pub(super) fn push(&mut self, data: &[u8]) -> usize {
        if self.is_open() { self.sender.push(data) } else { 0 }
    }

    /// No more bytes for the peer will come.
    pub(super) const fn close(&mut self) {
        self.sender.close();
    }

    /// Ends it with a reset.
    pub(super) fn abort(&mut self) {
        self.fail(CloseReason::Aborted);
    }

    fn fail(&mut self, reason: CloseReason) {
        self.reset_due = reason != CloseReason::Reset && !matches!(self.state, State::Closed(_));
        self.state = State::Closed(reason);
    }

    /// Takes a segment of the peer. `may_store` is false while memory is short: its bytes are thrown away then, and the peer sends them
    /// again.
    pub(super) fn handle_segment(&mut self, segment: &Segment<'_>, may_store: bool, now: Instant) {
        if self.closed().is_some() {
            return;
        }
        if segment.has(SYN) && !segment.has(ACK | RST) && segment.seq == self.opening.seq {
            if matches!(self.state, State::SynReceived { .. }) {
                // The same SYN again: it did not get our answer.
                self.syn_ack_due = true;
            } else {
                self.challenge(now);
            }
            return;
        }
        if !self.receiver.is_acceptable(segment.seq, segment.len()) {
            if !segment.has(RST) {
                self.note_alive(now);
                // An acknowledgement counts all the same: with the window closed nothing but that can come (RFC 9293 §3.10.7.4).
                if self.receiver.window() == 0 && self.is_open() && segment.has(ACK) {
                    self.take_ack(segment, now);
                }
                self.challenge(now);
            }
            return;
        }
        if segment.has(RST) {
            if self.is_remembered() {
                // It would be forgotten too early (RFC 1337 §3).
                return;
            }
            // RFC 5961 §3.2: only the exact number resets.
            if segment.seq == self.receiver.nxt() {
                self.fail(CloseReason::Reset);
            } else {
                self.challenge(now);
            }
            return;
        }
        if segment.has(SYN) {
            // RFC 5961 §4.2.
            self.challenge(now);
            return;
        }
        if !segment.has(ACK) {
            return;
        }
        self.note_alive(now);
        if let State::SynReceived { count, .. } = self.state {
            if segment.ack != self.sender.una() {
                // RFC 9293 §3.10.7.4: nothing of ours can be acknowledged but the SYN.
                self.challenge(now);
                return;
            }
            if count == 1 {
                self.sender.note_round_trip(now.saturating_duration_since(self.started));
            }
            self.state = State::Open;
            self.syn_ack_due = false;
        }
        if !self.take_ack(segment, now) {
            return;
        }
        if segment.len() > 0 {
            self.take_data(segment, may_store, now);
        }
        self.finish(now);
    }

    /// `false`: the rest of the segment must not be looked at.
    fn take_ack(&mut self, segment: &Segment<'_>, now: Instant) -> bool {
        let (outcome, fin_acked) = self.sender.handle_ack(segment, now);
        self.fin_acked |= fin_acked;
        if outcome == AckOutcome::Unacceptable {
            self.challenge(now);
        }
        outcome == AckOutcome::Taken
    }

    fn take_data(&mut self, segment: &Segment<'_>, may_store: bool, now: Instant) {
        let payload = if may_store { segment.payload } else { &[] };
        let fin = segment.has(FIN) && (may_store || segment.payload.is_empty());
        let before = self.receiver.nxt();
        match self.receiver.handle_data(segment.seq, payload, fin) {
            Arrival::InOrder => {}
            Arrival::OutOfOrder | Arrival::Useless => self.ack_due = true,
        }
        self.receiver.open_window(may_store);
        self.unacknowledged += self.receiver.nxt().since(before);
        // Every second full segment at the latest (RFC 9293 §3.8.6.3). A batch of them is acknowledged once.
        if self.unacknowledged >= 2 * self.mss {
            self.ack_due = true;
        } else if self.unacknowledged > 0 {
            self.ack_deadline.get_or_insert(now + ACK_DELAY);
        }
    }

    /// Ends when both directions have, and what the peer sent was taken.
    fn finish(&mut self, now: Instant) {
        let ended = self.receiver.is_ended() && self.receiver.ready() == 0;
        if !self.is_open() || !ended || !self.sender.is_done(self.fin_acked) {
            return;
        }
        self.state = if self.ended_first {
            State::TimeWait { until: now + TIME_WAIT }
        } else {
            State::Closed(CloseReason::Finished)
        };
    }

    fn note_alive(&mut self, now: Instant) {
        self.last_heard = now;
        self.keepalives = 0;
        self.sender.note_alive();
    }

    fn challenge(&mut self, now: Instant) {
        let recent = |last: Instant| now.saturating_duration_since(last) < CHALLENGE_INTERVAL;
        if self.last_challenge.is_some_and(recent) {
            // It is told soon all the same, should it be what the peer waits for.
            self.ack_deadline.get_or_insert(now + CHALLENGE_INTERVAL);
            return;
        }
        self.last_challenge = Some(now);
        self.ack_due = true;
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            // What is due goes out first.
            State::SynReceived { deadline, .. } => (!self.syn_ack_due).then_some(deadline),
            State::TimeWait { until } => Some(until),
            State::Closed(_) => None,
            State::Open => {
                let keepalive = self.last_heard + KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * self.keepalives;
                let ack = self.ack_deadline.filter(|_| !self.ack_due);
                [self.sender.poll_timeout(), ack].into_iter().flatten().chain([keepalive]).min()
            }
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::SynReceived { count, deadline } if now >= deadline => {
                if count >= MAX_SYN_ACKS {
                    self.fail(CloseReason::PeerGone);
                } else {
                    self.syn_ack_due = true;
                }
            }
            State::TimeWait { until } if now >= until => self.state = State::Closed(CloseReason::Finished),
            State::Open => self.handle_open_timeout(now),
            State::SynReceived { .. } | State::TimeWait { .. } | State::Closed(_) => {}
        }
    }

    fn handle_open_timeout(&mut self, now: Instant) {
        if self.ack_deadline.is_some_and(|deadline| now >= deadline) {
            self.ack_due = true;
        }
        if !self.sender.handle_timeout(now) {
            self.fail(CloseReason::PeerGone);
            return;
        }
        if now >= self.last_heard + KEEPALIVE_IDLE + KEEPALIVE_INTERVAL * self.keepalives {
            if self.keepalives >= KEEPALIVE_COUNT {
                self.fail(CloseReason::PeerGone);
                return;
            }
            self.keepalives += 1;
            self.sender.ask();
        }
    }

    /// Writes the next packet, with up to `max_payload` bytes in segments of the MSS.
    pub(super) fn poll_transmit(
        &mut self,
        max_payload: usize,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<VirtioNetHdr> {
        if std::mem::take(&mut self.reset_due) {
            return Some(self.write(self.sender.nxt(), RST | ACK, None, out));
        }
        if self.syn_ack_due {
            return self.write_syn_ack(now, out);
        }
        let has_gaps = self.sack && self.receiver.has_gaps();
        if self.ack_due && has_gaps {
            // A segment with data has no room to name them.
            self.note_acknowledged();
            return Some(self.write(self.sender.nxt(), ACK, None, out));
        }
        if self.is_open()
            && let Some(piece) = self.sender.poll_piece(max_payload, now)
        {
            if piece.fin && !self.receiver.is_ended() {
                self.ended_first = true;
            }
            self.note_acknowledged();
            let flags = ACK | if piece.fin { FIN } else { 0 } | if piece.push { PSH } else { 0 };
            return Some(self.write(piece.seq, flags, Some(piece), out));
        }
        if self.sender.poll_probe() {
            self.note_acknowledged();
            // A number that was acknowledged long ago: whoever is there answers (RFC 9293 §3.8.4).
            return Some(self.write(self.sender.una().previous(), ACK, None, out));
        }
        if self.ack_due {
            self.note_acknowledged();
            return Some(self.write(self.sender.nxt(), ACK, None, out));
        }
        None
    }

    const fn note_acknowledged(&mut self) {
        self.ack_due = false;
        self.ack_deadline = None;
        self.unacknowledged = 0;
    }

    fn write_syn_ack(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<VirtioNetHdr> {
        self.syn_ack_due = false;
        let State::SynReceived { count, .. } = &mut self.state else { return None };
        let pause = Duration::from_secs(1 << (*count).min(MAX_SYN_ACKS));
        *count += 1;
        let count = *count;
        self.state = State::SynReceived { count, deadline: now + pause };
        let options = Options {
            mss: Some(u16::try_from(self.own_mss).unwrap_or(DEFAULT_MSS)),
            window_scale: self.window_scaling.then_some(WINDOW_SCALE),
            sack_permitted: self.sack,
            sack: [None; 4],
        };
        let window = self.receiver.window();
        let head = Head {
            src: self.destination,
            dst: self.peer,
            seq: self.first,
            ack: self.receiver.nxt(),
            flags: SYN | ACK,
            // Not scaled (RFC 7323 §2.2).
            window: u16::try_from(window).unwrap_or(u16::MAX),
            options,
        };
        Some(head.write(0, self.mss, |_| {}, out))
    }

    fn write(&self, seq: Seq, flags: u8, piece: Option<Piece>, out: &mut Vec<u8>) -> VirtioNetHdr {
        let sack: [Option<Range>; 4] = if self.sack { self.receiver.sack() } else { [None; 4] };
        // A segment of full length has no room for options.
        let sack = if piece.is_some() { [None; 4] } else { sack };
        let scale = if self.window_scaling { WINDOW_SCALE } else { 0 };
        let head = Head {
            src: self.destination,
            dst: self.peer,
            seq,
            ack: self.receiver.nxt(),
            flags,
            window: u16::try_from(self.receiver.window() >> scale).unwrap_or(u16::MAX),
            options: Options { sack, ..Options::default() },
        };
        let fill = |payload: &mut [u8]| {
            if let Some(piece) = piece {
                self.sender.copy(piece, payload);
            }
        };
        head.write(piece.map_or(0, |piece| piece.len), self.mss, fill, out)
    }
}
