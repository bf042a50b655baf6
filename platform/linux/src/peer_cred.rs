//! Credentials of the peer of a Unix socket.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Group, User};
use tsrs_platform_api::{PeerCred, PeerCredentials};

use crate::sys;

/// Asks the kernel (`SO_PEERCRED`, `SO_PEERGROUPS`) and the host's user database.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinuxPeerCredentials;

impl PeerCredentials for LinuxPeerCredentials {
    fn peer(&self, fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
        let cred = getsockopt(&fd, sockopt::PeerCredentials)?;
        Ok(PeerCred {
            uid: cred.uid(),
            gid: cred.gid(),
            // Kernels before 4.13 do not tell; then only the primary group counts.
            groups: sys::peer_groups(fd).unwrap_or_default(),
            pid: Some(cred.pid()),
        })
    }

    fn user_id(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(User::from_name(name)?.map(|user| user.uid.as_raw()))
    }

    fn group_id(&self, name: &str) -> io::Result<Option<u32>> {
        Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::tests::set_thread_uid;
    use crate::testing::isolated;

    #[test]
    fn the_peer_of_our_own_pair_is_ourselves() {
        let (left, _right) = UnixStream::pair().unwrap();
        let peer = LinuxPeerCredentials.peer(left.as_fd()).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gid, nix::unistd::getegid().as_raw());
        assert_eq!(peer.pid, Some(std::process::id().try_into().unwrap()));
        assert!(peer.in_group(peer.gid));
    }

    #[test]
    fn the_user_is_the_one_at_the_time_of_connecting() {
        isolated(|| {
            let listener = std::os::unix::net::UnixListener::bind("/run/s").unwrap();
            std::fs::set_permissions("/run/s", std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
            set_thread_uid(65_534);
            let _client = UnixStream::connect("/run/s").unwrap();
            let (server, _) = listener.accept().unwrap();
            assert_eq!(LinuxPeerCredentials.peer(server.as_fd()).unwrap().uid, 65_534);
        });
    }

    #[test]
    fn a_socket_without_credentials_has_none() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        // The kernel answers for any socket, but names nobody for one that is not local.
        if let Ok(peer) = LinuxPeerCredentials.peer(socket.as_fd()) {
            assert_eq!((peer.uid, peer.pid), (u32::MAX, Some(0)));
        }
    }

    #[test]
    fn names_are_looked_up() {
        assert_eq!(LinuxPeerCredentials.user_id("root").unwrap(), Some(0));
        assert_eq!(LinuxPeerCredentials.group_id("root").unwrap(), Some(0));
        assert_eq!(LinuxPeerCredentials.user_id("no-such-user-here").unwrap(), None);
    }
}
