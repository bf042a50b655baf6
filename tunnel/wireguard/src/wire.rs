//! Layout of the four messages (data-plane sheet §1.2; WireGuard paper §5.4). All numbers are little-endian.
//!
//! ```text
//! initiation, 148 B   type | sender u32 | ephemeral 32 | static 32+16 | timestamp 12+16 | MAC1 16 | MAC2 16
//! response, 92 B      type | sender u32 | receiver u32 | ephemeral 32 | empty 0+16 | MAC1 16 | MAC2 16
//! cookie reply, 64 B  type | receiver u32 | nonce 24 | cookie 16+16
//! data, 32 B and up   type | receiver u32 | counter u64 | text and padding | tag 16
//! ```
//!
//! The type is one byte with three zero bytes behind it.

use std::ops::Range;

/// Bytes of an initiation.
pub const INITIATION_LEN: usize = 148;
/// Bytes of a response.
pub const RESPONSE_LEN: usize = 92;
/// Bytes of a cookie reply.
pub const COOKIE_REPLY_LEN: usize = 64;
/// Bytes before the text of a data message.
pub const DATA_HEADER_LEN: usize = 16;
/// Bytes that a data message is longer than its padded text.
pub const DATA_OVERHEAD: usize = DATA_HEADER_LEN + tsrs_base_aead::TAG_LEN;
/// The text of a data message is padded to a multiple of this.
pub const PADDING_MULTIPLE: usize = 16;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// First message of a handshake.
    Initiation,
    /// Second message of a handshake.
    Response,
    /// Answer under load.
    CookieReply,
    /// A data message.
    Data,
}

impl Kind {
    /// By type and length; `None` for anything else, which is dropped.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match (u32::from_le_bytes(*datagram.first_chunk()?), datagram.len()) {
            (1, INITIATION_LEN) => Some(Self::Initiation),
            (2, RESPONSE_LEN) => Some(Self::Response),
            (3, COOKIE_REPLY_LEN) => Some(Self::CookieReply),
            (4, DATA_OVERHEAD..) => Some(Self::Data),
            _ => None,
        }
    }

    /// The first four bytes of such a message.
    pub const fn type_bytes(self) -> [u8; 4] {
        match self {
            Self::Initiation => [1, 0, 0, 0],
            Self::Response => [2, 0, 0, 0],
            Self::CookieReply => [3, 0, 0, 0],
            Self::Data => [4, 0, 0, 0],
        }
    }
}

/// The receiver index of a data message, by which its session is found. `None` if it is no data message.
pub fn data_receiver(datagram: &[u8]) -> Option<u32> {
    (Kind::of(datagram)? == Kind::Data).then(|| field(datagram, 4).map(u32::from_le_bytes))?
}

/// Length of the padded text for a packet of `len` bytes: a multiple of 16, but never above the MTU, of which only the last
/// unit counts for a longer packet (data-plane sheet §1.5).
pub fn padded_len(len: usize, mtu: u16) -> usize {
    let mtu = usize::from(mtu).max(1);
    let last_unit = if len > mtu { len % mtu } else { len };
    len + last_unit.next_multiple_of(PADDING_MULTIPLE).min(mtu) - last_unit
}

/// The bytes of the inner IP packet in a decrypted text, without the padding. `None` if its length field contradicts the text.
pub fn inner_len(text: &[u8]) -> Option<usize> {
    let (min, len) = match text.first()? >> 4 {
        4 => (20, usize::from(u16::from_be_bytes(field(text, 2)?))),
        6 => (40, 40 + usize::from(u16::from_be_bytes(field(text, 4)?))),
        _ => return None,
    };
    (len >= min && len <= text.len()).then_some(len)
}

/// `N` bytes at `offset`.
pub(crate) fn field<const N: usize>(message: &[u8], offset: usize) -> Option<[u8; N]> {
    message.get(offset..)?.first_chunk().copied()
}

/// Fields of an initiation.
pub(crate) mod initiation {
    use super::Range;

    pub(crate) const SENDER: usize = 4;
    pub(crate) const EPHEMERAL: Range<usize> = 8..40;
    pub(crate) const STATIC: Range<usize> = 40..88;
    pub(crate) const TIMESTAMP: Range<usize> = 88..116;
}

/// Fields of a response.
pub(crate) mod response {
    use super::Range;

    pub(crate) const SENDER: usize = 4;
    pub(crate) const RECEIVER: usize = 8;
    pub(crate) const EPHEMERAL: Range<usize> = 12..44;
    pub(crate) const EMPTY: Range<usize> = 44..60;
}

/// Fields of a cookie reply.
pub(crate) mod cookie_reply {
    use super::Range;

    pub(crate) const RECEIVER: usize = 4;
    pub(crate) const NONCE: usize = 8;
    pub(crate) const COOKIE: Range<usize> = 32..64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_need_their_type_and_their_length() {
        for (first, len, kind) in [
            (1, 148, Kind::Initiation),
            (2, 92, Kind::Response),
            (3, 64, Kind::CookieReply),
            (4, 32, Kind::Data),
        ] {
            let mut datagram = vec![0; len];
            datagram[0] = first;
            assert_eq!(Kind::of(&datagram), Some(kind));
            assert_eq!(datagram[..4], kind.type_bytes());
            for shorter in 0..len {
                assert_eq!(Kind::of(&datagram[..shorter]), None);
            }
            datagram.push(0);
            assert_eq!(Kind::of(&datagram).is_some(), kind == Kind::Data);
            datagram.pop();
            for reserved in 1..4 {
                let mut other = datagram.clone();
                other[reserved] = 1;
                assert_eq!(Kind::of(&other), None);
            }
        }
        assert_eq!(Kind::of(&[5; 148]), None);
    }

    #[test]
    fn padding_reaches_a_multiple_of_16_and_stops_at_the_mtu() {
        for (len, mtu, padded) in [
            (0, 1280, 0),
            (1, 1280, 16),
            (16, 1280, 16),
            (17, 1280, 32),
            (1279, 1280, 1280),
            (1280, 1280, 1280),
            (1411, 1420, 1420),
            (1410, 1420, 1420),
            (1420, 1420, 1420),
            (1421, 1420, 1436),
            (1420, 0, 1420),
        ] {
            assert_eq!(padded_len(len, mtu), padded, "{len} {mtu}");
        }
    }

    #[test]
    fn inner_length_is_cut_and_checked() {
        let mut v4 = vec![0; 48];
        v4[0] = 0x45;
        for (total, inner) in [(20, Some(20)), (48, Some(48)), (49, None), (19, None), (0, None)] {
            v4[2..4].copy_from_slice(&u16::to_be_bytes(total));
            assert_eq!(inner_len(&v4), inner);
        }
        let mut v6 = vec![0; 48];
        v6[0] = 0x60;
        for (payload, inner) in [(0, Some(40)), (8, Some(48)), (9, None)] {
            v6[4..6].copy_from_slice(&u16::to_be_bytes(payload));
            assert_eq!(inner_len(&v6), inner);
        }
        assert_eq!(inner_len(&[0x45, 0, 0]), None);
        assert_eq!(inner_len(&[0x50; 48]), None);
        assert_eq!(inner_len(&[]), None);
    }
}
