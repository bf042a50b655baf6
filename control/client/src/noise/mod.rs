//! The ts2021 transport: Noise IK handshake, records, and a byte stream over them (control protocol sheet §6).

mod handshake;
mod record;
mod stream;

pub use handshake::{
    HandshakeError, INITIATION_LEN, Initiated, MAX_ERROR_LEN, PROTOCOL_NAME, initiate, prologue,
};
pub use record::{MAX_CIPHERTEXT_LEN, MAX_PLAINTEXT_LEN, Opener, RecordError, Sealer};
pub use stream::NoiseStream;

/// Bytes in front of every frame but the initiation: type and length.
pub(crate) const HEADER_LEN: usize = 3;

pub(crate) const TYPE_INITIATION: u8 = 1;
pub(crate) const TYPE_RESPONSE: u8 = 2;
pub(crate) const TYPE_ERROR: u8 = 3;
pub(crate) const TYPE_RECORD: u8 = 4;

#[cfg(test)]
pub(crate) mod test_server;
#[cfg(test)]
mod tests;
