//! A timer that goes on while the host sleeps.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use crate::clock::Clock;
use crate::sys::timer::{PollableTimer, pollable};

/// One alarm. After a sleep in which it was due it rings at once.
pub(super) struct Timer {
    fd: AsyncFd<PollableTimer>,
    clock: Clock,
    set_to: Option<Instant>,
}

impl Timer {
    /// Not set.
    pub(super) fn new(clock: Clock) -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let fd = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
        Ok(Self { fd: pollable(fd)?, clock, set_to: None })
    }

    /// Rings at this time, or not at all.
    pub(super) fn set(&mut self, at: Option<Instant>) {
        if self.set_to == at {
            return;
        }
        self.set_to = at;
        let timer = &self.fd.get_ref().0;
        let result = match at {
            // Zero would switch it off.
            Some(at) => timer.set(
                Expiration::OneShot(TimeSpec::from(self.clock.to_boot_time(at).max(Duration::from_nanos(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => timer.unset(),
        };
        if let Err(error) = result {
            tracing::error!(%error, "cannot set the timer");
        }
    }

    /// Waits until it rings.
    pub(super) async fn rings(&mut self) {
        match self.fd.readable().await {
            Ok(mut guard) => {
                // Reading clears it; what it says does not matter.
                let mut count = [0; 8];
                let _ = nix::unistd::read(&self.fd.get_ref().0, &mut count);
                guard.clear_ready();
                self.set_to = None;
            }
            Err(error) => {
                tracing::error!(%error, "timer failed");
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rings_when_it_is_due_also_when_that_is_past() {
        let clock = Clock::new();
        let mut timer = Timer::new(clock).unwrap();
        timer.set(Some(clock.now()));
        timer.rings().await;
        let at = clock.now() + Duration::from_millis(5);
        timer.set(Some(at));
        timer.rings().await;
        assert!(clock.now() >= at);
        timer.set(Some(clock.now() + Duration::from_secs(3600)));
        timer.set(None);
        assert!(tokio::time::timeout(Duration::from_millis(10), timer.rings()).await.is_err());
    }
}
