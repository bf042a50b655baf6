//! The window of counters that were seen (RFC 6479; data-plane sheet §1.5).

use crate::limits::REJECT_AFTER_MESSAGES;

/// Words of the ring; a power of two, so that a shift and a mask find a counter's word.
const WORD_COUNT: usize = 128;
const WORD_BITS: u64 = u64::BITS as u64;
/// How far behind the newest counter one may lie. The word into which the newest counter falls is only partly in use, so one
/// word of the ring cannot be counted on.
pub const WINDOW: u64 = (WORD_COUNT as u64 - 1) * WORD_BITS;

/// Remembers which counters were accepted.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    newest: u64,
    seen: [u64; WORD_COUNT],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { newest: 0, seen: [0; WORD_COUNT] }
    }
}

impl ReplayWindow {
    /// Accepts a counter once: `false` if it was accepted before, lies too far back, or may not be used at all. To be asked only
    /// for packets that are authentic.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter >= REJECT_AFTER_MESSAGES {
            return false;
        }
        if counter > self.newest {
            let (from, to) = (self.newest / WORD_BITS, counter / WORD_BITS);
            // More words than the ring has need not be cleared twice.
            for word in (from + 1..=to).rev().take(WORD_COUNT) {
                self.seen[slot(word)] = 0;
            }
            self.newest = counter;
        } else if self.newest - counter > WINDOW {
            return false;
        }
        let word = &mut self.seen[slot(counter / WORD_BITS)];
        let bit = 1 << (counter % WORD_BITS);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

/// Place of a word in the ring.
fn slot(word: u64) -> usize {
    usize::try_from(word % WORD_COUNT as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_counter_is_accepted_once_in_any_order() {
        let mut window = ReplayWindow::default();
        for counter in [0, 1, 5, 3, 2, 4, 8128, 100, 63, 64, 65] {
            assert!(window.accept(counter), "{counter}");
            assert!(!window.accept(counter), "{counter}");
        }
    }

    #[test]
    fn edges_of_the_window() {
        assert_eq!(WINDOW, 8128);
        for newest in [8128, 8129, 20_000, 20_031, 20_032, 1 << 40] {
            let mut window = ReplayWindow::default();
            assert!(window.accept(newest));
            assert!(window.accept(newest - WINDOW), "{newest}");
            assert!(!window.accept(newest - WINDOW), "{newest}");
            if newest > WINDOW {
                assert!(!window.accept(newest - WINDOW - 1), "{newest}");
            }
        }
    }

    #[test]
    fn a_jump_forgets_what_lies_behind_and_nothing_else() {
        let mut window = ReplayWindow::default();
        assert!((0..200).all(|counter| window.accept(counter)));
        assert!(window.accept(200 + WINDOW));
        assert!((201..200 + WINDOW).all(|counter| window.accept(counter)));
        assert!(window.accept(200));
        assert!(!window.accept(200));
        assert!(!window.accept(199));
        assert!(window.accept(u64::MAX / 2));
        assert!(!window.accept(200 + WINDOW));
        assert!(window.accept(u64::MAX / 2 - 1));
    }

    #[test]
    fn counters_at_and_above_the_limit_are_refused() {
        let mut window = ReplayWindow::default();
        assert!(!window.accept(u64::MAX));
        assert!(!window.accept(REJECT_AFTER_MESSAGES));
        assert!(window.accept(REJECT_AFTER_MESSAGES - 1));
        assert_eq!(REJECT_AFTER_MESSAGES, u64::MAX - 8192);
    }

    #[test]
    fn random_orders_agree_with_a_set() {
        let mut window = ReplayWindow::default();
        let mut seen = HashSet::new();
        let (mut state, mut newest) = (7_u64, 0_u64);
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let counter = (newest + 300).saturating_sub((state >> 33) % 9000);
            newest = newest.max(counter);
            let expected = newest - counter <= WINDOW && seen.insert(counter);
            assert_eq!(window.accept(counter), expected, "{counter} of {newest}");
        }
    }
}
