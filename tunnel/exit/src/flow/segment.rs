//! TCP segments in IPv4 packets (RFC 9293 §3.1).

use std::net::{Ipv4Addr, SocketAddrV4};

use tsrs_tunnel_packet::checksum::Sum;
use tsrs_tunnel_packet::ipv4::{Class, HEADER_LEN, Parsed, TCP_HEADER_LEN, protocol, tcp_flag};
use tsrs_tunnel_packet::vnet::{GSO_NONE, GSO_TCPV4, NEEDS_CSUM, VirtioNetHdr};

use super::seq::Seq;

/// Most blocks of a SACK option (RFC 2018 §3).
pub(super) const MAX_SACK_COUNT: usize = 4;

const TTL: u8 = 64;
const OPTION_END: u8 = 0;
const OPTION_NONE: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
const OPTION_SACK: u8 = 5;
/// Largest shift that counts (RFC 7323 §2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// A range of sequence numbers; the end is not part of it.
pub(super) type Range = (Seq, Seq);

/// What the options of a segment say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    pub(super) mss: Option<u16>,
    pub(super) window_scale: Option<u8>,
    pub(super) sack_permitted: bool,
    pub(super) sack: [Option<Range>; MAX_SACK_COUNT],
}

/// A segment of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'a> {
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Options,
    pub(super) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads the segment of a parsed packet. `None`: it is no whole segment, or its checksum is wrong.
    pub(super) fn parse(parsed: &Parsed, packet: &'a [u8], checksum_is_known: bool) -> Option<Self> {
        if parsed.class != Class::Tcp || parsed.more_fragments {
            return None;
        }
        let tcp = packet.get(usize::from(parsed.header_len)..usize::from(parsed.total_len))?;
        if !checksum_is_known {
            let len = u16::try_from(tcp.len()).ok()?;
            let sum = Sum::pseudo_header(parsed.src, parsed.dst, protocol::TCP, len).bytes(tcp);
            if !sum.verifies() {
                return None;
            }
        }
        let (header, _) = tcp.split_first_chunk::<TCP_HEADER_LEN>()?;
        let data_offset = usize::from(header[12] >> 4) * 4;
        let options = tcp.get(TCP_HEADER_LEN..data_offset)?;
        let number =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Some(Self {
            seq: Seq(number(4)),
            ack: Seq(number(8)),
            flags: header[13],
            window: u16::from_be_bytes([header[14], header[15]]),
            options: Options::parse(options),
            payload: tcp.get(data_offset..)?,
        })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it takes: its bytes, and one each for SYN and FIN.
    pub(super) fn len(&self) -> usize {
        self.payload.len() + usize::from(self.has(tcp_flag::SYN)) + usize::from(self.has(tcp_flag::FIN))
    }
}

impl Options {
    /// Reads what is known and skips the rest. Damaged options end the list.
    fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let [kind, rest @ ..] = bytes {
            match *kind {
                OPTION_END => break,
                OPTION_NONE => bytes = rest,
                kind => {
                    let Some(len) = rest.first().map(|len| usize::from(*len)).filter(|len| *len >= 2) else {
                        break;
                    };
                    let (Some(value), Some(next)) = (bytes.get(2..len), bytes.get(len..)) else { break };
                    options.take(kind, value);
                    bytes = next;
                }
            }
        }
        options
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (OPTION_MSS, [high, low]) => self.mss = Some(u16::from_be_bytes([*high, *low])),
            (OPTION_WINDOW_SCALE, [shift]) => self.window_scale = Some((*shift).min(MAX_WINDOW_SCALE)),
            (OPTION_SACK_PERMITTED, []) => self.sack_permitted = true,
            (OPTION_SACK, blocks) => {
                for (slot, block) in self.sack.iter_mut().zip(blocks.as_chunks::<8>().0) {
                    let [a, b, c, d, e, f, g, h] = *block;
                    *slot =
                        Some((Seq(u32::from_be_bytes([a, b, c, d])), Seq(u32::from_be_bytes([e, f, g, h]))));
                }
            }
            _ => {}
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            out.extend_from_slice(&[OPTION_MSS, 4, high, low]);
        }
        if let Some(shift) = self.window_scale {
            out.extend_from_slice(&[OPTION_NONE, OPTION_WINDOW_SCALE, 3, shift]);
        }
        if self.sack_permitted {
            out.extend_from_slice(&[OPTION_NONE, OPTION_NONE, OPTION_SACK_PERMITTED, 2]);
        }
        let blocks = self.sack.iter().flatten();
        let count = u8::try_from(blocks.clone().count()).unwrap_or(0);
        if count > 0 {
            out.extend_from_slice(&[OPTION_NONE, OPTION_NONE, OPTION_SACK, 2 + 8 * count]);
            for (start, end) in blocks {
                out.extend_from_slice(&start.0.to_be_bytes());
                out.extend_from_slice(&end.0.to_be_bytes());
            }
        }
    }
}

/// The header of a segment of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// The destination, in whose place we answer.
    pub(super) src: SocketAddrV4,
    /// The peer.
    pub(super) dst: SocketAddrV4,
    pub(super) seq: Seq,
    pub(super) ack: Seq,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) options: Options,
}

impl Head {
    /// Writes header and payload as one packet, of which payload goes into segments of `mss` bytes. The checksum is left to who cuts the
    /// packet, as the kernel leaves it on a TUN with offload.
    pub(super) fn write(
        &self,
        payload_len: usize,
        mss: usize,
        fill: impl FnOnce(&mut [u8]),
        out: &mut Vec<u8>,
    ) -> VirtioNetHdr {
        out.clear();
        out.resize(HEADER_LEN + TCP_HEADER_LEN, 0);
        self.options.write(out);
        let header_len = out.len();
        let tcp_header_len = header_len - HEADER_LEN;
        out.resize(header_len + payload_len, 0);
        let total_len = u16::try_from(out.len()).unwrap_or(u16::MAX);
        let tcp_len = total_len.saturating_sub(HEADER_LEN_U16);
        let (ip, rest) = out.split_at_mut(HEADER_LEN);
        let (tcp, payload) = rest.split_at_mut(tcp_header_len);
        fill(payload);
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&total_len.to_be_bytes());
        // Don't fragment: the segments fit (RFC 1191 §3).
        ip[6] = 0x40;
        ip[8] = TTL;
        ip[9] = protocol::TCP;
        ip[12..16].copy_from_slice(&self.src.ip().octets());
        ip[16..20].copy_from_slice(&self.dst.ip().octets());
        let sum = Sum::new().bytes(ip).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        tcp[0..2].copy_from_slice(&self.src.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&self.dst.port().to_be_bytes());
        tcp[4..8].copy_from_slice(&self.seq.0.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.ack.0.to_be_bytes());
        tcp[12] = u8::try_from(tcp_header_len / 4).unwrap_or(0) << 4;
        tcp[13] = self.flags;
        tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
        let pseudo = Sum::pseudo_header(*self.src.ip(), *self.dst.ip(), protocol::TCP, tcp_len).fold();
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        let is_run = payload_len > mss;
        VirtioNetHdr {
            flags: NEEDS_CSUM,
            gso_type: if is_run { GSO_TCPV4 } else { GSO_NONE },
            hdr_len: u16::try_from(header_len).unwrap_or(0),
            gso_size: if is_run { u16::try_from(mss).unwrap_or(0) } else { 0 },
            csum_start: HEADER_LEN_U16,
            csum_offset: 16,
        }
    }
}

const HEADER_LEN_U16: u16 = 20;
const _: () = assert!(HEADER_LEN == 20, "the two are the same number");

/// The first packet of a flow without its options and payload: enough for the peer to know which one an ICMP message is about.
pub(super) fn quote(peer: SocketAddrV4, destination: SocketAddrV4, seq: Seq) -> Vec<u8> {
    let head = Head {
        src: peer,
        dst: destination,
        seq,
        ack: Seq(0),
        flags: tcp_flag::SYN,
        window: 0,
        options: Options::default(),
    };
    let mut out = Vec::new();
    head.write(0, usize::MAX, |_| {}, &mut out);
    out
}

/// Address and port of both ends, as they stand in a packet.
pub(super) const fn ends(parsed: &Parsed) -> (SocketAddrV4, SocketAddrV4) {
    let src: Ipv4Addr = parsed.src;
    (SocketAddrV4::new(src, parsed.src_port), SocketAddrV4::new(parsed.dst, parsed.dst_port))
}

#[cfg(test)]
mod tests {
    use tsrs_tunnel_packet::gso::SuperPacket;
    use tsrs_tunnel_packet::ipv4::parse;

    use super::*;

    fn head(options: Options) -> Head {
        Head {
            src: "11.1.2.3:80".parse().unwrap(),
            dst: "100.64.0.9:40000".parse().unwrap(),
            seq: Seq(0xffff_fff0),
            ack: Seq(7),
            flags: tcp_flag::ACK | tcp_flag::PSH,
            window: 512,
            options,
        }
    }

    #[test]
    fn what_is_written_reads_back_with_all_options() {
        let mut sack = [None; MAX_SACK_COUNT];
        for count in 0..=MAX_SACK_COUNT {
            if let Some(slot) = count.checked_sub(1) {
                sack[slot] = Some((Seq(1000 * u32::try_from(count).unwrap()), Seq(u32::MAX)));
            }
            let syn = count == 0;
            let options = Options {
                mss: syn.then_some(1240),
                window_scale: syn.then_some(7),
                sack_permitted: syn,
                sack,
            };
            let mut out = Vec::new();
            let header = head(options).write(5, 1240, |payload| payload.copy_from_slice(b"hello"), &mut out);
            assert_eq!(header.gso_type, GSO_NONE);
            let parsed = parse(&out);
            assert_eq!(ends(&parsed), ("11.1.2.3:80".parse().unwrap(), "100.64.0.9:40000".parse().unwrap()));
            let segment = Segment::parse(&parsed, &out, true).unwrap();
            assert_eq!((segment.seq, segment.ack, segment.window), (Seq(0xffff_fff0), Seq(7), 512));
            assert_eq!((segment.options, segment.payload), (options, b"hello".as_slice()));
            assert!(Segment::parse(&parsed, &out, false).is_none(), "the checksum is still to be made");
        }
    }

    #[test]
    fn a_run_is_cut_into_segments_with_right_checksums() {
        let mut out = Vec::new();
        let header = head(Options::default()).write(3000, 1240, |payload| payload.fill(9), &mut out);
        let run = SuperPacket::new(&header, &out).unwrap();
        assert_eq!((run.count(), run.len_of(0), run.len_of(2)), (3, 1280, 560));
    }

    #[test]
    fn damaged_options_end_the_list_and_nothing_else() {
        for bytes in [
            [2, 4, 1, 0, 3].as_slice(),
            &[2, 4, 1, 0, 3, 0, 9, 9],
            &[2, 4, 1, 0, 3, 200, 9, 9],
            &[1, 1, 2, 4, 1, 0, 0, 3],
            &[99, 3, 7, 2, 4, 1, 0, 5, 6, 1, 2, 3, 4],
        ] {
            assert_eq!(Options::parse(bytes), Options { mss: Some(256), ..Options::default() }, "{bytes:?}");
        }
        assert_eq!(Options::parse(&[3, 3, 255]).window_scale, Some(14));
    }
}
