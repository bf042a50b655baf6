//! The key that Poly1305 uses once, and what is done with it outside of vectors (RFC 8439 §2.5, §2.6).

use zeroize::{Zeroize, ZeroizeOnDrop};

/// 42 bits that are set.
pub(crate) const LOW_42: u64 = (1 << 42) - 1;
/// 44 bits that are set.
pub(crate) const LOW_44: u64 = (1 << 44) - 1;

/// Bits of `r` that may be set.
const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;

/// The key of one message.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
pub(crate) struct OneTimeKey {
    r: u128,
    s: u128,
}

impl OneTimeKey {
    /// From the first block of a record's keystream.
    pub(crate) fn new(block: &[u64; 8]) -> Self {
        let wide = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
        Self { r: wide(block[0], block[1]) & CLAMP, s: wide(block[2], block[3]) }
    }

    /// `COUNT` limbs of `BITS` bits of `r`, the lowest first.
    pub(crate) fn limbs<const BITS: u32, const COUNT: usize>(&self) -> [u64; COUNT] {
        let mut rest = self.r;
        [(); COUNT].map(|()| {
            let limb = u64::try_from(rest & ((1 << BITS) - 1)).unwrap_or_default();
            rest >>= BITS;
            limb
        })
    }

    /// The tag, when the polynomial has this value: limbs of 44, 44 and 42 bits that may be up to 60 bits long.
    pub(crate) fn tag(&self, [mut h0, mut h1, mut h2]: [u64; 3]) -> [u8; 16] {
        // The second turn takes up what the first carried around; after it the limbs have their lengths, but for a carry of
        // one out of the lowest, which the sum below takes.
        for _ in 0..2 {
            h1 += h0 >> 44;
            h0 &= LOW_44;
            h2 += h1 >> 44;
            h1 &= LOW_44;
            h0 += (h2 >> 42) * 5;
            h2 &= LOW_42;
        }
        h1 += h0 >> 44;
        h0 &= LOW_44;
        // If adding 5 passes 2^130, the number is at least 2^130 − 5 and is reduced once more.
        let g0 = h0 + 5;
        let g1 = h1 + (g0 >> 44);
        let g2 = h2 + (g1 >> 44);
        let reduce = (g2 >> 42).wrapping_neg();
        let pick = |plain: u64, reduced: u64| (plain & !reduce) | (reduced & reduce);
        let low = u128::from(pick(h0, g0 & LOW_44));
        let middle = u128::from(pick(h1, g1 & LOW_44));
        let high = u128::from(pick(h2, g2 & LOW_42));
        (low | middle << 44 | high << 88).wrapping_add(self.s).to_le_bytes()
    }
}
