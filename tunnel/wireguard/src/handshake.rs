//! The handshake messages: `base/noise` laid out as WireGuard has it (data-plane sheet §1.2).

use tsrs_base_noise::{
    Initiator, NoiseError, Protocol, Responder, ResponderIdentified, ResponderReady, Secret, Split,
};
use tsrs_base_types::{NodePrivate, NodePublic};

use crate::tai64n::Tai64n;
use crate::wire::{INITIATION_LEN, Kind, RESPONSE_LEN, field, initiation, response};

const PROTOCOL: Protocol<'static> = Protocol {
    name: b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
    prologue: b"WireGuard v1 zx2c4 Jason@zx2c4.com",
    psk: true,
};

/// The preshared key of every peer. Its step is performed all the same (data-plane sheet §1.1).
pub(crate) const ZERO_PSK: [u8; 32] = [0; 32];

/// Our own node: what both roles need of it.
pub(crate) struct Identity {
    pub(crate) private: NodePrivate,
    pub(crate) public: NodePublic,
}

impl Identity {
    pub(crate) fn new(private: NodePrivate) -> Self {
        let public = private.public();
        Self { private, public }
    }

    /// The shared secret of the two static keys.
    pub(crate) fn static_static(&self, peer: &NodePublic) -> Result<Secret, NoiseError> {
        tsrs_base_noise::dh(self.private.expose_bytes(), peer.as_bytes())
    }
}

/// Writes an initiation; its MACs are still zero.
pub(crate) fn initiate(
    own: &Identity,
    peer: &NodePublic,
    static_static: &Secret,
    ephemeral: Secret,
    timestamp: Tai64n,
    local_index: u32,
) -> Result<(Initiator, [u8; INITIATION_LEN]), NoiseError> {
    let (state, fields) = Initiator::start(
        PROTOCOL,
        own.private.expose_bytes(),
        peer.as_bytes(),
        Some(static_static),
        ephemeral,
        &timestamp.to_bytes(),
    )?;
    let mut message = [0; INITIATION_LEN];
    message[..4].copy_from_slice(&Kind::Initiation.type_bytes());
    message[initiation::SENDER..initiation::EPHEMERAL.start].copy_from_slice(&local_index.to_le_bytes());
    message[initiation::EPHEMERAL].copy_from_slice(&fields.ephemeral);
    message[initiation::STATIC].copy_from_slice(&fields.sealed_static);
    message[initiation::TIMESTAMP].copy_from_slice(&fields.sealed_payload);
    Ok((state, message))
}

/// An initiation whose sender is known but not proven.
pub(crate) struct Claimed {
    state: ResponderIdentified,
    pub(crate) peer: NodePublic,
    pub(crate) remote_index: u32,
}

/// Reads an initiation as far as the static key of its sender.
pub(crate) fn read_initiation(own: &Identity, message: &[u8]) -> Result<Claimed, NoiseError> {
    let remote_index = field(message, initiation::SENDER).ok_or(NoiseError::Decrypt)?;
    let ephemeral = field(message, initiation::EPHEMERAL.start).ok_or(NoiseError::Decrypt)?;
    let sealed_static = field(message, initiation::STATIC.start).ok_or(NoiseError::Decrypt)?;
    let responder = Responder::new(PROTOCOL, own.private.expose_bytes(), own.public.as_bytes());
    let state = responder.read_static(&ephemeral, &sealed_static)?;
    let peer = NodePublic::from_bytes(*state.initiator_static());
    Ok(Claimed { state, peer, remote_index: u32::from_le_bytes(remote_index) })
}

/// An initiation that is proven, and when it was written.
pub(crate) struct Proven {
    state: ResponderReady,
    pub(crate) timestamp: Tai64n,
    pub(crate) remote_index: u32,
}

impl Claimed {
    /// Reads the timestamp, which only the owner of the static key can have sealed.
    pub(crate) fn prove(self, static_static: &Secret, message: &[u8]) -> Result<Proven, NoiseError> {
        let sealed = message.get(initiation::TIMESTAMP).ok_or(NoiseError::Decrypt)?;
        let (state, payload) = self.state.read_payload(Some(static_static), sealed)?;
        let raw = payload.as_slice().try_into().map_err(|_| NoiseError::Decrypt)?;
        Ok(Proven { state, timestamp: Tai64n::from_bytes(&raw), remote_index: self.remote_index })
    }
}

impl Proven {
    /// Writes the response; its MACs are still zero.
    pub(crate) fn respond(
        self,
        ephemeral: &Secret,
        psk: &[u8; 32],
        local_index: u32,
    ) -> Result<([u8; RESPONSE_LEN], Split), NoiseError> {
        let (fields, split) = self.state.respond(ephemeral, psk, &[])?;
        let mut message = [0; RESPONSE_LEN];
        message[..4].copy_from_slice(&Kind::Response.type_bytes());
        message[response::SENDER..response::RECEIVER].copy_from_slice(&local_index.to_le_bytes());
        message[response::RECEIVER..response::EPHEMERAL.start]
            .copy_from_slice(&self.remote_index.to_le_bytes());
        message[response::EPHEMERAL].copy_from_slice(&fields.ephemeral);
        message[response::EMPTY].copy_from_slice(&fields.sealed_payload);
        Ok((message, split))
    }
}

/// Reads the response to an initiation of ours: the peer's index and the keys.
pub(crate) fn read_response(
    state: &Initiator,
    message: &[u8],
    psk: &[u8; 32],
) -> Result<(u32, Split), NoiseError> {
    let remote_index = field(message, response::SENDER).ok_or(NoiseError::Decrypt)?;
    let ephemeral = field(message, response::EPHEMERAL.start).ok_or(NoiseError::Decrypt)?;
    let sealed = message.get(response::EMPTY).ok_or(NoiseError::Decrypt)?;
    let (_, split) = state.finish(&ephemeral, sealed, psk)?;
    Ok((u32::from_le_bytes(remote_index), split))
}

#[cfg(test)]
mod tests;
