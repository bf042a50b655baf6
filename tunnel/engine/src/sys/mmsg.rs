//! `sendmmsg(2)` with `UDP_SEGMENT` and `recvmmsg(2)` with `UDP_GRO`: many datagrams per system call.
//!
//! All headers live on the stack of the call, so that no pointer outlives it.
#![expect(unsafe_code, reason = "the two system calls have no safe form that works without allocating")]

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::cmsg::{self, ControlBuffer};

/// Messages per `sendmmsg` call. Each may carry up to 64 datagrams, so a call moves at most 2,048 of them.
pub(crate) const SEND_BATCH: usize = 32;

/// Messages per `recvmmsg` call. Each may carry up to 64 KiB of coalesced datagrams (performance.md §7 point 3).
pub(crate) const RECEIVE_BATCH: usize = 8;

/// One message to send: a datagram, or a run of them that the kernel cuts apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing<'a> {
    /// Where to.
    pub(crate) to: SocketAddrV4,
    /// The datagrams, one behind the other.
    pub(crate) payload: &'a [u8],
    /// Length of each datagram but the last, which may be shorter; `None` for one datagram.
    pub(crate) segment_len: Option<u16>,
}

/// One message received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Bytes in the buffer.
    pub(crate) len: usize,
    /// Length of each datagram but the last; equal to `len` for one datagram.
    pub(crate) segment_len: usize,
    /// Where from; `None` if the kernel named no IPv4 address.
    pub(crate) from: Option<SocketAddrV4>,
    /// Datagrams that the socket has dropped so far, if the kernel said so.
    pub(crate) dropped_total: Option<u32>,
    /// Whether the buffer was too small; the payload cannot be used then.
    pub(crate) truncated: bool,
}

impl Received {
    /// The value of slots that were not filled.
    pub(crate) const EMPTY: Self =
        Self { len: 0, segment_len: 0, from: None, dropped_total: None, truncated: false };
}

/// Sends the first [`SEND_BATCH`] messages with one system call; returns how many the kernel took (at least one).
///
/// An error is about the first message: the kernel reports an error of a later one by taking fewer.
pub(crate) fn send(fd: BorrowedFd<'_>, messages: &[Outgoing<'_>]) -> io::Result<usize> {
    let mut names = [const { EMPTY_NAME }; SEND_BATCH];
    let mut iovs = [const { EMPTY_IOV }; SEND_BATCH];
    let mut controls = [ControlBuffer::<{ cmsg::SEND_SPACE }>::ZERO; SEND_BATCH];
    let mut headers = [const { EMPTY_HEADER }; SEND_BATCH];
    let slots = headers.iter_mut().zip(&mut names).zip(&mut iovs).zip(&mut controls);
    let mut count = 0;
    for (message, (((header, name), iov), control)) in messages.iter().zip(slots) {
        *name = socket_name(message.to);
        iov.iov_base = message.payload.as_ptr().cast_mut().cast();
        iov.iov_len = message.payload.len();
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = NAME_LEN;
        header.msg_hdr.msg_iov = iov;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(segment_len) = message.segment_len {
            *control = cmsg::udp_segment(segment_len);
            header.msg_hdr.msg_control = ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = cmsg::SEND_SPACE;
        }
        count += 1;
    }
    // SAFETY: the first `count` headers point to names, slices and control buffers that live until the end of this
    // function, with their true lengths; the kernel only reads through them, so the shared payloads stay unchanged.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives up to one message per buffer with one system call, never waiting; returns how many came.
///
/// At most [`RECEIVE_BATCH`] buffers are used. `out` must be as long as `buffers`.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    buffers: &mut [IoSliceMut<'_>],
    out: &mut [Received],
) -> io::Result<usize> {
    let mut names = [const { EMPTY_NAME }; RECEIVE_BATCH];
    let mut controls = [ControlBuffer::<{ cmsg::RECEIVE_SPACE }>::ZERO; RECEIVE_BATCH];
    let mut headers = [const { EMPTY_HEADER }; RECEIVE_BATCH];
    let slots = headers.iter_mut().zip(&mut names).zip(&mut controls);
    let mut count = 0;
    for (buffer, ((header, name), control)) in buffers.iter_mut().zip(slots) {
        header.msg_hdr.msg_name = ptr::from_mut(name).cast();
        header.msg_hdr.msg_namelen = NAME_LEN;
        header.msg_hdr.msg_iov = ptr::from_mut(buffer).cast();
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = ptr::from_mut(control).cast();
        header.msg_hdr.msg_controllen = cmsg::RECEIVE_SPACE;
        count += 1;
    }
    // SAFETY: the first `count` headers point to names and control buffers that live until the end of this function
    // and to one `IoSliceMut` each, which has the layout of `iovec` and borrows its bytes exclusively.
    let received = unsafe {
        libc::recvmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
    };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    let filled = headers.iter().zip(&names).zip(&controls).take(received);
    for (slot, ((header, name), control)) in out.iter_mut().zip(filled) {
        *slot = received_message(header, name, control);
    }
    Ok(received)
}

fn received_message(
    header: &libc::mmsghdr,
    name: &libc::sockaddr_in,
    control: &ControlBuffer<{ cmsg::RECEIVE_SPACE }>,
) -> Received {
    let len = usize::try_from(header.msg_len).unwrap_or(0);
    let control_len = header.msg_hdr.msg_controllen.min(cmsg::RECEIVE_SPACE);
    let info = cmsg::parse(&control.0[..control_len]);
    let named = i32::from(name.sin_family) == libc::AF_INET && header.msg_hdr.msg_namelen == NAME_LEN;
    Received {
        len,
        segment_len: info.segment_len.unwrap_or(len),
        from: named.then(|| socket_addr(name)),
        dropped_total: info.dropped_total,
        truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
    }
}

const NAME_LEN: libc::socklen_t = 16;
const _: () = assert!(size_of::<libc::sockaddr_in>() == 16);

const EMPTY_NAME: libc::sockaddr_in =
    libc::sockaddr_in { sin_family: 0, sin_port: 0, sin_addr: libc::in_addr { s_addr: 0 }, sin_zero: [0; 8] };
const EMPTY_IOV: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
const EMPTY_HEADER: libc::mmsghdr = {
    // SAFETY: `mmsghdr` is a C struct of integers and pointers, for all of which zero is a valid value. (It has
    // private padding on some C libraries, so that it cannot be written as a literal.)
    unsafe { std::mem::zeroed() }
};

/// `AF_INET` as the field's type.
const FAMILY: libc::sa_family_t = 2;
const _: () = assert!(libc::AF_INET == 2);

fn socket_name(addr: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: FAMILY,
        sin_port: addr.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(addr.ip().octets()) },
        sin_zero: [0; 8],
    }
}

fn socket_addr(name: &libc::sockaddr_in) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from(name.sin_addr.s_addr.to_ne_bytes()), u16::from_be(name.sin_port))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    fn socket() -> (UdpSocket, SocketAddrV4) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let std::net::SocketAddr::V4(addr) = socket.local_addr().unwrap() else { unreachable!() };
        (socket, addr)
    }

    fn receive_all(socket: &UdpSocket, buffers: &mut [Vec<u8>]) -> Vec<Received> {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut out = vec![Received::EMPTY; slices.len()];
        let count = receive(socket.as_fd(), &mut slices, &mut out).unwrap();
        out.truncate(count);
        out
    }

    #[test]
    fn addresses_keep_their_bytes_both_ways() {
        for text in ["0.0.0.0:0", "127.0.0.1:41641", "255.255.255.255:65535", "100.64.1.2:1"] {
            let addr: SocketAddrV4 = text.parse().unwrap();
            assert_eq!(socket_addr(&socket_name(addr)), addr);
        }
        assert_eq!(socket_name("1.2.3.4:258".parse().unwrap()).sin_port.to_ne_bytes(), [1, 2]);
    }

    #[test]
    fn several_messages_go_out_and_come_in_with_one_call_each() {
        let (a, a_addr) = socket();
        let (b, b_addr) = socket();
        let (c, c_addr) = socket();
        let to = |to, payload| Outgoing { to, payload, segment_len: None };
        let sent = send(a.as_fd(), &[to(b_addr, b"one"), to(c_addr, b"two"), to(b_addr, b"three")]).unwrap();
        assert_eq!(sent, 3);
        let mut buffers = vec![vec![0; 16]; 4];
        let got = receive_all(&b, &mut buffers);
        assert_eq!(got.len(), 2);
        assert_eq!((&buffers[0][..got[0].len], &buffers[1][..got[1].len]), (&b"one"[..], &b"three"[..]));
        assert!(
            got.iter().all(|one| one.from == Some(a_addr) && one.segment_len == one.len && !one.truncated)
        );
        assert_eq!(receive_all(&c, &mut buffers).len(), 1);
    }

    #[test]
    fn more_messages_than_a_batch_are_left_to_the_next_call() {
        let (a, _) = socket();
        let (_b, b_addr) = socket();
        let messages = vec![Outgoing { to: b_addr, payload: b"x", segment_len: None }; SEND_BATCH + 5];
        assert_eq!(send(a.as_fd(), &messages).unwrap(), SEND_BATCH);
    }

    #[test]
    fn run_is_cut_by_the_sender_and_joined_by_the_receiver() {
        let (a, _) = socket();
        let (b, b_addr) = socket();
        setsockopt(&b, sockopt::UdpGroSegment, &true).unwrap();
        let payload: Vec<u8> = (0..=255).cycle().take(2 * 1000 + 300).collect();
        let run = Outgoing { to: b_addr, payload: &payload, segment_len: Some(1000) };
        assert_eq!(send(a.as_fd(), &[run]).unwrap(), 1);
        let mut buffers = vec![vec![0; 65536]; 4];
        let got = receive_all(&b, &mut buffers);
        let bytes: Vec<u8> =
            got.iter().zip(&buffers).flat_map(|(one, buffer)| &buffer[..one.len]).copied().collect();
        assert_eq!(bytes, payload);
        assert_eq!(got[0].segment_len, 1000);
        assert!(got.len() < 3, "loopback keeps the run together");
    }

    #[test]
    fn buffer_that_is_too_small_is_reported_as_truncated() {
        let (a, _) = socket();
        let (b, b_addr) = socket();
        send(a.as_fd(), &[Outgoing { to: b_addr, payload: &[1; 100], segment_len: None }]).unwrap();
        let mut buffers = vec![vec![0; 10]];
        let got = receive_all(&b, &mut buffers);
        assert!(got[0].truncated);
        assert_eq!(got[0].len, 10);
    }

    #[test]
    fn empty_socket_would_block_and_refused_message_is_an_error() {
        let (a, _) = socket();
        let mut buffer = [0; 16];
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let error = receive(a.as_fd(), &mut slices, &mut [Received::EMPTY]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let (_b, b_addr) = socket();
        let too_long = vec![0; 70_000];
        let error = send(a.as_fd(), &[Outgoing { to: b_addr, payload: &too_long, segment_len: None }]);
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EMSGSIZE));
    }

    #[test]
    fn drop_counter_is_reported_with_the_next_message() {
        let (a, _) = socket();
        let (b, b_addr) = socket();
        setsockopt(&b, sockopt::RxqOvfl, &1).unwrap();
        setsockopt(&b, sockopt::RcvBuf, &4096).unwrap();
        let payload = [0; 1000];
        let run = vec![Outgoing { to: b_addr, payload: &payload, segment_len: None }; SEND_BATCH];
        for _ in 0..4 {
            send(a.as_fd(), &run).unwrap();
        }
        let mut buffers = vec![vec![0; 1000]; RECEIVE_BATCH];
        while !receive_all_or_empty(&b, &mut buffers).is_empty() {}
        send(a.as_fd(), &run[..1]).unwrap();
        let got = receive_all(&b, &mut buffers);
        assert!(got[0].dropped_total.unwrap() > 0);
    }

    fn receive_all_or_empty(socket: &UdpSocket, buffers: &mut [Vec<u8>]) -> Vec<Received> {
        let mut slices: Vec<_> = buffers.iter_mut().map(|buffer| IoSliceMut::new(buffer)).collect();
        let mut out = vec![Received::EMPTY; slices.len()];
        let count = receive(socket.as_fd(), &mut slices, &mut out).unwrap_or(0);
        out.truncate(count);
        out
    }
}
