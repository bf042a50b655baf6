//! NaCl `crypto_box` (X25519, HSalsa20, XSalsa20-Poly1305, tag first), as disco and DERP use it.

use crypto_box::aead::Aead;
use rand_core::CryptoRngCore;
use zeroize::Zeroizing;

/// Bytes of the nonce in front of or beside a box.
pub const NONCE_LEN: usize = 24;
/// Bytes that a box is longer than its plaintext.
pub const TAG_LEN: usize = 16;

/// A box between one private and one public key, computed once and used for many messages.
pub struct NaclBox(crypto_box::SalsaBox);

/// The box did not open: wrong keys, damaged, or too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("box does not open with these keys")]
pub struct OpenError;

impl NaclBox {
    pub(crate) fn new(private: &[u8; 32], public: &[u8; 32]) -> Self {
        let secret = crypto_box::SecretKey::from(*private);
        Self(crypto_box::SalsaBox::new(&crypto_box::PublicKey::from(*public), &secret))
    }

    /// Seals `plain` under a given nonce. A nonce must never repeat between two keys.
    pub fn seal_with_nonce(&self, nonce: &[u8; NONCE_LEN], plain: &[u8]) -> Vec<u8> {
        // Sealing fails only for plaintexts of 2^38 bytes and more; an empty box opens nowhere.
        self.0.encrypt(&(*nonce).into(), plain).unwrap_or_default()
    }

    /// Seals `plain` under a random nonce; the result is nonce, then box.
    pub fn seal(&self, rng: &mut impl CryptoRngCore, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let mut out = Vec::with_capacity(NONCE_LEN + TAG_LEN + plain.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&self.seal_with_nonce(&nonce, plain));
        out
    }

    /// Opens `nonce || box`, the form that [`Self::seal`] makes.
    pub fn open(&self, nonce_and_box: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (nonce, sealed) = nonce_and_box.split_first_chunk::<NONCE_LEN>().ok_or(OpenError)?;
        self.0.decrypt(&(*nonce).into(), sealed).map(Zeroizing::new).map_err(|_| OpenError)
    }
}

impl std::fmt::Debug for NaclBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NaclBox([redacted])")
    }
}
