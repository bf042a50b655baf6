//! The crate's only unsafe code: socket options that `nix` does not know.
#![expect(unsafe_code, reason = "system calls; each block says why it is sound")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use libc::{c_int, c_void, socklen_t};

/// Sets an integer option of a socket.
pub(crate) fn set_socket_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    let len = socklen_of::<c_int>();
    // SAFETY: the descriptor is open for the call, and pointer and length describe `value`, which outlives it.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast::<c_void>(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Supplementary groups of the peer of a Unix socket (`SO_PEERGROUPS`, Linux 4.13).
pub(crate) fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let wanted = socklen_t::try_from(groups.len() * size_of::<u32>()).map_err(io::Error::other)?;
        let mut len = wanted;
        // SAFETY: the descriptor is open for the call; the kernel writes at most `len` bytes, the size of the
        // buffer, and stores in `len` how many there are.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast::<c_void>(),
                &raw mut len,
            )
        };
        let count = usize::try_from(len).unwrap_or_default() / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // ERANGE: the buffer is too small and `len` says what is needed. NGROUPS_MAX of the kernel is the limit.
        if error.raw_os_error() != Some(libc::ERANGE) || len <= wanted || count > NGROUPS_MAX {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Most supplementary groups that the kernel lets a process have.
const NGROUPS_MAX: usize = 65_536;

/// Takes the descriptor out of an owner that gives it up.
pub(crate) fn into_owned_fd(owner: impl IntoRawFd) -> OwnedFd {
    // SAFETY: `into_raw_fd` passes on the ownership of an open descriptor, which nobody else closes.
    unsafe { OwnedFd::from_raw_fd(owner.into_raw_fd()) }
}

fn socklen_of<T>() -> socklen_t {
    // A `c_int` has four bytes; the conversion cannot fail for any type used here.
    socklen_t::try_from(size_of::<T>()).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Gives up root on this thread alone, where the C library's `setuid` would change all threads.
    pub(crate) fn set_thread_uid(uid: libc::uid_t) {
        // SAFETY: the system call takes three numbers and touches no memory.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(result, 0);
    }

    #[test]
    fn peer_groups_are_our_own_on_a_socket_pair() {
        let (left, _right) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(|gid| gid.as_raw()).collect();
        let mut seen = peer_groups(left.as_fd()).unwrap();
        own.sort_unstable();
        seen.sort_unstable();
        assert_eq!(own, seen);
    }

    #[test]
    fn a_refused_option_is_an_error() {
        let (left, _right) = UnixStream::pair().unwrap();
        assert!(set_socket_option(left.as_fd(), libc::SOL_SOCKET, -1, 1).is_err());
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(peer_groups(file.as_fd()).is_err());
    }

    #[test]
    fn an_owned_descriptor_stays_open() {
        let (left, right) = UnixStream::pair().unwrap();
        let fd = into_owned_fd(left);
        nix::unistd::write(&fd, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(nix::unistd::read(&right, &mut byte).unwrap(), 1);
    }
}
