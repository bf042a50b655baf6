//! Sockets that go around the tunnel.

use std::io;
use std::os::fd::BorrowedFd;

/// Makes the agent's own sockets bypass the tunnel (data-plane sheet §1.10).
///
/// Called between creating a socket and connecting or binding it. Sockets that only talk to loopback are not given
/// here. An error means that the socket must not be used: its packets could run in a circle through the tunnel.
pub trait SocketBinder: Send + Sync {
    /// Marks or binds the socket.
    fn mark_bypass(&self, fd: BorrowedFd<'_>) -> io::Result<()>;
}

/// Confines the sockets that carry exit traffic to the proxies.
///
/// Called between creating a socket and connecting or binding it, loopback included. An error means that the socket must not be used,
/// and that no other is to be tried: an implementation fails as soon as what stands behind the mark, its routing table and its firewall
/// chain, is not in force.
pub trait ExitBinder: Send + Sync {
    /// Marks the socket, so that its packets reach the configured proxies and nothing else.
    fn mark_exit(&self, fd: BorrowedFd<'_>) -> io::Result<()>;
}
