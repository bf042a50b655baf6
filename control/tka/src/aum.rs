//! Update messages (Tailnet Lock sheet §3, §7).

use std::fmt;

use tsrs_base_types::LockPrivate;

use crate::cbor::{DecodeError, Entries, Reader, Writer, check_well_formed};
use crate::ed25519::{self, Rules};
use crate::hash::{AumHash, SigDigest};
use crate::key::{Key, KeyError, Meta, read_meta, write_meta};
use crate::limits::MAX_AUM_BYTES;
use crate::state::{CheckpointError, State};

/// An authority update message: one signed change of the tailnet's trust.
///
/// `None` and empty differ where the rules of §7 tell them apart, although most members are left out of the encoding either way.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Aum {
    /// What it changes.
    pub kind: AumKind,
    /// The update before. A parent of another length than 32 bytes names nothing that can exist.
    pub prev: Option<Vec<u8>>,
    /// The key that is added.
    pub key: Option<Key>,
    /// The key that is removed or updated.
    pub key_id: Option<Vec<u8>>,
    /// The state that a checkpoint sets.
    pub state: Option<Box<State>>,
    /// New votes of the key.
    pub votes: Option<u64>,
    /// New metadata of the key.
    pub meta: Option<Meta>,
    /// Who signed.
    pub signatures: Vec<AumSignature>,
}

/// A signature of an update.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AumSignature {
    /// The id of the signing key.
    pub key_id: Option<Vec<u8>>,
    /// Ed25519 over the update's [`SigDigest`].
    pub signature: Option<Vec<u8>>,
}

/// The kind of an update, as a number: kinds to come change nothing but the head, for forward compatibility.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AumKind(pub u8);

impl AumKind {
    /// Adds a key.
    pub const ADD_KEY: Self = Self(1);
    /// Removes a key.
    pub const REMOVE_KEY: Self = Self(2);
    /// Changes nothing.
    pub const NO_OP: Self = Self(3);
    /// Changes votes or metadata of a key.
    pub const UPDATE_KEY: Self = Self(4);
    /// Sets the whole state.
    pub const CHECKPOINT: Self = Self(5);

    /// The name in logs and JSON.
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self(0) => Some("invalid"),
            Self::ADD_KEY => Some("add-key"),
            Self::REMOVE_KEY => Some("remove-key"),
            Self::NO_OP => Some("no-op"),
            Self::UPDATE_KEY => Some("update-key"),
            Self::CHECKPOINT => Some("checkpoint"),
            Self(_) => None,
        }
    }
}

impl fmt::Display for AumKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "AUM?<{}>", self.0),
        }
    }
}

impl fmt::Debug for AumKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why an update is not valid, by itself or under the state of its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AumError {
    /// The key that it adds breaks the rules of keys.
    #[error("the key is not valid: {0}")]
    Key(#[from] KeyError),
    /// A parent of no bytes.
    #[error("the parent is empty")]
    EmptyParent,
    /// A signature or its key id has a wrong length.
    #[error("a signature of a wrong length")]
    SignatureLength,
    /// Its state breaks the rules of checkpoints.
    #[error("the state is not valid: {0}")]
    State(#[from] CheckpointError),
    /// A member that its kind needs is missing, or one is set that it must not have.
    #[error("{0} with wrong members")]
    Members(AumKind),
    /// Its parent is not the update that the state stands at.
    #[error("the parent is another update")]
    WrongParent,
    /// Nobody signed it.
    #[error("not signed")]
    Unsigned,
    /// It carries a signature by a key that is not trusted.
    #[error("signed by a key that is not trusted")]
    UntrustedKey,
    /// It carries a signature that does not verify.
    #[error("a signature does not verify")]
    BadSignature,
    /// It would remove the only key.
    #[error("removes the only trusted key")]
    LastKey,
}

impl Aum {
    /// Reads an update as leniently as the reference does. Its hash is that of [`Aum::encode`], not of these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_AUM_BYTES {
            return Err(DecodeError::TooLarge);
        }
        check_well_formed(bytes)?;
        Ok(Self::read(&mut Reader::new(bytes))?.unwrap_or_default())
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let Some(pairs) = reader.map()? else { return Ok(None) };
        let mut aum = Self::default();
        let mut entries = Entries::new(pairs, &[1, 2, 3, 4, 5, 6, 7, 23]);
        while let Some(field) = entries.next(reader)? {
            match field {
                1 => aum.kind = AumKind(reader.octet()?),
                2 => aum.prev = reader.bytes()?,
                3 => aum.key = Key::read(reader)?,
                4 => aum.key_id = reader.bytes()?,
                5 => aum.state = State::read(reader)?.map(Box::new),
                6 => aum.votes = reader.optional_unsigned()?,
                7 => aum.meta = read_meta(reader)?,
                _ => {
                    for _ in 0..reader.list()?.unwrap_or_default() {
                        aum.signatures.push(AumSignature::read(reader)?);
                    }
                }
            }
        }
        Ok(Some(aum))
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(&self.signatures)
    }

    fn encode_with(&self, signatures: &[AumSignature]) -> Vec<u8> {
        let key_id = self.key_id.as_ref().filter(|id| !id.is_empty());
        let meta = self.meta.as_ref().filter(|meta| !meta.is_empty());
        let optional = [
            self.key.is_some(),
            key_id.is_some(),
            self.state.is_some(),
            self.votes.is_some(),
            meta.is_some(),
            !signatures.is_empty(),
        ];
        let mut out = Writer::new();
        out.map(2 + optional.into_iter().filter(|present| *present).count());
        out.unsigned(1);
        out.unsigned(u64::from(self.kind.0));
        out.unsigned(2);
        out.bytes_or_null(self.prev.as_deref());
        if let Some(key) = &self.key {
            out.unsigned(3);
            key.write(&mut out);
        }
        if let Some(id) = key_id {
            out.unsigned(4);
            out.bytes(id);
        }
        if let Some(state) = &self.state {
            out.unsigned(5);
            state.write(&mut out);
        }
        if let Some(votes) = self.votes {
            out.unsigned(6);
            out.unsigned(votes);
        }
        if let Some(meta) = meta {
            out.unsigned(7);
            write_meta(meta, &mut out);
        }
        if !signatures.is_empty() {
            out.unsigned(23);
            out.array(signatures.len());
            signatures.iter().for_each(|signature| signature.write(&mut out));
        }
        out.into_bytes()
    }

    /// The hash that names it.
    pub fn hash(&self) -> AumHash {
        AumHash::of(&self.encode())
    }

    /// What its signatures sign.
    pub fn sig_digest(&self) -> SigDigest {
        SigDigest::of(&self.encode_with(&[]))
    }

    /// The update before it, unless it is the first.
    pub fn parent(&self) -> Option<AumHash> {
        // A parent of a wrong length is compared like the reference does: cut, or filled with zeros.
        let prev = self.prev.as_deref()?;
        let mut raw = [0; 32];
        raw.iter_mut().zip(prev).for_each(|(to, from)| *to = *from);
        Some(AumHash::from_bytes(raw))
    }

    /// Adds a signature by `key`, or does nothing if that key has signed already. False if the key cannot sign.
    pub fn sign(&mut self, key: &LockPrivate) -> bool {
        let id = key.public().as_bytes().to_vec();
        if self.signatures.iter().any(|signature| signature.key_id.as_ref() == Some(&id)) {
            return true;
        }
        let Some(signature) = key.sign(self.sig_digest().as_bytes()) else { return false };
        self.signatures.push(AumSignature { key_id: Some(id), signature: Some(signature.to_vec()) });
        true
    }

    /// The rules that need no state (§7, 1 to 5).
    pub fn validate(&self) -> Result<(), AumError> {
        if let Some(key) = &self.key {
            key.validate()?;
        }
        if self.prev.as_ref().is_some_and(Vec::is_empty) {
            return Err(AumError::EmptyParent);
        }
        if self.signatures.iter().any(|signature| !signature.has_right_lengths()) {
            return Err(AumError::SignatureLength);
        }
        if let Some(state) = &self.state {
            state.validate_checkpoint()?;
        }
        let (key, id, state) = (self.key.is_some(), self.key_id.is_some(), self.state.is_some());
        let (votes, meta) = (self.votes.is_some(), self.meta.is_some());
        let right = match self.kind {
            AumKind::ADD_KEY => key && !id && !state && !votes && !meta,
            AumKind::REMOVE_KEY => {
                self.key_id.as_ref().is_some_and(|id| !id.is_empty()) && !key && !state && !votes && !meta
            }
            AumKind::UPDATE_KEY => id && (votes || meta) && !key && !state,
            AumKind::CHECKPOINT => state && !key && !id && !votes && !meta,
            AumKind(_) => true,
        };
        if right { Ok(()) } else { Err(AumError::Members(self.kind)) }
    }

    /// All the rules, under the state of its parent (§7). For the first update of an authority the state is its own and the
    /// parent is not looked at.
    pub fn verify(&self, state: &State, first: bool) -> Result<(), AumError> {
        self.validate()?;
        if !first && self.parent() != state.last {
            return Err(AumError::WrongParent);
        }
        if self.signatures.is_empty() {
            return Err(AumError::Unsigned);
        }
        let digest = self.sig_digest();
        for signature in &self.signatures {
            let (id, bytes) = (signature.key_id.as_deref(), signature.signature.as_deref());
            let key = state.key(id.unwrap_or_default()).ok_or(AumError::UntrustedKey)?;
            if !ed25519::verify(Rules::Zip215, key.id(), digest.as_bytes(), bytes.unwrap_or_default()) {
                return Err(AumError::BadSignature);
            }
        }
        if self.kind == AumKind::REMOVE_KEY && state.keys().len() == 1 {
            return Err(AumError::LastKey);
        }
        Ok(())
    }

    /// What it weighs against its siblings: the votes, under the state of its parent, of the different keys that signed (§9).
    pub fn weight(&self, state: &State) -> u64 {
        let mut signers: Vec<&[u8]> =
            self.signatures.iter().map(|signature| signature.key_id.as_deref().unwrap_or_default()).collect();
        signers.sort_unstable();
        signers.dedup();
        signers.into_iter().filter_map(|id| state.key(id)).map(|key| key.votes).fold(0, u64::saturating_add)
    }
}

impl AumSignature {
    fn has_right_lengths(&self) -> bool {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key_id) == 32 && len(&self.signature) == 64
    }

    fn write(&self, out: &mut Writer) {
        out.map(2);
        out.unsigned(1);
        out.bytes_or_null(self.key_id.as_deref());
        out.unsigned(2);
        out.bytes_or_null(self.signature.as_deref());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut signature = Self::default();
        let Some(pairs) = reader.map()? else { return Ok(signature) };
        let mut entries = Entries::new(pairs, &[1, 2]);
        while let Some(field) = entries.next(reader)? {
            match field {
                1 => signature.key_id = reader.bytes()?,
                _ => signature.signature = reader.bytes()?,
            }
        }
        Ok(signature)
    }
}
