//! AVX2: 8 blocks of ChaCha20 at a time, and Poly1305 in limbs of 26 bits.

mod chacha20;
mod poly1305;

use super::{LANES, Message, Piece, Rows, Tails};
use crate::one_time::OneTimeKey;

/// Proof that the processor and the system have what the functions of this module need.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    pub(super) fn keystream(self, key: &[u32; 8], tails: &Tails, used: usize, rows: &mut Rows) {
        // SAFETY: a value of this type exists only where `detect` found the feature.
        unsafe { chacha20::keystream(key, tails, used, rows) }
    }

    pub(super) fn xor(self, buffer: &mut [u8], pieces: &[Piece], rows: &[[u64; 8]]) {
        // SAFETY: as above.
        unsafe { chacha20::xor(buffer, pieces, rows) }
    }

    pub(super) fn tags(
        self,
        buffer: &[u8],
        messages: &[Message],
        keys: &[OneTimeKey; LANES],
    ) -> [[u8; 16]; LANES] {
        // SAFETY: as above.
        unsafe { poly1305::tags(buffer, messages, keys) }
    }
}
