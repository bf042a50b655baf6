//! The UDP socket of the underlay.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tsrs_platform_api::SocketBinder;
use tsrs_tunnel_path::SendError;

use crate::offload::{Offload, Switches};
use crate::sys::mmsg::{self, Outgoing, Received, SEND_BATCH};

/// Size asked for both buffers of the socket: loss costs more than the delay of a full buffer (data-plane sheet §1.10).
const SOCKET_BUFFER_BYTES: usize = 7 << 20;

/// A socket that bypasses the tunnel. Shared by the workers and the slow path; no call on it waits.
#[derive(Debug)]
pub(crate) struct Underlay {
    socket: UdpSocket,
    port: u16,
}

/// How a batch was sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Messages at the front that are done with: sent or refused.
    pub(crate) done: usize,
    /// The kernel has no room now; try the rest when the socket can be written to.
    pub(crate) full: bool,
}

/// Something that happened while sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendNote {
    /// A message was sent datagram by datagram, because the kernel would not cut it.
    CutHere,
    /// The kernel cannot cut at all on this device; it is not asked again.
    GsoOff,
    /// A message was refused.
    Refused { to: SocketAddrV4, error: Errno },
}

impl Underlay {
    /// Binds the wanted port, or any if that is taken. The flag says whether the wanted one was free.
    pub(crate) fn bind(
        wanted_port: u16,
        binder: &dyn SocketBinder,
        switches: &Switches,
    ) -> io::Result<(Self, bool)> {
        match Self::bind_port(wanted_port, binder, switches, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && wanted_port != 0 => {
                Self::bind_port(0, binder, switches, false).map(|socket| (socket, false))
            }
            other => other.map(|socket| (socket, true)),
        }
    }

    /// A socket that takes the place of another one, on its port if that can be.
    ///
    /// Both have the port for a moment: `SO_REUSEPORT` is set for that moment only, so that no other program, nor a second
    /// agent, can share it.
    pub(crate) fn replacing(old: &Self, binder: &dyn SocketBinder, switches: &Switches) -> io::Result<Self> {
        setsockopt(&old.socket, sockopt::ReusePort, &true)?;
        let new = Self::bind_port(old.port, binder, switches, true)
            .or_else(|_| Self::bind_port(0, binder, switches, true))?;
        setsockopt(&new.socket, sockopt::ReusePort, &false)?;
        Ok(new)
    }

    fn bind_port(
        port: u16,
        binder: &dyn SocketBinder,
        switches: &Switches,
        shared: bool,
    ) -> io::Result<Self> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        binder.mark_bypass(fd.as_fd())?;
        setsockopt(&fd, sockopt::ReusePort, &shared)?;
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)),
        )?;
        enlarge_buffers(fd.as_fd());
        // Old kernels do not know it; the counter is then missing from the metrics.
        let _ = setsockopt(&fd, sockopt::RxqOvfl, &1);
        let socket = UdpSocket::from(fd);
        let underlay = Self { port: socket.local_addr()?.port(), socket };
        underlay.set_gro(switches);
        Ok(underlay)
    }

    /// Asks the kernel to join incoming datagrams, or not to, as the switches say.
    pub(crate) fn set_gro(&self, switches: &Switches) {
        let on = switches.is_on(Offload::UdpGro);
        if setsockopt(&self.socket, sockopt::UdpGroSegment, &on).is_err() {
            switches.switch_off(Offload::UdpGro);
        }
    }

    /// The port that was bound.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Receives one message per buffer at most.
    pub(crate) fn receive(&self, buffers: &mut [IoSliceMut<'_>], out: &mut [Received]) -> io::Result<usize> {
        mmsg::receive(self.as_fd(), buffers, out)
    }

    /// Sends what it can without waiting. A message that the kernel refuses is told to `note` and left out.
    pub(crate) fn send(
        &self,
        messages: &[Outgoing<'_>],
        switches: &Switches,
        mut note: impl FnMut(SendNote),
    ) -> Sent {
        let mut done = 0;
        while let Some(first) = messages.get(done) {
            let error = if first.segment_len.is_some() && !switches.is_on(Offload::UdpGso) {
                // As if the kernel had said so.
                Errno::EMSGSIZE
            } else {
                let run = without_segments_unless(switches.is_on(Offload::UdpGso), &messages[done..]);
                match mmsg::send(self.as_fd(), run) {
                    Ok(sent) => {
                        done += sent;
                        continue;
                    }
                    Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
                }
            };
            match (error, first.segment_len) {
                (Errno::EINTR, _) => continue,
                (Errno::EAGAIN, _) => return Sent { done, full: true },
                // The kernel could not compute the checksums of a run on this device (udp(7), UDP_SEGMENT); or a
                // datagram is longer than the route's MTU, which only a single one survives, in fragments.
                (Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE | Errno::EOPNOTSUPP, Some(segment_len)) => {
                    if error == Errno::EIO && switches.switch_off(Offload::UdpGso) {
                        note(SendNote::GsoOff);
                    }
                    note(SendNote::CutHere);
                    self.send_cut(first, usize::from(segment_len), &mut note);
                }
                _ => note(SendNote::Refused { to: first.to, error }),
            }
            done += 1;
        }
        Sent { done, full: false }
    }

    /// Sends the datagrams of a run one by one. What the kernel has no room for is lost, as on any full link.
    fn send_cut(&self, run: &Outgoing<'_>, segment_len: usize, note: &mut impl FnMut(SendNote)) {
        let mut datagrams = run.payload.chunks(segment_len.max(1));
        let mut batch = [Outgoing { to: run.to, payload: &[], segment_len: None }; SEND_BATCH];
        loop {
            let count =
                batch.iter_mut().zip(&mut datagrams).map(|(slot, payload)| slot.payload = payload).count();
            let mut done = 0;
            while done < count {
                match mmsg::send(self.as_fd(), &batch[done..count]) {
                    Ok(sent) => done += sent,
                    Err(error) => {
                        let error = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
                        if error != Errno::EINTR {
                            note(SendNote::Refused { to: run.to, error });
                            done += 1;
                        }
                    }
                }
            }
            if count < SEND_BATCH {
                return;
            }
        }
    }

    /// Sends one datagram of the slow path.
    pub(crate) fn send_one(&self, to: SocketAddrV4, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, SocketAddr::V4(to)).map(drop)
    }
}

/// What an error of a send says about the path; nothing if it is a loss like any other. A full socket is one, and on Linux
/// `EPERM`, which is a firewall's.
pub(crate) fn send_error(error: &io::Error) -> Option<SendError> {
    match error.raw_os_error()? {
        libc::EPIPE | libc::ENOTCONN => Some(SendError::Socket),
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL | libc::EACCES => {
            Some(SendError::Unreachable)
        }
        _ => None,
    }
}

/// The messages up to the first that would need the kernel to cut it, if it must not be asked to.
fn without_segments_unless<'a, 'b>(gso: bool, messages: &'a [Outgoing<'b>]) -> &'a [Outgoing<'b>] {
    let end = messages.iter().position(|message| !gso && message.segment_len.is_some());
    &messages[..end.unwrap_or(messages.len())]
}

impl AsFd for Underlay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// By force where we may pass the system's limit, otherwise as far as that goes.
fn enlarge_buffers(socket: BorrowedFd<'_>) {
    if setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        let _ = setsockopt(&socket, sockopt::RcvBuf, &SOCKET_BUFFER_BYTES);
    }
    if setsockopt(&socket, sockopt::SndBufForce, &SOCKET_BUFFER_BYTES).is_err() {
        let _ = setsockopt(&socket, sockopt::SndBuf, &SOCKET_BUFFER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::offload::Disabled;

    struct Loopback(Mutex<u32>);

    impl SocketBinder for Loopback {
        fn mark_bypass(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            *self.0.lock().unwrap() += 1;
            Ok(())
        }
    }

    struct Refusing;

    impl SocketBinder for Refusing {
        fn mark_bypass(&self, _: BorrowedFd<'_>) -> io::Result<()> {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }

    fn bound(port: u16, switches: &Switches) -> (Underlay, bool) {
        Underlay::bind(port, &Loopback(Mutex::new(0)), switches).unwrap()
    }

    fn local(underlay: &Underlay) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, underlay.port())
    }

    fn received(underlay: &Underlay) -> Vec<(Vec<u8>, usize)> {
        let mut all = Vec::new();
        loop {
            let mut buffers = vec![vec![0; 65536]; 8];
            let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
            let mut out = [Received::EMPTY; 8];
            let Ok(count) = underlay.receive(&mut slices, &mut out) else { return all };
            let filled = out.iter().take(count).zip(buffers);
            all.extend(filled.map(|(message, buffer)| (buffer[..message.len].to_vec(), message.segment_len)));
        }
    }

    #[test]
    fn taken_port_gives_another_one_and_says_so() {
        let switches = Switches::new(Disabled::default());
        let (first, _) = bound(0, &switches);
        let (second, wanted_was_free) = bound(first.port(), &switches);
        assert!(!wanted_was_free);
        assert_ne!(first.port(), second.port());
    }

    #[test]
    fn new_socket_takes_the_port_over_and_shares_it_with_nobody_else() {
        let switches = Switches::new(Disabled::default());
        let (old, _) = bound(0, &switches);
        let binder = Loopback(Mutex::new(0));
        let new = Underlay::replacing(&old, &binder, &switches).unwrap();
        assert_eq!(new.port(), old.port());
        drop(old);
        let (sender, _) = bound(0, &switches);
        sender.send_one(local(&new), b"still here").unwrap();
        assert_eq!(received(&new).len(), 1);
        assert!(!bound(new.port(), &switches).1, "the port is taken");
        let shared = Underlay::bind_port(new.port(), &binder, &switches, true);
        assert_eq!(shared.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn only_errors_about_the_path_or_the_socket_are_told() {
        let told = |errno| send_error(&io::Error::from_raw_os_error(errno));
        assert_eq!(told(libc::EHOSTUNREACH), Some(SendError::Unreachable));
        assert_eq!(told(libc::EPIPE), Some(SendError::Socket));
        for loss in [libc::EPERM, libc::EAGAIN, libc::ENOBUFS, libc::EMSGSIZE, libc::ECONNREFUSED] {
            assert_eq!(told(loss), None);
        }
    }

    #[test]
    fn socket_that_cannot_be_marked_is_not_used() {
        let switches = Switches::new(Disabled::default());
        let error = Underlay::bind(0, &Refusing, &switches).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let binder = Loopback(Mutex::new(0));
        Underlay::bind(0, &binder, &switches).unwrap();
        assert_eq!(*binder.0.lock().unwrap(), 1);
    }

    #[test]
    fn runs_arrive_the_same_with_and_without_each_offload() {
        let payload: Vec<u8> = (0..=255).cycle().take(3 * 1200 + 77).collect();
        for list in ["", "udp-gso", "udp-gro", "udp-gso,udp-gro"] {
            let switches = Switches::new(list.parse().unwrap());
            let ((a, _), (b, _)) = (bound(0, &switches), bound(0, &switches));
            let run = Outgoing { to: local(&b), payload: &payload, segment_len: Some(1200) };
            let single = Outgoing { to: local(&b), payload: b"single", segment_len: None };
            let sent = a.send(&[single, run, single], &switches, |note| assert_eq!(note, SendNote::CutHere));
            assert_eq!((sent.done, sent.full), (3, false));
            let got = received(&b);
            assert_eq!(got.iter().flat_map(|(bytes, _)| bytes).count(), payload.len() + 12);
            let joined = got.iter().any(|(bytes, segment_len)| bytes.len() > *segment_len);
            assert_eq!(joined, list.is_empty(), "{list}");
        }
    }

    #[test]
    fn datagram_that_is_refused_does_not_stop_the_others() {
        let switches = Switches::new(Disabled::default());
        let ((a, _), (b, _)) = (bound(0, &switches), bound(0, &switches));
        let good = Outgoing { to: local(&b), payload: b"good", segment_len: None };
        let bad = Outgoing { to: "255.255.255.255:9".parse().unwrap(), ..good };
        let mut notes = Vec::new();
        let sent = a.send(&[good, bad, good], &switches, |note| notes.push(note));
        assert_eq!((sent.done, received(&b).len()), (3, 2));
        assert_eq!(notes, [SendNote::Refused { to: bad.to, error: Errno::EACCES }]);
    }

    #[test]
    fn run_whose_datagrams_pass_the_mtu_goes_out_in_fragments() {
        let switches = Switches::new(Disabled::default());
        let ((a, _), (b, _)) = (bound(0, &switches), bound(0, &switches));
        let payload = vec![7; 65_507];
        let run = Outgoing { to: local(&b), payload: &payload, segment_len: Some(u16::MAX - 28) };
        let mut notes = Vec::new();
        let sent = a.send(&[run], &switches, |note| notes.push(note));
        assert_eq!(sent.done, 1);
        assert_eq!(received(&b).len(), 1, "{notes:?}");
    }

    #[test]
    fn buffers_are_larger_than_the_system_default() {
        let switches = Switches::new(Disabled::default());
        let (socket, _) = bound(0, &switches);
        let size = nix::sys::socket::getsockopt(&socket.socket, sockopt::RcvBuf).unwrap();
        let plain = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(size >= nix::sys::socket::getsockopt(&plain, sockopt::RcvBuf).unwrap());
    }
}
