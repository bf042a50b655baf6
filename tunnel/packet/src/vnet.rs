//! The offload header that stands before each packet on a TUN with `IFF_VNET_HDR`.

/// `struct virtio_net_hdr` (linux/virtio_net.h), all fields in native byte order:
///
/// ```text
/// | flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16 |
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHdr {
    /// [`NEEDS_CSUM`] or 0.
    pub flags: u8,
    /// One of the `GSO_*` values, perhaps with [`GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers. Kernels deliver wrong values: never read it.
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// Where the transport header begins, in bytes from the start of the packet.
    pub csum_start: u16,
    /// Where its checksum field lies, in bytes from `csum_start`.
    pub csum_offset: u16,
}

/// Bytes of the header.
pub const LEN: usize = 10;
/// The checksum field holds only the folded pseudo-header sum; whoever sends the packet out completes it.
pub const NEEDS_CSUM: u8 = 1;
/// A single packet.
pub const GSO_NONE: u8 = 0;
/// A run of TCP segments over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// A run of TCP segments over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// A run of UDP datagrams.
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type when the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

impl VirtioNetHdr {
    /// Splits what was read from a TUN into header and packet. `None` if it is shorter than a header.
    pub fn split(read: &[u8]) -> Option<(Self, &[u8])> {
        let (head, packet) = read.split_first_chunk::<LEN>()?;
        Some((Self::from_bytes(head), packet))
    }

    /// From its bytes.
    pub const fn from_bytes(raw: &[u8; LEN]) -> Self {
        Self {
            flags: raw[0],
            gso_type: raw[1],
            hdr_len: u16::from_ne_bytes([raw[2], raw[3]]),
            gso_size: u16::from_ne_bytes([raw[4], raw[5]]),
            csum_start: u16::from_ne_bytes([raw[6], raw[7]]),
            csum_offset: u16::from_ne_bytes([raw[8], raw[9]]),
        }
    }

    /// Its bytes.
    pub const fn to_bytes(self) -> [u8; LEN] {
        let [hdr0, hdr1] = self.hdr_len.to_ne_bytes();
        let [size0, size1] = self.gso_size.to_ne_bytes();
        let [start0, start1] = self.csum_start.to_ne_bytes();
        let [offset0, offset1] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, hdr0, hdr1, size0, size1, start0, start1, offset0, offset1]
    }

    /// Whether the checksum still has to be completed.
    pub const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_short_reads_are_refused() {
        let header = VirtioNetHdr {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 0x0102,
            gso_size: 1228,
            csum_start: 20,
            csum_offset: 16,
        };
        let mut read = header.to_bytes().to_vec();
        assert_eq!(u16::from_ne_bytes([read[4], read[5]]), 1228);
        assert_eq!(VirtioNetHdr::split(&read), Some((header, &[][..])));
        read.push(0x45);
        assert_eq!(VirtioNetHdr::split(&read), Some((header, &[0x45][..])));
        for len in 0..LEN {
            assert_eq!(VirtioNetHdr::split(&read[..len]), None);
        }
    }
}
