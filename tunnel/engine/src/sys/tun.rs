//! The offloads of a TUN device (`TUNSETOFFLOAD`, `linux/if_tun.h`).
#![expect(unsafe_code, reason = "an ioctl")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::c_uint;

/// What the kernel may leave to us on a TUN device that carries `virtio_net_hdr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// Nothing: every packet comes whole, with its checksum.
    None,
    /// Checksums and TCP segmentation.
    Tcp,
    /// Checksums, TCP and UDP segmentation (Linux ≥ 6.2).
    TcpUdp,
}

impl Offload {
    /// IPv4 only: the TUN has no IPv6.
    const fn flags(self) -> c_uint {
        match self {
            Self::None => 0,
            Self::Tcp => libc::TUN_F_CSUM | libc::TUN_F_TSO4,
            // The kernel takes the two USO flags only together.
            Self::TcpUdp => libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        }
    }
}

/// Sets the offloads of the device; `EINVAL` when the kernel does not know one of them.
pub(crate) fn set_offload(tun: BorrowedFd<'_>, offload: Offload) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value; on another kind of descriptor it fails with ENOTTY.
    let result =
        unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offload.flags())) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn offload_of_something_that_is_no_tun_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(set_offload(file.as_fd(), Offload::Tcp).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }

    #[test]
    fn each_level_holds_the_flags_of_the_one_below() {
        assert_eq!(Offload::None.flags(), 0);
        assert_eq!(Offload::TcpUdp.flags() & Offload::Tcp.flags(), Offload::Tcp.flags());
    }
}
