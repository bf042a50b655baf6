//! The private key of Tailnet Lock.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use rand_core::CryptoRngCore;
use ring::signature::{Ed25519KeyPair, KeyPair};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{KeyParseError, LockPublic};

/// Private key of Tailnet Lock: an Ed25519 seed, then the public key (control protocol sheet §2).
///
/// Wiped on drop; never printed; compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct LockPrivate([u8; 64]);

impl LockPrivate {
    const PREFIX: &str = "nlpriv:";

    /// A fresh key, or `None` should the random generator give a seed that Ed25519 refuses.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Option<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::from_seed(&seed)
    }

    /// The key that a seed of RFC 8032 §5.1.5 stands for.
    pub fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let mut raw = [0; 64];
        raw[..32].copy_from_slice(seed);
        raw[32..].copy_from_slice(pair.public_key().as_ref());
        Some(Self(raw))
    }

    /// The public key, as it stands behind the seed.
    pub fn public(&self) -> LockPublic {
        let mut raw = [0; 32];
        raw.copy_from_slice(&self.0[32..]);
        LockPublic::from_bytes(raw)
    }

    /// From the 64 raw bytes, kept as they are; a pair that does not belong together cannot sign.
    pub const fn from_bytes(raw: [u8; 64]) -> Self {
        Self(raw)
    }

    /// Seed, then public key: for the text of a wrapped auth key only.
    pub const fn expose_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// The Ed25519 signature of a message (RFC 8032 §5.1.6), or `None` if the public key is not that of the seed:
    /// signing with another's public key would give the private key away.
    pub fn sign(&self, message: &[u8]) -> Option<[u8; 64]> {
        let (seed, public) = self.0.split_at(32);
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).ok()?;
        pair.sign(message).as_ref().try_into().ok()
    }

    /// The text form for the state file.
    pub fn expose_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(HEXLOWER.encode(&self.0));
        Zeroizing::new([Self::PREFIX, &digits].concat())
    }
}

impl PartialEq for LockPrivate {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for LockPrivate {}

impl fmt::Debug for LockPrivate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockPrivate([redacted])")
    }
}

impl FromStr for LockPrivate {
    type Err = KeyParseError;

    fn from_str(text: &str) -> Result<Self, KeyParseError> {
        let digits = text.strip_prefix(Self::PREFIX).ok_or(KeyParseError::Prefix(Self::PREFIX))?;
        if digits.len() != 128 {
            return Err(KeyParseError::Length(128));
        }
        let mut raw = [0; 64];
        HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), &mut raw).map_err(|_| KeyParseError::Hex)?;
        Ok(Self(raw))
    }
}
