//! Ends a thread that sleeps in `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The thread's end: readable once the thread shall end.
#[derive(Debug)]
pub(crate) struct Stop(Arc<EventFd>);

/// The owner's end: ends the thread when it is dropped, and waits for it.
#[derive(Debug)]
pub(crate) struct StopHandle {
    event: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Stop {
    /// Both ends.
    pub(crate) fn new() -> io::Result<(Self, StopHandle)> {
        let event = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        Ok((Self(Arc::clone(&event)), StopHandle { event, thread: None }))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl StopHandle {
    /// Waits for this thread when the handle is dropped.
    pub(crate) fn joining(mut self, thread: JoinHandle<()>) -> Self {
        self.thread = Some(thread);
        self
    }
}

impl Drop for StopHandle {
    fn drop(&mut self) {
        let _ = self.event.write(1);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a thread of the platform layer panicked");
        }
    }
}
