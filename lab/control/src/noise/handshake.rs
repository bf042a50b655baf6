//! The two handshake messages.
//!
//! ```text
//! initiation, 101 bytes                        response, 51 bytes
//!   version u16 BE                               type 02
//!   type 01                                      length u16 BE = 48
//!   length u16 BE = 96                           server ephemeral 32
//!   client ephemeral 32                          tag 16
//!   client machine key, sealed, 48
//!   tag 16
//! ```

use tsrs_base_noise::{NoiseError, Protocol, Responder, Secret, public_of};
use tsrs_base_types::{MachinePrivate, MachinePublic};

use super::records::Records;
use super::{TYPE_INITIATION, TYPE_RESPONSE};

/// Bytes of an initiation.
const INITIATION_LEN: usize = 101;
/// Bytes of an initiation's body.
const INITIATION_BODY_LEN: u16 = 96;
/// Bytes of a response's body.
const RESPONSE_BODY_LEN: u16 = 48;
const PROTOCOL_NAME: &[u8] = b"Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// ts2021 has no preshared key.
const NO_PSK: [u8; 32] = [0; 32];

/// Why an initiation was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum HandshakeError {
    #[error("initiation has {0} bytes instead of {INITIATION_LEN}")]
    Length(usize),
    #[error("initiation has a wrong type or length field")]
    Header,
    #[error(transparent)]
    Noise(#[from] NoiseError),
}

/// What an accepted handshake gives.
pub(crate) struct Accepted {
    /// Capability version that the client claims.
    pub(crate) version: u16,
    /// The client's machine key, proved by the handshake.
    pub(crate) machine: MachinePublic,
    /// The response, to be sent first.
    pub(crate) response: Vec<u8>,
    /// The keys of the two directions.
    pub(crate) records: Records,
}

/// Reads an initiation and makes the response.
pub(crate) fn accept(
    own: &MachinePrivate,
    ephemeral: &Secret,
    initiation: &[u8],
) -> Result<Accepted, HandshakeError> {
    let initiation: &[u8; INITIATION_LEN] =
        initiation.try_into().map_err(|_| HandshakeError::Length(initiation.len()))?;
    let [version_high, version_low, kind, length_high, length_low, body @ ..] = initiation;
    if *kind != TYPE_INITIATION || u16::from_be_bytes([*length_high, *length_low]) != INITIATION_BODY_LEN {
        return Err(HandshakeError::Header);
    }
    let version = u16::from_be_bytes([*version_high, *version_low]);
    let (client_ephemeral, rest) = split(body)?;
    let (sealed_static, sealed_payload) = split::<48>(rest)?;

    let prologue = format!("Tailscale Control Protocol v{version}");
    let protocol = Protocol { name: PROTOCOL_NAME, prologue: prologue.as_bytes(), psk: false };
    let responder = Responder::new(protocol, own.expose_bytes(), &public_of(own.expose_bytes()));
    let identified = responder.read_static(client_ephemeral, sealed_static)?;
    let machine = MachinePublic::from_bytes(*identified.initiator_static());
    let (ready, _empty) = identified.read_payload(None, sealed_payload)?;
    let (message, split) = ready.respond(ephemeral, &NO_PSK, &[])?;

    let mut response = vec![TYPE_RESPONSE];
    response.extend_from_slice(&RESPONSE_BODY_LEN.to_be_bytes());
    response.extend_from_slice(&message.ephemeral);
    response.extend_from_slice(&message.sealed_payload);
    Ok(Accepted { version, machine, response, records: Records::responder(&split) })
}

fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), HandshakeError> {
    bytes.split_first_chunk().ok_or(HandshakeError::Header)
}
