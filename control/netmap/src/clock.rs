//! Control's clock as seen from ours (control protocol sheet §20).

use jiff::{SignedDuration, Timestamp};
use tsrs_base_types::time::WireTime;

/// Differences up to this are transport delay, not a wrong clock.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// Unix second 2023-01-10 17:51:06. A clock before this is surely wrong, so that nothing may expire by it.
const EARLIEST_TRUSTED_SECS: i64 = 1_673_373_066;

/// The difference between control's clock and ours.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ControlClock {
    ahead: SignedDuration,
}

impl ControlClock {
    /// Takes note of control's clock at our time `now`.
    pub(crate) fn note(&mut self, control: WireTime, now: Timestamp) {
        let Some(control) = control.timestamp() else { return };
        let ahead = control.duration_since(now);
        self.ahead = if ahead.abs() > TOLERANCE { ahead } else { SignedDuration::ZERO };
    }

    /// Control's time at our time `now`; `None` when it is too early to be true.
    pub(crate) fn control_now(&self, now: Timestamp) -> Option<Timestamp> {
        let control = now.checked_add(self.ahead).ok()?;
        (control.as_second() >= EARLIEST_TRUSTED_SECS).then_some(control)
    }

    /// Our time when control's clock shows `control`.
    pub(crate) fn local_at(&self, control: Timestamp) -> Option<Timestamp> {
        control.checked_sub(self.ahead).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    #[test]
    fn small_differences_are_not_a_wrong_clock() {
        let mut clock = ControlClock::default();
        clock.note(at(2_000_000_059).into(), at(2_000_000_000));
        assert_eq!(clock.control_now(at(2_000_000_000)), Some(at(2_000_000_000)));
        clock.note(at(2_000_003_600).into(), at(2_000_000_000));
        assert_eq!(clock.control_now(at(2_000_000_100)), Some(at(2_000_003_700)));
        assert_eq!(clock.local_at(at(2_000_003_700)), Some(at(2_000_000_100)));
        clock.note(WireTime::ZERO, at(2_000_000_000));
        assert_eq!(clock.control_now(at(2_000_000_100)), Some(at(2_000_003_700)));
    }

    #[test]
    fn a_clock_from_before_2023_is_not_trusted_unless_control_corrects_it() {
        let mut clock = ControlClock::default();
        assert_eq!(clock.control_now(at(0)), None);
        clock.note(at(1_800_000_000).into(), at(0));
        assert_eq!(clock.control_now(at(1)), Some(at(1_800_000_001)));
    }
}
