//! The Noise pattern IK with BLAKE2s and ChaCha20-Poly1305, plain (control, ts2021) and with psk2 (WireGuard).
//!
//! [`Initiator`] and [`Responder`] hold the handshake as far as both protocols share it: tokens, transcript hash and
//! key schedule (Noise revision 34 §5, §7.5, §9). The caller owns the message layout, the MACs and the
//! transport records; it passes the ephemeral key in, so that the crate needs no randomness.
#![forbid(unsafe_code)]

mod ik;
mod symmetric;

pub use ik::{Initiation, Initiator, Protocol, Responder, ResponderIdentified, ResponderReady, Response};
pub use symmetric::{Split, blake2s, hmac_blake2s, kdf};

use zeroize::Zeroizing;

/// A raw X25519 public key.
pub type PublicBytes = [u8; 32];
/// A secret of 32 bytes, wiped on drop.
pub type Secret = Zeroizing<[u8; 32]>;

/// Why a handshake message was refused. The fault is always the other side's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoiseError {
    /// A sealed field does not open.
    #[error("handshake field does not authenticate")]
    Decrypt,
    /// The other side's public key gives an all-zero shared secret (a point of small order).
    #[error("public key of small order")]
    SmallOrder,
}

/// X25519, refusing an all-zero shared secret.
pub fn dh(private: &[u8; 32], public: &PublicBytes) -> Result<Secret, NoiseError> {
    let secret = x25519_dalek::StaticSecret::from(*private);
    let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(*public));
    if !shared.was_contributory() {
        return Err(NoiseError::SmallOrder);
    }
    Ok(Zeroizing::new(shared.to_bytes()))
}

/// The public key of a private one.
pub fn public_of(private: &[u8; 32]) -> PublicBytes {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*private)).to_bytes()
}

#[cfg(test)]
mod tests;
