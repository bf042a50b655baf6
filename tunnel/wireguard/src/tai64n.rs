//! The timestamp of an initiation (TAI64N; WireGuard paper §5.1).

use std::time::Instant;

use jiff::Timestamp;

/// TAI64 label of the Unix epoch: 2^62, and 10 seconds between TAI and UTC at that time.
const UNIX_EPOCH_LABEL: u64 = 0x4000_0000_0000_000a;
const NANOS_PER_SEC: i128 = 1_000_000_000;
/// The low bits of the nanoseconds are cleared, so that the clock cannot be read off exactly: steps of 16.8 ms.
const BLUR_STEP_NANOS: u32 = 1 << 24;

/// A point in time as it stands in an initiation; ordered as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tai64n {
    label: u64,
    nanos: u32,
}

impl Tai64n {
    pub(crate) fn from_bytes(raw: &[u8; 12]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = *raw;
        Self { label: u64::from_be_bytes([a, b, c, d, e, f, g, h]), nanos: u32::from_be_bytes([i, j, k, l]) }
    }

    pub(crate) fn to_bytes(self) -> [u8; 12] {
        let mut raw = [0; 12];
        raw[..8].copy_from_slice(&self.label.to_be_bytes());
        raw[8..].copy_from_slice(&self.nanos.to_be_bytes());
        raw
    }

    fn blurred(unix_nanos: i128) -> Self {
        let secs = i64::try_from(unix_nanos.div_euclid(NANOS_PER_SEC)).unwrap_or(0);
        let nanos = u32::try_from(unix_nanos.rem_euclid(NANOS_PER_SEC)).unwrap_or(0);
        Self { label: UNIX_EPOCH_LABEL.wrapping_add_signed(secs), nanos: nanos & !(BLUR_STEP_NANOS - 1) }
    }

    fn successor(self) -> Self {
        let nanos = self.nanos.saturating_add(BLUR_STEP_NANOS);
        if i128::from(nanos) < NANOS_PER_SEC {
            Self { nanos, ..self }
        } else {
            Self { label: self.label.wrapping_add(1), nanos: 0 }
        }
    }
}

/// Wall time, kept up by the monotonic clock between two readings.
#[derive(Debug)]
pub(crate) struct WallClock {
    read_at: Instant,
    read_unix_nanos: i128,
    last: Tai64n,
}

impl WallClock {
    pub(crate) fn new(wall: Timestamp, now: Instant) -> Self {
        Self { read_at: now, read_unix_nanos: wall.as_nanosecond(), last: Tai64n::default() }
    }

    pub(crate) fn set(&mut self, wall: Timestamp, now: Instant) {
        self.read_at = now;
        self.read_unix_nanos = wall.as_nanosecond();
    }

    /// The wall time at `at`, which may lie before the last reading.
    pub(crate) fn at(&self, at: Instant) -> Timestamp {
        Timestamp::from_nanosecond(self.unix_nanos(at)).unwrap_or_default()
    }

    /// A timestamp for an initiation. Later than all before, also when the wall clock was set back: peers would take an older one
    /// for a replay.
    pub(crate) fn stamp(&mut self, now: Instant) -> Tai64n {
        let stamp = Tai64n::blurred(self.unix_nanos(now)).max(self.last.successor());
        self.last = stamp;
        stamp
    }

    fn unix_nanos(&self, at: Instant) -> i128 {
        let signed = |nanos: u128| i128::try_from(nanos).unwrap_or(i128::MAX / 4);
        let after = signed(at.saturating_duration_since(self.read_at).as_nanos());
        let before = signed(self.read_at.saturating_duration_since(at).as_nanos());
        self.read_unix_nanos.saturating_add(after).saturating_sub(before)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn clock(unix_secs: i64, nanos: i32) -> (WallClock, Instant) {
        let now = Instant::now();
        (WallClock::new(Timestamp::new(unix_secs, nanos).unwrap(), now), now)
    }

    #[test]
    fn stamp_of_a_known_time() {
        let (mut clock, now) = clock(1_700_000_000, 0x1234_5678);
        let stamp = clock.stamp(now);
        assert_eq!(stamp.to_bytes(), [0x40, 0, 0, 0, 0x65, 0x53, 0xf1, 0x0a, 0x12, 0, 0, 0]);
        assert_eq!(Tai64n::from_bytes(&stamp.to_bytes()), stamp);
    }

    #[test]
    fn stamps_rise_when_time_stands_still_or_goes_back() {
        let (mut clock, now) = clock(1_700_000_000, 999_000_000);
        let mut last = clock.stamp(now);
        for _ in 0..200 {
            let stamp = clock.stamp(now);
            assert!(stamp > last && stamp.nanos < 1_000_000_000);
            last = stamp;
        }
        clock.set(Timestamp::new(1_600_000_000, 0).unwrap(), now);
        assert!(clock.stamp(now) > last);
    }

    #[test]
    fn wall_time_moves_with_the_monotonic_clock() {
        let (mut clock, now) = clock(1_700_000_000, 0);
        assert_eq!(clock.at(now + Duration::from_secs(3)).as_second(), 1_700_000_003);
        clock.set(Timestamp::new(1_700_000_100, 0).unwrap(), now + Duration::from_secs(10));
        assert_eq!(clock.at(now).as_second(), 1_700_000_090);
        assert_eq!(clock.stamp(now + Duration::from_secs(11)).label, UNIX_EPOCH_LABEL + 1_700_000_101);
    }
}
