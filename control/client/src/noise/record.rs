//! Sealing and opening of records.
//!
//! ```text
//! 0      1        3
//! | 0x04 | length | ciphertext, the last 16 bytes are the tag |
//!          u16 BE
//! ```

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use zeroize::Zeroizing;

use super::{HEADER_LEN, TYPE_RECORD};

/// Bytes of a Poly1305 tag.
const TAG_LEN: usize = 16;
/// Longest frame, header included.
const MAX_FRAME_LEN: usize = 4096;
/// Longest ciphertext of a record, tag included.
pub const MAX_CIPHERTEXT_LEN: usize = MAX_FRAME_LEN - HEADER_LEN;
/// Longest plaintext of a record.
pub const MAX_PLAINTEXT_LEN: usize = MAX_CIPHERTEXT_LEN - TAG_LEN;

/// Why the transport cannot go on. Every one is final: the two counters no longer agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A frame of another type came where only records may.
    #[error("frame of type {0} instead of a record")]
    Type(u8),
    /// The length is not that of a record.
    #[error("record of {0} bytes")]
    Length(usize),
    /// The record does not open: damaged, replayed or forged.
    #[error("record does not authenticate")]
    Decrypt,
    /// The counter has run out.
    #[error("too many records on one connection")]
    Exhausted,
}

/// Key and counter of one direction.
struct Cipher {
    aead: ChaCha20Poly1305,
    counter: u64,
}

impl Cipher {
    fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self { aead: ChaCha20Poly1305::new(key.as_slice().into()), counter: 0 }
    }

    /// Four zero bytes and the counter **big-endian**, unlike what the Noise specification says for this cipher.
    fn next_nonce(&mut self) -> Result<Nonce, RecordError> {
        if self.counter == u64::MAX {
            return Err(RecordError::Exhausted);
        }
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter += 1;
        Ok(nonce.into())
    }
}

/// Writes records.
pub struct Sealer(Cipher);

impl Sealer {
    /// With the key of the direction that is written.
    pub fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(Cipher::new(key))
    }

    /// Appends one record with as much of `plain` as fits, and says how much that was.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<usize, RecordError> {
        let plain_len = plain.len().min(MAX_PLAINTEXT_LEN);
        let plain = &plain[..plain_len];
        let nonce = self.0.next_nonce()?;
        let length = u16::try_from(plain_len + TAG_LEN).map_err(|_| RecordError::Length(plain_len))?;
        out.push(TYPE_RECORD);
        out.extend_from_slice(&length.to_be_bytes());
        let start = out.len();
        out.extend_from_slice(plain);
        let tag = self
            .0
            .aead
            .encrypt_in_place_detached(&nonce, &[], &mut out[start..])
            .map_err(|_| RecordError::Length(plain_len))?;
        out.extend_from_slice(&tag);
        Ok(plain_len)
    }

    #[cfg(test)]
    pub(crate) const fn set_counter(&mut self, counter: u64) {
        self.0.counter = counter;
    }
}

/// Reads records.
pub struct Opener(Cipher);

impl Opener {
    /// With the key of the direction that is read.
    pub fn new(key: &Zeroizing<[u8; 32]>) -> Self {
        Self(Cipher::new(key))
    }

    /// The length of the ciphertext that follows this header.
    pub fn ciphertext_len(header: [u8; HEADER_LEN]) -> Result<usize, RecordError> {
        let [kind, high, low] = header;
        if kind != TYPE_RECORD {
            return Err(RecordError::Type(kind));
        }
        let len = usize::from(u16::from_be_bytes([high, low]));
        if !(TAG_LEN..=MAX_CIPHERTEXT_LEN).contains(&len) {
            return Err(RecordError::Length(len));
        }
        Ok(len)
    }

    /// Opens a ciphertext in place; the plaintext is what it returns the length of.
    pub fn open(&mut self, ciphertext: &mut [u8]) -> Result<usize, RecordError> {
        let plain_len = ciphertext.len().checked_sub(TAG_LEN).ok_or(RecordError::Length(ciphertext.len()))?;
        let nonce = self.0.next_nonce()?;
        let (plain, tag) = ciphertext.split_at_mut(plain_len);
        self.0
            .aead
            .decrypt_in_place_detached(&nonce, &[], plain, (&*tag).into())
            .map_err(|_| RecordError::Decrypt)?;
        Ok(plain_len)
    }
}
