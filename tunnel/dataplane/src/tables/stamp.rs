//! A point in time that one thread writes and others read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The instant from which all stamps count. The same for everything that belongs to one data plane.
#[derive(Clone, Copy, Debug)]
pub struct Epoch(Instant);

impl Epoch {
    /// Stamps count from here.
    pub fn new(start: Instant) -> Self {
        Self(start)
    }
}

/// An instant to the millisecond, or "never".
#[derive(Debug, Default)]
pub struct Stamp(AtomicU64);

impl Stamp {
    /// Sets it.
    pub fn set(&self, epoch: Epoch, at: Instant) {
        let millis = at.saturating_duration_since(epoch.0).as_millis();
        // Zero means "never". 2^64 ms are more than the age of the universe.
        self.0.store(u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1), Ordering::Relaxed);
    }

    /// When it was set.
    pub fn get(&self, epoch: Epoch) -> Option<Instant> {
        let millis = self.0.load(Ordering::Relaxed).checked_sub(1)?;
        epoch.0.checked_add(Duration::from_millis(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_never_until_it_is_set() {
        let start = Instant::now();
        let epoch = Epoch::new(start);
        let stamp = Stamp::default();
        assert_eq!(stamp.get(epoch), None);
        stamp.set(epoch, start);
        assert_eq!(stamp.get(epoch), Some(start));
        stamp.set(epoch, start + Duration::from_micros(1_234_567));
        assert_eq!(stamp.get(epoch), Some(start + Duration::from_millis(1_234)));
    }
}
