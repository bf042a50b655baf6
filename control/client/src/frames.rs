//! Framing of the map stream (control protocol sheet §10).
//!
//! ```text
//! | length u32 LITTLE-endian | length bytes: one zstd frame, or plain JSON |
//! ```

use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use ruzstd::decoding::StreamingDecoder;

/// Longest map response, decoded: several times the first one of a tailnet with 10,000 nodes.
pub(crate) const MAX_DECODED_LEN: usize = 64 << 20;
/// Longest frame on the wire. Plain JSON may be as long as the map response itself.
const MAX_FRAME_LEN: usize = MAX_DECODED_LEN;
const LENGTH_LEN: usize = 4;
const KEEP_ALIVE: &[u8] = br#"{"KeepAlive":true}"#;
/// First bytes of a zstd frame (RFC 8878 §3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Why a map stream cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("an empty frame")]
    Empty,
    #[error("a frame of {0} bytes")]
    TooLong(usize),
    #[error("a map response of more than {MAX_DECODED_LEN} bytes")]
    DecodedTooLong,
    #[error("a damaged zstd frame: {0}")]
    Zstd(String),
    #[error("{0} bytes behind a zstd frame")]
    Trailing(usize),
}

/// Cuts the body into frames. It never holds more than one frame and the chunk in which that ended.
#[derive(Debug, Default)]
pub(crate) struct FrameCutter {
    buffer: BytesMut,
}

impl FrameCutter {
    /// Takes a chunk of the body. Call [`FrameCutter::next`] until it gives nothing, before the next chunk.
    pub(crate) fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, without its length.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_LEN>() else { return Ok(None) };
        let len = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if len == 0 {
            return Err(FrameError::Empty);
        }
        if len > MAX_FRAME_LEN {
            return Err(FrameError::TooLong(len));
        }
        if self.buffer.len() - LENGTH_LEN < len {
            return Ok(None);
        }
        self.buffer.advance(LENGTH_LEN);
        let frame = self.buffer.split_to(len).freeze();
        if self.buffer.is_empty() {
            // A large first frame must not keep its memory for the rest of the stream.
            self.buffer = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// Whether the body may end here.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// A decoded frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Nothing but a sign of life.
    KeepAlive,
    /// A map response as JSON.
    Json(Bytes),
}

/// Decodes the JSON out of a frame, compressed or not: the server decides.
pub(crate) fn decode(frame: &Bytes) -> Result<Decoded, FrameError> {
    let json = if frame.starts_with(&ZSTD_MAGIC) { Bytes::from(decompress(frame)?) } else { frame.clone() };
    Ok(if json == KEEP_ALIVE { Decoded::KeepAlive } else { Decoded::Json(json) })
}

fn decompress(frame: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut rest = frame;
    let window = u64::try_from(MAX_DECODED_LEN).unwrap_or(u64::MAX);
    let decoder = StreamingDecoder::new_with_max_window_size(&mut rest, window)
        .map_err(|error| FrameError::Zstd(error.to_string()))?;
    let mut out = Vec::new();
    decoder.take(window + 1).read_to_end(&mut out).map_err(|error| FrameError::Zstd(error.to_string()))?;
    if out.len() > MAX_DECODED_LEN {
        return Err(FrameError::DecodedTooLong);
    }
    if !rest.is_empty() {
        return Err(FrameError::Trailing(rest.len()));
    }
    Ok(out)
}

/// Recognises keep-alives by their bytes, so that they are decoded once.
#[derive(Debug, Default)]
pub(crate) struct KeepAliveCache(Bytes);

impl KeepAliveCache {
    pub(crate) fn is_keep_alive(&self, frame: &Bytes) -> bool {
        !self.0.is_empty() && self.0 == frame
    }

    pub(crate) fn remember(&mut self, frame: &Bytes) {
        // A copy: the frame may be a small part of a large buffer.
        self.0 = Bytes::copy_from_slice(frame);
    }
}

#[cfg(test)]
mod tests;
