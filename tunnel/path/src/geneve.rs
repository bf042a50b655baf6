//! The Geneve header in front of datagrams that go through a peer relay (data-plane sheet §7.1, RFC 8926 §3.4).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |Ver|  Opt Len  |O|C|  Reserved |         Protocol Type         |
//! |       Virtual Network Identifier (VNI)        |    Reserved   |
//! ```

/// Length of the header in bytes; no options are ever sent.
pub const HEADER_LEN: usize = 8;
/// Largest VNI: the field has 24 bits.
pub const MAX_VNI: u32 = 0x00ff_ffff;
/// Protocol type of a disco message.
pub const PROTOCOL_DISCO: u16 = 0x7a11;
/// Protocol type of a WireGuard message.
pub const PROTOCOL_WIREGUARD: u16 = 0x7a12;

const CONTROL_BIT: u8 = 0x80;
const VERSION_MASK: u8 = 0xc0;
const RESERVED_MASK: u8 = 0x3f;

/// The fields of the header that carry meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Set on the three messages of the relay handshake only.
    pub control: bool,
    /// [`PROTOCOL_DISCO`] or [`PROTOCOL_WIREGUARD`]; kept raw so that a decoder sees what was sent.
    pub protocol: u16,
    /// Which relayed pair the datagram belongs to; at most [`MAX_VNI`].
    pub vni: u32,
}

impl Header {
    /// The wire form. Bits of `vni` above the 24 of the field are cut off.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let [p0, p1] = self.protocol.to_be_bytes();
        let [_, v0, v1, v2] = self.vni.to_be_bytes();
        [0, if self.control { CONTROL_BIT } else { 0 }, p0, p1, v0, v1, v2, 0]
    }

    /// Reads the fields from the first eight bytes, whatever the other bits are.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let &[_, flags, p0, p1, v0, v1, v2, _] = bytes.first_chunk::<HEADER_LEN>()?;
        Some(Self {
            control: flags & CONTROL_BIT != 0,
            protocol: u16::from_be_bytes([p0, p1]),
            vni: u32::from_be_bytes([0, v0, v1, v2]),
        })
    }

    /// Recognises a relayed datagram: version 0, reserved bits clear, one of our protocols. Never true for a plain
    /// WireGuard message (bytes 2 and 3 are zero) or a plain disco message (they are `f0 9f`).
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let &[version, flags, .., reserved] = datagram.first_chunk::<HEADER_LEN>()?;
        if version & VERSION_MASK != 0 || flags & RESERVED_MASK != 0 || reserved != 0 {
            return None;
        }
        Self::decode(datagram).filter(|header| matches!(header.protocol, PROTOCOL_DISCO | PROTOCOL_WIREGUARD))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tsrs_lab_vectors::{hex, json};

    #[test]
    fn headers_agree_with_the_reference() {
        let mut seen = (0, 0);
        for case in json("wire/geneve.json")["cases"].as_array().unwrap() {
            let bytes = hex(case["bytes"].as_str().unwrap());
            let fields = || Header {
                control: case["control"].as_bool().unwrap(),
                protocol: u16::try_from(case["protocol"].as_u64().unwrap()).unwrap(),
                vni: u32::try_from(case["vni"].as_u64().unwrap()).unwrap(),
            };
            if case["what"] == "encode" {
                seen.0 += 1;
                assert_eq!(fields().encode().as_slice(), bytes, "{case}");
            } else {
                seen.1 += 1;
                let expected = case["ok"].as_bool().unwrap().then(fields);
                assert_eq!(Header::decode(&bytes), expected, "{case}");
            }
        }
        assert_eq!(seen, (24, 74));
    }

    #[test]
    fn recognition_wants_version_zero_clear_reserved_bits_and_a_known_protocol() {
        let good = Header { control: true, protocol: PROTOCOL_DISCO, vni: MAX_VNI };
        let bytes = good.encode();
        assert_eq!(Header::parse(&bytes), Some(good));
        for len in 0..HEADER_LEN {
            assert_eq!(Header::parse(&bytes[..len]), None);
        }
        for bit in 0..HEADER_LEN * 8 {
            let mut changed = bytes;
            changed[bit / 8] ^= 1 << (bit % 8);
            // Option length, the control and critical bits and the VNI are free.
            let free = matches!((bit / 8, bit % 8), (0, 0..=5) | (1, 6..=7) | (4..=6, _));
            assert_eq!(Header::parse(&changed).is_some(), free, "bit {bit}");
        }
    }

    #[test]
    fn plain_wireguard_and_plain_disco_are_never_taken_for_geneve() {
        for kind in 1..=4 {
            assert_eq!(Header::parse(&[kind, 0, 0, 0, 1, 2, 3, 0]), None);
        }
        assert_eq!(Header::parse(&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac, 0, 0]), None);
    }
}
