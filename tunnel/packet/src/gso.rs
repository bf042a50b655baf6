//! Cutting a super-packet of the kernel into the segments that go over the wire (data-plane sheet §1.9).

use std::ops::Range;

use crate::DropReason;
use crate::checksum::Sum;
use crate::ipv4::{HEADER_LEN, TCP_HEADER_LEN, UDP_HEADER_LEN, be16, protocol, tcp_flag};
use crate::vnet::{self, VirtioNetHdr};

/// A packet that was read from a TUN with offload: one segment or many, their checksums still to be made.
///
/// The segments are written one by one or as a run straight into the buffer from which they are sent; headers and
/// payload are copied once and summed while they are copied.
#[derive(Clone, Copy, Debug)]
pub struct SuperPacket<'a> {
    packet: &'a [u8],
    kind: Kind,
    /// Bytes of IP and transport header; 0 for a packet that is not cut.
    header_len: usize,
    /// Payload bytes of each segment but the last; the whole packet if it is not cut.
    payload_step: usize,
    count: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One packet that is complete.
    Plain,
    /// One packet whose checksum field, at `field`, holds the pseudo-header sum of what begins at `start`.
    Unsummed {
        start: usize,
        field: usize,
    },
    Tcp,
    Udp,
}

impl<'a> SuperPacket<'a> {
    /// Checks the offload header against the packet. IPv4 only: other packets are taken as they are if they need nothing.
    pub fn new(header: &VirtioNetHdr, packet: &'a [u8]) -> Result<Self, DropReason> {
        match header.gso_type & !vnet::GSO_ECN {
            vnet::GSO_NONE => Self::single(header, packet),
            vnet::GSO_TCPV4 => Self::segmented(header, packet, Kind::Tcp),
            vnet::GSO_UDP_L4 => Self::segmented(header, packet, Kind::Udp),
            _ => Err(DropReason::BadOffload),
        }
    }

    fn single(header: &VirtioNetHdr, packet: &'a [u8]) -> Result<Self, DropReason> {
        let mut kind = Kind::Plain;
        if header.needs_checksum() {
            let start = usize::from(header.csum_start);
            let field = start + usize::from(header.csum_offset);
            if start < HEADER_LEN || field + 2 > packet.len() {
                return Err(DropReason::BadOffload);
            }
            kind = Kind::Unsummed { start, field };
        }
        Ok(Self { packet, kind, header_len: 0, payload_step: packet.len(), count: 1 })
    }

    fn segmented(header: &VirtioNetHdr, packet: &'a [u8], kind: Kind) -> Result<Self, DropReason> {
        let bad = DropReason::BadOffload;
        let ip_len = ip_header_len(packet).ok_or(bad)?;
        let (wanted_protocol, csum_offset) = match kind {
            Kind::Tcp => (protocol::TCP, 16),
            Kind::Udp | Kind::Plain | Kind::Unsummed { .. } => (protocol::UDP, 6),
        };
        let fragmented = be16(packet, 6) & 0x3fff != 0;
        if packet[9] != wanted_protocol
            || fragmented
            || usize::from(header.csum_start) != ip_len
            || header.csum_offset != csum_offset
        {
            return Err(bad);
        }
        let transport = &packet[ip_len..];
        let transport_len = match kind {
            Kind::Tcp => tcp_header_len(transport).ok_or(bad)?,
            Kind::Udp | Kind::Plain | Kind::Unsummed { .. } => UDP_HEADER_LEN,
        };
        let header_len = ip_len + transport_len;
        let payload_step = usize::from(header.gso_size);
        if payload_step == 0 || packet.len() <= header_len || packet.len() > usize::from(u16::MAX) {
            return Err(bad);
        }
        let count = (packet.len() - header_len).div_ceil(payload_step);
        Ok(Self { packet, kind, header_len, payload_step, count })
    }

    /// How many packets it becomes.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the segment `index`: all but the last have the same length, the last is not longer.
    pub fn len_of(&self, index: usize) -> usize {
        self.header_len + self.payload_range(index).len()
    }

    /// Bytes of the longest segment, to be held against the MTU.
    pub fn max_len(&self) -> usize {
        self.len_of(0)
    }

    /// The packet as read: its addresses, ports and flags are those of every segment.
    pub const fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Writes the segment `index` to the start of `out` and gives its length; `None` if there is no such segment or no room.
    pub fn write(&self, index: usize, out: &mut [u8]) -> Option<usize> {
        if index >= self.count {
            return None;
        }
        let out = out.get_mut(..self.len_of(index))?;
        match self.kind {
            Kind::Plain => out.copy_from_slice(self.packet),
            Kind::Unsummed { start, field } => {
                out[..start].copy_from_slice(&self.packet[..start]);
                let sum = Sum::new().copy(&self.packet[start..], &mut out[start..]);
                put(out, field, non_zero_for_udp(self.packet[9], sum.checksum()));
            }
            Kind::Tcp | Kind::Udp => self.write_segment(index, out),
        }
        Some(out.len())
    }

    /// Writes the segments of `range` at equal distances: the k-th begins at `k * stride + headroom`. With a stride of
    /// header, padded segment and tag this is the layout of a run of data messages. `None` if something does not fit.
    pub fn write_run(
        &self,
        range: Range<usize>,
        out: &mut [u8],
        headroom: usize,
        stride: usize,
    ) -> Option<()> {
        for (position, index) in range.enumerate() {
            self.write(index, out.get_mut(position * stride + headroom..)?)?;
        }
        Some(())
    }

    fn payload_range(&self, index: usize) -> Range<usize> {
        let start = (self.header_len + index * self.payload_step).min(self.packet.len());
        start..(start + self.payload_step).min(self.packet.len())
    }

    /// `out` has exactly the length of the segment.
    fn write_segment(&self, index: usize, out: &mut [u8]) {
        let (head, payload) = out.split_at_mut(self.header_len);
        head.copy_from_slice(&self.packet[..self.header_len]);
        let total_len = clamp_u16(head.len() + payload.len());
        let ip_len = usize::from(head[0] & 0x0f) * 4;
        let (ip, transport) = head.split_at_mut(ip_len);

        put(ip, 2, total_len);
        let index_u16 = clamp_u16(index);
        let id = be16(ip, 4).wrapping_add(index_u16);
        put(ip, 4, id);
        put(ip, 10, 0);
        let ip_checksum = Sum::new().bytes(ip).checksum();
        put(ip, 10, ip_checksum);

        let transport_len = total_len - clamp_u16(ip_len);
        let field = if self.kind == Kind::Tcp {
            patch_tcp(transport, index, index + 1 == self.count, self.payload_step);
            16
        } else {
            put(transport, 4, transport_len);
            6
        };
        put(transport, field, 0);
        let sum = Sum::new()
            .bytes(&ip[12..20])
            .word(u16::from(ip[9]))
            .word(transport_len)
            .bytes(transport)
            .copy(&self.packet[self.payload_range(index)], payload);
        put(transport, field, non_zero_for_udp(ip[9], sum.checksum()));
    }
}

/// Sequence number and flags of one segment: FIN and PSH belong to the last one, CWR to the first (RFC 3168 §6.1.2).
fn patch_tcp(tcp: &mut [u8], index: usize, last: bool, payload_step: usize) {
    let mut sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    // A packet is at most 64 KiB, so the offset always fits.
    sequence = sequence.wrapping_add(u32::try_from(index * payload_step).unwrap_or(0));
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    if !last {
        tcp[13] &= !(tcp_flag::FIN | tcp_flag::PSH);
    }
    if index > 0 {
        tcp[13] &= !tcp_flag::CWR;
    }
}

/// Bytes of the IPv4 header if the packet begins with a whole one.
pub(crate) fn ip_header_len(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let len = usize::from(first & 0x0f) * 4;
    (first >> 4 == 4 && len >= HEADER_LEN && packet.len() >= len).then_some(len)
}

/// Bytes of the TCP header if the data begins with a whole one.
pub(crate) fn tcp_header_len(transport: &[u8]) -> Option<usize> {
    let len = usize::from(*transport.get(12)? >> 4) * 4;
    (len >= TCP_HEADER_LEN && transport.len() >= len).then_some(len)
}

/// A UDP checksum of zero would mean "none" (RFC 768); its other form is sent.
pub(crate) const fn non_zero_for_udp(ip_protocol: u8, checksum: u16) -> u16 {
    if ip_protocol == protocol::UDP && checksum == 0 { 0xffff } else { checksum }
}

pub(crate) fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}

/// For lengths that were checked to be at most 65,535.
fn clamp_u16(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
