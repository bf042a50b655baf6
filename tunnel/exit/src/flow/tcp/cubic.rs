//! How much may be under way: CUBIC (RFC 9438), with slow start of RFC 5681.

use std::time::{Duration, Instant};

/// First window in segments (RFC 6928 §2).
const INITIAL_SEGMENTS: usize = 10;
/// Multiplicative decrease (RFC 9438 §4.6).
const BETA: f64 = 0.7;
/// Aggressiveness in segments per second³ (RFC 9438 §5).
const C: f64 = 0.4;

#[derive(Debug)]
pub(super) struct Cubic {
    mss: usize,
    window: usize,
    slow_start_threshold: usize,
    /// Window before the last decrease, in segments.
    max: f64,
    /// When the present period of growth began, and the window then, in segments.
    epoch: Option<(Instant, f64)>,
    /// What Reno would have reached since then, in segments.
    reno: f64,
}

impl Cubic {
    pub(super) const fn new(mss: usize) -> Self {
        Self {
            mss,
            window: INITIAL_SEGMENTS * mss,
            slow_start_threshold: usize::MAX,
            max: 0.0,
            epoch: None,
            reno: 0.0,
        }
    }

    /// Bytes that may be under way.
    pub(super) const fn window(&self) -> usize {
        self.window
    }

    /// Bytes were acknowledged outside of a recovery, while the window was what held us back.
    pub(super) fn on_ack(&mut self, acked: usize, round_trip: Duration, limit: usize, now: Instant) {
        if self.window >= limit {
            return;
        }
        if self.window < self.slow_start_threshold {
            // RFC 3465 with L = 2 would count less; acknowledgements here cover whole batches.
            self.window = (self.window + acked).min(self.slow_start_threshold.max(self.window + self.mss));
            return;
        }
        let segments = self.in_segments(self.window);
        let (start, start_window) = *self.epoch.get_or_insert_with(|| {
            self.reno = segments;
            (now, segments)
        });
        let from = self.max.max(start_window);
        let k = ((from - start_window) / C).cbrt();
        let t = (now.saturating_duration_since(start) + round_trip).as_secs_f64();
        let target = (C * (t - k).powi(3) + from).clamp(segments, segments * 1.5);
        let acked = self.in_segments(acked);
        self.reno += 3.0 * (1.0 - BETA) / (1.0 + BETA) * acked / segments;
        let grown = (segments + (target - segments) / segments * acked).max(self.reno);
        self.window = self.in_bytes(grown).min(limit);
    }

    /// A segment was lost (RFC 9438 §4.6, §4.7). Gives the window to recover with.
    pub(super) fn on_loss(&mut self, under_way: usize) {
        let segments = self.in_segments(self.window.min(under_way.max(2 * self.mss)));
        self.max = if segments < self.max { segments * (1.0 + BETA) / 2.0 } else { segments };
        self.window = self.in_bytes(segments * BETA).max(2 * self.mss);
        self.slow_start_threshold = self.window;
        self.epoch = None;
    }

    /// Nothing came back in time (RFC 5681 §3.1, RFC 9438 §4.8).
    pub(super) fn on_timeout(&mut self, under_way: usize, first: bool) {
        if first {
            self.on_loss(under_way);
        }
        self.window = self.mss;
    }

    /// Nothing was sent for longer than a timeout: what was known of the path is old (RFC 5681 §4.1).
    pub(super) fn on_idle(&mut self) {
        self.window = self.window.min(INITIAL_SEGMENTS * self.mss);
        self.epoch = None;
    }

    #[expect(clippy::cast_precision_loss, reason = "windows are far below 2⁵²")]
    fn in_segments(&self, bytes: usize) -> f64 {
        bytes as f64 / self.mss as f64
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the value is positive, and the cast ends at the largest number"
    )]
    fn in_bytes(&self, segments: f64) -> usize {
        (segments * self.mss as f64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;
    const ROUND_TRIP: Duration = Duration::from_millis(50);

    #[test]
    fn it_doubles_per_round_trip_until_a_loss_and_returns_to_where_it_was() {
        let start = Instant::now();
        let mut cubic = Cubic::new(MSS);
        assert_eq!(cubic.window(), 10 * MSS);
        for _ in 0..4 {
            cubic.on_ack(cubic.window(), ROUND_TRIP, usize::MAX, start);
        }
        assert_eq!(cubic.window(), 160 * MSS);
        cubic.on_loss(cubic.window());
        assert_eq!(cubic.window(), 112 * MSS);
        // RFC 9438 §4.2: back at the old window after K = cbrt(48 / 0.4) = 4.9 s, slow around it.
        let mut now = start;
        let mut reached = None;
        for _ in 0..200 {
            now += ROUND_TRIP;
            cubic.on_ack(cubic.window(), ROUND_TRIP, usize::MAX, now);
            if cubic.window() >= 159 * MSS {
                reached.get_or_insert(now - start);
            }
        }
        let reached = reached.unwrap();
        assert!((3.0..6.0).contains(&reached.as_secs_f64()), "{reached:?}");
        assert!(cubic.window() > 200 * MSS);
    }

    #[test]
    fn a_timeout_begins_anew_and_repeated_ones_forget_nothing_more() {
        let now = Instant::now();
        let mut cubic = Cubic::new(MSS);
        cubic.on_ack(90 * MSS, ROUND_TRIP, usize::MAX, now);
        cubic.on_timeout(100 * MSS, true);
        assert_eq!((cubic.window(), cubic.slow_start_threshold), (MSS, 70 * MSS));
        cubic.on_timeout(MSS, false);
        assert_eq!((cubic.window(), cubic.slow_start_threshold), (MSS, 70 * MSS));
    }

    #[test]
    fn it_grows_no_further_than_what_can_be_used() {
        let now = Instant::now();
        let mut cubic = Cubic::new(MSS);
        for _ in 0..100 {
            cubic.on_ack(cubic.window(), ROUND_TRIP, 50 * MSS, now);
        }
        assert!(cubic.window() <= 100 * MSS);
        cubic.on_idle();
        assert_eq!(cubic.window(), 10 * MSS);
    }
}
