//! Time that also passes while the host sleeps.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Gives [`Instant`]s that follow `CLOCK_BOOTTIME`.
///
/// `Instant::now` stands still during sleep on Linux, but session ages and path trust do not: a key that was used before
/// a night of sleep is too old in the morning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Boot time at `start`.
    boot: Duration,
}

impl Clock {
    /// A clock whose instants may be compared with those of its copies only.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), boot: boot_time().unwrap_or_default() }
    }

    /// Now. Costs no system call.
    pub(crate) fn now(&self) -> Instant {
        match boot_time() {
            Some(boot) => self.start + boot.saturating_sub(self.boot),
            None => Instant::now(),
        }
    }

    /// The boot time of an instant of this clock, for timers of the kernel.
    pub(crate) fn to_boot_time(self, at: Instant) -> Duration {
        self.boot + at.saturating_duration_since(self.start)
    }
}

fn boot_time() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).ok().map(Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_forward_and_converts_to_boot_time() {
        let clock = Clock::new();
        let first = clock.now();
        let before = boot_time().unwrap();
        let second = clock.now();
        let after = boot_time().unwrap();
        assert!(first <= second);
        assert!((before..=after).contains(&clock.to_boot_time(second)));
    }
}
