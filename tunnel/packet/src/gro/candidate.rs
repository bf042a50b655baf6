//! One packet, seen as a possible part of a run.

use std::net::Ipv4Addr;

use crate::checksum::Sum;
use crate::gso::tcp_header_len;
use crate::ipv4::{HEADER_LEN, UDP_HEADER_LEN, be16, protocol, tcp_flag};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Udp,
}

/// A packet of a flow: TCP or UDP over IPv4 without options and without fragments.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) kind: Kind,
    /// Bytes of IP and transport header.
    pub(super) header_len: u16,
    pub(super) payload_len: usize,
    /// First sequence number; 0 for UDP.
    pub(super) sequence: u32,
    /// Ends a run: the receiver must see it at once.
    pub(super) push: bool,
    /// Whether it may be joined with others at all; otherwise it only keeps its place in the flow.
    pub(super) mergeable: bool,
    flow_hash: u32,
}

impl Candidate {
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let (ip, transport) = packet.split_first_chunk::<HEADER_LEN>()?;
        let whole = ip[0] == 0x45 && usize::from(be16(ip, 2)) == packet.len() && be16(ip, 6) & 0x3fff == 0;
        if !whole {
            return None;
        }
        let mut found = match ip[9] {
            protocol::TCP => Self::tcp(transport)?,
            protocol::UDP => Self::udp(transport)?,
            _ => return None,
        };
        let ports = u32::from_be_bytes([transport[0], transport[1], transport[2], transport[3]]);
        let word = |at: usize| u32::from_be_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        // The slot only decides which packets are compared, so a cheap mix is enough.
        let mixed =
            (word(12) ^ word(16).rotate_left(16) ^ ports ^ u32::from(ip[9])).wrapping_mul(0x9e37_79b1);
        found.flow_hash = mixed >> 16;
        Some(found)
    }

    fn tcp(transport: &[u8]) -> Option<Self> {
        let tcp_len = tcp_header_len(transport)?;
        let payload_len = transport.len() - tcp_len;
        let flags = transport[13];
        Some(Self {
            kind: Kind::Tcp,
            header_len: u16::try_from(HEADER_LEN + tcp_len).ok()?,
            payload_len,
            sequence: u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]),
            push: flags & tcp_flag::PSH != 0,
            mergeable: flags & !tcp_flag::PSH == tcp_flag::ACK && payload_len > 0,
            flow_hash: 0,
        })
    }

    fn udp(transport: &[u8]) -> Option<Self> {
        let payload_len = transport.len().checked_sub(UDP_HEADER_LEN)?;
        Some(Self {
            kind: Kind::Udp,
            header_len: u16::try_from(HEADER_LEN + UDP_HEADER_LEN).ok()?,
            payload_len,
            sequence: 0,
            push: false,
            mergeable: usize::from(be16(transport, 4)) == transport.len() && payload_len > 0,
            flow_hash: 0,
        })
    }

    pub(super) const fn slot(&self, slot_count: usize) -> usize {
        self.flow_hash as usize % slot_count
    }

    /// Whether `bytes`, which is this candidate, could stand in the same super-packet as `head`: everything that the
    /// segments share is equal.
    pub(super) fn same_headers(&self, head: &[u8], bytes: &[u8]) -> bool {
        // Type of service, don't-fragment bit, time to live and protocol, addresses, ports.
        let same_ip = head[1] == bytes[1] && head[6] == bytes[6] && head[8..10] == bytes[8..10];
        let same_flow = head[12..24] == bytes[12..24];
        if !(same_ip && same_flow) {
            return false;
        }
        match self.kind {
            Kind::Udp => true,
            // Acknowledgement number, data offset and reserved bits, options.
            Kind::Tcp => {
                let header_len = usize::from(self.header_len);
                head.len() >= header_len
                    && head[28..33] == bytes[28..33]
                    && head[40..header_len] == bytes[40..header_len]
            }
        }
    }
}

/// Whether the transport checksum of a candidate is right. UDP over IPv4 may leave it out.
pub(super) fn verifies(packet: &[u8]) -> bool {
    let (ip, transport) = packet.split_at(HEADER_LEN);
    if ip[9] == protocol::UDP && be16(transport, 6) == 0 {
        return true;
    }
    let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
    let Ok(transport_len) = u16::try_from(transport.len()) else {
        return false;
    };
    Sum::pseudo_header(address(12), address(16), ip[9], transport_len).bytes(transport).verifies()
}
