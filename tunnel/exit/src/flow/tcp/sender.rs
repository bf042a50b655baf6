//! The half of a connection that sends to the peer: buffer, windows, retransmission.

use std::time::{Duration, Instant};

use super::cubic::Cubic;
use super::rto::Rto;
use super::scoreboard::Scoreboard;
use crate::flow::chunks::Chunks;
use crate::flow::segment::Segment;
use crate::flow::seq::Seq;

/// Least that is buffered for a peer: one read of the proxy's connection.
const MIN_LIMIT: usize = 64 * 1024;
/// Timeouts in a row after which the peer counts as gone: with doubling from 200 ms about 100 s (RFC 9293 §3.8.3).
const MAX_TIMEOUTS: u32 = 9;

/// A piece to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) seq: Seq,
    pub(super) len: usize,
    pub(super) fin: bool,
    /// Whether the buffer ends with it.
    pub(super) push: bool,
}

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckOutcome {
    /// It may have done something.
    Taken,
    /// It acknowledges what was never sent, or long ago.
    Unacceptable,
}

#[derive(Debug)]
pub(super) struct Sender {
    buffer: Chunks,
    /// Bytes in the buffer, from `una` on.
    buffered: usize,
    una: Seq,
    /// Behind the last number that was ever sent.
    nxt: Seq,
    /// The end of our data is known.
    closing: bool,
    mss: usize,
    /// What the peer is ready to take, from `una` on.
    window: usize,
    max_window: usize,
    scale: u8,
    /// Of the segment that set the window (RFC 9293 §3.10.7.4).
    window_seq: Seq,
    window_ack: Seq,
    board: Scoreboard,
    sack: bool,
    duplicates: usize,
    /// While something lost is being sent again: it is over when this is acknowledged.
    recovery: Option<Seq>,
    /// What has not arrived below this is lost.
    lost_edge: Seq,
    /// What was lost below this has been sent again.
    resent: Seq,
    cubic: Cubic,
    rto: Rto,
    deadline: Option<Instant>,
    timeouts: u32,
    /// The segment whose round trip is measured.
    timed: Option<(Seq, Instant)>,
    last_sent: Instant,
    /// An empty segment is to be sent, to which the peer will answer.
    probe: bool,
    max_limit: usize,
}

/// What the handshake found out.
pub(super) struct Negotiated {
    pub(super) una: Seq,
    pub(super) mss: usize,
    pub(super) scale: u8,
    pub(super) sack: bool,
    pub(super) window: usize,
    pub(super) seq: Seq,
}

impl Sender {
    pub(super) fn new(negotiated: &Negotiated, max_limit: usize, now: Instant) -> Self {
        let una = negotiated.una;
        Self {
            buffer: Chunks::default(),
            buffered: 0,
            una,
            nxt: una,
            closing: false,
            mss: negotiated.mss,
            window: negotiated.window,
            max_window: negotiated.window,
            scale: negotiated.scale,
            window_seq: negotiated.seq,
            window_ack: una,
            board: Scoreboard::default(),
            sack: negotiated.sack,
            duplicates: 0,
            recovery: None,
            lost_edge: una,
            resent: una,
            cubic: Cubic::new(negotiated.mss),
            rto: Rto::new(),
            deadline: None,
            timeouts: 0,
            timed: None,
            last_sent: now,
            probe: false,
            max_limit,
        }
    }

    pub(super) const fn nxt(&self) -> Seq {
        self.nxt
    }

    pub(super) const fn una(&self) -> Seq {
        self.una
    }

    pub(super) const fn allocated(&self) -> usize {
        self.buffer.allocated()
    }

    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.rto.round_trip()
    }

    pub(super) fn note_round_trip(&mut self, round_trip: Duration) {
        self.rto.note(round_trip);
    }

    /// Bytes that can be buffered now: twice what may be under way, so that the next window is there when this one is acknowledged.
    pub(super) fn capacity(&self) -> usize {
        if self.closing {
            return 0;
        }
        let limit = (2 * self.cubic.window()).clamp(MIN_LIMIT.min(self.max_limit), self.max_limit);
        limit.saturating_sub(self.buffered)
    }

    pub(super) fn push(&mut self, data: &[u8]) -> usize {
        let len = self.capacity().min(data.len());
        self.buffer.write_at(self.buffered, &data[..len]);
        self.buffered += len;
        len
    }

    pub(super) const fn close(&mut self) {
        self.closing = true;
    }

    /// Behind the last byte of the buffer.
    fn data_end(&self) -> Seq {
        self.una.plus(self.buffered)
    }

    /// Whether everything was acknowledged, our end included.
    pub(super) const fn is_done(&self, fin_acked: bool) -> bool {
        self.closing && self.buffered == 0 && fin_acked
    }

    fn under_way(&self) -> usize {
        self.nxt.since(self.una)
    }

    /// Estimate of what is in the network (RFC 6675 §4 SetPipe).
    fn pipe(&self) -> usize {
        let lost_end = self.lost_edge.max(self.una);
        let resent_end = self.resent.max(self.una).min(lost_end);
        let hole = |end: Seq| end.since(self.una) - self.board.arrived(self.una, end);
        let arrived = self.board.arrived(self.una, self.nxt)
            + if self.sack { 0 } else { (self.duplicates * self.mss).min(self.under_way()) };
        (self.under_way() + hole(resent_end)).saturating_sub(arrived + hole(lost_end))
    }

    /// Takes the acknowledgement of an acceptable segment. Gives whether our end was acknowledged by it too.
    pub(super) fn handle_ack(&mut self, segment: &Segment<'_>, now: Instant) -> (AckOutcome, bool) {
        let ack = segment.ack;
        let too_old = self.una.0.wrapping_sub(u32::try_from(self.max_window).unwrap_or(u32::MAX));
        if ack.is_after(self.nxt) || ack.is_before(Seq(too_old)) {
            return (AckOutcome::Unacceptable, false);
        }
        let mut news = false;
        for block in segment.options.sack.iter().flatten().filter(|_| self.sack) {
            news |= self.board.note(*block, self.una.max(ack), self.nxt);
        }
        let window_before = self.window;
        self.update_window(segment);
        let mut fin_acked = false;
        if ack.is_after(self.una) {
            fin_acked = self.advance(ack, now);
        } else if ack == self.una && self.under_way() > 0 && segment.len() == 0 {
            let same_window = self.window == window_before;
            self.on_duplicate(news || (!self.sack && same_window));
        }
        self.detect_loss();
        (AckOutcome::Taken, fin_acked)
    }

    fn update_window(&mut self, segment: &Segment<'_>) {
        let newer = self.window_seq.is_before(segment.seq)
            || (self.window_seq == segment.seq && !segment.ack.is_before(self.window_ack));
        if segment.ack.is_before(self.una) || !newer {
            return;
        }
        self.window = usize::from(segment.window) << self.scale;
        self.max_window = self.max_window.max(self.window);
        (self.window_seq, self.window_ack) = (segment.seq, segment.ack);
        if self.window > 0 && self.under_way() == 0 {
            // The timer of the closed window.
            self.deadline = None;
            self.timeouts = 0;
        }
    }

    fn advance(&mut self, ack: Seq, now: Instant) -> bool {
        let acked = ack.since(self.una);
        let data = acked.min(self.buffered);
        let was_limited = self.under_way() + self.mss >= self.cubic.window();
        self.buffered -= data;
        self.buffer.discard(data, self.buffered == 0);
        self.una = ack;
        self.lost_edge = self.lost_edge.max(ack);
        self.resent = self.resent.max(ack);
        self.board.acknowledge(ack);
        self.duplicates = 0;
        self.timeouts = 0;
        if let Some((seq, sent)) = self.timed
            && !ack.is_before(seq)
        {
            self.rto.note(now.saturating_duration_since(sent));
            self.timed = None;
        }
        self.rto.forgive();
        match self.recovery {
            Some(end) if ack.is_before(end) => {
                if !self.sack {
                    // The next one is lost too (RFC 6582 §3.2).
                    self.lost_edge = self.una.plus(self.mss).min(end);
                    self.resent = self.una;
                }
                if self.cubic_is_in_slow_start_after_timeout() {
                    self.grow(acked, now);
                }
            }
            Some(_) => self.recovery = None,
            None if was_limited => self.grow(acked, now),
            None => {}
        }
        self.deadline = (self.under_way() > 0).then(|| now + self.rto.timeout());
        acked > data
    }

    /// After a timeout all that was under way is lost, and the window grows from one segment while it is sent again.
    fn cubic_is_in_slow_start_after_timeout(&self) -> bool {
        self.recovery == Some(self.lost_edge)
    }

    fn grow(&mut self, acked: usize, now: Instant) {
        let round_trip = self.rto.round_trip().unwrap_or_default();
        let limit = self.max_limit.min(self.max_window.max(self.mss) * 2);
        self.cubic.on_ack(acked, round_trip, limit, now);
    }

    fn on_duplicate(&mut self, counts: bool) {
        if counts {
            self.duplicates += 1;
        }
        if !self.sack && self.recovery.is_none() && self.duplicates >= 3 {
            self.lost_edge = self.una.plus(self.mss).min(self.nxt);
            self.resent = self.una;
        }
    }

    fn detect_loss(&mut self) {
        if self.sack && !self.board.is_empty() {
            self.lost_edge = self.lost_edge.max(self.board.lost_edge(self.una, self.mss));
        }
        if self.recovery.is_none() && self.board.hole(self.una, self.lost_edge).is_some() {
            self.cubic.on_loss(self.under_way());
            self.recovery = Some(self.nxt);
            self.resent = self.una;
            // What is sent twice cannot be measured (RFC 6298 §3).
            self.timed = None;
        }
    }

    /// When [`Self::handle_timeout`] is to be called.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// `false`: the peer is gone.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return true;
        }
        self.timeouts += 1;
        if self.under_way() == 0 {
            // The window is closed: ask whether it has opened, for as long as the peer answers (RFC 9293 §3.8.6.1). An answer sets
            // the count back.
            self.probe = true;
        } else {
            self.cubic.on_timeout(self.under_way(), self.timeouts == 1);
            // The peer may have dropped what it had (RFC 2018 §8).
            self.board.clear();
            self.duplicates = 0;
            self.recovery = Some(self.nxt);
            self.lost_edge = self.nxt;
            self.resent = self.una;
            self.timed = None;
        }
        self.rto.back_off();
        self.deadline = Some(now + self.rto.timeout());
        self.timeouts <= MAX_TIMEOUTS
    }

    /// The peer answered a probe: it is there.
    pub(super) const fn note_alive(&mut self) {
        if self.nxt.0 == self.una.0 {
            self.timeouts = 0;
        }
    }

    /// The peer is to be asked whether it is there.
    pub(super) const fn ask(&mut self) {
        self.probe = true;
    }

    /// Whether an empty segment is to be sent that the peer has to answer.
    pub(super) const fn poll_probe(&mut self) -> bool {
        std::mem::replace(&mut self.probe, false)
    }

    /// The next piece, at most `max_len` bytes, whole segments but for the last.
    pub(super) fn poll_piece(&mut self, max_len: usize, now: Instant) -> Option<Piece> {
        let max_len = (max_len / self.mss).max(1) * self.mss;
        if let Some(piece) = self.lost_piece(max_len) {
            self.resent = piece.seq.plus(piece.len + usize::from(piece.fin));
            self.deadline = Some(now + self.rto.timeout());
            self.last_sent = now;
            return Some(piece);
        }
        let piece = self.new_piece(max_len, now);
        if let Some(piece) = piece {
            self.nxt = piece.seq.plus(piece.len + usize::from(piece.fin));
            if self.timed.is_none() && self.recovery.is_none() {
                self.timed = Some((self.nxt, now));
            }
            self.deadline.get_or_insert(now + self.rto.timeout());
            self.last_sent = now;
        } else if self.deadline.is_none() && self.window == 0 && self.under_way() == 0 && self.buffered > 0 {
            self.deadline = Some(now + self.rto.timeout());
        }
        piece
    }

    fn lost_piece(&self, max_len: usize) -> Option<Piece> {
        self.recovery?;
        let (start, end) = self.board.hole(self.resent.max(self.una), self.lost_edge)?;
        // The first one always goes (RFC 6675 §5 step 4.3).
        let is_first = start == self.una && !self.resent.is_after(self.una);
        let free = self.cubic.window().saturating_sub(self.pipe());
        let room = if is_first { free.max(self.mss) } else { free };
        let len =
            whole_segments(end.since(start).min(max_len).min(self.usable(start).max(1)), room, self.mss)?;
        Some(self.piece(start, len))
    }

    /// What the peer takes from a place on.
    fn usable(&self, from: Seq) -> usize {
        self.una.plus(self.window).since(from)
    }

    fn new_piece(&mut self, max_len: usize, now: Instant) -> Option<Piece> {
        if self.under_way() == 0 && now.saturating_duration_since(self.last_sent) > self.rto.timeout() {
            self.cubic.on_idle();
        }
        let data_end = self.data_end();
        let waiting = data_end.since(self.nxt);
        if waiting == 0 {
            let is_fin_due = self.closing && self.nxt == data_end;
            return is_fin_due.then(|| self.piece(self.nxt, 1));
        }
        let free = self.cubic.window().saturating_sub(self.pipe());
        let usable = self.usable(self.nxt);
        let offered = waiting.min(usable).min(max_len);
        let len = whole_segments(offered, free, self.mss)?;
        // A small segment goes only if it is all there is, or much for this peer (RFC 9293 §3.8.6.2.1).
        let is_small = len < self.mss.min(self.max_window / 2) && len < waiting;
        if is_small && self.under_way() > 0 {
            return None;
        }
        // The end goes along with the last byte.
        let with_fin = usize::from(self.closing && len == waiting);
        Some(self.piece(self.nxt, len + with_fin))
    }

    /// The piece of `len` numbers from `seq` on, of which the last may be our end.
    fn piece(&self, seq: Seq, len: usize) -> Piece {
        let data = self.data_end().since(seq).min(len);
        Piece { seq, len: data, fin: len > data, push: seq.plus(data) == self.data_end() }
    }

    /// Copies the bytes of a piece.
    pub(super) fn copy(&self, piece: Piece, out: &mut [u8]) {
        self.buffer.copy_at(piece.seq.since(self.una), out);
    }
}

/// As much of `offered` as fits into `room`: all of it, or whole segments.
const fn whole_segments(offered: usize, room: usize, mss: usize) -> Option<usize> {
    let len = if offered <= room { offered } else { room / mss * mss };
    if len == 0 { None } else { Some(len) }
}
