//! The Internet checksum (RFC 1071), alone and fused with a copy.

use std::net::Ipv4Addr;

/// A ones'-complement sum in progress.
///
/// Pieces are added at even offsets: only the last one may have an odd length. The sum is kept in native byte order (RFC 1071
/// §2 (B)) in 64 bits, so that packets of any size can be added without a carry.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

/// Bytes that one round of the loop takes. Its eight 64-bit words go to two sums that do not depend on each other. Each is one
/// addition with carry per word, which is what the processor does best: sums of narrower words are at the mercy of what
/// the compiler makes of them.
const ROUND: usize = 64;

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Self(0)
    }

    /// The pseudo-header of TCP and UDP over IPv4 (RFC 9293 §3.1): addresses, protocol and transport length.
    pub fn pseudo_header(src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, transport_len: u16) -> Self {
        Self::new().bytes(&src.octets()).bytes(&dst.octets()).word(u16::from(protocol)).word(transport_len)
    }

    /// Adds one 16-bit number.
    #[must_use]
    pub const fn word(self, value: u16) -> Self {
        Self(self.0 + value.to_be() as u64)
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (rounds, rest) = bytes.as_chunks::<ROUND>();
        let mut sums = [0; 2];
        for round in rounds {
            add_round(&mut sums, round);
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            sums[0] += u128::from(u64::from_ne_bytes(*word));
        }
        Self(self.0 + fold_to_64(sums[0] + sums[1]) + sum_rest(rest))
    }

    /// Copies `from` to `to` and adds its bytes, while they are in the cache. Copies as much as both hold.
    #[must_use]
    pub fn copy(self, from: &[u8], to: &mut [u8]) -> Self {
        let len = from.len().min(to.len());
        to[..len].copy_from_slice(&from[..len]);
        self.bytes(&from[..len])
    }

    /// The sum as a 16-bit number, not complemented: what the checksum field holds while the checksum is left to others.
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let [low, high, ..] = sum.to_le_bytes();
        u16::from_be(u16::from_le_bytes([low, high]))
    }

    /// The checksum: the complement of the sum.
    pub const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether data that contains its own checksum is intact.
    pub const fn verifies(self) -> bool {
        self.fold() == 0xffff
    }
}

#[inline(always)]
fn add_round(sums: &mut [u128; 2], round: &[u8; ROUND]) {
    let (words, _) = round.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    for [first, second] in pairs {
        sums[0] += u128::from(u64::from_ne_bytes(*first));
        sums[1] += u128::from(u64::from_ne_bytes(*second));
    }
}

/// A number of at most 34 bits with the same ones'-complement sum: 2^32 and 2^64 count as 1 there.
const fn fold_to_64(sum: u128) -> u64 {
    const LOW: u128 = 0xffff_ffff;
    let sum = (sum & LOW) + ((sum >> 32) & LOW) + ((sum >> 64) & LOW) + (sum >> 96);
    let [a, b, c, d, e, f, g, h, ..] = sum.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

fn sum_rest(rest: &[u8]) -> u64 {
    let (words, last) = rest.as_chunks::<2>();
    let sum = words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum::<u64>();
    match last {
        [byte] => sum + u64::from(u16::from_ne_bytes([*byte, 0])),
        _ => sum,
    }
}

/// The checksum after a 16-bit word of the data changed from `old` to `new` (RFC 1624, equation 3).
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    Sum::new().word(!checksum).word(!old).word(new).checksum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_packets::Random;

    /// RFC 1071 §4.1, word by word.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn example_of_rfc_1071() {
        let sum = Sum::new().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn every_length_agrees_with_the_plain_loop_alone_and_while_copying() {
        let mut random = Random::new(1);
        for len in (0..300).chain([1500, 9000, 65_535]) {
            let data = random.bytes(len);
            assert_eq!(Sum::new().bytes(&data).fold(), plain(&data), "{len}");
            let mut copy = vec![0; len];
            assert_eq!(Sum::new().copy(&data, &mut copy).fold(), plain(&data), "{len}");
            assert_eq!(copy, data);
        }
        assert_eq!(Sum::new().bytes(&[0xff; 65_534]).fold(), 0xffff);
    }

    #[test]
    fn pieces_at_even_offsets_add_up() {
        let data = Random::new(2).bytes(101);
        for cut in (0..=100).step_by(2) {
            assert_eq!(Sum::new().bytes(&data[..cut]).bytes(&data[cut..]).fold(), plain(&data));
        }
    }

    #[test]
    fn copy_stops_at_the_shorter_side() {
        let mut out = [0; 3];
        assert_eq!(Sum::new().copy(&[1, 2, 3, 4], &mut out).fold(), plain(&[1, 2, 3]));
        assert_eq!(out, [1, 2, 3]);
    }

    #[test]
    fn incremental_update_equals_a_new_sum() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let mut data = random.bytes(40);
            let before = Sum::new().bytes(&data).checksum();
            let old = u16::from_be_bytes([data[12], data[13]]);
            let new = u16::try_from(random.below(65_536)).unwrap();
            data[12..14].copy_from_slice(&new.to_be_bytes());
            assert_eq!(update(before, old, new), Sum::new().bytes(&data).checksum());
        }
        // A sum of zero has two forms; RFC 1624 §3 gives the one that a receiver accepts.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }
}
