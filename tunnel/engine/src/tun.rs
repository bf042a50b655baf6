//! One queue of the TUN device.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tsrs_platform_api::TunOffload;
use tsrs_tunnel_dataplane::inbound::MAX_PIECES;
use tsrs_tunnel_packet::vnet::{self, VirtioNetHdr};

use crate::offload::{Offload, Switches};
use crate::sys;

/// Largest read: a packet of 64 KiB behind its offload header.
pub(crate) const READ_LEN: usize = vnet::LEN + 65_535;

/// A TUN descriptor with or without offload headers. No call on it waits.
#[derive(Debug)]
pub(crate) struct TunQueue {
    fd: OwnedFd,
    has_header: bool,
}

impl TunQueue {
    /// Takes the device over and asks the kernel for the offloads that the switches leave on.
    pub(crate) fn new(fd: OwnedFd, offload: TunOffload, switches: &Switches) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let queue = Self { fd, has_header: offload.vnet_hdr };
        if !offload.tso4 {
            switches.set(Offload::TunTso, false);
        }
        if !offload.uso4 {
            switches.set(Offload::TunUso, false);
        }
        if queue.has_header {
            queue.set_offload(switches)?;
        } else {
            for offload in [Offload::TunTso, Offload::TunUso, Offload::TunTcpGro, Offload::TunUdpGro] {
                switches.set(offload, false);
            }
        }
        Ok(queue)
    }

    /// Tells the kernel what it may leave to us. UDP needs TCP.
    pub(crate) fn set_offload(&self, switches: &Switches) -> io::Result<()> {
        use sys::tun::Offload as Level;
        let level = match (switches.is_on(Offload::TunTso), switches.is_on(Offload::TunUso)) {
            (false, _) => Level::None,
            (true, false) => Level::Tcp,
            (true, true) => Level::TcpUdp,
        };
        match sys::tun::set_offload(self.as_fd(), level) {
            Err(error) if level == Level::TcpUdp && error.raw_os_error() == Some(libc::EINVAL) => {
                switches.set(Offload::TunUso, false);
                sys::tun::set_offload(self.as_fd(), Level::Tcp)
            }
            other => other,
        }
    }

    /// Reads one packet, or a run of them that is still to be cut; none when there is nothing to read.
    pub(crate) fn read<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(VirtioNetHdr, &'a mut [u8])>> {
        let len = loop {
            match nix::unistd::read(&self.fd, buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => break len,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            }
        };
        let read = &mut buffer[..len];
        if !self.has_header {
            return Ok(Some((VirtioNetHdr::default(), read)));
        }
        match read.split_first_chunk_mut::<{ vnet::LEN }>() {
            Some((header, packet)) => Ok(Some((VirtioNetHdr::from_bytes(header), packet))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Writes one packet, or a run of them, given as the offload header with what else comes first, and the pieces behind.
    pub(crate) fn write(&self, head: &[u8], pieces: &[&[u8]]) -> io::Result<()> {
        if pieces.len() > MAX_PIECES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // Without offload headers there are no runs, so that the head holds nothing else.
        let head = if self.has_header { head } else { &[] };
        let mut slices = [IoSlice::new(&[]); MAX_PIECES + 1];
        slices[0] = IoSlice::new(head);
        for (slice, piece) in slices[1..].iter_mut().zip(pieces) {
            *slice = IoSlice::new(piece);
        }
        loop {
            match nix::sys::uio::writev(&self.fd, &slices[..=pieces.len()]) {
                Err(Errno::EINTR) => {}
                other => return other.map(drop).map_err(io::Error::from),
            }
        }
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
