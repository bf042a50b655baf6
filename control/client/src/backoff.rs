//! Waiting longer after each failure (control protocol sheet §20).

use std::time::Duration;

use rand_core::RngCore;

/// Longest wait before the random factor.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// No failure yet.
    pub(crate) const NEW: Self = Self { failures: 0 };

    /// Notes a failure, and says how long to wait: the square of the failures times 10 ms, at most 30 s, times 0.5 to 1.5.
    pub(crate) fn fail(&mut self, rng: &mut dyn RngCore) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let millis = u64::from(self.failures).saturating_pow(2).saturating_mul(10);
        let wait = Duration::from_millis(millis).min(MAX_WAIT);
        jitter(wait, rng)
    }

    /// Notes a success.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A time between half of this and one and a half.
pub(crate) fn jitter(wait: Duration, rng: &mut dyn RngCore) -> Duration {
    let factor = 0.5 + f64::from(rng.next_u32()) / (f64::from(u32::MAX) + 1.0);
    wait.mul_f64(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the same number again and again.
    struct Fixed(u32);

    impl RngCore for Fixed {
        fn next_u32(&mut self) -> u32 {
            self.0
        }
        fn next_u64(&mut self) -> u64 {
            u64::from(self.0)
        }
        fn fill_bytes(&mut self, dest: &mut [u8]) {
            dest.fill(0);
        }
        fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), rand_core::Error> {
            dest.fill(0);
            Ok(())
        }
    }

    #[test]
    fn waits_grow_with_the_square_and_end_at_30_s() {
        for (random, factor) in [(0, 0.5), (u32::MAX / 2 + 1, 1.0)] {
            let mut backoff = Backoff::default();
            let mut previous = Duration::ZERO;
            for n in 1..=1000u32 {
                let wait = backoff.fail(&mut Fixed(random));
                let expected = (f64::from(n).powi(2) * 0.01).min(30.0) * factor;
                assert!((wait.as_secs_f64() - expected).abs() < 1e-6, "{n} {wait:?}");
                assert!(wait >= previous);
                previous = wait;
            }
            backoff.reset();
            assert_eq!(backoff.fail(&mut Fixed(random)), Duration::from_millis(10).mul_f64(factor));
        }
        let longest = jitter(MAX_WAIT, &mut Fixed(u32::MAX));
        assert!(longest < MAX_WAIT.mul_f64(1.5) && longest > MAX_WAIT.mul_f64(1.499));
    }
}
