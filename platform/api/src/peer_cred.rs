//! Who is at the other end of a local socket.

use std::io;
use std::os::fd::BorrowedFd;

/// Identity of the process that opened a Unix socket, as the kernel vouches for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// User id at the time of `connect`.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups; empty where the system does not tell.
    pub groups: Vec<u32>,
    /// Process id, where the system tells it.
    pub pid: Option<i32>,
}

impl PeerCred {
    /// Whether the peer belongs to the group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// Reads peer credentials and the user database.
pub trait PeerCredentials: Send + Sync {
    /// Credentials of the peer of a connected Unix socket.
    fn peer(&self, fd: BorrowedFd<'_>) -> io::Result<PeerCred>;

    /// Number of the user with this name.
    fn user_id(&self, name: &str) -> io::Result<Option<u32>>;

    /// Number of the group with this name.
    fn group_id(&self, name: &str) -> io::Result<Option<u32>>;
}
