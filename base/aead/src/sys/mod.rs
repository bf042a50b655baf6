//! What needs `unsafe`: vector instructions, and wiping a key that cannot wipe itself.
//!
//! Vector code is safe Rust but for loads, stores and the calls that enter it. Loads and stores go through references of the
//! right length; the calls need a value that exists only where the processor was asked.
#![expect(
    unsafe_code,
    reason = "vector instructions work on pointers, and ring's key has no way to be wiped"
)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod stripes;
mod wiped;

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::Record;
use crate::one_time::OneTimeKey;

pub(crate) use wiped::Wiped;

/// Blocks of keystream that are made at once, and messages that are authenticated at once.
pub(crate) const LANES: usize = 16;

/// The first four words of a ChaCha20 state (RFC 8439 §2.3).
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];
/// Twenty rounds.
const DOUBLE_ROUNDS: usize = 10;

/// The words 12 to 15 of each state: the number of the block and the nonce.
pub(crate) type Tails = [[u32; LANES]; 4];

/// A block of keystream for each lane, as little-endian words.
#[derive(Default, Zeroize, ZeroizeOnDrop)]
#[repr(align(64))]
pub(crate) struct Rows(pub(crate) [[u64; 8]; LANES]);

/// A piece of the buffer to which keystream is added.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The row of keystream that it begins with.
    pub(crate) row: usize,
}

/// What is authenticated: bytes of the buffer, padded with zeros to whole blocks, and a last block that says how many of them are
/// additional data and how many text.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Message {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) lengths: [u64; 2],
}

impl Message {
    /// Blocks of 16 bytes, with the last.
    const fn blocks(&self) -> usize {
        self.len.div_ceil(16) + 1
    }
}

/// Vector instructions that this processor has.
#[derive(Clone, Copy)]
pub(crate) enum Simd {
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
}

impl Simd {
    /// All that there are, the fastest first.
    pub(crate) fn detect() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let found = [avx512::Avx512::detect().map(Self::Avx512), avx2::Avx2::detect().map(Self::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let found = [None];
        found.into_iter().flatten()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
        }
    }

    /// Whether the records are sealed and opened faster side by side than one after the other (measured by `benches/batch.rs`).
    pub(crate) fn is_worth(self, records: &[Record]) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => {
                let text_len =
                    records.iter().fold(0_usize, |sum, record| sum.saturating_add(record.text_len));
                records.len() >= 3 || text_len >= 1280
            }
            // Not for long texts: `ring` works on both halves of the cipher at once.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => {
                let longest = 32 * records.len().min(8);
                records.len() >= 4 && records.iter().all(|record| record.text_len <= longest)
            }
        }
    }

    /// The blocks of keystream for the first `used` of `tails`; what is in the rows behind is unspecified.
    pub(crate) fn keystream(self, key: &[u32; 8], tails: &Tails, used: usize, rows: &mut Rows) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.keystream(key, tails, rows),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.keystream(key, tails, used, rows),
        }
    }

    /// Adds keystream to texts, for each piece as far as the rows reach.
    pub(crate) fn xor(self, buffer: &mut [u8], pieces: &[Piece], rows: &[[u64; 8]]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.xor(buffer, pieces, rows),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.xor(buffer, pieces, rows),
        }
    }

    /// The tags of up to [`LANES`] messages, each under the key of its place.
    pub(crate) fn tags(
        self,
        buffer: &[u8],
        messages: &[Message],
        keys: &[OneTimeKey; LANES],
    ) -> [[u8; 16]; LANES] {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.tags(buffer, messages, keys),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.tags(buffer, messages, keys),
        }
    }
}
