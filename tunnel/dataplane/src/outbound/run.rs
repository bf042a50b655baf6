//! A run: packets for one peer that are sealed and sent together.

use std::sync::Arc;
use std::time::Instant;

use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::gso::SuperPacket;
use tsrs_tunnel_path::SendPath;
use tsrs_tunnel_wireguard::wire::{DATA_HEADER_LEN, DATA_OVERHEAD, padded_len};
use tsrs_tunnel_wireguard::{Notice, Outgoing, Session};

use crate::buffer::{SUPERBUFFER_LEN, Superbuffer};
use crate::tables::PeerSlot;

/// Datagrams of a run at most: what one `UDP_SEGMENT` message may hold (data-plane sheet §1.10).
pub const MAX_RUN_DATAGRAMS: usize = 64;

/// Bytes of a run at most: the largest UDP payload over IPv4.
pub const MAX_RUN_BYTES: usize = 65_507;

/// Largest MTU with which every packet fits a run.
pub const MAX_MTU: u16 = 65_472;

const _: () = assert!(MAX_RUN_BYTES < SUPERBUFFER_LEN);
const _: () = assert!(MAX_MTU as usize + DATA_OVERHEAD <= MAX_RUN_BYTES);

/// A datagram that makes the last one of a run shorter than the others, and that every receiver drops.
const SHORT_TAIL: u8 = 0x07;

/// Runs with fewer datagrams are not damaged by kernels that damage runs of equal ones.
const MIN_RUN_FOR_TAIL: usize = 8;

/// Packets of one peer in wire layout, one behind the other:
///
/// ```text
/// | header 16 | packet | zeros | tag 16 |  header 16 | packet | zeros | tag 16 | …
/// |<------------ stride --------------->|
/// ```
///
/// All datagrams are `stride` bytes long but the last, which may be shorter and then closes the run. That is the layout
/// that the kernel cuts with `UDP_SEGMENT`.
#[derive(Debug)]
pub struct Run {
    buffer: Superbuffer,
    peer: Arc<PeerSlot>,
    session: Arc<Session>,
    path: SendPath,
    /// Bytes in use.
    len: usize,
    stride: usize,
    count: usize,
    max_count: usize,
    /// Bytes of the IP packets.
    packet_bytes: usize,
    /// A shorter datagram was added, or the run is full.
    closed: bool,
}

impl Run {
    pub(super) fn new(
        buffer: Superbuffer,
        peer: Arc<PeerSlot>,
        session: Arc<Session>,
        path: SendPath,
        equal_tail: bool,
    ) -> Self {
        let max_count = if equal_tail { MAX_RUN_DATAGRAMS } else { MAX_RUN_DATAGRAMS - 1 };
        Self {
            buffer,
            peer,
            session,
            path,
            len: 0,
            stride: 0,
            count: 0,
            max_count,
            packet_bytes: 0,
            closed: false,
        }
    }

    /// Where the run goes.
    pub fn peer(&self) -> &Arc<PeerSlot> {
        &self.peer
    }

    /// By which way, as it was when the run was begun.
    pub fn path(&self) -> SendPath {
        self.path
    }

    /// The datagrams, one behind the other.
    pub fn datagrams(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    /// Length of all datagrams but the last.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Number of packets in it.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the IP packets in it.
    pub fn packet_bytes(&self) -> usize {
        self.packet_bytes
    }

    /// Whether the run carries packets under this session and on this way, and may take more.
    pub(super) fn continues(&self, session: &Arc<Session>, path: SendPath) -> bool {
        !self.closed && Arc::ptr_eq(&self.session, session) && self.path == path
    }

    /// Whether it carries packets of this session.
    pub(super) fn is_of(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.session, session)
    }

    /// Adds segments from `next` on, as many as fit, and moves `next` behind them.
    pub(super) fn append(&mut self, packet: &SuperPacket<'_>, next: &mut usize, mtu: u16) {
        while *next < packet.count() && !self.closed {
            self.closed = !self.append_one(packet, *next, mtu);
            if !self.closed {
                *next += 1;
            }
            self.closed |= self.count == self.max_count;
        }
    }

    /// False when the segment does not fit. A shorter one fits and closes the run at the next call.
    fn append_one(&mut self, packet: &SuperPacket<'_>, index: usize, mtu: u16) -> bool {
        let len = packet.len_of(index);
        let text_len = padded_len(len, mtu);
        let wire_len = text_len + DATA_OVERHEAD;
        if self.count == 0 {
            self.stride = wire_len;
        }
        let ended = self.len != self.count * self.stride;
        if ended || wire_len > self.stride || self.len + wire_len > MAX_RUN_BYTES {
            return false;
        }
        let text_start = self.len + DATA_HEADER_LEN;
        let text = &mut self.buffer[text_start..text_start + text_len];
        if packet.write(index, text).is_none() {
            return false;
        }
        text[len..].fill(0);
        self.count += 1;
        self.len += wire_len;
        self.packet_bytes += len;
        true
    }

    /// Encrypts all packets in place. After an error nothing of the run may be sent.
    pub(super) fn seal(&mut self, now: Instant) -> Result<Notice, DropReason> {
        let mut messages = [Outgoing { start: 0, packet_len: 0, text_len: 0 }; MAX_RUN_DATAGRAMS];
        let messages = &mut messages[..self.count];
        for (index, message) in messages.iter_mut().enumerate() {
            let start = index * self.stride;
            let wire_len = self.stride.min(self.len - start);
            // The padding was written as zeros together with the packet.
            let text_len = wire_len - DATA_OVERHEAD;
            *message = Outgoing { start, packet_len: text_len, text_len };
        }
        let notice = self.session.seal(&mut self.buffer[..self.len], messages, now)?;
        self.closed = true;
        let equal = self.len == self.count * self.stride;
        if self.max_count < MAX_RUN_DATAGRAMS && equal && self.count >= MIN_RUN_FOR_TAIL {
            self.buffer[self.len] = SHORT_TAIL;
            self.len += 1;
        }
        Ok(notice)
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}
