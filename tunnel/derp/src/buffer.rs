//! Received bytes, cut into frames where they lie.

use std::ops::Range;

use crate::frame::{FrameType, HEADER_LEN, parse_header};

/// Room offered to one read: a relay under load delivers tens of packets at once.
pub const READ_CHUNK_BYTES: usize = 64 << 10;
/// The buffer shrinks to [`READ_CHUNK_BYTES`] when it is empty and had grown beyond this.
const SHRINK_ABOVE_BYTES: usize = 4 * READ_CHUNK_BYTES;

/// A frame announced a body above the limit of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame of type {kind:#04x} announces {body_len} bytes")]
pub struct FrameTooLong {
    /// Its type.
    pub kind: u8,
    /// Announced length of its body.
    pub body_len: usize,
}

/// Holds what was read and not yet taken. Grows to one frame of the largest size plus one read, never beyond.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// What is filled and not yet taken.
    filled: Range<usize>,
}

impl FrameBuffer {
    /// An empty buffer; it takes memory with the first read.
    pub fn new() -> Self {
        Self::default()
    }

    /// Room to read into; follow with [`Self::note_filled`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.filled.is_empty() {
            self.filled = 0..0;
            if self.bytes.len() > SHRINK_ABOVE_BYTES {
                self.bytes.truncate(READ_CHUNK_BYTES);
                self.bytes.shrink_to_fit();
            }
        }
        if self.bytes.len() - self.filled.end < READ_CHUNK_BYTES {
            // Only the cut frame at the end moves: all whole frames were taken before the next read.
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
            self.bytes.resize(self.bytes.len().max(self.filled.end + READ_CHUNK_BYTES), 0);
        }
        &mut self.bytes[self.filled.end..]
    }

    /// `count` bytes were read into [`Self::space`].
    pub fn note_filled(&mut self, count: usize) {
        self.filled.end = self.bytes.len().min(self.filled.end + count);
    }

    /// The bytes that were read and not yet taken.
    pub fn unread(&self) -> &[u8] {
        &self.bytes[self.filled.clone()]
    }

    /// Takes `count` bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.filled.start = self.filled.end.min(self.filled.start + count);
    }

    /// Takes the next frame if all of it is there; its body lies at the range until the next [`Self::space`]. The limit is
    /// judged by the header, before the body is waited for.
    pub fn next_frame(
        &mut self,
        max_body_len: usize,
    ) -> Result<Option<(FrameType, Range<usize>)>, FrameTooLong> {
        let Some((kind, body_len)) = parse_header(self.unread()) else { return Ok(None) };
        if body_len > max_body_len {
            return Err(FrameTooLong { kind: kind.0, body_len });
        }
        if self.filled.len() < HEADER_LEN + body_len {
            return Ok(None);
        }
        let start = self.filled.start + HEADER_LEN;
        self.filled.start = start + body_len;
        Ok(Some((kind, start..start + body_len)))
    }

    /// The body of a frame that was taken.
    pub fn body(&mut self, range: Range<usize>) -> &mut [u8] {
        self.bytes.get_mut(range).unwrap_or_default()
    }
}
