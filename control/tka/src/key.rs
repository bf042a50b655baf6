//! Trusted keys (Tailnet Lock sheet §4).

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use tsrs_base_types::LockPublic;

use crate::cbor::{DecodeError, Entries, Reader, Writer};
use crate::limits::{MAX_META_BYTES, MAX_VOTES};

/// Names and values that describe a key; nothing depends on them.
pub type Meta = BTreeMap<String, String>;

/// A key that may sign updates and node keys.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Key {
    /// 1 is Ed25519; no other is defined.
    pub kind: u8,
    /// What its signature weighs when a fork is decided.
    pub votes: u64,
    /// The public key, which is also the key's id. Its length is checked only when it verifies something.
    pub public: Option<Vec<u8>>,
    /// See [`Meta`].
    pub meta: Option<Meta>,
}

/// Why a key breaks the static rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not Ed25519.
    #[error("key of unknown kind {0}")]
    Kind(u8),
    /// Votes outside 1…4096.
    #[error("{0} votes are not between 1 and {MAX_VOTES}")]
    Votes(u64),
    /// Too much metadata.
    #[error("{0} bytes of metadata are more than {MAX_META_BYTES}")]
    Meta(usize),
}

impl Key {
    /// The kind of every key so far.
    pub const ED25519: u8 = 1;

    /// A key as the tools make it.
    pub fn new(public: LockPublic, votes: u64, meta: Option<Meta>) -> Self {
        Self { kind: Self::ED25519, votes, public: Some(public.as_bytes().to_vec()), meta }
    }

    /// The key's id: its public key.
    pub fn id(&self) -> &[u8] {
        self.public.as_deref().unwrap_or_default()
    }

    /// The public key, if it has the length of one.
    pub fn public(&self) -> Option<LockPublic> {
        self.id().try_into().ok().map(LockPublic::from_bytes)
    }

    /// The static rules.
    pub fn validate(&self) -> Result<(), KeyError> {
        if !(1..=MAX_VOTES).contains(&self.votes) {
            return Err(KeyError::Votes(self.votes));
        }
        let meta_len =
            self.meta.iter().flatten().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if meta_len > MAX_META_BYTES {
            return Err(KeyError::Meta(meta_len));
        }
        if self.kind != Self::ED25519 { Err(KeyError::Kind(self.kind)) } else { Ok(()) }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        let meta = self.meta.as_ref().filter(|meta| !meta.is_empty());
        out.map(3 + usize::from(meta.is_some()));
        out.unsigned(1);
        out.unsigned(u64::from(self.kind));
        out.unsigned(2);
        out.unsigned(self.votes);
        out.unsigned(3);
        out.bytes_or_null(self.public.as_deref());
        if let Some(meta) = meta {
            out.unsigned(12);
            write_meta(meta, out);
        }
    }

    /// An absent key is `None`.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let Some(pairs) = reader.map()? else { return Ok(None) };
        let mut key = Self::default();
        let mut entries = Entries::new(pairs, &[1, 2, 3, 12]);
        while let Some(field) = entries.next(reader)? {
            match field {
                1 => key.kind = reader.octet()?,
                2 => key.votes = reader.unsigned()?,
                3 => key.public = reader.bytes()?,
                _ => key.meta = read_meta(reader)?,
            }
        }
        Ok(Some(key))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Key");
        shown.field("kind", &self.kind).field("votes", &self.votes);
        shown.field("public", &HEXLOWER.encode(self.id())).field("meta", &self.meta).finish()
    }
}

/// Sorted by encoded key: the head holds the length, so shorter names come first.
pub(crate) fn write_meta(meta: &Meta, out: &mut Writer) {
    let mut pairs: Vec<(&String, &String)> = meta.iter().collect();
    pairs.sort_by_key(|(name, _)| (name.len(), name.as_bytes()));
    out.map(pairs.len());
    for (name, value) in pairs {
        out.text(name);
        out.text(value);
    }
}

pub(crate) fn read_meta(reader: &mut Reader<'_>) -> Result<Option<Meta>, DecodeError> {
    let Some(pairs) = reader.map()? else { return Ok(None) };
    let mut meta = Meta::new();
    for _ in 0..pairs {
        let name = reader.text()?;
        if meta.insert(name, reader.text()?).is_some() {
            return Err(DecodeError::Duplicate);
        }
    }
    Ok(Some(meta))
}
