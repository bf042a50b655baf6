//! A kernel timer that a runtime can wait for.
#![expect(unsafe_code, reason = "registration of a descriptor with the runtime is unsafe")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::timerfd::TimerFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A timer whose descriptor is open as long as the value lives.
#[derive(Debug)]
pub(crate) struct PollableTimer(pub(crate) TimerFd);

impl AsRawFd for PollableTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Registers the timer with the runtime of the caller.
pub(crate) fn pollable(timer: TimerFd) -> io::Result<AsyncFd<PollableTimer>> {
    // SAFETY: the descriptor that `as_raw_fd` gives is always the one of the timer, which owns it and does not close it
    // before it is dropped; the registration owns the timer and ends before that.
    let registered = unsafe { AsyncFd::register_with_interest(PollableTimer(timer), Interest::READABLE) };
    Ok(registered?)
}

#[cfg(test)]
mod tests {
    use nix::sys::timerfd::{ClockId, TimerFlags};

    use super::*;

    #[tokio::test]
    async fn descriptor_is_that_of_the_timer() {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).unwrap();
        let number = timer.as_fd().as_raw_fd();
        let registered = pollable(timer).unwrap();
        assert_eq!(registered.get_ref().as_raw_fd(), number);
    }
}
