//! CipherState and SymmetricState of Noise (revision 34 §5.1, §5.2) with BLAKE2s-256.

use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Digest};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::AeadInPlace;
use zeroize::{Zeroize, Zeroizing};

use crate::{NoiseError, Secret};

/// Bytes of a Poly1305 tag.
pub(crate) const TAG_LEN: usize = 16;

/// BLAKE2s-256 over the parts, one after the other.
pub fn blake2s(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in parts {
        Update::update(&mut hash, part);
    }
    hash.finalize_fixed().into()
}

/// HMAC-BLAKE2s-256 over the parts, one after the other.
pub fn hmac_blake2s(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    // HMAC pads a key with zeros to the block size of the hash (RFC 2104 §2).
    let mut block = Zeroizing::new([0; 64]);
    block[..32].copy_from_slice(key);
    let mut mac = <hmac::SimpleHmac<Blake2s256> as KeyInit>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize_fixed().into())
}

/// HKDF of Noise §4.3: `N` outputs (1 to 3) from a chaining key and input material.
pub fn kdf<const N: usize>(chaining_key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let temp = hmac_blake2s(chaining_key, &[input]);
    let mut outputs: [Secret; N] = std::array::from_fn(|_| Zeroizing::new([0; 32]));
    let mut previous = Zeroizing::new(Vec::with_capacity(32));
    for (counter, output) in (1u8..).zip(outputs.iter_mut()) {
        *output = hmac_blake2s(&temp, &[&previous, &[counter]]);
        previous.zeroize();
        previous.extend_from_slice(output.as_slice());
    }
    outputs
}

/// The two transport keys at the end of a handshake.
#[derive(Clone)]
pub struct Split {
    /// The initiator sends with this key.
    pub initiator_to_responder: Secret,
    /// The responder sends with this key.
    pub responder_to_initiator: Secret,
    /// The transcript hash, for channel binding.
    pub handshake_hash: [u8; 32],
    /// The last chaining key; known-answer tests compare it.
    pub chaining_key: Secret,
}

impl std::fmt::Debug for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Split([redacted])")
    }
}

#[derive(Clone)]
pub(crate) struct SymmetricState {
    chaining_key: Secret,
    hash: [u8; 32],
    key: Option<Secret>,
    nonce: u64,
}

impl SymmetricState {
    pub(crate) fn new(protocol_name: &[u8], prologue: &[u8]) -> Self {
        // Both protocol names are longer than a hash, so they are hashed and not padded (Noise §5.2).
        debug_assert!(protocol_name.len() > 32);
        let hash = blake2s(&[protocol_name]);
        let mut state = Self { chaining_key: Zeroizing::new(hash), hash, key: None, nonce: 0 };
        state.mix_hash(prologue);
        state
    }

    pub(crate) fn mix_hash(&mut self, data: &[u8]) {
        self.hash = blake2s(&[&self.hash, data]);
    }

    /// Mixes a public value into the chaining key only, as psk handshakes do with ephemeral keys (Noise §9.2).
    pub(crate) fn mix_chaining_key(&mut self, input: &[u8]) {
        let [chaining_key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
    }

    pub(crate) fn mix_key(&mut self, input: &[u8]) {
        let [chaining_key, key] = kdf(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        self.key = Some(key);
        self.nonce = 0;
    }

    pub(crate) fn mix_key_and_hash(&mut self, psk: &[u8; 32]) {
        let [chaining_key, hash_input, key] = kdf(&self.chaining_key, psk);
        self.chaining_key = chaining_key;
        self.mix_hash(hash_input.as_slice());
        self.key = Some(key);
        self.nonce = 0;
    }

    pub(crate) fn encrypt_and_hash(&mut self, plain: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let (cipher, nonce) = self.cipher()?;
        let mut out = plain.to_vec();
        let tag = cipher
            .encrypt_in_place_detached(&nonce.into(), &self.hash, &mut out)
            .map_err(|_| NoiseError::Decrypt)?;
        out.extend_from_slice(&tag);
        self.mix_hash(&out);
        Ok(out)
    }

    pub(crate) fn decrypt_and_hash(&mut self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NoiseError> {
        let (cipher, nonce) = self.cipher()?;
        let body_len = sealed.len().checked_sub(TAG_LEN).ok_or(NoiseError::Decrypt)?;
        let (body, tag) = sealed.split_at(body_len);
        let mut plain = Zeroizing::new(body.to_vec());
        cipher
            .decrypt_in_place_detached(&nonce.into(), &self.hash, &mut plain, tag.into())
            .map_err(|_| NoiseError::Decrypt)?;
        self.mix_hash(sealed);
        Ok(plain)
    }

    pub(crate) fn split(self) -> Split {
        let [initiator_to_responder, responder_to_initiator] = kdf(&self.chaining_key, &[]);
        Split {
            initiator_to_responder,
            responder_to_initiator,
            handshake_hash: self.hash,
            chaining_key: self.chaining_key,
        }
    }

    /// The cipher and the nonce to use with it: four zero bytes and the counter, little-endian (Noise §12.3).
    fn cipher(&mut self) -> Result<(ChaCha20Poly1305, [u8; 12]), NoiseError> {
        let key = self.key.as_ref().ok_or(NoiseError::Decrypt)?;
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        self.nonce += 1;
        Ok((ChaCha20Poly1305::new(key.as_slice().into()), nonce))
    }
}
