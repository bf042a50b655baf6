//! The client's side of the handshake.
//!
//! ```text
//! initiation, 101 bytes: | version u16 BE | 0x01 | 96 u16 BE | ephemeral 32 | sealed machine key 48 | tag 16 |
//! response,    51 bytes: | 0x02 | 48 u16 BE | ephemeral 32 | tag 16 |
//! error,      3+n bytes: | 0x03 | n u16 BE | text |
//! ```

use rand_core::CryptoRngCore;
use tokio::io::{AsyncRead, AsyncReadExt};
use tsrs_base_noise::{Initiator, NoiseError, Protocol, Split};
use tsrs_base_types::{MachinePrivate, MachinePublic};
use zeroize::Zeroizing;

use super::{HEADER_LEN, TYPE_ERROR, TYPE_INITIATION, TYPE_RESPONSE};

/// Name of the Noise protocol.
pub const PROTOCOL_NAME: &[u8] = b"Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// Bytes of the initiation.
pub const INITIATION_LEN: usize = 101;
/// Bytes of the response behind its header.
const RESPONSE_BODY_LEN: usize = 48;
/// Longest text of an error frame that is kept. It is not authenticated, so it may be anybody's.
pub const MAX_ERROR_LEN: usize = 1024;

/// What both sides mix in first.
pub fn prologue(version: u16) -> Vec<u8> {
    format!("Tailscale Control Protocol v{version}").into_bytes()
}

/// Why the handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The server closed the connection instead of answering.
    #[error("the server closed the connection instead of answering the handshake")]
    Closed,
    /// The server refused us. Its text is not authenticated.
    #[error("the server refuses the handshake: {0:?}")]
    Refused(String),
    /// The answer is no handshake message.
    #[error("the server's answer is no handshake message (type {kind}, {len} bytes)")]
    Malformed {
        /// Type of the frame.
        kind: u8,
        /// Length in the frame.
        len: usize,
    },
    /// The answer does not prove that the server holds the key that it published.
    #[error("the server does not prove its key: {0}")]
    Noise(#[from] NoiseError),
    /// The connection broke.
    #[error("the connection broke within the handshake: {0}")]
    Io(#[from] std::io::Error),
}

/// The handshake between its two messages.
pub struct Initiated(Initiator);

/// Makes the initiation, which travels in an HTTP header.
pub fn initiate(
    machine_key: &MachinePrivate,
    server_key: &MachinePublic,
    version: u16,
    rng: &mut impl CryptoRngCore,
) -> Result<(Initiated, [u8; INITIATION_LEN]), HandshakeError> {
    let mut ephemeral = Zeroizing::new([0; 32]);
    rng.fill_bytes(ephemeral.as_mut_slice());
    let prologue = prologue(version);
    let protocol = Protocol { name: PROTOCOL_NAME, prologue: &prologue, psk: false };
    let (initiator, fields) =
        Initiator::start(protocol, machine_key.expose_bytes(), server_key.as_bytes(), None, ephemeral, &[])?;
    let mut message = [0; INITIATION_LEN];
    let version = version.to_be_bytes();
    let parts: [&[u8]; 6] = [
        &version,
        &[TYPE_INITIATION],
        &[0, 96],
        &fields.ephemeral,
        &fields.sealed_static,
        &fields.sealed_payload,
    ];
    let mut at = 0;
    for part in parts {
        message[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    Ok((Initiated(initiator), message))
}

impl Initiated {
    /// Reads the server's answer and ends the handshake.
    pub async fn finish(self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Split, HandshakeError> {
        let mut header = [0; HEADER_LEN];
        read(stream, &mut header).await?;
        let [kind, high, low] = header;
        let len = usize::from(u16::from_be_bytes([high, low]));
        match (kind, len) {
            (TYPE_RESPONSE, RESPONSE_BODY_LEN) => {
                let mut body = [0; RESPONSE_BODY_LEN];
                read(stream, &mut body).await?;
                let mut ephemeral = [0; 32];
                ephemeral.copy_from_slice(&body[..32]);
                let (_, split) = self.0.finish(&ephemeral, &body[32..], &[0; 32])?;
                Ok(split)
            }
            (TYPE_ERROR, _) => {
                let mut text = vec![0; len.min(MAX_ERROR_LEN)];
                read(stream, &mut text).await?;
                Err(HandshakeError::Refused(String::from_utf8_lossy(&text).into_owned()))
            }
            _ => Err(HandshakeError::Malformed { kind, len }),
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Result<(), HandshakeError> {
    match stream.read_exact(buffer).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(HandshakeError::Closed),
        Err(error) => Err(error.into()),
    }
}
