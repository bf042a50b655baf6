//! Waiting for descriptors, and waking a worker that waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes the one worker that waits with it. Any number of calls before it wakes are one.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<EventFd>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self(Arc::new(event)))
    }

    /// Never blocks. A counter that is full wakes all the same.
    pub(crate) fn wake(&self) {
        let _ = self.0.write(1);
    }

    fn clear(&self) {
        let _ = self.0.read();
    }
}

/// What a worker woke up for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Woken {
    /// The descriptor can be read.
    pub(crate) readable: bool,
    /// Somebody called [`Waker::wake`].
    pub(crate) called: bool,
}

const SOURCE: u64 = 0;
const CALL: u64 = 1;

/// Waits for one descriptor to become readable, or to be woken, without using the CPU meanwhile.
#[derive(Debug)]
pub(crate) struct Waiter {
    epoll: Epoll,
    waker: Waker,
}

impl Waiter {
    pub(crate) fn new(waker: &Waker) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*waker.0, EpollEvent::new(EpollFlags::EPOLLIN, CALL))?;
        Ok(Self { epoll, waker: waker.clone() })
    }

    /// Begins to watch the source. Closing its last descriptor ends it.
    pub(crate) fn watch(&self, source: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, SOURCE))?)
    }

    /// Stops watching a source.
    pub(crate) fn unwatch(&self, source: BorrowedFd<'_>) {
        let _ = self.epoll.delete(source);
    }

    /// Waits as long as it takes.
    pub(crate) fn wait(&self) -> io::Result<Woken> {
        let mut events = [EpollEvent::empty(); 2];
        let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let mut woken = Woken::default();
        for event in events.iter().take(count) {
            match event.data() {
                CALL => {
                    self.waker.clear();
                    woken.called = true;
                }
                _ => woken.readable = true,
            }
        }
        Ok(woken)
    }
}

/// Waits until a descriptor can be written to, at most `timeout_ms`.
pub(crate) fn wait_writable(fd: impl AsFd, timeout_ms: u16) {
    use nix::poll::{PollFd, PollFlags, poll};
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    let _ = poll(&mut fds, timeout_ms);
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn calls_before_the_wait_are_one_and_are_not_lost() {
        let waker = Waker::new().unwrap();
        let waiter = Waiter::new(&waker).unwrap();
        waker.wake();
        waker.wake();
        assert_eq!(waiter.wait().unwrap(), Woken { readable: false, called: true });
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        waiter.watch(socket.as_fd()).unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(waiter.wait().unwrap(), Woken { readable: true, called: false });
    }

    #[test]
    fn waker_reaches_a_worker_that_sleeps() {
        let waker = Waker::new().unwrap();
        let waiter = Waiter::new(&waker).unwrap();
        let worker = std::thread::spawn(move || waiter.wait().unwrap());
        waker.wake();
        assert!(worker.join().unwrap().called);
    }

    #[test]
    fn source_that_is_not_watched_any_more_does_not_wake() {
        let waker = Waker::new().unwrap();
        let waiter = Waiter::new(&waker).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        waiter.watch(socket.as_fd()).unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        waiter.unwatch(socket.as_fd());
        waker.wake();
        assert_eq!(waiter.wait().unwrap(), Woken { readable: false, called: true });
    }
}
