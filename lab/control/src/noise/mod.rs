//! The server's half of ts2021 (control sheet §6): Noise IK as responder, records, and a byte stream over them.

mod handshake;
mod records;
mod stream;

pub(crate) use handshake::accept;
#[cfg(test)]
pub(crate) use records::Records;
pub(crate) use stream::NoiseStream;

/// Bytes of a record's header: type and length.
const HEADER_LEN: usize = 3;
/// Longest record, header included.
const MAX_FRAME_LEN: usize = 4096;
/// Longest ciphertext of a record.
const MAX_CIPHERTEXT_LEN: usize = MAX_FRAME_LEN - HEADER_LEN;
/// Bytes of a Poly1305 tag.
const TAG_LEN: usize = 16;
/// Longest plaintext of a record.
const MAX_PLAINTEXT_LEN: usize = MAX_CIPHERTEXT_LEN - TAG_LEN;

/// Frame type of the initiation.
const TYPE_INITIATION: u8 = 1;
/// Frame type of the response.
const TYPE_RESPONSE: u8 = 2;
/// Frame type of a record.
const TYPE_RECORD: u8 = 4;

#[cfg(test)]
mod tests;
