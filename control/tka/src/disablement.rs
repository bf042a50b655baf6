//! Secrets that end a lock (Tailnet Lock sheet §14).

use argon2::{Algorithm, Argon2, Params, Version};
use rand_core::CryptoRngCore;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::limits::DISABLEMENT_VALUE_BYTES;
use crate::state::State;

/// The salt; 39 bytes of ASCII.
const SALT: &[u8] = b"tailscale network-lock disablement salt";
const MEMORY_KIB: u32 = 16384;
const PASSES: u32 = 4;
const LANES: u32 = 4;

/// Bytes of a secret that are looked at. The tools make 32; this bounds what control can make us hash.
pub const MAX_SECRET_BYTES: usize = 1024;

/// A secret that ends the lock of every node that sees it. Wiped on drop, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DisablementSecret(Vec<u8>);

/// The key derivation could not be done: the secret is too long, or there is no memory for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disablement value cannot be derived")]
pub struct DeriveError;

impl DisablementSecret {
    /// A fresh secret of 32 bytes.
    pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
        let mut raw = vec![0; 32];
        rng.fill_bytes(&mut raw);
        Self(raw)
    }

    /// From the bytes that a person or control gives.
    pub const fn from_bytes(raw: Vec<u8>) -> Self {
        Self(raw)
    }

    /// The bytes; for the request that disables the lock and the one time that they are shown.
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value that a state stores: Argon2i, version 0x13.
    pub fn value(&self) -> Result<[u8; DISABLEMENT_VALUE_BYTES], DeriveError> {
        if self.0.len() > MAX_SECRET_BYTES {
            return Err(DeriveError);
        }
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(DISABLEMENT_VALUE_BYTES));
        let argon2 = Argon2::new(Algorithm::Argon2i, Version::V0x13, params.map_err(|_| DeriveError)?);
        let mut value = [0; DISABLEMENT_VALUE_BYTES];
        argon2.hash_password_into(&self.0, SALT, &mut value).map_err(|_| DeriveError)?;
        Ok(value)
    }
}

impl State {
    /// Whether the secret ends the lock. A secret whose value cannot be derived does not.
    pub fn is_ended_by(&self, secret: &DisablementSecret) -> bool {
        let Ok(value) = secret.value() else { return false };
        let equal = self.disablement_values().map(|stored| stored.ct_eq(&value));
        equal.fold(subtle::Choice::from(0), |any, one| any | one).into()
    }
}

impl std::fmt::Debug for DisablementSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DisablementSecret([redacted])")
    }
}
