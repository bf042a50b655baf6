//! Points in time as the protocol writes them (control protocol sheet §3).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// RFC 3339 time with up to nanosecond precision. The zero time `0001-01-01T00:00:00Z` means "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireTime(Timestamp);

/// Unix seconds of `0001-01-01T00:00:00Z`.
const ZERO_UNIX_SECS: i64 = -62_135_596_800;

impl WireTime {
    /// The zero time: "none".
    pub const ZERO: Self = Self(Timestamp::constant(ZERO_UNIX_SECS, 0));

    /// Whether this is the zero time.
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// The timestamp, or `None` for the zero time.
    pub fn timestamp(&self) -> Option<Timestamp> {
        (!self.is_zero()).then_some(self.0)
    }

    /// Seconds since the Unix epoch; negative for the zero time.
    pub fn unix_secs(&self) -> i64 {
        self.0.as_second()
    }
}

impl Default for WireTime {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Timestamp> for WireTime {
    fn from(timestamp: Timestamp) -> Self {
        Self(timestamp)
    }
}

impl fmt::Display for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Timestamp::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_time_is_none_in_both_directions() {
        let parsed: WireTime = serde_json::from_str("\"0001-01-01T00:00:00Z\"").unwrap();
        assert!(parsed.is_zero());
        assert_eq!(serde_json::to_string(&WireTime::default()).unwrap(), "\"0001-01-01T00:00:00Z\"");
    }

    #[test]
    fn nanoseconds_and_offsets_are_kept_as_the_same_instant() {
        let parsed: WireTime = serde_json::from_str("\"2026-08-22T10:00:00.123456789+02:00\"").unwrap();
        assert_eq!(parsed.to_string(), "2026-08-22T08:00:00.123456789Z");
    }
}
