//! The marks on the agent's own sockets and on those of exit traffic.

use std::io;
use std::os::fd::BorrowedFd;

use nix::sys::socket::{setsockopt, sockopt};
use tsrs_platform_api::{ExitBinder, Instance, Marks, SocketBinder};

/// Marks sockets so that the policy rules lead their packets around the tunnel, or to the proxies of exit traffic only.
///
/// The mark is the whole of `SO_MARK`: a fresh socket has no other bits to keep. It needs CAP_NET_ADMIN, or
/// CAP_NET_RAW from Linux 5.17 on.
#[derive(Clone, Copy, Debug)]
pub struct MarkBinder {
    marks: Marks,
}

impl MarkBinder {
    /// Marks with the marks of this instance.
    pub const fn new(instance: Instance) -> Self {
        Self { marks: instance.marks() }
    }
}

impl SocketBinder for MarkBinder {
    fn mark_bypass(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        mark(fd, self.marks.bypass, "bypass")
    }
}

impl ExitBinder for MarkBinder {
    fn mark_exit(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        mark(fd, self.marks.exit, "exit")
    }
}

fn mark(fd: BorrowedFd<'_>, mark: u32, name: &str) -> io::Result<()> {
    setsockopt(&fd, sockopt::Mark, &mark).map_err(|errno| {
        let cause = io::Error::from(errno);
        let why = format!(
            "set the {name} mark of a socket: {cause} (run as root, or give the agent CAP_NET_ADMIN)"
        );
        io::Error::new(cause.kind(), why)
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use nix::sys::socket::getsockopt;

    use super::*;
    use crate::sys::tests::set_thread_uid;
    use crate::testing::isolated;

    #[test]
    fn sockets_carry_the_mark_of_their_instance() {
        isolated(|| {
            for instance in Instance::all() {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                MarkBinder::new(instance).mark_bypass(socket.as_fd()).unwrap();
                assert_eq!(getsockopt(&socket, sockopt::Mark).unwrap(), instance.marks().bypass);
                MarkBinder::new(instance).mark_exit(socket.as_fd()).unwrap();
                assert_eq!(getsockopt(&socket, sockopt::Mark).unwrap(), instance.marks().exit);
            }
        });
    }

    #[test]
    fn a_refused_mark_is_an_error_with_the_next_step() {
        isolated(|| {
            set_thread_uid(65_534);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let error = MarkBinder::new(Instance::ZERO).mark_bypass(socket.as_fd()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
            assert_eq!(getsockopt(&socket, sockopt::Mark).unwrap(), 0);
        });
    }
}
