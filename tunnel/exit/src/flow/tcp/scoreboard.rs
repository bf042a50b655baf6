//! What of the bytes under way has arrived out of order, and what is lost (RFC 2018, RFC 6675).

use crate::flow::segment::Range;
use crate::flow::seq::Seq;

/// Ranges that are kept. A peer that names more gets some bytes twice.
const MAX_RANGE_COUNT: usize = 128;
/// How many later segments must have arrived before an earlier one counts as lost (RFC 6675 §2).
const DUPLICATE_THRESHOLD: usize = 3;

/// Ranges that the peer has, in order and apart from each other.
#[derive(Debug, Default)]
pub(super) struct Scoreboard {
    ranges: Vec<Range>,
}

impl Scoreboard {
    /// Takes in a block. Gives whether it says something new.
    pub(super) fn note(&mut self, (start, end): Range, una: Seq, nxt: Seq) -> bool {
        let (start, end) = (start.max(una), end);
        if !start.is_before(end) || end.is_after(nxt) {
            return false;
        }
        // Those that it touches become one with it.
        let first = self.ranges.partition_point(|range| range.1.is_before(start));
        let behind = first + self.ranges[first..].partition_point(|range| !range.0.is_after(end));
        if let [only] = self.ranges[first..behind]
            && !start.is_before(only.0)
            && !end.is_after(only.1)
        {
            return false;
        }
        if first == behind && self.ranges.len() >= MAX_RANGE_COUNT {
            return false;
        }
        let merged = self.ranges[first..behind]
            .iter()
            .fold((start, end), |merged, range| (merged.0.min(range.0), merged.1.max(range.1)));
        self.ranges.splice(first..behind, [merged]);
        true
    }

    /// Forgets what is acknowledged by now.
    pub(super) fn acknowledge(&mut self, una: Seq) {
        self.ranges.retain(|range| range.1.is_after(una));
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(una);
        }
    }

    pub(super) fn clear(&mut self) {
        self.ranges.clear();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes that have arrived, from `start` to `end`.
    pub(super) fn arrived(&self, start: Seq, end: Seq) -> usize {
        self.ranges.iter().map(|range| range.1.min(end).since(range.0.max(start))).sum()
    }

    /// Where what counts as lost ends: below it, everything that has not arrived is lost.
    pub(super) fn lost_edge(&self, una: Seq, mss: usize) -> Seq {
        let mut later = 0;
        for range in self.ranges.iter().rev() {
            later += range.1.since(range.0);
            if later > (DUPLICATE_THRESHOLD - 1) * mss {
                return range.0.max(una);
            }
        }
        una
    }

    /// The first range from `start` on, up to `end`, that has not arrived.
    pub(super) fn hole(&self, start: Seq, end: Seq) -> Option<Range> {
        let mut start = start;
        for range in &self.ranges {
            if start.is_before(range.0) {
                break;
            }
            start = start.max(range.1);
        }
        let next = self.ranges.iter().map(|range| range.0).find(|next| next.is_after(start));
        let end = next.map_or(end, |next| next.min(end));
        start.is_before(end).then_some((start, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, end: u32) -> Range {
        (Seq(start), Seq(end))
    }

    fn board(ranges: &[(u32, u32)]) -> Scoreboard {
        let mut board = Scoreboard::default();
        for (start, end) in ranges {
            board.note(range(*start, *end), Seq(0), Seq(100_000));
        }
        board
    }

    #[test]
    fn blocks_are_joined_in_order() {
        for (blocks, expected) in [
            (vec![(10, 20), (30, 40)], vec![(10, 20), (30, 40)]),
            (vec![(30, 40), (10, 20)], vec![(10, 20), (30, 40)]),
            (vec![(10, 20), (20, 30)], vec![(10, 30)]),
            (vec![(10, 20), (30, 40), (15, 35)], vec![(10, 40)]),
            (vec![(10, 20), (30, 40), (50, 60), (5, 45)], vec![(5, 45), (50, 60)]),
            (vec![(10, 20), (12, 14)], vec![(10, 20)]),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(start, end)| range(start, end)).collect();
            assert_eq!(board(&blocks).ranges, expected, "{blocks:?}");
        }
        let mut board = board(&[(10, 20)]);
        assert!(!board.note(range(10, 20), Seq(0), Seq(100)), "nothing new");
        assert!(!board.note(range(20, 10), Seq(0), Seq(100)), "backwards");
        assert!(!board.note(range(90, 101), Seq(0), Seq(100)), "never sent");
        assert!(!board.note(range(1, 5), Seq(5), Seq(100)), "acknowledged long ago");
    }

    #[test]
    fn holes_are_what_has_not_arrived() {
        let board = board(&[(10, 20), (30, 40)]);
        for (start, end, expected) in [
            (0, 100, Some((0, 10))),
            (10, 100, Some((20, 30))),
            (15, 25, Some((20, 25))),
            (30, 40, None),
            (35, 100, Some((40, 100))),
            (5, 5, None),
        ] {
            let expected = expected.map(|(start, end)| range(start, end));
            assert_eq!(board.hole(Seq(start), Seq(end)), expected, "{start} {end}");
        }
        assert_eq!(board.arrived(Seq(0), Seq(100)), 20);
        assert_eq!(board.arrived(Seq(15), Seq(35)), 10);
    }

    #[test]
    fn a_segment_is_lost_when_three_later_ones_arrived() {
        assert_eq!(board(&[(100, 300)]).lost_edge(Seq(0), 100), Seq(0));
        assert_eq!(board(&[(100, 301)]).lost_edge(Seq(0), 100), Seq(100));
        assert_eq!(board(&[(100, 200), (300, 400), (500, 600)]).lost_edge(Seq(0), 100), Seq(100));
    }

    #[test]
    fn a_flood_of_blocks_is_bounded() {
        let mut board = Scoreboard::default();
        for index in 0..10_000 {
            board.note(range(index * 4 + 1, index * 4 + 2), Seq(0), Seq(100_000));
        }
        assert_eq!(board.ranges.len(), MAX_RANGE_COUNT);
    }
}
