//! One pair of keys, used by the workers without the device.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tsrs_base_aead::{Implementation, Key, Record, TAG_LEN};
use tsrs_base_types::NodePublic;
use tsrs_tunnel_packet::DropReason;

use crate::activity::{Activity, Notice};
use crate::limits::{
    MAX_RECORDS_PER_CALL, RECEIVE_REKEY_AFTER, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES, REKEY_AFTER_TIME,
};
use crate::replay::ReplayWindow;
use crate::wire::{DATA_HEADER_LEN, DATA_OVERHEAD, Kind, field, inner_len, padded_len};

/// Who began the handshake of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We did; only we renew it by time.
    Initiator,
    /// The peer did; we may send only after its first data message.
    Responder,
}

/// A session of one peer. Workers share it; every method works on whole batches.
///
/// Sending takes no lock. Receiving locks the replay window once per batch: two workers that receive for one session
/// at the same time are safe and only wait for each other.
pub struct Session {
    peer: NodePublic,
    local_index: u32,
    remote_index: u32,
    role: Role,
    created: Instant,
    send_key: Key,
    send_counter: AtomicU64,
    receive_key: Key,
    window: Mutex<ReplayWindow>,
    activity: Arc<Activity>,
    revoked: AtomicBool,
    /// Bits of [`flag`]; each is set once.
    flags: AtomicU8,
}

mod flag {
    /// The peer has proven that it has the keys.
    pub(super) const CONFIRMED: u8 = 1;
    /// The device was told that the session wants a successor because of what was sent.
    pub(super) const REKEY_BY_SEND: u8 = 2;
    /// The same because of what was received.
    pub(super) const REKEY_BY_RECEIVE: u8 = 4;
}

/// Counters for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The first of them; the others follow.
    pub first: u64,
}

/// A data message to be sealed: in the buffer lie 16 bytes of header, the packet, its padding and 16 bytes for the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// First byte of the header.
    pub start: usize,
    /// Bytes of the packet; 0 for a keepalive.
    pub packet_len: usize,
    /// Bytes of the packet and its padding.
    pub text_len: usize,
}

impl Outgoing {
    /// A packet of `packet_len` bytes that was written behind the header, padded for a TUN of this MTU.
    pub fn new(start: usize, packet_len: usize, mtu: u16) -> Self {
        Self { start, packet_len, text_len: padded_len(packet_len, mtu) }
    }

    /// Bytes of the datagram.
    pub const fn datagram_len(&self) -> usize {
        self.text_len.saturating_add(DATA_OVERHEAD)
    }

    /// Whether it is a keepalive.
    pub const fn is_keepalive(&self) -> bool {
        self.packet_len == 0
    }
}

/// A data message to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// First byte of the header.
    pub start: usize,
    /// Bytes of the datagram.
    pub len: usize,
    /// What became of it, set by [`Session::open`].
    pub outcome: Outcome,
}

/// What became of a received data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not opened yet.
    Pending,
    /// An IP packet of this many bytes lies behind the header; padding is cut off.
    Packet {
        /// Bytes of the packet.
        len: usize,
    },
    /// A keepalive: authentic and empty.
    Keepalive,
    /// To be dropped and counted. What lies in the buffer must not be read.
    Dropped(DropReason),
}

impl Incoming {
    /// A datagram that was not opened yet.
    pub const fn new(start: usize, len: usize) -> Self {
        Self { start, len, outcome: Outcome::Pending }
    }

    /// Where the inner packet lies, if there is one.
    pub const fn packet_range(&self) -> Option<Range<usize>> {
        match self.outcome {
            Outcome::Packet { len } => Some(self.start + DATA_HEADER_LEN..self.start + DATA_HEADER_LEN + len),
            Outcome::Pending | Outcome::Keepalive | Outcome::Dropped(_) => None,
        }
    }
}

/// What a new session is made of.
pub(crate) struct SessionParts<'a> {
    pub(crate) peer: NodePublic,
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) role: Role,
    pub(crate) created: Instant,
    pub(crate) send_key: &'a [u8; 32],
    pub(crate) receive_key: &'a [u8; 32],
    pub(crate) cipher: Implementation,
    pub(crate) activity: Arc<Activity>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("local_index", &self.local_index)
            .field("remote_index", &self.remote_index)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(parts: SessionParts<'_>) -> Self {
        let flags = match parts.role {
            // The response authenticated the peer.
            Role::Initiator => flag::CONFIRMED,
            Role::Responder => 0,
        };
        Self {
            peer: parts.peer,
            local_index: parts.local_index,
            remote_index: parts.remote_index,
            role: parts.role,
            created: parts.created,
            send_key: Key::new(parts.send_key, parts.cipher),
            send_counter: AtomicU64::new(0),
            receive_key: Key::new(parts.receive_key, parts.cipher),
            window: Mutex::new(ReplayWindow::default()),
            activity: parts.activity,
            revoked: AtomicBool::new(false),
            flags: AtomicU8::new(flags),
        }
    }

    /// The peer at the other end.
    pub const fn peer(&self) -> NodePublic {
        self.peer
    }

    /// Our index: the receiver index of the messages that we get.
    pub const fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The peer's index.
    pub const fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Who began the handshake.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// When the handshake ended for us.
    pub const fn created(&self) -> Instant {
        self.created
    }

    /// Whether the key is too old, or the device has withdrawn it.
    pub fn is_expired(&self, now: Instant) -> bool {
        self.revoked.load(Ordering::Relaxed) || self.age(now) >= REJECT_AFTER_TIME
    }

    /// Takes the counters of a batch. Fails when the session must not send: the packets then go to the device, which makes a
    /// new session.
    pub fn reserve(&self, count: u32, now: Instant) -> Result<Reserved, DropReason> {
        if self.is_expired(now) || !self.has(flag::CONFIRMED) {
            return Err(DropReason::SessionExpired);
        }
        let count = u64::from(count);
        let usable = |first: u64| first <= REJECT_AFTER_MESSAGES.saturating_sub(count);
        // Looked at first, so that refused batches do not drive the counter on until it wraps.
        if !usable(self.send_counter.load(Ordering::Relaxed)) {
            return Err(DropReason::CounterExhausted);
        }
        let first = self.send_counter.fetch_add(count, Ordering::Relaxed);
        if usable(first) { Ok(Reserved { first }) } else { Err(DropReason::CounterExhausted) }
    }

    /// Writes headers and padding and seals the texts in place; the k-th message gets the k-th reserved counter. `false` if a
    /// message does not lie within the buffer: nothing of the batch may then be sent.
    pub fn seal_reserved(&self, reserved: Reserved, buffer: &mut [u8], messages: &[Outgoing]) -> bool {
        let mut counter = reserved.first;
        let mut sealed = true;
        for chunk in messages.chunks(MAX_RECORDS_PER_CALL) {
            let mut records = [Record::default(); MAX_RECORDS_PER_CALL];
            for (record, message) in records.iter_mut().zip(chunk) {
                let start = message.start.saturating_add(DATA_HEADER_LEN);
                *record = Record { start, text_len: message.text_len, counter, done: false };
                sealed &= self.prepare(buffer, message, counter).is_some();
                counter = counter.wrapping_add(1);
            }
            let records = &mut records[..chunk.len()];
            self.send_key.seal(buffer, records);
            sealed &= records.iter().all(|record| record.done);
        }
        sealed
    }

    /// Tells the timers what was sent: `bytes` on the wire, `data` if any message was not a keepalive.
    pub fn note_sent(&self, data: bool, bytes: usize, now: Instant) -> Notice {
        let wants_rekey = self.send_counter.load(Ordering::Relaxed) > REKEY_AFTER_MESSAGES
            || (self.role == Role::Initiator && self.age(now) >= REKEY_AFTER_TIME);
        let rekey = Notice::when(wants_rekey && self.set(flag::REKEY_BY_SEND));
        rekey.or(self.activity.note_sent(data, bytes, now))
    }

    /// [`Self::reserve`], [`Self::seal_reserved`] and [`Self::note_sent`] for a batch that is sent at once.
    pub fn seal(&self, buffer: &mut [u8], messages: &[Outgoing], now: Instant) -> Result<Notice, DropReason> {
        let count = u32::try_from(messages.len()).map_err(|_| DropReason::TooBig)?;
        let reserved = self.reserve(count, now)?;
        if !self.seal_reserved(reserved, buffer, messages) {
            return Err(DropReason::TooBig);
        }
        let data = messages.iter().any(|message| !message.is_keepalive());
        let bytes = messages.iter().map(Outgoing::datagram_len).sum();
        Ok(self.note_sent(data, bytes, now))
    }

    /// Opens data messages of this session in place and sets the outcome of each. Counters are checked after authentication and
    /// in the order of the batch.
    pub fn open(&self, buffer: &mut [u8], messages: &mut [Incoming], now: Instant) -> Notice {
        if self.is_expired(now) {
            for message in messages {
                message.outcome = Outcome::Dropped(DropReason::SessionExpired);
            }
            return Notice::Quiet;
        }
        let mut notice = Notice::Quiet;
        for chunk in messages.chunks_mut(MAX_RECORDS_PER_CALL) {
            notice = notice.or(self.open_chunk(buffer, chunk, now));
        }
        notice
    }

    fn open_chunk(&self, buffer: &mut [u8], messages: &mut [Incoming], now: Instant) -> Notice {
        let mut records = [Record::default(); MAX_RECORDS_PER_CALL];
        let records = &mut records[..messages.len()];
        for (record, message) in records.iter_mut().zip(&*messages) {
            // A message that is not one becomes a record that lies nowhere.
            *record = record_of(buffer, message).unwrap_or(Record { start: usize::MAX, ..Record::default() });
        }
        self.receive_key.open(buffer, records);

        let (mut any, mut any_data, mut bytes) = (false, false, 0);
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        for (record, message) in records.iter().zip(messages) {
            message.outcome = if !record.done {
                Outcome::Dropped(DropReason::Unauthenticated)
            } else if !window.accept(record.counter) {
                Outcome::Dropped(DropReason::Replay)
            } else {
                any = true;
                any_data |= record.text_len > 0;
                bytes += message.len;
                let text = buffer.get(record.start..record.start + record.text_len);
                outcome_of(text.unwrap_or_default())
            };
        }
        drop(window);
        if any { self.note_received(any_data, bytes, now) } else { Notice::Quiet }
    }

    fn note_received(&self, data: bool, bytes: usize, now: Instant) -> Notice {
        let confirmed = Notice::when(self.set(flag::CONFIRMED));
        let wants_rekey = data && self.role == Role::Initiator && self.age(now) >= RECEIVE_REKEY_AFTER;
        let rekey = Notice::when(wants_rekey && self.set(flag::REKEY_BY_RECEIVE));
        confirmed.or(rekey).or(self.activity.note_received(data, bytes, now))
    }

    /// Writes header and padding. What a buffer held before must not get into the padding.
    fn prepare(&self, buffer: &mut [u8], message: &Outgoing, counter: u64) -> Option<()> {
        let (header, text) = buffer.get_mut(message.start..)?.split_first_chunk_mut::<DATA_HEADER_LEN>()?;
        header[..4].copy_from_slice(&Kind::Data.type_bytes());
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        text.get_mut(message.packet_len..message.text_len)?.fill(0);
        Some(())
    }

    fn age(&self, now: Instant) -> std::time::Duration {
        now.saturating_duration_since(self.created)
    }

    /// From here on the keys are not used, whoever still holds the session.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.has(flag::CONFIRMED)
    }

    /// Whether traffic asked for a successor.
    pub(crate) fn wants_rekey(&self) -> bool {
        self.has(flag::REKEY_BY_SEND) || self.has(flag::REKEY_BY_RECEIVE)
    }

    fn has(&self, bit: u8) -> bool {
        self.flags.load(Ordering::Acquire) & bit != 0
    }

    /// Sets a bit; whether it was clear.
    fn set(&self, bit: u8) -> bool {
        !self.has(bit) && self.flags.fetch_or(bit, Ordering::AcqRel) & bit == 0
    }

    /// Moves the send counter, to reach its limits without sending.
    #[cfg(test)]
    pub(crate) fn set_send_counter(&self, counter: u64) {
        self.send_counter.store(counter, Ordering::Relaxed);
    }
}

fn record_of(buffer: &[u8], message: &Incoming) -> Option<Record> {
    let datagram = buffer.get(message.start..message.start.checked_add(message.len)?)?;
    if Kind::of(datagram)? != Kind::Data {
        return None;
    }
    Some(Record {
        start: message.start + DATA_HEADER_LEN,
        text_len: message.len - DATA_HEADER_LEN - TAG_LEN,
        counter: u64::from_le_bytes(field(datagram, 8)?),
        done: false,
    })
}

fn outcome_of(text: &[u8]) -> Outcome {
    if text.is_empty() {
        return Outcome::Keepalive;
    }
    match inner_len(text) {
        Some(len) => Outcome::Packet { len },
        None => Outcome::Dropped(DropReason::BadInnerLength),
    }
}
