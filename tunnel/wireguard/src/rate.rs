//! The share of handshakes that one address gets under load (data-plane sheet §1.6).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tsrs_base_types::NodePublic;

use crate::limits::{MAX_RATE_SOURCES, RATE_BURST, RATE_FORGET_AFTER, RATE_PER_SECOND};

/// Whose share it is: all ports of an address together, or a node behind a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RateKey {
    Address(IpAddr),
    Node(NodePublic),
}

/// One token bucket per source, counted in time: a message costs its share of a second.
#[derive(Debug, Default)]
pub(crate) struct RateLimiter {
    buckets: HashMap<RateKey, Bucket>,
    swept_at: Option<Instant>,
}

#[derive(Debug)]
struct Bucket {
    credit: Duration,
    touched: Instant,
}

const COST: Duration = Duration::from_nanos(1_000_000_000 / RATE_PER_SECOND as u64);
const MAX_CREDIT: Duration = COST.saturating_mul(RATE_BURST);

impl RateLimiter {
    /// Whether one more message of this source is in its share.
    pub(crate) fn allow(&mut self, source: RateKey, now: Instant) -> bool {
        self.sweep(now);
        let has_room = self.buckets.len() < MAX_RATE_SOURCES;
        let bucket = match self.buckets.get_mut(&source) {
            Some(bucket) => bucket,
            None if has_room => {
                self.buckets.entry(source).or_insert(Bucket { credit: MAX_CREDIT, touched: now })
            }
            None => return false,
        };
        let earned = now.saturating_duration_since(bucket.touched);
        bucket.credit = (bucket.credit + earned).min(MAX_CREDIT);
        bucket.touched = now;
        match bucket.credit.checked_sub(COST) {
            Some(rest) => {
                bucket.credit = rest;
                true
            }
            None => false,
        }
    }

    /// Forgets idle sources, at most once in the time after which they are idle.
    fn sweep(&mut self, now: Instant) {
        let due = self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= RATE_FORGET_AFTER);
        if due {
            self.swept_at = Some(now);
            self.buckets
                .retain(|_, bucket| now.saturating_duration_since(bucket.touched) < RATE_FORGET_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn source(number: u32) -> RateKey {
        RateKey::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn a_burst_passes_and_then_one_each_50_ms() {
        let (mut limiter, mut now) = (RateLimiter::default(), Instant::now());
        let passed =
            |limiter: &mut RateLimiter, now| (0..20).filter(|_| limiter.allow(source(1), now)).count();
        assert_eq!(passed(&mut limiter, now), 5);
        now += Duration::from_millis(49);
        assert_eq!(passed(&mut limiter, now), 0);
        now += Duration::from_millis(1);
        assert_eq!(passed(&mut limiter, now), 1);
        now += Duration::from_secs(10);
        assert_eq!(passed(&mut limiter, now), 5);
        assert!(limiter.allow(source(2), now));
    }

    #[test]
    fn a_full_table_refuses_new_sources_until_others_are_idle() {
        let (mut limiter, now) = (RateLimiter::default(), Instant::now());
        let count = u32::try_from(MAX_RATE_SOURCES).unwrap();
        assert!((0..count).all(|number| limiter.allow(source(number), now)));
        assert!(!limiter.allow(source(count), now));
        assert!(limiter.allow(source(0), now));
        assert!(limiter.allow(source(count), now + RATE_FORGET_AFTER));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
