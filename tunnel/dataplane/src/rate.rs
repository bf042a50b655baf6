//! A token bucket.

use std::time::{Duration, Instant};

/// Messages of ours to the host, or to peers, about packets that were not carried: per second and at once (RFC 1812
/// §4.3.2.8 asks for a limit; hosts need one per connection attempt).
pub(crate) const COURTESY_RATE: u32 = 20;
pub(crate) const COURTESY_BURST: u32 = 50;

/// Allows a number of things per second, and some at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// Time in which one token comes back.
    period: Duration,
    burst: Duration,
    /// When the bucket is full again: every token taken moves it.
    full_at: Instant,
}

impl Budget {
    pub(crate) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let period = Duration::from_secs(1) / per_second.max(1);
        Self { period, burst: period * burst, full_at: now }
    }

    /// Whether one more is allowed now.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let full_at = self.full_at.max(now) + self.period;
        if full_at > now + self.burst {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_allowed_at_once_and_the_rate_after_it() {
        let start = Instant::now();
        let mut budget = Budget::new(10, 3, start);
        assert_eq!([(); 5].map(|()| budget.take(start)), [true, true, true, false, false]);
        assert!(!budget.take(start + Duration::from_millis(99)));
        assert!(budget.take(start + Duration::from_millis(100)));
        assert!(!budget.take(start + Duration::from_millis(100)));
        let later = start + Duration::from_secs(10);
        assert_eq!([(); 4].map(|()| budget.take(later)), [true, true, true, false]);
    }
}
