//! A netlink socket: requests with their answers, dumps, and subscriptions.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, sendto,
    setsockopt, socket, sockopt,
};

use super::codec::{Message, Received, attr_string, attrs, received_in};
use crate::sys;

/// `NLMSG_ERROR` and `NLMSG_DONE` (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The dump changed while it was read; read it again.
const DUMP_INTERRUPTED: u16 = 0x10;
/// The error message carries text.
const ACK_TLVS: u16 = 0x200;
const ERROR_TEXT: u16 = 1;

const SOL_NETLINK: libc::c_int = 270;
const CAP_ACK: libc::c_int = 10;
const EXT_ACK: libc::c_int = 11;
const STRICT_CHECK: libc::c_int = 12;

/// Largest datagram that the kernel builds for a dump is 32 KiB; a notification of one rule or element list is at
/// most 64 KiB.
const RECEIVE_LEN: usize = 64 * 1024;
/// Requests of one datagram. Their error messages must fit the receive buffer of the socket (212 KiB by default,
/// and an error without the request is below 1 KiB of it).
const BATCH_COUNT: usize = 128;
/// What may wait to be read from a subscription. Our own largest burst, ten thousand routes or set elements at once, fits;
/// the kernel takes the memory only while there is something in it.
const SUBSCRIPTION_BYTES: usize = 8 * 1024 * 1024;
/// How often a dump is read again when the table changes meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// The kernel's refusal: its error number, and its own words if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetlinkError {
    /// Error number, positive.
    pub(crate) errno: i32,
    /// The kernel's explanation, often empty.
    pub(crate) text: String,
}

impl fmt::Display for NetlinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = io::Error::from_raw_os_error(self.errno);
        if self.text.is_empty() { meaning.fmt(f) } else { write!(f, "{meaning}: {}", self.text) }
    }
}

impl std::error::Error for NetlinkError {}

impl From<NetlinkError> for io::Error {
    fn from(error: NetlinkError) -> Self {
        let plain = Self::from_raw_os_error(error.errno);
        if error.text.is_empty() { plain } else { Self::new(plain.kind(), error) }
    }
}

impl From<Errno> for NetlinkError {
    fn from(errno: Errno) -> Self {
        Self { errno: errno as i32, text: String::new() }
    }
}

/// A request of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Which one, counted from 0.
    pub(crate) index: usize,
    /// Why.
    pub(crate) error: NetlinkError,
}

/// A socket for requests.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// A socket for links, addresses, routes and rules.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute)
    }

    /// A socket for nf_tables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkNetFilter)
    }

    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        let port = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        sys::set_socket_option(fd.as_fd(), SOL_NETLINK, CAP_ACK, 1)?;
        sys::set_socket_option(fd.as_fd(), SOL_NETLINK, EXT_ACK, 1)?;
        // Lets the kernel filter dumps by table. Before Linux 4.20 it does not exist, and the reader filters again.
        let _ = sys::set_socket_option(fd.as_fd(), SOL_NETLINK, STRICT_CHECK, 1);
        Ok(Self { fd, port, sequence: 0, buffer: vec![0; RECEIVE_LEN] })
    }

    /// Number by which notifications name this socket as their cause.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Sends one request and waits for its confirmation.
    pub(crate) fn request(&mut self, message: Message) -> Result<(), NetlinkError> {
        match self.requests(vec![message])?.pop() {
            Some(failure) => Err(failure.error),
            None => Ok(()),
        }
    }

    /// Sends requests that do not depend on each other, many per system call, and gives those that were refused.
    pub(crate) fn requests(&mut self, mut messages: Vec<Message>) -> Result<Vec<Failure>, NetlinkError> {
        let mut failures = Vec::new();
        for (chunk_index, chunk) in messages.chunks_mut(BATCH_COUNT).enumerate() {
            let first = self.sequence.wrapping_add(1);
            let mut datagram = Vec::new();
            if let Some(last) = chunk.last_mut() {
                last.request_ack();
            }
            for message in chunk.iter() {
                self.sequence = self.sequence.wrapping_add(1);
                message.write(self.sequence, &mut datagram).map_err(|_| Errno::EMSGSIZE)?;
            }
            self.send(&datagram)?;
            let base = chunk_index * BATCH_COUNT;
            self.confirm(first, |offset, error| failures.push(Failure { index: base + offset, error }))?;
        }
        Ok(failures)
    }

    /// Sends messages as one datagram, which netfilter takes as one transaction, and waits for the confirmation of
    /// the last but one: the one before the end marker.
    pub(crate) fn transaction(&mut self, mut messages: Vec<Message>) -> Result<(), NetlinkError> {
        let confirmed = messages.len().saturating_sub(2);
        if let Some(last) = messages.get_mut(confirmed) {
            last.request_ack();
        }
        let first = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(messages.iter().map(Message::len).sum());
        for message in &messages {
            self.sequence = self.sequence.wrapping_add(1);
            message.write(self.sequence, &mut datagram).map_err(|_| Errno::EMSGSIZE)?;
        }
        // A datagram above the default send buffer (212 KiB) is only taken from a socket with a larger one.
        setsockopt(&self.fd, sockopt::SndBufForce, &(2 * datagram.len()).max(256 * 1024))?;
        self.send(&datagram)?;
        loop {
            let len = self.receive()?;
            for received in received_in(&self.buffer[..len]) {
                let Some((offset, outcome)) = outcome_of(&received, first) else { continue };
                // A transaction fails as a whole, and the first refusal explains it.
                outcome?;
                if offset == confirmed {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for a table and gives each entry's message type and payload to `visit`.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Message,
        mut visit: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let mut datagram = Vec::new();
            message.write(self.sequence, &mut datagram).map_err(|_| Errno::EMSGSIZE)?;
            self.send(&datagram)?;
            if let Some(entries) = self.collect(&mut visit)? {
                return Ok(entries);
            }
        }
        Err(Errno::EINTR.into())
    }

    /// Entries of the dump under way, or `None` when it has to be asked for again.
    fn collect<T>(
        &mut self,
        visit: &mut impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let mut entries = Vec::new();
        let mut complete = true;
        loop {
            let len = self.receive()?;
            for received in received_in(&self.buffer[..len]) {
                if received.sequence != self.sequence {
                    continue;
                }
                complete &= received.flags & DUMP_INTERRUPTED == 0;
                match received.kind {
                    DONE | ERROR => {
                        return match error_of(&received) {
                            Some(error) => Err(error),
                            None => Ok(complete.then_some(entries)),
                        };
                    }
                    kind => entries.extend(visit(kind, received.payload)),
                }
            }
        }
    }

    /// Reads confirmations until that of the last request sent.
    fn confirm(
        &mut self,
        first: u32,
        mut refused: impl FnMut(usize, NetlinkError),
    ) -> Result<(), NetlinkError> {
        loop {
            let len = self.receive()?;
            for received in received_in(&self.buffer[..len]) {
                let Some((offset, outcome)) = outcome_of(&received, first) else { continue };
                if let Err(error) = outcome {
                    refused(offset, error);
                }
                if received.sequence == self.sequence {
                    return Ok(());
                }
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> Result<(), NetlinkError> {
        let kernel = NetlinkAddr::new(0, 0);
        let sent = sendto(self.fd.as_raw_fd(), datagram, &kernel, MsgFlags::empty())?;
        if sent == datagram.len() { Ok(()) } else { Err(Errno::EMSGSIZE.into()) }
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        receive(&self.fd, &mut self.buffer)
    }
}

/// A socket that hears of changes.
#[derive(Debug)]
pub(crate) struct Subscription {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

/// What a subscription heard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    /// A message, with its type and the socket that caused it (0: the kernel itself).
    Message {
        /// Message type.
        kind: u16,
        /// Port of the causing socket.
        port: u32,
        /// What follows the header.
        payload: &'a [u8],
    },
    /// There were more than the socket could hold: look at everything again.
    Lost,
}

impl Subscription {
    /// Hears of changes of links, addresses, routes or rules: a mask of `RTMGRP_*`.
    pub(crate) fn route(groups: u32) -> io::Result<Self> {
        Self::open(SockProtocol::NetlinkRoute, groups)
    }

    /// Hears of changes of nf_tables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        /// `NFNLGRP_NFTABLES` is group 7; the mask counts from bit 0.
        const NFTABLES: u32 = 1 << 6;
        Self::open(SockProtocol::NetlinkNetFilter, NFTABLES)
    }

    fn open(protocol: SockProtocol, groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        // Refused without privilege; then a burst is told as lost sooner.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &SUBSCRIPTION_BYTES);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { fd, buffer: vec![0; RECEIVE_LEN] })
    }

    /// Passes everything that has arrived to `hear`, without waiting.
    pub(crate) fn drain(&mut self, mut hear: impl FnMut(Event<'_>)) -> io::Result<()> {
        loop {
            match receive(&self.fd, &mut self.buffer) {
                Ok(len) => {
                    for received in received_in(&self.buffer[..len]) {
                        hear(Event::Message {
                            kind: received.kind,
                            port: received.port,
                            payload: received.payload,
                        });
                    }
                }
                Err(NetlinkError { errno: libc::EAGAIN, .. }) => return Ok(()),
                Err(NetlinkError { errno: libc::ENOBUFS | libc::EMSGSIZE, .. }) => hear(Event::Lost),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Length of the next datagram, now in `buffer`.
fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, NetlinkError> {
    loop {
        match recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(len) if len <= buffer.len() => return Ok(len),
            Ok(_) => return Err(Errno::EMSGSIZE.into()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Which request (counted from `first`) an error message answers, and how. `None` for other messages.
fn outcome_of(received: &Received<'_>, first: u32) -> Option<(usize, Result<(), NetlinkError>)> {
    if received.kind != ERROR {
        return None;
    }
    let offset = usize::try_from(received.sequence.wrapping_sub(first)).ok()?;
    Some((offset, error_of(received).map_or(Ok(()), Err)))
}

/// The refusal in an error or end message; `None` is success.
///
/// `| error i32, 0 or negative | header of the request, 16 bytes | attributes if ACK_TLVS |`, as shortened by CAP_ACK.
fn error_of(received: &Received<'_>) -> Option<NetlinkError> {
    let code = i32::from_ne_bytes(*received.payload.first_chunk::<4>()?);
    if code == 0 {
        return None;
    }
    let text_at = if received.kind == ERROR { 20 } else { 4 };
    let text = received.payload.get(text_at..).filter(|_| received.flags & ACK_TLVS != 0).and_then(|tail| {
        attrs(tail).find(|attr| attr.kind == ERROR_TEXT).map(|attr| attr_string(attr.payload))
    });
    Some(NetlinkError { errno: code.saturating_neg(), text: text.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(code: i32, text: Option<&str>) -> Vec<u8> {
        let mut message = Message::new(ERROR, if text.is_some() { ACK_TLVS } else { 0 });
        message.put(&code.to_ne_bytes());
        message.put(&[0; 16]);
        if let Some(text) = text {
            message.attr_str(ERROR_TEXT, text);
        }
        let mut out = Vec::new();
        message.write(7, &mut out).unwrap();
        out
    }

    #[test]
    fn the_kernels_words_are_part_of_the_error() {
        let bytes = error_message(-libc::EINVAL, Some("Invalid scope"));
        let received = received_in(&bytes).next().unwrap();
        let (offset, outcome) = outcome_of(&received, 5).unwrap();
        assert_eq!(offset, 2);
        let error = outcome.unwrap_err();
        assert_eq!(error.errno, libc::EINVAL);
        assert_eq!(error.text, "Invalid scope");
        assert!(error.to_string().ends_with(": Invalid scope"));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn zero_is_success() {
        let bytes = error_message(0, None);
        assert_eq!(outcome_of(&received_in(&bytes).next().unwrap(), 7), Some((0, Ok(()))));
    }

    #[test]
    fn a_refused_request_among_others_is_named() {
        // Reading needs no privilege: a request for a link that does not exist, between two for the loopback.
        let get = |index: i32| {
            let mut message = Message::new(18, 0);
            message.put(&[0, 0, 0, 0]);
            message.put(&index.to_ne_bytes());
            message.put(&[0; 8]);
            message
        };
        let mut socket = Socket::route().unwrap();
        let failures = socket.requests(vec![get(1), get(0x7fff_fff0), get(1)]).unwrap();
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].index, 1);
        assert_eq!(failures[0].error.errno, libc::ENODEV);
        assert!(socket.port() != 0);
    }
}
