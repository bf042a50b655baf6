//! What workers tell the device about a peer's traffic, without a message per packet.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whether the device has to be told that a session was used, by [`Device::handle_notice`](crate::Device::handle_notice).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a lost notice stops the timers of the peer"]
pub enum Notice {
    /// Nothing to tell.
    Quiet,
    /// The device must look at the session. This notice may not be lost: it is not repeated.
    Wake,
}

impl Notice {
    /// A notice if the condition holds.
    pub const fn when(wake: bool) -> Self {
        if wake { Self::Wake } else { Self::Quiet }
    }

    /// One notice for two reasons.
    pub const fn or(self, other: Self) -> Self {
        match self {
            Self::Wake => Self::Wake,
            Self::Quiet => other,
        }
    }
}

/// Traffic of one peer, shared by its sessions: one worker sends, one receives, the device reads.
///
/// The two times are the WireGuard timers that packets start and stop: the first data packet that was received since
/// something was sent (it wants a keepalive), and the first that was sent since something was received (it wants a handshake).
/// A race between the workers moves such a time by one packet, which does not matter to timers of seconds.
#[derive(Debug)]
pub(crate) struct Activity {
    epoch: Instant,
    /// Milliseconds since the epoch, plus 1; 0 while nothing is pending.
    unanswered_received: AtomicU64,
    unanswered_sent: AtomicU64,
    /// The device has a timer running for this peer and looks at the times by itself.
    watched: AtomicBool,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Activity {
    pub(crate) const fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            unanswered_received: AtomicU64::new(0),
            unanswered_sent: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn note_sent(&self, data: bool, bytes: usize, now: Instant) -> Notice {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        clear(&self.unanswered_received);
        self.notice(data && self.start(&self.unanswered_sent, now))
    }

    pub(crate) fn note_received(&self, data: bool, bytes: usize, now: Instant) -> Notice {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        clear(&self.unanswered_sent);
        self.notice(data && self.start(&self.unanswered_received, now))
    }

    /// When data was received that nothing of ours has followed.
    pub(crate) fn unanswered_received(&self) -> Option<Instant> {
        self.read(&self.unanswered_received)
    }

    /// When data was sent that nothing of the peer's has followed.
    pub(crate) fn unanswered_sent(&self) -> Option<Instant> {
        self.read(&self.unanswered_sent)
    }

    pub(crate) fn forget_sent(&self) {
        self.unanswered_sent.store(0, Ordering::SeqCst);
    }

    pub(crate) fn forget_received(&self) {
        self.unanswered_received.store(0, Ordering::SeqCst);
    }

    /// From here on workers stay quiet about traffic, or speak up again.
    pub(crate) fn set_watched(&self, watched: bool) {
        self.watched.store(watched, Ordering::SeqCst);
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Starts a time that is not running. The order with `watched` matters: the device first says that it no longer watches
    /// and then reads the times, so either it sees this one or the worker sees that nobody watches.
    fn start(&self, time: &AtomicU64, now: Instant) -> bool {
        if time.load(Ordering::Relaxed) != 0 {
            return false;
        }
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        time.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Ordering::SeqCst);
        true
    }

    fn notice(&self, started: bool) -> Notice {
        Notice::when(started && !self.watched.swap(true, Ordering::SeqCst))
    }

    fn read(&self, time: &AtomicU64) -> Option<Instant> {
        let millis = time.load(Ordering::SeqCst).checked_sub(1)?;
        self.epoch.checked_add(Duration::from_millis(millis))
    }
}

fn clear(time: &AtomicU64) {
    // A load is cheaper than a store to a line that the other worker reads.
    if time.load(Ordering::Relaxed) != 0 {
        time.store(0, Ordering::Relaxed);
    }
}
