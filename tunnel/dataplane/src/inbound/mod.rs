//! Path 2: from the wire to the host (design.md §4).
//!
//! One worker owns an [`Inbound`]. It gives each buffer that the socket or a relay filled to [`Inbound::open`] and then
//! writes what [`Inbound::coalesce`] has joined. Nothing is copied: packets are opened where they lie.

mod accept;

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::gro::{self, Gro};
use tsrs_tunnel_path::{Datagram, Source, classify};
use tsrs_tunnel_wireguard::wire::{DATA_OVERHEAD, Kind};
use tsrs_tunnel_wireguard::{self as wireguard, Incoming, Outcome};

use crate::buffer::Superbuffer;
use crate::notice::Notice;
use crate::outbound::MAX_RUN_DATAGRAMS;
use crate::shared::Shared;
use crate::tables::{Receiver, Receivers, Routes};

/// Longest datagram that is handed to the machine. Handshake messages and STUN answers are far below; padded disco pings
/// reach the size of a jumbo frame (data-plane sheet §2.5).
const MAX_NOTICE_LEN: usize = 9_000;

/// Where the datagrams of one buffer lie.
#[derive(Clone, Copy, Debug)]
pub enum Layout<'a> {
    /// `len` bytes, cut every `stride` bytes; the last datagram may be shorter.
    Even {
        /// Bytes in use.
        len: usize,
        /// Length of each datagram.
        stride: usize,
    },
    /// Each datagram reaches to its end, from the end of the one before.
    Ends(&'a [usize]),
}

impl Layout<'_> {
    /// The range of the datagram `index`.
    fn range(&self, index: usize) -> Option<Range<usize>> {
        match *self {
            Self::Even { len, stride } => {
                let start = index.checked_mul(stride.max(1))?;
                (start < len).then(|| start..len.min(start + stride.max(1)))
            }
            Self::Ends(ends) => {
                let end = *ends.get(index)?;
                let start = index.checked_sub(1).map_or(0, |before| ends[before]);
                Some(start..end)
            }
        }
    }
}

/// An inner packet that goes to the host.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    /// Which buffer of the batch.
    buffer: usize,
    start: usize,
    len: usize,
}

/// The incoming side of the fast path.
#[derive(Debug)]
pub struct Inbound {
    shared: Arc<Shared>,
    /// Data messages of one session that lie one behind the other.
    messages: Vec<Incoming>,
    accepted: Vec<Accepted>,
    kept_bytes: usize,
    gro: Gro,
}

impl Inbound {
    /// For one worker.
    pub fn new(shared: Arc<Shared>) -> Self {
        let options = gro::Options { tcp: true, udp: true };
        Self {
            shared,
            messages: Vec::with_capacity(MAX_RUN_DATAGRAMS),
            accepted: Vec::new(),
            kept_bytes: 0,
            gro: Gro::new(options),
        }
    }

    /// What the TUN takes in runs.
    pub fn set_gro(&mut self, options: gro::Options) {
        self.gro.set_options(options);
    }

    /// Opens the datagrams of one buffer, and keeps what is for the host. `index` names the buffer in the batch.
    pub fn open(
        &mut self,
        tables: (&Routes, &Receivers),
        (index, buffer): (usize, &mut Superbuffer),
        layout: Layout<'_>,
        source: Source,
        now: Instant,
    ) {
        let mut receiver_index = None;
        let mut datagram_count = 0;
        while let Some(range) = layout.range(datagram_count) {
            datagram_count += 1;
            let Some(datagram) = buffer.get(range.clone()) else { break };
            let Some(receiver) = data_receiver(datagram) else {
                self.divert(datagram, source);
                continue;
            };
            if receiver_index != Some(receiver) || self.messages.len() == MAX_RUN_DATAGRAMS {
                self.open_run(tables, receiver_index, (index, buffer), source, now);
                receiver_index = Some(receiver);
            }
            self.messages.push(Incoming::new(range.start, range.len()));
        }
        self.open_run(tables, receiver_index, (index, buffer), source, now);
        self.shared.inbound.wire_runs.add(datagram_count);
    }

    /// Everything that is not data is the machine's.
    fn divert(&self, datagram: &[u8], source: Source) {
        let notices = &self.shared.notices;
        let taken = match classify(datagram) {
            // A single byte is the tail that some senders add to a run.
            _ if datagram.len() <= 1 => return,
            _ if datagram.len() > MAX_NOTICE_LEN => None,
            Datagram::Stun | Datagram::Disco => {
                Some(notices.push(Notice::Datagram { source, datagram: datagram.into() }))
            }
            Datagram::WireGuard if Kind::of(datagram).is_some() => {
                Some(notices.push_handshake(source, datagram))
            }
            // Peer relays are not offered, so nobody sends Geneve.
            Datagram::WireGuard | Datagram::Geneve(_) => None,
        };
        let dropped = match taken {
            Some(true) => return,
            Some(false) => DropReason::SlowPathFull,
            None => DropReason::BadMessage,
        };
        self.shared.inbound.drop_packets(dropped, 1);
    }

    /// Decrypts the collected messages, which are all of one session, in one go.
    fn open_run(
        &mut self,
        (routes, receivers): (&Routes, &Receivers),
        receiver_index: Option<u32>,
        (index, buffer): (usize, &mut Superbuffer),
        source: Source,
        now: Instant,
    ) {
        let Some(receiver_index) = receiver_index.filter(|_| !self.messages.is_empty()) else { return };
        match receivers.get(receiver_index) {
            None => self.shared.inbound.drop_packets(DropReason::UnknownIndex, self.messages.len()),
            Some(receiver) => {
                if receiver.session.open(buffer, &mut self.messages, now) == wireguard::Notice::Wake {
                    self.shared.notices.push_session(&receiver.session);
                }
                self.accept_run(routes, receiver, (index, buffer), source, now);
            }
        }
        self.messages.clear();
    }

    /// Decides about each packet that was opened.
    fn accept_run(
        &mut self,
        routes: &Routes,
        receiver: &Receiver,
        (index, buffer): (usize, &mut Superbuffer),
        source: Source,
        now: Instant,
    ) {
        let mut gate = accept::Gate::new(routes, &receiver.peer, &self.shared);
        let (mut packet_count, mut byte_count, mut authentic) = (0, 0, false);
        for message in &self.messages {
            match message.outcome {
                Outcome::Keepalive => authentic = true,
                Outcome::Dropped(reason) => self.shared.inbound.drop_packets(reason, 1),
                Outcome::Pending | Outcome::Packet { .. } => {}
            }
            let Some(range) = message.packet_range() else { continue };
            authentic = true;
            packet_count += 1;
            byte_count += range.len();
            if gate.passes(&buffer[range.clone()]) {
                self.accepted.push(Accepted { buffer: index, start: range.start, len: range.len() });
                self.kept_bytes += range.len();
            }
        }
        if authentic {
            receiver.peer.note_received(packet_count, byte_count, now);
            let traffic = match source {
                Source::Udp(_) => &self.shared.inbound.direct,
                Source::Derp { .. } => &self.shared.inbound.derp,
            };
            traffic.add(packet_count as u64, byte_count as u64);
        }
    }

    /// Bytes of the packets that were kept since the last [`Self::coalesce`].
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Ends a batch: joins packets of one flow and gives each write for the TUN to `write`, as the offload header with
    /// rewritten headers, and the pieces behind it.
    pub fn coalesce(&mut self, buffers: &[Superbuffer], mut write: impl FnMut(Write<'_>)) {
        let accepted = &self.accepted;
        let packet = |at: u32| -> &[u8] {
            let found = usize::try_from(at).ok().and_then(|at| accepted.get(at));
            found
                .and_then(|found| buffers.get(found.buffer)?.get(found.start..found.start + found.len))
                .unwrap_or_default()
        };
        self.gro.coalesce(u32::try_from(accepted.len()).unwrap_or(u32::MAX), packet);
        for run in self.gro.runs() {
            let head = run.head(packet(run.first_packet()));
            let mut pieces = [&[][..]; MAX_PIECES];
            let mut count = 0;
            for (piece, slice) in pieces.iter_mut().zip(run.slices()) {
                *piece = packet(slice.packet).get(usize::from(slice.start)..).unwrap_or_default();
                count += 1;
            }
            self.shared.inbound.tun_runs.add(count);
            write(Write { head: head.bytes(), pieces: &pieces[..count] });
        }
        self.accepted.clear();
        self.kept_bytes = 0;
        self.shared.notices.flush();
    }
}

/// Pieces of one write at most.
pub const MAX_PIECES: usize = gro::MAX_RUN_PACKETS as usize;

/// One packet for the TUN, or several of one flow as one.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// Offload header and headers of a run; the offload header alone for a single packet.
    pub head: &'a [u8],
    /// What follows: the whole packet, or the payloads of a run.
    pub pieces: &'a [&'a [u8]],
}

/// The receiver index if the datagram is a data message. No other kind of datagram begins like one.
fn data_receiver(datagram: &[u8]) -> Option<u32> {
    let &[4, 0, 0, 0, a, b, c, d] = datagram.first_chunk()? else { return None };
    (datagram.len() >= DATA_OVERHEAD).then(|| u32::from_le_bytes([a, b, c, d]))
}
