//! UDP datagrams in IPv4 packets (RFC 768).

use std::net::SocketAddrV4;

use tsrs_tunnel_packet::checksum::Sum;
use tsrs_tunnel_packet::ipv4::{Class, HEADER_LEN, Parsed, UDP_HEADER_LEN, protocol};

use super::segment::ends;

const TTL: u8 = 64;

/// A datagram of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Address and port of the peer, inside the tunnel.
    pub peer: SocketAddrV4,
    /// Where it goes.
    pub destination: SocketAddrV4,
    /// What it says.
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    /// Reads the datagram of a parsed packet. `None`: it is not whole, or its checksum is wrong.
    pub(super) fn parse(parsed: &Parsed, packet: &'a [u8], checksum_is_known: bool) -> Option<Self> {
        if parsed.class != Class::Udp || parsed.more_fragments {
            return None;
        }
        let udp = packet.get(usize::from(parsed.header_len)..usize::from(parsed.total_len))?;
        let (header, _) = udp.split_first_chunk::<UDP_HEADER_LEN>()?;
        let [.., len0, len1, sum0, sum1] = *header;
        let len = u16::from_be_bytes([len0, len1]);
        let udp = udp.get(..usize::from(len))?;
        // Zero: the sender made none.
        if !checksum_is_known && (sum0, sum1) != (0, 0) {
            let sum = Sum::pseudo_header(parsed.src, parsed.dst, protocol::UDP, len).bytes(udp);
            if !sum.verifies() {
                return None;
            }
        }
        let (peer, destination) = ends(parsed);
        Some(Self { peer, destination, payload: udp.get(UDP_HEADER_LEN..)? })
    }
}

/// Writes a datagram of `sender` for a peer, whole and with its checksums. `false` if it is longer than a packet can be.
pub fn write_datagram(sender: SocketAddrV4, peer: SocketAddrV4, payload: &[u8], out: &mut Vec<u8>) -> bool {
    let udp_len = UDP_HEADER_LEN + payload.len();
    let (Ok(total_len), Ok(udp_len)) = (u16::try_from(HEADER_LEN + udp_len), u16::try_from(udp_len)) else {
        return false;
    };
    let mut header = [0; HEADER_LEN + UDP_HEADER_LEN];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&total_len.to_be_bytes());
    header[8] = TTL;
    header[9] = protocol::UDP;
    header[12..16].copy_from_slice(&sender.ip().octets());
    header[16..20].copy_from_slice(&peer.ip().octets());
    let sum = Sum::new().bytes(&header[..HEADER_LEN]).checksum();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header[20..22].copy_from_slice(&sender.port().to_be_bytes());
    header[22..24].copy_from_slice(&peer.port().to_be_bytes());
    header[24..26].copy_from_slice(&udp_len.to_be_bytes());
    let sum = Sum::pseudo_header(*sender.ip(), *peer.ip(), protocol::UDP, udp_len)
        .bytes(&header[HEADER_LEN..])
        .bytes(payload)
        .checksum();
    // Zero would mean that there is none.
    let sum = if sum == 0 { u16::MAX } else { sum };
    header[26..28].copy_from_slice(&sum.to_be_bytes());
    out.clear();
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    true
}

#[cfg(test)]
mod tests {
    use tsrs_tunnel_packet::ipv4::parse;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let (sender, peer) = ("11.1.2.3:443".parse().unwrap(), "100.64.0.9:5000".parse().unwrap());
        let mut out = Vec::new();
        for len in [0, 1, 2, 1200, 65_507] {
            let payload = vec![0xa5; len];
            assert!(write_datagram(sender, peer, &payload, &mut out));
            let datagram = Datagram::parse(&parse(&out), &out, false).unwrap();
            assert_eq!(datagram, Datagram { peer: sender, destination: peer, payload: &payload });
            *out.last_mut().unwrap() ^= 1;
            assert_eq!(Datagram::parse(&parse(&out), &out, false), None);
        }
        assert!(!write_datagram(sender, peer, &[0; 65_508], &mut out));
    }

    #[test]
    fn lengths_that_contradict_each_other_are_refused() {
        let (sender, peer) = ("11.1.2.3:443".parse().unwrap(), "100.64.0.9:5000".parse().unwrap());
        let mut out = Vec::new();
        write_datagram(sender, peer, b"data", &mut out);
        for len in [0_u16, 7, 13, 65_535] {
            let mut damaged = out.clone();
            damaged[24..26].copy_from_slice(&len.to_be_bytes());
            assert_eq!(Datagram::parse(&parse(&damaged), &damaged, true), None, "{len}");
        }
        for len in 0..out.len() {
            assert_eq!(Datagram::parse(&parse(&out[..len]), &out[..len], true), None, "{len}");
        }
    }
}
