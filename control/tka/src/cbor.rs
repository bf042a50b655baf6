//! The subset of CBOR (RFC 8949) that Tailnet Lock is written in (sheet §2).
//!
//! Writing is CTAP2 canonical form. Reading is as lenient as the reference, because what the reference accepts becomes part of
//! the chain: an update is hashed in the form that it has after decoding and encoding again, so a reader that refuses more leaves
//! consensus. A general CBOR library cannot carry the rules: they need to see duplicate keys, two-byte simple values and
//! indefinite lengths, which such libraries fold away, and to count nesting before anything is built.

mod read;
mod write;

pub(crate) use read::{Entries, Reader, check_well_formed};
pub(crate) use write::Writer;

/// Why bytes were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// An item reaches beyond the end.
    #[error("the encoding ends inside an item")]
    Truncated,
    /// Something follows the item.
    #[error("bytes follow the encoding")]
    Trailing,
    /// A head that CBOR reserves.
    #[error("malformed head")]
    Malformed,
    /// Tags are not used.
    #[error("a tag")]
    Tag,
    /// Indefinite lengths are not used.
    #[error("an indefinite length")]
    Indefinite,
    /// More than [`crate::limits::MAX_NESTING`] maps and arrays around one another.
    #[error("nested too deeply")]
    TooDeep,
    /// An array or map above its limit, or an encoding above that of its kind.
    #[error("too large")]
    TooLarge,
    /// A map names a key twice.
    #[error("a duplicate key")]
    Duplicate,
    /// A map key that is neither an integer nor text.
    #[error("a map key of a wrong type")]
    KeyType,
    /// An item of another type than its member has.
    #[error("an item of a wrong type")]
    Type,
    /// A number beyond the range of its member.
    #[error("a number out of range")]
    Range,
    /// Text that is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
}

/// Major types (RFC 8949 §3.1).
mod major {
    pub(super) const UNSIGNED: u8 = 0;
    pub(super) const NEGATIVE: u8 = 1;
    pub(super) const BYTES: u8 = 2;
    pub(super) const TEXT: u8 = 3;
    pub(super) const ARRAY: u8 = 4;
    pub(super) const MAP: u8 = 5;
    pub(super) const TAG: u8 = 6;
}
