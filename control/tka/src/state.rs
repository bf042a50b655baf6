//! The state of an authority and how updates change it (Tailnet Lock sheet §5, §8).

use std::collections::HashSet;
use std::sync::Arc;

use crate::aum::{Aum, AumKind};
use crate::cbor::{DecodeError, Entries, Reader, Writer};
use crate::hash::AumHash;
use crate::key::{Key, KeyError};
use crate::limits::{DISABLEMENT_VALUE_BYTES, MAX_DISABLEMENT_VALUES, MAX_KEYS};

/// Who is trusted after some update. Cheap to clone: keys and values are shared.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct State {
    /// The update after which this is the state; absent inside a checkpoint.
    pub last: Option<AumHash>,
    disablement_values: Option<Arc<[Option<Vec<u8>>]>>,
    keys: Option<Vec<Arc<Key>>>,
    /// The two random numbers that name the authority, set at its creation.
    pub id: StateId,
}

/// The two random numbers that name an authority.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct StateId(pub u64, pub u64);

impl std::fmt::Display for StateId {
    /// The form in which a profile remembers an authority that was disabled locally (§14).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

/// Why a state may not stand in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It names an update.
    #[error("it names a last update")]
    NamesUpdate,
    /// No disablement value, or more than 32.
    #[error("{0} disablement values are not between 1 and {MAX_DISABLEMENT_VALUES}")]
    DisablementCount(usize),
    /// A disablement value of a wrong length, or twice the same.
    #[error("a disablement value of a wrong length or twice the same")]
    DisablementValue,
    /// No key, or more than 512.
    #[error("{0} keys are not between 1 and {MAX_KEYS}")]
    KeyCount(usize),
    /// A key breaks the rules of keys.
    #[error("a key is not valid: {0}")]
    Key(#[from] KeyError),
    /// Two keys with the same id.
    #[error("a key twice")]
    DuplicateKey,
}

/// Why an update cannot be applied to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Its parent is not the update that the state stands at.
    #[error("the parent is another update")]
    WrongParent,
    /// A checkpoint of another authority.
    #[error("a checkpoint of another authority")]
    OtherAuthority,
    /// The key to add is there.
    #[error("the key is trusted already")]
    KeyPresent,
    /// The key to update or remove is not there.
    #[error("the key is not trusted")]
    KeyAbsent,
    /// A member that its kind needs is missing, which validation has refused.
    #[error("a member is missing")]
    Members,
    /// The updated key breaks the rules of keys.
    #[error("the updated key is not valid: {0}")]
    Key(#[from] KeyError),
}

impl State {
    /// A state for the first update of an authority.
    pub fn new(keys: Vec<Key>, disablement_values: Vec<[u8; 32]>, id: StateId) -> Self {
        let values = disablement_values.into_iter().map(|value| Some(value.to_vec())).collect();
        Self {
            last: None,
            disablement_values: Some(values),
            keys: Some(keys.into_iter().map(Arc::new).collect()),
            id,
        }
    }

    /// The trusted keys in the order that checkpoints encode.
    pub fn keys(&self) -> &[Arc<Key>] {
        self.keys.as_deref().unwrap_or_default()
    }

    /// The trusted key with this id.
    pub fn key(&self, id: &[u8]) -> Option<&Arc<Key>> {
        self.keys().iter().find(|key| key.id() == id)
    }

    /// The digests of the secrets that end the lock.
    pub fn disablement_values(&self) -> impl Iterator<Item = &[u8]> {
        self.disablement_values.iter().flat_map(|values| values.iter()).flatten().map(Vec::as_slice)
    }

    /// The rules of a state inside a checkpoint.
    pub fn validate_checkpoint(&self) -> Result<(), CheckpointError> {
        if self.last.is_some() {
            return Err(CheckpointError::NamesUpdate);
        }
        let values = self.disablement_values.as_deref().unwrap_or_default();
        if !(1..=MAX_DISABLEMENT_VALUES).contains(&values.len()) {
            return Err(CheckpointError::DisablementCount(values.len()));
        }
        let mut seen = HashSet::new();
        for value in values {
            let value = value.as_deref().unwrap_or_default();
            if value.len() != DISABLEMENT_VALUE_BYTES || !seen.insert(value) {
                return Err(CheckpointError::DisablementValue);
            }
        }
        let keys = self.keys();
        if !(1..=MAX_KEYS).contains(&keys.len()) {
            return Err(CheckpointError::KeyCount(keys.len()));
        }
        seen.clear();
        for key in keys {
            key.validate()?;
            if !seen.insert(key.id()) {
                return Err(CheckpointError::DuplicateKey);
            }
        }
        Ok(())
    }

    /// The state after an update that was verified under this one; `hash` is the update's.
    pub fn apply(&self, aum: &Aum, hash: AumHash) -> Result<Self, ApplyError> {
        if self.last.is_some() && aum.parent() != self.last {
            return Err(ApplyError::WrongParent);
        }
        let mut next = match aum.kind {
            AumKind::CHECKPOINT => aum.state.as_deref().ok_or(ApplyError::Members)?.clone(),
            _ => self.clone(),
        };
        match aum.kind {
            AumKind::CHECKPOINT if self.last.is_some() && next.id != self.id => {
                return Err(ApplyError::OtherAuthority);
            }
            AumKind::ADD_KEY => {
                let key = aum.key.as_ref().ok_or(ApplyError::Members)?;
                if self.key(key.id()).is_some() {
                    return Err(ApplyError::KeyPresent);
                }
                next.keys.get_or_insert_default().push(Arc::new(key.clone()));
            }
            AumKind::UPDATE_KEY => {
                let slot = next.key_mut(aum)?;
                let mut key = Key::clone(slot);
                key.votes = aum.votes.unwrap_or(key.votes);
                if let Some(meta) = &aum.meta {
                    key.meta = Some(meta.clone());
                }
                key.validate()?;
                *slot = Arc::new(key);
            }
            AumKind::REMOVE_KEY => {
                let id = next.key_mut(aum)?.id().to_vec();
                next.keys.iter_mut().for_each(|keys| keys.retain(|key| key.id() != id));
            }
            AumKind(_) => {}
        }
        next.last = Some(hash);
        Ok(next)
    }

    fn key_mut(&mut self, aum: &Aum) -> Result<&mut Arc<Key>, ApplyError> {
        let id = aum.key_id.as_deref().ok_or(ApplyError::Members)?;
        self.keys.iter_mut().flatten().find(|key| key.id() == id).ok_or(ApplyError::KeyAbsent)
    }

    /// The state without some keys, as a recovery sets it.
    pub(crate) fn without_keys(&self, ids: &[&[u8]]) -> Self {
        let mut state = self.clone();
        state.keys.iter_mut().for_each(|keys| keys.retain(|key| !ids.contains(&key.id())));
        state.last = None;
        state
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        let StateId(id1, id2) = self.id;
        out.map(3 + usize::from(id1 != 0) + usize::from(id2 != 0));
        out.unsigned(1);
        out.bytes_or_null(self.last.as_ref().map(|hash| hash.as_bytes().as_slice()));
        out.unsigned(2);
        match &self.disablement_values {
            Some(values) => {
                out.array(values.len());
                values.iter().for_each(|value| out.bytes_or_null(value.as_deref()));
            }
            None => out.null(),
        }
        out.unsigned(3);
        match &self.keys {
            Some(keys) => {
                out.array(keys.len());
                keys.iter().for_each(|key| key.write(out));
            }
            None => out.null(),
        }
        for (field, id) in [(4, id1), (5, id2)] {
            if id != 0 {
                out.unsigned(field);
                out.unsigned(id);
            }
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let Some(pairs) = reader.map()? else { return Ok(None) };
        let mut state = Self::default();
        let mut entries = Entries::new(pairs, &[1, 2, 3, 4, 5]);
        while let Some(field) = entries.next(reader)? {
            match field {
                1 => state.last = reader.fixed()?.map(AumHash::from_bytes),
                2 => {
                    let Some(elements) = reader.list()? else { continue };
                    let values = (0..elements).map(|_| reader.bytes()).collect::<Result<Vec<_>, _>>()?;
                    state.disablement_values = Some(values.into());
                }
                3 => {
                    let Some(elements) = reader.list()? else { continue };
                    let read = |_| Key::read(reader).map(|key| Arc::new(key.unwrap_or_default()));
                    state.keys = Some((0..elements).map(read).collect::<Result<_, _>>()?);
                }
                4 => state.id.0 = reader.unsigned()?,
                _ => state.id.1 = reader.unsigned()?,
            }
        }
        Ok(Some(state))
    }

    /// The canonical encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.into_bytes()
    }
}
