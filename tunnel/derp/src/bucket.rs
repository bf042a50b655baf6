//! The token bucket that a server may ask its clients to keep (data-plane sheet §4.2).

use std::time::Instant;

/// Limits bytes per second; what exceeds it is dropped by the sender.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    bytes_per_sec: f64,
    burst_bytes: f64,
    level_bytes: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(bytes_per_sec: u32, burst_bytes: u32, now: Instant) -> Self {
        let burst_bytes = f64::from(burst_bytes);
        Self {
            bytes_per_sec: f64::from(bytes_per_sec),
            burst_bytes,
            level_bytes: burst_bytes,
            filled_at: now,
        }
    }

    /// Takes the tokens for `cost` bytes; false (and nothing taken) when there are too few.
    pub fn take(&mut self, cost: u32, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.level_bytes = (self.level_bytes + elapsed * self.bytes_per_sec).min(self.burst_bytes);
        let enough = self.level_bytes >= f64::from(cost);
        if enough {
            self.level_bytes -= f64::from(cost);
        }
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn passes_the_burst_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 5000, start);
        let passed = (0..10).filter(|_| bucket.take(1000, start)).count();
        assert_eq!(passed, 5);
        assert!(!bucket.take(500, start + Duration::from_millis(499)));
        assert!(bucket.take(500, start + Duration::from_millis(501)));
        assert!(!bucket.take(5001, start + Duration::from_secs(3600)), "never more than the burst");
        assert!(bucket.take(5000, start + Duration::from_secs(3600)));
    }

    #[test]
    fn a_clock_that_steps_back_gives_no_tokens() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = TokenBucket::new(1000, 1000, start);
        assert!(bucket.take(1000, start));
        assert!(!bucket.take(1, start - Duration::from_secs(5)));
        assert!(!bucket.take(1, start));
    }
}
