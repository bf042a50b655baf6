//! ChaCha20-Poly1305 (RFC 8439) for data packets, one call per batch.
//!
//! A batch is any number of records in one buffer, sealed or opened where they lie. The nonce of a record is WireGuard's:
//! four zero bytes and the counter, little-endian; there is no additional data. The caller never uses a counter twice with one
//! key. The work is done by `ring` one record after the other; an implementation that works across the records of a
//! batch fits behind the same face.

mod sys;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

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

/// A key for one direction of a session. Its memory is wiped when it is dropped.
pub struct Key(sys::Wiped<LessSafeKey>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key([redacted])")
    }
}

impl Key {
    /// A key from its bytes.
    pub fn new(raw: &[u8; KEY_LEN]) -> Self {
        #[expect(
            clippy::expect_used,
            reason = "ring refuses a key only for its length, which the type fixes"
        )]
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, raw).expect("key length");
        Self(sys::Wiped::new(LessSafeKey::new(unbound)))
    }

    /// Encrypts the texts in place and writes the tags behind them.
    pub fn seal(&self, buffer: &mut [u8], records: &mut [Record]) {
        for record in records {
            record.done = self.seal_one(buffer, record).is_some();
        }
    }

    /// Checks the tags and decrypts the texts in place. What does not authenticate must not be read: it is unspecified.
    pub fn open(&self, buffer: &mut [u8], records: &mut [Record]) {
        for record in records {
            record.done = self.open_one(buffer, record).is_some();
        }
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
        let tag = self.0.get().seal_in_place_separate_tag(nonce, Aad::from(aad), text).ok()?;
        tag.as_ref().try_into().ok()
    }

    fn open_in_place(&self, nonce: [u8; 12], aad: &[u8], sealed: &mut [u8]) -> Option<()> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.get().open_in_place(nonce, Aad::from(aad), sealed).ok().map(|_| ())
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
