//! A run of packets and how it is written.

use std::net::Ipv4Addr;

use super::candidate::{Candidate, Kind};
use super::{Link, MAX_RUN_PACKETS};
use crate::checksum::Sum;
use crate::gso::put;
use crate::ipv4::{HEADER_LEN, tcp_flag};
use crate::vnet::{self, VirtioNetHdr};

/// Most bytes before the first payload: offload header, IPv4 without options, TCP with all its options.
pub const MAX_HEAD_LEN: usize = vnet::LEN + HEADER_LEN + 60;

pub(super) const NO_PACKET: u32 = u32::MAX;

/// One write to the TUN: a single packet, or several as one super-packet.
#[derive(Clone, Copy, Debug)]
pub struct Run<'g> {
    pub(super) state: &'g RunState,
    pub(super) links: &'g [Link],
}

/// What stands before the payloads.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; MAX_HEAD_LEN],
    len: usize,
}

/// The part of a packet that belongs to the write: all from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Number of the packet in its batch.
    pub packet: u32,
    /// First byte that is written.
    pub start: u16,
}

impl Head {
    /// The bytes to write first.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Run<'_> {
    /// Number of the packet whose headers the run has.
    pub const fn first_packet(&self) -> u32 {
        self.state.first
    }

    /// How many packets are in it.
    pub const fn packet_count(&self) -> u16 {
        self.state.packet_count
    }

    /// Offload header and rewritten packet headers, made from the bytes of [`Self::first_packet`]. For a single packet the
    /// offload header alone: its slice is the whole packet.
    pub fn head(&self, first_packet: &[u8]) -> Head {
        let mut head = Head { bytes: [0; MAX_HEAD_LEN], len: vnet::LEN };
        let header_len = usize::from(self.state.header_len);
        if self.state.packet_count < 2
            || header_len > MAX_HEAD_LEN - vnet::LEN
            || header_len > first_packet.len()
        {
            return head;
        }
        head.len += header_len;
        let (offload, headers) = head.bytes[..vnet::LEN + header_len].split_at_mut(vnet::LEN);
        headers.copy_from_slice(&first_packet[..header_len]);
        offload.copy_from_slice(&self.state.rewrite(headers).to_bytes());
        head
    }

    /// What is written behind the head, in this order.
    pub fn slices(&self) -> impl Iterator<Item = Slice> + '_ {
        let whole = self.state.packet_count < 2;
        let link = |packet: u32| usize::try_from(packet).ok().and_then(|at| self.links.get(at));
        let follow =
            move |packet: &u32| link(*packet).map(|found| found.next).filter(|next| *next != NO_PACKET);
        std::iter::successors(Some(self.state.first), follow).map(move |packet| Slice {
            packet,
            start: if whole { 0 } else { link(packet).map_or(0, |found| found.payload_start) },
        })
    }
}

/// Where a packet can be added.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Front,
    Back,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RunState {
    pub(super) first: u32,
    last: u32,
    pub(super) packet_count: u16,
    kind: Kind,
    header_len: u16,
    /// Bytes of headers and payload.
    pub(super) total_len: usize,
    /// Payload bytes of each packet but the last.
    gso_size: usize,
    first_sequence: u32,
    next_sequence: u32,
    /// The last packet carries PSH.
    push: bool,
    /// Nothing can follow: the last packet was short or carries PSH.
    ended: bool,
    /// The checksum of the first packet was found right.
    pub(super) verified: bool,
}

impl RunState {
    /// A packet that nothing can join.
    pub(super) const fn single(index: u32) -> Self {
        Self {
            first: index,
            last: index,
            packet_count: 1,
            kind: Kind::Udp,
            header_len: 0,
            total_len: 0,
            gso_size: 0,
            first_sequence: 0,
            next_sequence: 0,
            push: false,
            ended: true,
            verified: false,
        }
    }

    /// A packet that others may join.
    pub(super) fn open(index: u32, candidate: &Candidate) -> Self {
        Self {
            kind: candidate.kind,
            header_len: candidate.header_len,
            total_len: usize::from(candidate.header_len) + candidate.payload_len,
            gso_size: candidate.payload_len,
            first_sequence: candidate.sequence,
            next_sequence: candidate.end_sequence(),
            push: candidate.push,
            ended: candidate.push,
            ..Self::single(index)
        }
    }

    /// Where the packet, whose shared headers are known to be equal, continues the run.
    pub(super) fn place_for(&self, candidate: &Candidate) -> Option<Place> {
        let payload_len = candidate.payload_len;
        let follows = match self.kind {
            Kind::Udp => true,
            Kind::Tcp => candidate.sequence == self.next_sequence,
        };
        if follows && !self.ended && payload_len <= self.gso_size {
            return Some(Place::Back);
        }
        // A longer packet may only stand before a single one, which then is the short last one.
        let size_fits =
            payload_len == self.gso_size || (self.packet_count == 1 && payload_len > self.gso_size);
        let precedes = self.kind == Kind::Tcp && candidate.end_sequence() == self.first_sequence;
        (precedes && size_fits && !candidate.push).then_some(Place::Front)
    }

    pub(super) fn merge(&mut self, place: Place, index: u32, candidate: &Candidate, links: &mut [Link]) {
        let link = |packet: u32| usize::try_from(packet).unwrap_or(usize::MAX);
        match place {
            Place::Back => {
                if let Some(last) = links.get_mut(link(self.last)) {
                    last.next = index;
                }
                self.last = index;
                self.next_sequence = candidate.end_sequence();
                self.push = candidate.push;
                self.ended = candidate.push || candidate.payload_len < self.gso_size;
            }
            Place::Front => {
                if let Some(new) = links.get_mut(link(index)) {
                    new.next = self.first;
                }
                self.first = index;
                self.first_sequence = candidate.sequence;
                self.ended |= candidate.payload_len > self.gso_size;
                self.gso_size = candidate.payload_len;
            }
        }
        self.packet_count += 1;
        self.total_len += candidate.payload_len;
        debug_assert!(self.packet_count <= MAX_RUN_PACKETS);
    }

    /// Makes the headers of the first packet those of the whole run. The checksum is left to the kernel, so its field gets
    /// the pseudo-header sum.
    fn rewrite(&self, headers: &mut [u8]) -> VirtioNetHdr {
        let total_len = u16::try_from(self.total_len).unwrap_or(u16::MAX);
        let (ip, transport) = headers.split_at_mut(HEADER_LEN);
        put(ip, 2, total_len);
        put(ip, 10, 0);
        let ip_checksum = Sum::new().bytes(ip).checksum();
        put(ip, 10, ip_checksum);
        let transport_len = total_len - 20;
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let pseudo = Sum::pseudo_header(address(12), address(16), ip[9], transport_len).fold();
        let (gso_type, csum_offset) = match self.kind {
            Kind::Tcp => {
                if self.push {
                    transport[13] |= tcp_flag::PSH;
                }
                (vnet::GSO_TCPV4, 16)
            }
            Kind::Udp => {
                put(transport, 4, transport_len);
                (vnet::GSO_UDP_L4, 6)
            }
        };
        put(transport, csum_offset, pseudo);
        VirtioNetHdr {
            flags: vnet::NEEDS_CSUM,
            gso_type,
            hdr_len: self.header_len,
            gso_size: u16::try_from(self.gso_size).unwrap_or(u16::MAX),
            csum_start: 20,
            csum_offset: if self.kind == Kind::Tcp { 16 } else { 6 },
        }
    }
}

impl Candidate {
    /// The sequence number behind its payload.
    fn end_sequence(&self) -> u32 {
        // A packet is at most 64 KiB, so its length always fits.
        self.sequence.wrapping_add(u32::try_from(self.payload_len).unwrap_or(0))
    }
}
