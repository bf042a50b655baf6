//! How long to wait for an acknowledgement (RFC 6298).

use std::time::Duration;

/// Before the first measurement (RFC 6298 §2.1).
const INITIAL: Duration = Duration::from_secs(1);
/// RFC 6298 §2.4 says a second and allows less; Linux and gVisor wait this long, which the delayed acknowledgements of all systems fit
/// into.
const MIN: Duration = Duration::from_millis(200);
/// A minute is the least that RFC 6298 §2.5 allows as an upper bound.
const MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Rto {
    smoothed: Option<Duration>,
    variation: Duration,
    /// Doublings since the last measurement.
    backoff: u32,
}

impl Rto {
    pub(super) const fn new() -> Self {
        Self { smoothed: None, variation: Duration::ZERO, backoff: 0 }
    }

    /// A round trip was measured, on a segment that was sent once (RFC 6298 §3).
    pub(super) fn note(&mut self, round_trip: Duration) {
        self.backoff = 0;
        match self.smoothed {
            None => {
                self.smoothed = Some(round_trip);
                self.variation = round_trip / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(round_trip)) / 4;
                self.smoothed = Some((smoothed * 7 + round_trip) / 8);
            }
        }
    }

    /// A timeout passed (RFC 6298 §5.5).
    pub(super) const fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// Something new was acknowledged: the path works.
    pub(super) const fn forgive(&mut self) {
        self.backoff = 0;
    }

    /// The smoothed round trip.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn timeout(&self) -> Duration {
        let base = match self.smoothed {
            None => INITIAL,
            Some(smoothed) => (smoothed + self.variation * 4).max(MIN),
        };
        base.saturating_mul(1 << self.backoff.min(10)).min(MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_measurements_within_its_bounds() {
        let ms = Duration::from_millis;
        let mut rto = Rto::new();
        assert_eq!(rto.timeout(), ms(1000));
        rto.note(ms(100));
        assert_eq!(rto.timeout(), ms(300));
        for _ in 0..50 {
            rto.note(ms(100));
        }
        assert_eq!(rto.timeout(), ms(200));
        rto.back_off();
        rto.back_off();
        assert_eq!(rto.timeout(), ms(800));
        for _ in 0..100 {
            rto.back_off();
        }
        assert_eq!(rto.timeout(), MAX);
        rto.forgive();
        assert_eq!(rto.timeout(), ms(200));
    }
}
