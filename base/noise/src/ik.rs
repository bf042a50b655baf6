//! The IK pattern: `<- s ... -> e, es, s, ss  <- e, ee, se[, psk]`.
//!
//! Each step takes the state by value and yields the next, so that no step can be repeated or left out.

use zeroize::Zeroizing;

use crate::symmetric::{Split, SymmetricState, TAG_LEN};
use crate::{NoiseError, PublicBytes, Secret, dh, public_of};

/// Bytes of the sealed static key.
const SEALED_STATIC_LEN: usize = 32 + TAG_LEN;

/// What both sides must agree on before the first message.
#[derive(Clone, Copy)]
pub struct Protocol<'a> {
    /// Full protocol name, longer than 32 bytes.
    pub name: &'a [u8],
    /// Data that both sides mix in first.
    pub prologue: &'a [u8],
    /// Whether this is a psk2 handshake, where ephemeral keys also go into the chaining key.
    pub psk: bool,
}

/// First message, as fields; the caller lays them out.
pub struct Initiation {
    /// Ephemeral public key, in clear.
    pub ephemeral: PublicBytes,
    /// The initiator's static public key, sealed.
    pub sealed_static: [u8; SEALED_STATIC_LEN],
    /// The payload, sealed.
    pub sealed_payload: Vec<u8>,
}

/// Second message, as fields.
pub struct Response {
    /// Ephemeral public key, in clear.
    pub ephemeral: PublicBytes,
    /// The payload, sealed.
    pub sealed_payload: Vec<u8>,
}

/// The initiator between its two steps.
#[derive(Clone)]
pub struct Initiator {
    state: SymmetricState,
    psk: bool,
    ephemeral: Secret,
    own_static: Secret,
}

impl Initiator {
    /// Writes the first message. `static_static` is the shared secret of the two static keys where the caller keeps it.
    pub fn start(
        protocol: Protocol<'_>,
        own_static: &[u8; 32],
        responder_static: &PublicBytes,
        static_static: Option<&Secret>,
        ephemeral: Secret,
        payload: &[u8],
    ) -> Result<(Self, Initiation), NoiseError> {
        let mut state = SymmetricState::new(protocol.name, protocol.prologue);
        state.mix_hash(responder_static);
        let ephemeral_public = public_of(&ephemeral);
        mix_ephemeral(&mut state, protocol.psk, &ephemeral_public);
        state.mix_key(dh(&ephemeral, responder_static)?.as_slice());
        let sealed_static =
            state.encrypt_and_hash(&public_of(own_static))?.try_into().map_err(|_| NoiseError::Decrypt)?;
        match static_static {
            Some(shared) => state.mix_key(shared.as_slice()),
            None => state.mix_key(dh(own_static, responder_static)?.as_slice()),
        }
        let sealed_payload = state.encrypt_and_hash(payload)?;
        let own_static = Zeroizing::new(*own_static);
        Ok((
            Self { state, psk: protocol.psk, ephemeral, own_static },
            Initiation { ephemeral: ephemeral_public, sealed_static, sealed_payload },
        ))
    }

    /// Reads the second message. `psk` is used by psk2 handshakes only. The state stays usable when the message is
    /// refused, since anybody can send one.
    pub fn finish(
        &self,
        ephemeral: &PublicBytes,
        sealed_payload: &[u8],
        psk: &[u8; 32],
    ) -> Result<(Zeroizing<Vec<u8>>, Split), NoiseError> {
        let mut state = self.state.clone();
        mix_ephemeral(&mut state, self.psk, ephemeral);
        state.mix_key(dh(&self.ephemeral, ephemeral)?.as_slice());
        state.mix_key(dh(&self.own_static, ephemeral)?.as_slice());
        if self.psk {
            state.mix_key_and_hash(psk);
        }
        let payload = state.decrypt_and_hash(sealed_payload)?;
        Ok((payload, state.split()))
    }
}

/// The responder before the first message.
pub struct Responder {
    state: SymmetricState,
    psk: bool,
    own_static: Secret,
}

impl Responder {
    /// A responder with its static key.
    pub fn new(protocol: Protocol<'_>, own_static: &[u8; 32], own_public: &PublicBytes) -> Self {
        let mut state = SymmetricState::new(protocol.name, protocol.prologue);
        state.mix_hash(own_public);
        Self { state, psk: protocol.psk, own_static: Zeroizing::new(*own_static) }
    }

    /// Opens the initiator's static key: it now claims to be that key, which the payload's step proves.
    pub fn read_static(
        mut self,
        ephemeral: &PublicBytes,
        sealed_static: &[u8; SEALED_STATIC_LEN],
    ) -> Result<ResponderIdentified, NoiseError> {
        mix_ephemeral(&mut self.state, self.psk, ephemeral);
        self.state.mix_key(dh(&self.own_static, ephemeral)?.as_slice());
        let plain = self.state.decrypt_and_hash(sealed_static)?;
        let initiator_static = plain.as_slice().try_into().map_err(|_| NoiseError::Decrypt)?;
        Ok(ResponderIdentified { responder: self, initiator_static, initiator_ephemeral: *ephemeral })
    }
}

/// The responder that knows who the initiator claims to be.
pub struct ResponderIdentified {
    responder: Responder,
    initiator_static: PublicBytes,
    initiator_ephemeral: PublicBytes,
}

impl ResponderIdentified {
    /// The claimed static key of the initiator.
    pub const fn initiator_static(&self) -> &PublicBytes {
        &self.initiator_static
    }

    /// Opens the payload and with it authenticates the initiator.
    pub fn read_payload(
        mut self,
        static_static: Option<&Secret>,
        sealed_payload: &[u8],
    ) -> Result<(ResponderReady, Zeroizing<Vec<u8>>), NoiseError> {
        let state = &mut self.responder.state;
        match static_static {
            Some(shared) => state.mix_key(shared.as_slice()),
            None => state.mix_key(dh(&self.responder.own_static, &self.initiator_static)?.as_slice()),
        }
        let payload = state.decrypt_and_hash(sealed_payload)?;
        let ready = ResponderReady {
            state: self.responder.state,
            psk: self.responder.psk,
            initiator_static: self.initiator_static,
            initiator_ephemeral: self.initiator_ephemeral,
        };
        Ok((ready, payload))
    }
}

/// The responder that may answer.
pub struct ResponderReady {
    state: SymmetricState,
    psk: bool,
    initiator_static: PublicBytes,
    initiator_ephemeral: PublicBytes,
}

impl ResponderReady {
    /// Writes the second message and ends the handshake.
    pub fn respond(
        mut self,
        ephemeral: &Secret,
        psk: &[u8; 32],
        payload: &[u8],
    ) -> Result<(Response, Split), NoiseError> {
        let ephemeral_public = public_of(ephemeral);
        mix_ephemeral(&mut self.state, self.psk, &ephemeral_public);
        self.state.mix_key(dh(ephemeral, &self.initiator_ephemeral)?.as_slice());
        self.state.mix_key(dh(ephemeral, &self.initiator_static)?.as_slice());
        if self.psk {
            self.state.mix_key_and_hash(psk);
        }
        let sealed_payload = self.state.encrypt_and_hash(payload)?;
        Ok((Response { ephemeral: ephemeral_public, sealed_payload }, self.state.split()))
    }
}

fn mix_ephemeral(state: &mut SymmetricState, psk: bool, ephemeral: &PublicBytes) {
    state.mix_hash(ephemeral);
    if psk {
        state.mix_chaining_key(ephemeral);
    }
}
