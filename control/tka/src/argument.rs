//! What a person types for keys and disablement (Tailnet Lock sheet §17).

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE, HEXUPPER};
use tsrs_base_types::LockPublic;

use crate::disablement::DisablementSecret;
use crate::key::Key;
use crate::limits::DISABLEMENT_VALUE_BYTES;

const VALUE_PREFIX: &str = "disablement:";
const SECRET_PREFIX: &str = "disablement-secret:";

/// Why an argument is refused. Never holds the text, because it may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// Not a public key of Tailnet Lock.
    #[error("not a tailnet lock key: {0}")]
    Key(#[from] tsrs_base_types::KeyParseError),
    /// What follows the question mark is no number of votes.
    #[error("the votes are not a number from 1 to {}", crate::limits::MAX_VOTES)]
    Votes,
    /// It begins with neither prefix of disablement.
    #[error("does not begin with {VALUE_PREFIX:?} or {SECRET_PREFIX:?}")]
    Prefix,
    /// What follows the prefix is not hex.
    #[error("not hex digits")]
    Hex,
    /// A disablement value of another length than 32 bytes.
    #[error("a disablement value has {DISABLEMENT_VALUE_BYTES} bytes")]
    ValueLength,
}

/// A key with its votes: `tlpub:…` or `nlpub:…`, then perhaps `?` and the votes, which are 1 if not given.
pub fn parse_key(text: &str) -> Result<Key, ArgumentError> {
    let (key, votes) = match text.split_once('?') {
        Some((key, votes)) => (key, votes.parse().map_err(|_| ArgumentError::Votes)?),
        None => (text, 1),
    };
    let key = Key::new(key.parse::<LockPublic>()?, votes, None);
    key.validate().map_err(|_| ArgumentError::Votes)?;
    Ok(key)
}

/// What a disablement argument holds. The two are kept apart, because a secret that is stored as a value is published.
#[derive(Debug)]
pub enum DisablementArgument {
    /// `disablement:`: a value, ready to be stored.
    Value([u8; DISABLEMENT_VALUE_BYTES]),
    /// `disablement-secret:`: the secret itself.
    Secret(DisablementSecret),
}

impl std::str::FromStr for DisablementArgument {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let decode =
            |digits: &str| HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| ArgumentError::Hex);
        if let Some(digits) = text.strip_prefix(SECRET_PREFIX) {
            return Ok(Self::Secret(DisablementSecret::from_bytes(decode(digits)?)));
        }
        let digits = text.strip_prefix(VALUE_PREFIX).ok_or(ArgumentError::Prefix)?;
        decode(digits)?.try_into().map(Self::Value).map_err(|_| ArgumentError::ValueLength)
    }
}

/// The text of a value, as `disablement-kdf` prints it.
pub fn value_text(value: &[u8; DISABLEMENT_VALUE_BYTES]) -> String {
    format!("{VALUE_PREFIX}{}", HEXLOWER.encode(value))
}

/// The text of a secret, as `init` prints it once.
pub fn expose_secret_text(secret: &DisablementSecret) -> zeroize::Zeroizing<String> {
    let digits = zeroize::Zeroizing::new(HEXUPPER.encode(secret.expose_bytes()));
    zeroize::Zeroizing::new([SECRET_PREFIX, &digits].concat())
}
