//! ChaCha20-Poly1305 (RFC 8439) for data packets, one call per batch.
//!
//! A batch is any number of records in one buffer, sealed or opened where they lie. The nonce of a record is WireGuard's:
//! four zero bytes and the counter, little-endian; there is no additional data. The caller never uses a counter twice with one
//! key.
//!
//! The work is done with vector instructions across the records of a batch where the machine has them and the batch is worth it,
//! otherwise by `ring`, one record after the other; see [`Implementation`].
#![cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, unused_variables, reason = "only for x86-64 are there kernels yet that use them")
)]

mod batch;
mod implementation;
mod one_time;
mod sys;

use std::ops::Range;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroize;

use crate::batch::Direction;

pub use crate::implementation::Implementation;

/// Bytes of a tag.
pub const TAG_LEN: usize = 16;
/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// One packet in the buffer of a batch: the text and, directly behind it, its tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// First byte of the text.
    pub start: usize,
    /// Bytes of the text, without the tag.
    pub text_len: usize,
    /// The counter of the packet.
    pub counter: u64,
    /// Set by the call: the record lies in the buffer and was sealed, or it is authentic and was opened.
    pub done: bool,
}

impl Record {
    /// Where text and tag lie, if that is within a buffer of this length.
    fn range(&self, buffer_len: usize) -> Option<Range<usize>> {
        let end = self.start.checked_add(self.text_len)?.checked_add(TAG_LEN)?;
        (end <= buffer_len).then_some(self.start..end)
    }
}

/// A key for one direction of a session. Its memory is wiped when it is dropped.
pub struct Key {
    implementation: Implementation,
    words: sys::Wiped<[u32; KEY_LEN / 4]>,
    ring: sys::Wiped<LessSafeKey>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key([redacted])")
    }
}

impl Key {
    /// A key from its bytes, to be used by this implementation.
    pub fn new(raw: &[u8; KEY_LEN], implementation: Implementation) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "ring refuses a key only for its length, which the type fixes"
        )]
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, raw).expect("key length");
        let mut words = [0; KEY_LEN / 4];
        for (word, bytes) in words.iter_mut().zip(raw.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let key = Self {
            implementation,
            words: sys::Wiped::new(words),
            ring: sys::Wiped::new(LessSafeKey::new(unbound)),
        };
        words.zeroize();
        key
    }

    /// Encrypts the texts in place and writes the tags behind them.
    pub fn seal(&self, buffer: &mut [u8], records: &mut [Record]) {
        if !self.run_batch(Direction::Seal, buffer, records) {
            for record in records {
                record.done = self.seal_one(buffer, record).is_some();
            }
        }
    }

    /// Checks the tags and decrypts the texts in place. What does not authenticate must not be read: it is unspecified, but
    /// never the text.
    pub fn open(&self, buffer: &mut [u8], records: &mut [Record]) {
        if !self.run_batch(Direction::Open, buffer, records) {
            for record in records {
                record.done = self.open_one(buffer, record).is_some();
            }
        }
    }

    /// With vector instructions, if that is possible and worth it.
    fn run_batch(&self, direction: Direction, buffer: &mut [u8], records: &mut [Record]) -> bool {
        let Some(simd) = self.implementation.simd_for(records) else { return false };
        let suited = batch::is_in_order(buffer.len(), records);
        if suited {
            batch::run(simd, self.words.get(), direction, buffer, records);
        }
        suited
    }

    fn seal_one(&self, buffer: &mut [u8], record: &Record) -> Option<()> {
        let (text, tag) = slices(buffer, record)?;
        *tag = self.seal_in_place(nonce(record.counter), &[], text)?;
        Some(())
    }

    fn open_one(&self, buffer: &mut [u8], record: &Record) -> Option<()> {
        let sealed_len = record.text_len.checked_add(TAG_LEN)?;
        let sealed = buffer.get_mut(record.start..record.start.checked_add(sealed_len)?)?;
        self.open_in_place(nonce(record.counter), &[], sealed)
    }

    fn seal_in_place(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.ring.get().seal_in_place_separate_tag(nonce, Aad::from(aad), text).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open_in_place(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.ring.get().open_in_place(nonce, Aad::from(aad), sealed).ok().map(|_| ())
    }
}

/// The text of a record and the place of its tag.
fn slices<'b>(buffer: &'b mut [u8], record: &Record) -> Option<(&'b mut [u8], &'b mut [u8; TAG_LEN])> {
    let (text, behind) = buffer.get_mut(record.start..)?.split_at_mut_checked(record.text_len)?;
    Some((text, behind.first_chunk_mut()?))
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(test)]
mod tests;
