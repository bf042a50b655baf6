//! A user-space relay on one port of a bridge that delays, loses and limits frames; the kernel here has no netem.
//!
//! ```text
//!   host ── veth ── bridge w-NAME ── tap ═ relay thread ═ tap ── the network's bridge
//! ```
//! The taps carry plain frames: the kernel itself cuts super-packets and fills in checksums before they get here.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand_core::{OsRng, RngCore};

use crate::command::ip_batch;
use crate::space::Space;

/// Frames that may be under way in one direction; more are lost, as in a router whose queue is full. At 1500 bytes
/// this is 30 MB, enough for 1 Gbit/s over 200 ms.
const MAX_FRAMES_UNDER_WAY: usize = 20_000;
/// Time that a frame may wait for a line with a rate limit; what would wait longer is lost, as in a router with a small
/// buffer.
const MAX_QUEUE_DELAY: Duration = Duration::from_millis(200);
/// Longest frame: Ethernet header, VLAN tag and MTU 9000.
const MAX_FRAME_LEN: usize = 9_018;
/// How often the relay looks whether it shall end.
const IDLE: Duration = Duration::from_millis(100);

/// What a relay does to frames, each way alike.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Impairment {
    /// Added to every frame's way.
    pub delay: Duration,
    /// At most so much more, different for each frame; frames may overtake each other.
    pub jitter: Duration,
    /// Lost frames in a thousand.
    pub loss_permille: u16,
    /// Bytes a second; `None` is no limit.
    pub rate: Option<u64>,
    /// Nothing passes at all: the cable is out.
    pub cut: bool,
}

impl Impairment {
    /// A delay each way.
    pub fn delay(delay: Duration) -> Self {
        Self { delay, ..Self::default() }
    }

    /// Lost frames in a thousand.
    pub fn loss(loss_permille: u16) -> Self {
        Self { loss_permille, ..Self::default() }
    }

    /// Nothing passes.
    pub fn cut() -> Self {
        Self { cut: true, ..Self::default() }
    }
}

/// A relay at work; taken out when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    impairment: Arc<Mutex<Impairment>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    namespace: String,
    restore: Vec<String>,
}

impl Relay {
    /// Puts a relay between `bridge` and its port `port`.
    pub(crate) fn insert(space: &Space, bridge: &str, port: &str, impairment: Impairment) -> Result<Self> {
        let name = port.trim_start_matches("p-");
        let side = |letter: &str| format!("{letter}-{name}").chars().take(15).collect::<String>();
        let (inner_bridge, inner, outer) = (side("w"), side("i"), side("o"));
        let taps = space.run({
            let (inner, outer) = (inner.clone(), outer.clone());
            move || anyhow::Ok((open_tap(&inner)?, open_tap(&outer)?))
        })?;
        let lines = [
            format!("link add {inner_bridge} type bridge"),
            format!("link set {inner_bridge} up"),
            format!("link set {inner} master {inner_bridge}"),
            format!("link set {outer} master {bridge}"),
            format!("link set {inner} up"),
            format!("link set {outer} up"),
            format!("link set {port} master {inner_bridge}"),
        ];
        ip_batch(space.namespace(), &lines)?;
        let impairment = Arc::new(Mutex::new(impairment));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = space.thread("lab-relay", {
            let (impairment, stop) = (Arc::clone(&impairment), Arc::clone(&stop));
            move || relay(&taps.0, &taps.1, &impairment, &stop)
        })?;
        let restore = vec![format!("link set {port} master {bridge}"), format!("link delete {inner_bridge}")];
        Ok(Self { impairment, stop, thread: Some(thread), namespace: space.namespace().to_owned(), restore })
    }

    /// Changes what it does.
    pub(crate) fn set(&self, impairment: Impairment) {
        *self.impairment.lock().unwrap_or_else(PoisonError::into_inner) = impairment;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Err(error) = ip_batch(&self.namespace, &self.restore) {
            tracing::warn!(%error, "lab relay not taken out");
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open_tap(name: &str) -> Result<tun_rs::SyncDevice> {
    let tap = tun_rs::DeviceBuilder::new()
        .name(name)
        .layer(tun_rs::Layer::L2)
        .enable(false)
        .build_sync()
        .with_context(|| format!("make tap {name}"))?;
    tap.set_nonblocking(true)?;
    Ok(tap)
}

/// A frame under way; the earliest is the greatest, as the heap wants it.
struct UnderWay {
    due: Reverse<(Instant, u64)>,
    frame: Vec<u8>,
}

impl PartialEq for UnderWay {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for UnderWay {}
impl PartialOrd for UnderWay {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for UnderWay {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

/// One direction, apart from its devices.
#[derive(Default)]
struct Direction {
    queue: BinaryHeap<UnderWay>,
    sequence: u64,
    /// When the line is free again, under a rate limit.
    free_at: Option<Instant>,
}

impl Direction {
    /// Takes a frame in, or loses it.
    fn push(&mut self, frame: &[u8], impairment: &Impairment, now: Instant, mut random: impl FnMut() -> u32) {
        let lost = random() % 1000 < u32::from(impairment.loss_permille);
        if impairment.cut || lost || self.queue.len() >= MAX_FRAMES_UNDER_WAY {
            return;
        }
        let mut due = now;
        if let Some(rate) = impairment.rate {
            let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
            let start = self.free_at.map_or(now, |free| free.max(now));
            if start - now > MAX_QUEUE_DELAY {
                return;
            }
            due = start + Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate.max(1));
            self.free_at = Some(due);
        }
        due += impairment.delay + impairment.jitter.mul_f64(f64::from(random()) / f64::from(u32::MAX));
        self.sequence += 1;
        self.queue.push(UnderWay { due: Reverse((due, self.sequence)), frame: frame.to_vec() });
    }

    /// The next frame that has arrived.
    fn pop(&mut self, now: Instant) -> Option<Vec<u8>> {
        (self.next_due()? <= now).then(|| self.queue.pop().map(|entry| entry.frame)).flatten()
    }

    fn next_due(&self) -> Option<Instant> {
        self.queue.peek().map(|entry| entry.due.0.0)
    }
}

fn relay(
    inner: &tun_rs::SyncDevice,
    outer: &tun_rs::SyncDevice,
    impairment: &Mutex<Impairment>,
    stop: &AtomicBool,
) {
    let mut outward = Direction::default();
    let mut inward = Direction::default();
    while !stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let due = [outward.next_due(), inward.next_due()].into_iter().flatten().min();
        let wait = due.map_or(IDLE, |due| due.saturating_duration_since(now).min(IDLE));
        wait_readable(&[inner.as_fd(), outer.as_fd()], wait);
        let impairment = *impairment.lock().unwrap_or_else(PoisonError::into_inner);
        take_in(inner, &mut outward, &impairment);
        take_in(outer, &mut inward, &impairment);
        let now = Instant::now();
        let_out(outer, &mut outward, now);
        let_out(inner, &mut inward, now);
    }
}

fn wait_readable(fds: &[BorrowedFd<'_>], wait: Duration) {
    let mut fds: Vec<_> = fds.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    // A part of a millisecond is rounded up, so that the loop never spins.
    let wait = PollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
    // Interrupted is as good as timed out.
    let _ = poll(&mut fds, wait);
}

fn take_in(device: &tun_rs::SyncDevice, direction: &mut Direction, impairment: &Impairment) {
    let mut frame = [0; MAX_FRAME_LEN];
    while let Ok(len) = device.recv(&mut frame) {
        direction.push(&frame[..len], impairment, Instant::now(), || OsRng.next_u32());
    }
}

fn let_out(device: &tun_rs::SyncDevice, direction: &mut Direction, now: Instant) {
    while let Some(frame) = direction.pop(now) {
        // A full or closed device loses the frame, as a line may.
        let _ = device.send(&frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> u32 {
        u32::MAX - u32::MAX % 1000 - 1
    }

    #[test]
    fn a_frame_comes_out_after_its_delay_and_in_order() {
        let start = Instant::now();
        let mut direction = Direction::default();
        let impairment = Impairment::delay(Duration::from_millis(50));
        direction.push(b"first", &impairment, start, || 999);
        direction.push(b"second", &impairment, start, || 999);
        assert_eq!(direction.pop(start + Duration::from_millis(49)), None);
        let later = start + Duration::from_millis(51);
        assert_eq!(direction.pop(later).as_deref(), Some(&b"first"[..]));
        assert_eq!(direction.pop(later).as_deref(), Some(&b"second"[..]));
        assert_eq!(direction.pop(later), None);
    }

    #[test]
    fn loss_cut_and_a_full_queue_lose_frames() {
        let start = Instant::now();
        let mut direction = Direction::default();
        direction.push(b"x", &Impairment::loss(1), start, || 0);
        direction.push(b"x", &Impairment::cut(), start, never);
        assert!(direction.queue.is_empty());
        for _ in 0..MAX_FRAMES_UNDER_WAY + 5 {
            direction.push(b"x", &Impairment::loss(1), start, never);
        }
        assert_eq!(direction.queue.len(), MAX_FRAMES_UNDER_WAY);
    }

    #[test]
    fn a_rate_spaces_frames() {
        let start = Instant::now();
        let mut direction = Direction::default();
        let impairment = Impairment { rate: Some(1000), ..Impairment::default() };
        direction.push(&[0; 100], &impairment, start, || 999);
        direction.push(&[0; 100], &impairment, start, || 999);
        assert_eq!(direction.next_due(), Some(start + Duration::from_millis(100)));
        assert!(direction.pop(start + Duration::from_millis(100)).is_some());
        assert_eq!(direction.next_due(), Some(start + Duration::from_millis(200)));
        direction.push(&[0; 100], &impairment, start, || 999);
        direction.push(&[0; 100], &impairment, start, || 999);
        assert_eq!(direction.queue.len(), 2, "the fourth would have to wait too long");
    }
}
