//! Sealing and opening of transport records.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Tag};
use tsrs_base_noise::{Secret, Split};

use super::{HEADER_LEN, MAX_PLAINTEXT_LEN, TAG_LEN, TYPE_RECORD};

/// Why a record was refused; the connection is dead afterwards.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RecordError {
    #[error("frame of type {0} after the handshake")]
    Type(u8),
    #[error("record of {0} bytes is longer than allowed")]
    TooLong(usize),
    #[error("record does not authenticate")]
    Decrypt,
    #[error("record counter is used up")]
    Counter,
}

/// One direction: a key and the number of the next record.
struct Direction {
    cipher: ChaCha20Poly1305,
    counter: u64,
}

impl Direction {
    fn new(key: &Secret) -> Self {
        Self { cipher: ChaCha20Poly1305::new(key.as_slice().into()), counter: 0 }
    }

    /// Four zero bytes and the counter, big-endian: not the little-endian of the Noise standard.
    fn next_nonce(&mut self) -> Result<[u8; 12], RecordError> {
        let counter = self.counter;
        self.counter = counter.checked_add(1).ok_or(RecordError::Counter)?;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_be_bytes());
        Ok(nonce)
    }
}

/// Both directions of an established connection.
pub(crate) struct Records {
    seal: Direction,
    open: Direction,
}

impl Records {
    /// The keys as the responder uses them.
    pub(crate) fn responder(split: &Split) -> Self {
        Self {
            seal: Direction::new(&split.responder_to_initiator),
            open: Direction::new(&split.initiator_to_responder),
        }
    }

    /// The keys as the initiator uses them.
    #[cfg(test)]
    pub(crate) fn initiator(split: &Split) -> Self {
        Self {
            seal: Direction::new(&split.initiator_to_responder),
            open: Direction::new(&split.responder_to_initiator),
        }
    }

    /// Appends one record with the first bytes of `plain` to `out`; gives how many were taken.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<usize, RecordError> {
        let taken = plain.len().min(MAX_PLAINTEXT_LEN);
        let nonce = self.seal.next_nonce()?;
        let sealed_len = u16::try_from(taken + TAG_LEN).map_err(|_| RecordError::TooLong(taken))?;
        out.push(TYPE_RECORD);
        out.extend_from_slice(&sealed_len.to_be_bytes());
        let body = out.len();
        out.extend_from_slice(&plain[..taken]);
        let tag = self
            .seal
            .cipher
            .encrypt_in_place_detached(&nonce.into(), &[], &mut out[body..])
            .map_err(|_| RecordError::Decrypt)?;
        out.extend_from_slice(&tag);
        Ok(taken)
    }

    /// Opens a record in place; `frame` is the whole frame, the result its plaintext.
    pub(crate) fn open<'a>(&mut self, frame: &'a mut [u8]) -> Result<&'a [u8], RecordError> {
        let body = frame.get_mut(HEADER_LEN..).ok_or(RecordError::Decrypt)?;
        let plain_len = body.len().checked_sub(TAG_LEN).ok_or(RecordError::Decrypt)?;
        let (plain, tag) = body.split_at_mut(plain_len);
        let nonce = self.open.next_nonce()?;
        self.open
            .cipher
            .decrypt_in_place_detached(&nonce.into(), &[], plain, Tag::from_slice(tag))
            .map_err(|_| RecordError::Decrypt)?;
        Ok(plain)
    }
}
