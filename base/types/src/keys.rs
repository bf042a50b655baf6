//! Keys, one type per role, and their text forms (control protocol sheet §2).
//!
//! Text form = prefix and lower-case hex. Parsers take upper-case hex too, want the exact prefix and length, and
//! never echo the input in an error, because it may be private. A zero key means "absent".

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};
use rand_core::CryptoRngCore;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::nacl::NaclBox;

/// Why a key text was refused. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyParseError {
    /// The text does not begin with the prefix of this key type.
    #[error("key does not begin with {0:?}")]
    Prefix(&'static str),
    /// The part behind the prefix is not exactly the wanted number of hex digits.
    #[error("key is not {0} hex digits long")]
    Length(usize),
    /// The part behind the prefix is not hex.
    #[error("key holds a character that is not a hex digit")]
    Hex,
}

fn parse_hex32(text: &str, prefix: &'static str) -> Result<[u8; 32], KeyParseError> {
    let mut raw = [0; 32];
    parse_hex_into(text, prefix, &mut raw)?;
    Ok(raw)
}

fn parse_hex_into(text: &str, prefix: &'static str, raw: &mut [u8; 32]) -> Result<(), KeyParseError> {
    let digits = text.strip_prefix(prefix).ok_or(KeyParseError::Prefix(prefix))?;
    if digits.len() != 64 {
        return Err(KeyParseError::Length(64));
    }
    HEXLOWER_PERMISSIVE.decode_mut(digits.as_bytes(), raw).map_err(|_| KeyParseError::Hex)?;
    Ok(())
}

macro_rules! public_key {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// What its text form begins with.
            pub const PREFIX: &'static str = $prefix;

            /// From 32 raw bytes.
            pub const fn from_bytes(raw: [u8; 32]) -> Self {
                Self(raw)
            }

            /// The 32 raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Whether this is the zero key, which means "absent".
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 32]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Self::PREFIX)?;
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl FromStr for $name {
            type Err = KeyParseError;

            fn from_str(text: &str) -> Result<Self, KeyParseError> {
                parse_hex32(text, Self::PREFIX).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

/// `[` + first five characters of base64 + `]`: the form of machine and node keys in logs.
macro_rules! bracket_debug {
    ($($name:ident),*) => {$(
        impl $name {
            /// The short form for logs.
            pub fn short(&self) -> String {
                if self.is_zero() {
                    return String::new();
                }
                format!("[{}]", &BASE64.encode(&self.0)[..5])
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }
    )*};
}

macro_rules! private_key {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        ///
        /// Wiped on drop; never printed; compared in constant time. The bytes stay in one place on the heap: a value that
        /// is moved leaves its bytes behind, where no drop wipes them.
        #[derive(Clone)]
        pub struct $name(Box<[u8; 32]>);

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl ZeroizeOnDrop for $name {}

        impl $name {
            /// A fresh clamped X25519 key.
            pub fn generate(rng: &mut impl CryptoRngCore) -> Self {
                let mut raw = Box::new([0; 32]);
                rng.fill_bytes(raw.as_mut_slice());
                raw[0] &= 248;
                raw[31] = (raw[31] & 127) | 64;
                Self(raw)
            }

            /// From 32 raw bytes, kept as they are.
            pub fn from_bytes(raw: [u8; 32]) -> Self {
                Self(Box::new(raw))
            }

            /// The 32 raw bytes; for the Diffie-Hellman functions and the state store only.
            pub fn expose_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Whether this is the zero key, which means "absent".
            pub fn is_zero(&self) -> bool {
                self.0.ct_eq(&[0; 32]).into()
            }

            /// The public key.
            pub fn public(&self) -> $public {
                if self.is_zero() {
                    return $public::default();
                }
                let secret = x25519_dalek::StaticSecret::from(*self.0);
                $public(x25519_dalek::PublicKey::from(&secret).to_bytes())
            }

            /// The NaCl box between this key and a public key of any role, given as raw bytes.
            pub fn nacl_box(&self, other: &[u8; 32]) -> NaclBox {
                NaclBox::new(&self.0, other)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&*other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([redacted])"))
            }
        }
    };
}

/// The text form that machine and node private keys share; only the field they stand in tells them apart.
const PRIVATE_PREFIX: &str = "privkey:";

macro_rules! private_text {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text form for the state file.
            pub fn expose_text(&self) -> Zeroizing<String> {
                let digits = Zeroizing::new(HEXLOWER.encode(&*self.0));
                Zeroizing::new([PRIVATE_PREFIX, &digits].concat())
            }
        }

        impl FromStr for $name {
            type Err = KeyParseError;

            fn from_str(text: &str) -> Result<Self, KeyParseError> {
                let mut key = Self(Box::new([0; 32]));
                parse_hex_into(text, PRIVATE_PREFIX, &mut key.0)?;
                Ok(key)
            }
        }
    )*};
}

public_key! {
    /// Public key of a machine, and of the control server in the ts2021 handshake.
    MachinePublic, "mkey:"
}
public_key! {
    /// Public key of a node: its WireGuard identity.
    NodePublic, "nodekey:"
}
public_key! {
    /// Public key of one process run, for path finding.
    DiscoPublic, "discokey:"
}
public_key! {
    /// Key that the control server sends in the early payload.
    ChallengePublic, "chalpub:"
}
bracket_debug!(MachinePublic, NodePublic, ChallengePublic);

private_key! {
    /// Private key of the machine; one per machine, outlives logins.
    MachinePrivate, MachinePublic
}
private_key! {
    /// Private key of the node: WireGuard identity until re-login or expiry.
    NodePrivate, NodePublic
}
private_key! {
    /// Private key for path finding; in memory only, new at each start.
    DiscoPrivate, DiscoPublic
}
private_text!(MachinePrivate, NodePrivate);

impl DiscoPublic {
    /// `d:` and the first eight bytes as hex: the form in logs.
    pub fn short(&self) -> String {
        if self.is_zero() {
            return String::new();
        }
        format!("d:{}", HEXLOWER.encode(&self.0[..8]))
    }
}

impl fmt::Debug for DiscoPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl NodePublic {
    /// The binary form inside Tailnet Lock signatures: `np` and the raw key.
    pub fn to_binary(self) -> [u8; 34] {
        let mut out = [0; 34];
        out[..2].copy_from_slice(b"np");
        out[2..].copy_from_slice(&self.0);
        out
    }

    /// Reads the binary form.
    pub fn from_binary(binary: &[u8]) -> Option<Self> {
        binary.strip_prefix(b"np")?.try_into().ok().map(Self)
    }
}

/// Public key of Tailnet Lock (Ed25519). Written `nlpub:` on the wire and `tlpub:` for people; both are read.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockPublic([u8; 32]);

impl LockPublic {
    /// From 32 raw bytes.
    pub const fn from_bytes(raw: [u8; 32]) -> Self {
        Self(raw)
    }

    /// The 32 raw bytes, which are also its key id.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this is the zero key, which means "absent".
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }

    /// The form for people: `tlpub:` and hex.
    pub fn cli_text(&self) -> String {
        format!("tlpub:{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Display for LockPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nlpub:{}", HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for LockPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cli_text())
    }
}

impl FromStr for LockPublic {
    type Err = KeyParseError;

    fn from_str(text: &str) -> Result<Self, KeyParseError> {
        let prefix = if text.starts_with("tlpub:") { "tlpub:" } else { "nlpub:" };
        parse_hex32(text, prefix).map(Self)
    }
}

impl Serialize for LockPublic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LockPublic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
