//! Hashes and their text form (Tailnet Lock sheet §6).

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use blake2::{Blake2s256, Digest};
use data_encoding::{BASE32_NOPAD, Encoding, HEXLOWER_PERMISSIVE, Specification};

/// Hash of an update with its signatures: BLAKE2s-256 of the canonical encoding. Names the update.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AumHash([u8; 32]);

/// What is signed: BLAKE2s-256 of an encoding without its own signature.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SigDigest([u8; 32]);

/// The text is not the hash of an update: 52 characters of base32, upper case, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the hash of an update")]
pub struct HashParseError;

/// Base32 whose unused last bits are ignored, as the reference has it.
static LENIENT_BASE32: LazyLock<Option<Encoding>> = LazyLock::new(|| {
    let mut rules = Specification::new();
    rules.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    rules.check_trailing_bits = false;
    rules.encoding().ok()
});

impl AumHash {
    /// Length of the text form.
    pub const TEXT_LEN: usize = 52;

    /// From the raw bytes.
    pub const fn from_bytes(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of an encoding.
    pub(crate) fn of(encoding: &[u8]) -> Self {
        Self(blake2s(encoding))
    }

    /// The form that a person may give: base32, or 64 hex digits.
    pub fn from_argument(text: &str) -> Result<Self, HashParseError> {
        if text.len() == 64 {
            let raw = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| HashParseError)?;
            return raw.try_into().map(Self).map_err(|_| HashParseError);
        }
        text.parse()
    }
}

impl SigDigest {
    /// The bytes that are signed.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(crate) fn of(encoding: &[u8]) -> Self {
        Self(blake2s(encoding))
    }
}

fn blake2s(bytes: &[u8]) -> [u8; 32] {
    Blake2s256::digest(bytes).into()
}

impl fmt::Display for AumHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for AumHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SigDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl FromStr for AumHash {
    type Err = HashParseError;

    fn from_str(text: &str) -> Result<Self, HashParseError> {
        if text.len() != Self::TEXT_LEN {
            return Err(HashParseError);
        }
        let base32 = LENIENT_BASE32.as_ref().ok_or(HashParseError)?;
        let raw = base32.decode(text.as_bytes()).map_err(|_| HashParseError)?;
        raw.try_into().map(Self).map_err(|_| HashParseError)
    }
}
