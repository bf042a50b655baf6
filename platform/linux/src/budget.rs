//! How often the watcher may repair before it stands back.

use std::time::{Duration, Instant};

/// Repairs in a row before the pace slows down: a firewall reload or a restart of systemd-networkd causes several.
const BURST: u32 = 10;
/// One more repair per this time. A program that removes faster than this is in charge; fighting it helps nobody.
const INTERVAL: Duration = Duration::from_secs(5);

/// A bucket of repairs that fills up again.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    left: u32,
    /// When `left` was last counted.
    counted: Instant,
}

impl Budget {
    /// A full bucket.
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: BURST, counted: now }
    }

    /// Takes one repair, or says when there will be one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Instant> {
        while self.left < BURST && now.duration_since(self.counted) >= INTERVAL {
            self.left += 1;
            self.counted += INTERVAL;
        }
        if self.left == BURST {
            self.counted = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.counted + INTERVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_one_per_interval() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..BURST {
            assert_eq!(budget.take(start), Ok(()));
        }
        assert_eq!(budget.take(start), Err(start + INTERVAL));
        assert_eq!(budget.take(start + INTERVAL), Ok(()));
        assert_eq!(budget.take(start + INTERVAL), Err(start + 2 * INTERVAL));
    }

    #[test]
    fn a_long_quiet_time_fills_the_bucket_but_not_more() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        while budget.take(start).is_ok() {}
        let later = start + 1000 * INTERVAL;
        for _ in 0..BURST {
            assert_eq!(budget.take(later), Ok(()));
        }
        assert_eq!(budget.take(later), Err(later + INTERVAL));
    }
}
