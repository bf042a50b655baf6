//! Poly1305 with keys and messages that random ones do not meet: RFC 8439 appendix A.3, and limbs that are full or empty.

use rand_core::RngCore;
use tsrs_lab_vectors::SeededRng;

use super::*;
use crate::one_time::OneTimeKey;
use crate::sys::{LANES, Message, Simd};

/// The bits of `r` that a key may have.
const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;

/// A number below 2^130 − 5, or a little above, as the bits below 2^128 and those above.
#[derive(Clone, Copy)]
struct Number(u128, u128);

impl Number {
    fn plus(self, other: Self) -> Self {
        let (low, carry) = self.0.overflowing_add(other.0);
        let mut sum = Self(low, self.1 + other.1 + u128::from(carry));
        while sum.1 >= 4 {
            let over = sum.1 >> 2;
            let (low, carry) = sum.0.overflowing_add(over * 5);
            sum = Self(low, (sum.1 & 3) + u128::from(carry));
        }
        sum
    }

    /// By doubling and adding.
    fn times(self, factor: u128) -> Self {
        (0..128).rev().fold(Self(0, 0), |product, bit| {
            let doubled = product.plus(product);
            if factor >> bit & 1 == 1 { doubled.plus(self) } else { doubled }
        })
    }
}

/// RFC 8439 §2.5, for whole blocks.
fn reference(r: u128, s: u128, blocks: &[u128]) -> [u8; 16] {
    let sum = blocks.iter().fold(Number(0, 0), |sum, block| sum.plus(Number(*block, 1)).times(r & CLAMP));
    let reduced = match sum {
        Number(low, 3) if low >= u128::MAX - 4 => low.wrapping_add(5),
        Number(low, _) => low,
    };
    reduced.wrapping_add(s).to_le_bytes()
}

fn key(r: u128, s: u128) -> OneTimeKey {
    let halves = |wide: u128| {
        let bytes = wide.to_le_bytes();
        let (words, _) = bytes.as_chunks();
        [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
    };
    let ([r0, r1], [s0, s1]) = (halves(r), halves(s));
    OneTimeKey::new(&[r0, r1, s0, s1, 0, 0, 0, 0])
}

/// The same message under the key, `count` times side by side: with fewer, each gets more lanes. The last block takes the
/// place of the lengths.
fn assert_tag(r: u128, s: u128, blocks: &[u128], expected: [u8; 16]) {
    let (last, blocks) = blocks.split_last().unwrap();
    let buffer: Vec<u8> = blocks.iter().flat_map(|block| block.to_le_bytes()).collect();
    let bytes = last.to_le_bytes();
    let (words, _) = bytes.as_chunks();
    let lengths = [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])];
    let message = Message { start: 0, len: buffer.len(), lengths };
    for simd in Simd::detect() {
        for count in [1, 2, 3, 4, 8, 9, LANES] {
            let mut keys: [OneTimeKey; LANES] = Default::default();
            keys[..count].iter_mut().for_each(|place| *place = key(r, s));
            let tags = simd.tags(&buffer, &vec![message; count], &keys);
            assert_eq!(
                tags[..count],
                vec![expected; count],
                "{} {r:x} {s:x} {blocks:x?} {last:x}",
                simd.name()
            );
        }
    }
}

#[test]
fn rfc_8439_appendix_a_3() {
    let full = u128::MAX;
    let assert = |r: u128, s: u128, blocks: &[u128], expected: &str| {
        let expected = array(expected);
        assert_eq!(reference(r, s, blocks), expected);
        assert_tag(r, s, blocks, expected);
    };
    assert(0, 0, &[0; 4], "00000000000000000000000000000000");
    assert(2, 0, &[full], "03000000000000000000000000000000");
    assert(2, full, &[2], "03000000000000000000000000000000");
    let block = |text: &str| u128::from_le_bytes(array(text));
    let carry = block("f0ffffffffffffffffffffffffffffff");
    assert(1, 0, &[full, carry, 0x11], "05000000000000000000000000000000");
    let wrap = block("fbfefefefefefefefefefefefefefefe");
    assert(1, 0, &[full, wrap, block(&"01".repeat(16))], "00000000000000000000000000000000");
    assert(2, 0, &[block("fdffffffffffffffffffffffffffffff")], "faffffffffffffffffffffffffffffff");
    let r = block("01000000000000000400000000000000");
    let first = block("e33594d7505e43b90000000000000000");
    let second = block("3394d7505e4379cd0100000000000000");
    assert(r, 0, &[first, second, 0, 1], "14000000000000005500000000000000");
    assert(r, 0, &[first, second, 0], "13000000000000000000000000000000");
}

#[test]
fn full_and_empty_limbs_agree_with_plain_arithmetic() {
    let mut rng = SeededRng(7);
    let mut wide = move || u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    let edges =
        [0, 1, u128::MAX, u128::MAX - 4, u128::MAX << 44, !(u128::MAX << 88), u128::MAX << 104, CLAMP];
    for count in [1, 2, 3, 5, 15, 16, 17, 31, 33, 90] {
        for r in edges {
            for block in edges {
                let blocks = vec![block; count];
                let s = wide();
                assert_tag(r, s, &blocks, reference(r, s, &blocks));
            }
            let blocks: Vec<u128> =
                (0..count).map(|at| if at % 3 == 0 { wide() } else { edges[at % 8] }).collect();
            assert_tag(r, u128::MAX, &blocks, reference(r, u128::MAX, &blocks));
        }
    }
}
