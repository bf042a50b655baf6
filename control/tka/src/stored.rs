//! The file of one stored update (Tailnet Lock sheet §16), as bytes.
//!
//! A map: 2 the update, 3 creation and 4 purge in Unix seconds, each left out when 0. Key 1 is dead.

use jiff::Timestamp;

use crate::aum::Aum;
use crate::cbor::{DecodeError, Entries, Reader, Writer, check_well_formed};
use crate::hash::AumHash;
use crate::limits::MAX_AUM_BYTES;

/// An update as it lies on the disk.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StoredAum {
    /// The update; absent reads as not stored.
    pub aum: Option<Aum>,
    /// When it was stored. Absent: the time of the file counts.
    pub created: Option<Timestamp>,
    /// When it was purged: the file stays, and reads as not stored.
    pub purged: Option<Timestamp>,
}

/// Why a file is no stored update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// It cannot be read.
    #[error("the file of an update cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// Its content has another hash than its name.
    #[error("the file of update {0} holds another update")]
    OtherHash(AumHash),
}

impl StoredAum {
    /// The name of the file below the folder of the chain: the first two characters of the hash, then the hash.
    pub fn relative_path(hash: AumHash) -> String {
        let name = hash.to_string();
        format!("{}/{name}", name.get(..2).unwrap_or_default())
    }

    /// The hash that a file name stands for. Files with other names are none of ours.
    pub fn hash_of_name(name: &str) -> Option<AumHash> {
        name.parse().ok()
    }

    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let seconds = |time: Option<Timestamp>| {
            time.and_then(|time| u64::try_from(time.as_second()).ok()).filter(|seconds| *seconds != 0)
        };
        let times = [(3, seconds(self.created)), (4, seconds(self.purged))];
        let mut out = Writer::new();
        out.map(1 + times.iter().filter(|(_, seconds)| seconds.is_some()).count());
        out.unsigned(2);
        match &self.aum {
            Some(aum) => out.raw(&aum.encode()),
            None => out.null(),
        }
        for (field, seconds) in times {
            if let Some(seconds) = seconds {
                out.unsigned(field);
                out.unsigned(seconds);
            }
        }
        out.into_bytes()
    }

    /// Reads the content of the file of `hash`. `None` if it is purged or empty.
    pub fn decode(bytes: &[u8], hash: AumHash) -> Result<Option<Self>, StoredError> {
        // The update, and the few bytes of the map around it.
        if bytes.len() > MAX_AUM_BYTES + 64 {
            return Err(DecodeError::TooLarge.into());
        }
        check_well_formed(bytes)?;
        let mut reader = Reader::new(bytes);
        let Some(pairs) = reader.map()? else { return Ok(None) };
        let mut stored = Self::default();
        let mut entries = Entries::new(pairs, &[2, 3, 4]);
        while let Some(field) = entries.next(&mut reader)? {
            match field {
                2 => stored.aum = Aum::read(&mut reader)?,
                3 => stored.created = time(&mut reader)?,
                _ => stored.purged = time(&mut reader)?,
            }
        }
        match &stored.aum {
            Some(aum) if aum.hash() != hash => Err(StoredError::OtherHash(hash)),
            Some(_) if stored.purged.is_none() => Ok(Some(stored)),
            _ => Ok(None),
        }
    }
}

fn time(reader: &mut Reader<'_>) -> Result<Option<Timestamp>, DecodeError> {
    let seconds = reader.unsigned()?;
    if seconds == 0 {
        return Ok(None);
    }
    let seconds = i64::try_from(seconds).map_err(|_| DecodeError::Range)?;
    Timestamp::from_second(seconds).map(Some).map_err(|_| DecodeError::Range)
}
