//! The half of a connection that takes what the peer sends: order, window, selective acknowledgements.

use std::time::{Duration, Instant};

use crate::flow::chunks::Chunks;
use crate::flow::segment::{MAX_SACK_COUNT, Range};
use crate::flow::seq::Seq;

/// First window: what most systems begin with.
pub(super) const INITIAL_WINDOW: usize = 64 * 1024;
/// Ranges out of order that are kept. Later ones are thrown away, and sent again by the peer.
const MAX_RANGE_COUNT: usize = 64;

#[derive(Debug)]
pub(super) struct Receiver {
    buffer: Chunks,
    /// Bytes in order that the application has not taken.
    ready: usize,
    nxt: Seq,
    /// What arrived out of order, in order and apart from each other.
    ranges: Vec<Range>,
    /// A place in the range that changed last.
    latest: Seq,
    /// The number of the peer's end.
    fin: Option<Seq>,
    /// Whether the peer's end was reached in order.
    ended: bool,
    /// Bytes that may wait for the application.
    limit: usize,
    max_limit: usize,
    /// How far the peer may send; it is never taken back (RFC 9293 §3.8.6).
    edge: Seq,
    mss: usize,
    /// What was taken in the present round trip.
    round: Option<(Instant, usize)>,
}

/// What the bytes of a segment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// They were next.
    InOrder,
    /// They filled a gap, or left one: the peer wants to know at once (RFC 5681 §4.2).
    OutOfOrder,
    /// They were here before, or there is no room.
    Useless,
}

impl Receiver {
    pub(super) fn new(nxt: Seq, mss: usize, max_limit: usize) -> Self {
        let limit = INITIAL_WINDOW.min(max_limit);
        Self {
            buffer: Chunks::default(),
            ready: 0,
            nxt,
            ranges: Vec::new(),
            latest: nxt,
            fin: None,
            ended: false,
            limit,
            max_limit,
            edge: nxt.plus(limit),
            mss,
            round: None,
        }
    }

    pub(super) const fn nxt(&self) -> Seq {
        self.nxt
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    pub(super) const fn ready(&self) -> usize {
        self.ready
    }

    pub(super) const fn allocated(&self) -> usize {
        self.buffer.allocated()
    }

    /// Bytes that the peer may send from the next one on.
    pub(super) fn window(&self) -> usize {
        self.edge.since(self.nxt)
    }

    /// Whether a segment lies in the window (RFC 9293 §3.10.7.4, table 6).
    pub(super) fn is_acceptable(&self, seq: Seq, len: usize) -> bool {
        let window = self.window();
        let inside = |seq: Seq| !seq.is_before(self.nxt) && seq.is_before(self.nxt.plus(window));
        match (len, window) {
            (0, 0) => seq == self.nxt,
            (0, _) => inside(seq),
            // Also what begins in front of the window and reaches into it; nothing, if the window is closed.
            (_, 0) => false,
            (_, _) => inside(seq) || inside(seq.plus(len - 1)),
        }
    }

    /// Takes the bytes of an acceptable segment, and its end if it has one.
    pub(super) fn handle_data(&mut self, seq: Seq, payload: &[u8], fin: bool) -> Arrival {
        let end = seq.plus(payload.len());
        if fin && self.fin.is_none_or(|known| known == end) && !end.is_after(self.edge) {
            self.fin = Some(end);
        }
        let (start, end) = (seq.max(self.nxt), end.min(self.edge));
        let limit = self.fin.unwrap_or(end);
        let end = end.min(limit);
        let mut arrival = Arrival::Useless;
        if start.is_before(end) {
            let payload = &payload[start.since(seq)..end.since(seq)];
            if start == self.nxt {
                let had_gap = !self.ranges.is_empty();
                self.buffer.write_at(self.ready, payload);
                self.advance(end);
                arrival = if had_gap { Arrival::OutOfOrder } else { Arrival::InOrder };
            } else if self.note_range((start, end)) {
                self.buffer.write_at(self.ready + start.since(self.nxt), payload);
                arrival = Arrival::OutOfOrder;
            }
        }
        if self.fin == Some(self.nxt) && !self.ended {
            self.ended = true;
            self.nxt = self.nxt.plus(1);
            self.edge = self.edge.max(self.nxt);
            arrival = Arrival::OutOfOrder;
        }
        arrival
    }

    /// Everything up to `end` is in order, and perhaps what follows.
    fn advance(&mut self, end: Seq) {
        let mut end = end;
        while let Some((start, range_end)) = self.ranges.first().copied()
            && !start.is_after(end)
        {
            end = end.max(range_end);
            self.ranges.remove(0);
        }
        self.ready += end.since(self.nxt);
        self.nxt = end;
    }

    /// `false`: there are too many ranges.
    fn note_range(&mut self, (start, end): Range) -> bool {
        let first = self.ranges.partition_point(|range| range.1.is_before(start));
        let behind = first + self.ranges[first..].partition_point(|range| !range.0.is_after(end));
        if first == behind && self.ranges.len() >= MAX_RANGE_COUNT {
            return false;
        }
        let merged = self.ranges[first..behind]
            .iter()
            .fold((start, end), |merged, range| (merged.0.min(range.0), merged.1.max(range.1)));
        self.ranges.splice(first..behind, [merged]);
        self.latest = start;
        true
    }

    /// Whether something arrived out of order.
    pub(super) const fn has_gaps(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Blocks for the peer, the latest first (RFC 2018 §4).
    pub(super) fn sack(&self) -> [Option<Range>; MAX_SACK_COUNT] {
        let mut blocks = [None; MAX_SACK_COUNT];
        let holds_latest = |range: &&Range| !self.latest.is_before(range.0) && self.latest.is_before(range.1);
        let latest = self.ranges.iter().find(holds_latest);
        let others = self.ranges.iter().rev().filter(|range| !holds_latest(range));
        for (slot, range) in blocks.iter_mut().zip(latest.into_iter().chain(others)) {
            *slot = Some(*range);
        }
        blocks
    }

    /// If more than half of the window goes through in a round trip, the peer is held back by it: the next one is larger. What the
    /// application does not take makes no larger window.
    fn grow(&mut self, len: usize, round_trip: Option<Duration>, now: Instant) {
        let (start, bytes) = self.round.get_or_insert((now, 0));
        *bytes += len;
        let bytes = *bytes;
        if bytes * 2 > self.limit {
            self.limit = (self.limit * 2).min(self.max_limit);
            self.round = Some((now, 0));
        } else if now.saturating_duration_since(*start) > round_trip.unwrap_or_default() {
            self.round = Some((now, 0));
        }
    }

    /// Moves the edge, in steps that are worth telling (RFC 9293 §3.8.6.2.2). `may_grow` is false while memory is short. Gives whether
    /// the peer should be told at once.
    pub(super) fn open_window(&mut self, may_grow: bool) -> bool {
        if self.ended || !may_grow {
            return false;
        }
        let wanted = self.nxt.plus(self.limit.saturating_sub(self.ready));
        let step = wanted.since(self.edge);
        if step < self.mss.min(self.limit / 2) {
            return false;
        }
        let was_small = self.window() < self.limit / 4;
        self.edge = wanted;
        was_small || step >= self.limit / 2
    }

    /// Bytes in order, as many as lie in one piece of memory.
    pub(super) fn peek(&self, offset: usize) -> &[u8] {
        self.buffer.slice_at(offset, self.ready.saturating_sub(offset))
    }

    /// The application has taken these bytes.
    pub(super) fn consume(&mut self, len: usize, round_trip: Option<Duration>, now: Instant) {
        let len = len.min(self.ready);
        self.ready -= len;
        self.grow(len, round_trip, now);
        self.buffer.discard(len, self.ready == 0 && self.ranges.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;

    fn receiver() -> Receiver {
        Receiver::new(Seq(u32::MAX - 1500), MSS, 1 << 20)
    }

    fn take(receiver: &mut Receiver, now: Instant) -> Vec<u8> {
        let mut taken = Vec::new();
        while receiver.ready() > 0 {
            let piece = receiver.peek(0).to_vec();
            receiver.consume(piece.len(), Some(Duration::from_secs(1)), now);
            taken.extend(piece);
        }
        taken
    }

    #[test]
    fn bytes_come_out_in_order_however_they_arrive() {
        let now = Instant::now();
        let data: Vec<u8> = (0..5000_u32).map(|index| (index % 251).to_le_bytes()[0]).collect();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [1, 3, 0, 4, 2], [2, 0, 1, 4, 3]] {
            let mut receiver = receiver();
            let start = receiver.nxt();
            for (count, index) in order.into_iter().enumerate() {
                let piece = &data[index * MSS..(index + 1) * MSS];
                receiver.handle_data(start.plus(index * MSS), piece, index == 4);
                let again = receiver.handle_data(start.plus(index * MSS), piece, index == 4);
                assert!(count == 4 || again != Arrival::InOrder);
            }
            assert!(receiver.is_ended());
            assert_eq!(receiver.nxt(), start.plus(5001));
            assert_eq!(receiver.sack(), [None; MAX_SACK_COUNT]);
            assert!(take(&mut receiver, now) == data);
            assert_eq!(receiver.allocated(), 0);
        }
    }

    #[test]
    fn the_latest_range_is_named_first() {
        let mut receiver = receiver();
        let start = receiver.nxt();
        for at in [2, 6, 4] {
            receiver.handle_data(start.plus(at * MSS), &[0; MSS], false);
        }
        let block = |at: usize| Some((start.plus(at * MSS), start.plus((at + 1) * MSS)));
        assert_eq!(receiver.sack(), [block(4), block(6), block(2), None]);
    }

    #[test]
    fn what_lies_beyond_the_window_or_the_end_is_cut_off() {
        let mut receiver = receiver();
        let start = receiver.nxt();
        assert!(!receiver.is_acceptable(start.plus(INITIAL_WINDOW), 1));
        assert!(receiver.is_acceptable(start.plus(INITIAL_WINDOW - 1), 100));
        receiver.handle_data(start.plus(INITIAL_WINDOW - 1), &[7; 100], true);
        assert_eq!(receiver.sack()[0].unwrap().1, start.plus(INITIAL_WINDOW));
        receiver.handle_data(start, &vec![7; INITIAL_WINDOW], false);
        assert_eq!((receiver.ready(), receiver.window(), receiver.is_ended()), (INITIAL_WINDOW, 0, false));
        assert!(!receiver.is_acceptable(receiver.nxt(), 1));
        assert!(receiver.is_acceptable(receiver.nxt(), 0));
    }

    #[test]
    fn many_gaps_are_bounded() {
        let mut receiver = receiver();
        let start = receiver.nxt();
        let arrivals = (0..1000).map(|at| receiver.handle_data(start.plus(at * 2 + 1), &[0], false));
        assert_eq!(arrivals.filter(|arrival| *arrival == Arrival::OutOfOrder).count(), MAX_RANGE_COUNT);
    }

    #[test]
    fn a_window_grows_for_a_peer_that_fills_it_and_never_shrinks() {
        let now = Instant::now();
        let mut receiver = receiver();
        for _ in 0..200 {
            let edge = receiver.edge;
            let start = receiver.nxt();
            receiver.handle_data(start, &[0; 16_000], false);
            take(&mut receiver, now);
            receiver.open_window(true);
            assert!(!receiver.edge.is_before(edge));
        }
        assert_eq!(receiver.limit, 1 << 20);
        let edge = receiver.edge;
        receiver.open_window(false);
        assert_eq!(receiver.edge, edge);
    }
}
