//! The state file: the one place that reads and writes secrets.
//!
//! One JSON object with a version. The daemon writes it atomically, with mode 0600, and keeps a file that cannot be
//! read under another name. Keys stand here as text; sealing them is a later option and has its room in [`encode`] and
//! [`decode`].

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use tsrs_agent_localapi::{LoginProfile, Prefs, UserProfile};
use tsrs_base_types::{LockPrivate, MachinePrivate, NodePrivate, StableNodeId, UserId};
use tsrs_control_tka::{Pin, StateId};
use zeroize::{Zeroize, Zeroizing};

use crate::lock::{Known, Lock};
use crate::prefs::{Removed, remove_unsupported};
use crate::profiles::{LeftLock, Login, MAX_PROFILE_COUNT, Profile, Profiles};

/// Version that is written. A reader refuses later ones.
pub const VERSION: u32 = 1;

/// Largest file that is read: [`MAX_PROFILE_COUNT`] profiles of generous size.
pub const MAX_LEN: usize = 4 << 20;

/// Everything that outlives the daemon, the cached netmap left out.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// Identity of the machine; outlives logins.
    pub machine_key: MachinePrivate,
    /// The accounts.
    pub profiles: Profiles,
}

/// Why a state file was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// It is damaged; the caller keeps it under another name and starts anew.
    #[error("the file is damaged: {0}")]
    Corrupt(String),
    /// A later version of this program wrote it; it must stay as it is.
    #[error(
        "the file has version {0}, and this program reads versions up to {VERSION}; install the version that wrote it"
    )]
    TooNew(u32),
    /// It belongs to tailscaled. It is read for migration only, never written.
    #[error(
        "this is the state file of tailscaled, which is never written to; give another --state or --statedir"
    )]
    Foreign,
}

/// A state and what was taken out of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The state.
    pub state: State,
    /// Stored settings that have no effect here, by profile id.
    pub removed: Vec<(String, Removed)>,
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(rename = "Version")]
    version: u32,
    #[serde(rename = "MachineKey")]
    machine_key: Secret,
    #[serde(rename = "CurrentProfile", default)]
    current_profile: String,
    #[serde(rename = "Profiles", default)]
    profiles: BTreeMap<String, ProfileEntry>,
    /// Locks of accounts that were logged out.
    #[serde(rename = "LeftLocks", default, skip_serializing_if = "Vec::is_empty")]
    left: Vec<LeftEntry>,
}

#[derive(Serialize, Deserialize)]
struct ProfileEntry {
    #[serde(rename = "Profile")]
    meta: LoginProfile,
    #[serde(rename = "Prefs")]
    prefs: Prefs,
    #[serde(rename = "NodeKey", default, skip_serializing_if = "Secret::is_empty")]
    node_key: Secret,
    #[serde(rename = "OldNodeKey", default, skip_serializing_if = "Secret::is_empty")]
    old_node_key: Secret,
    #[serde(rename = "LockKey", default, skip_serializing_if = "Secret::is_empty")]
    lock_key: Secret,
    #[serde(rename = "User")]
    user: UserProfile,
    #[serde(rename = "NodeID")]
    node_id: StableNodeId,
    #[serde(flatten)]
    lock: LockEntry,
}

/// What is remembered of Tailnet Lock.
#[derive(Default, Serialize, Deserialize)]
struct LockEntry {
    #[serde(rename = "Lock", default, skip_serializing_if = "Option::is_none")]
    lock: Option<PinnedLock>,
    /// Locks that were switched off here.
    #[serde(rename = "DisallowedTKAStateIDs", default, skip_serializing_if = "Vec::is_empty")]
    disabled: Vec<String>,
    /// A lock was promised and none verified yet.
    #[serde(rename = "LockAwaited", default, skip_serializing_if = "std::ops::Not::not")]
    awaited: bool,
}

#[derive(Serialize, Deserialize)]
struct PinnedLock {
    #[serde(rename = "StateID")]
    id: String,
    /// Base32.
    #[serde(rename = "Genesis")]
    genesis: String,
    /// Base32.
    #[serde(rename = "Head")]
    head: String,
    /// Hex.
    #[serde(rename = "DisablementValues")]
    disablement_values: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct LeftEntry {
    #[serde(rename = "ControlURL")]
    control_url: String,
    #[serde(rename = "UserID")]
    user: UserId,
    #[serde(flatten)]
    lock: LockEntry,
}

impl LockEntry {
    fn new(known: &Known) -> Self {
        let lock = known.lock.as_ref().map(|lock| PinnedLock {
            id: lock.pin.id.to_string(),
            genesis: lock.pin.genesis.to_string(),
            head: lock.pin.head.to_string(),
            disablement_values: lock.disablement_values.iter().map(|value| HEXLOWER.encode(value)).collect(),
        });
        Self {
            lock,
            disabled: known.disabled.iter().map(StateId::to_string).collect(),
            awaited: known.awaited,
        }
    }

    /// A lock that cannot be read is no lock that can be left out: the file is damaged then.
    fn known(&self) -> Result<Known, StateError> {
        let bad = || StateError::Corrupt("what it remembers of Tailnet Lock cannot be read".to_owned());
        let id = |text: &String| state_id(text).ok_or_else(bad);
        let lock = match &self.lock {
            None => None,
            Some(lock) => Some(Lock {
                pin: Pin {
                    id: id(&lock.id)?,
                    genesis: lock.genesis.parse().map_err(|_| bad())?,
                    head: lock.head.parse().map_err(|_| bad())?,
                },
                disablement_values: lock
                    .disablement_values
                    .iter()
                    .map(|value| HEXLOWER.decode(value.as_bytes()).ok()?.try_into().ok())
                    .collect::<Option<_>>()
                    .ok_or_else(bad)?,
            }),
        };
        let disabled = self.disabled.iter().map(id).collect::<Result<_, _>>()?;
        Ok(Known { lock, disabled, awaited: self.awaited })
    }
}

/// The id of a lock in the form in which profiles remember it: two decimal numbers and a colon.
pub(crate) fn state_id(text: &str) -> Option<StateId> {
    let (one, two) = text.split_once(':')?;
    Some(StateId(one.parse().ok()?, two.parse().ok()?))
}

/// Key text on its way to or from the file; wiped on drop.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Secret(String);

impl Secret {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn parse<K: std::str::FromStr>(&self, what: &str) -> Result<Option<K>, StateError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        // The parser's error never holds the text; its type is not ours to show.
        self.0.parse().map(Some).map_err(|_| StateError::Corrupt(format!("{what} is no key")))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl From<Option<Zeroizing<String>>> for Secret {
    fn from(text: Option<Zeroizing<String>>) -> Self {
        Self(text.map(|text| text.as_str().to_owned()).unwrap_or_default())
    }
}

/// The content of the file.
///
/// # Errors
/// Never for a state that [`decode`] gave; the error of the JSON writer is passed on.
pub fn encode(state: &State) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let entry = |profile: &Profile| ProfileEntry {
        meta: profile.meta.clone(),
        prefs: profile.prefs.clone(),
        node_key: profile.login.node_key.as_ref().map(NodePrivate::expose_text).into(),
        old_node_key: profile.login.old_node_key.as_ref().map(NodePrivate::expose_text).into(),
        lock_key: profile.login.lock_key.as_ref().map(LockPrivate::expose_text).into(),
        user: profile.login.user.clone(),
        node_id: profile.login.node_id.clone(),
        lock: LockEntry::new(&profile.login.lock),
    };
    let left = |left: &LeftLock| LeftEntry {
        control_url: left.control_url.clone(),
        user: left.user,
        lock: LockEntry::new(&left.known),
    };
    let file = File {
        version: VERSION,
        machine_key: Some(state.machine_key.expose_text()).into(),
        current_profile: state.profiles.current().meta.id.clone(),
        profiles: state.profiles.saved().map(|profile| (profile.meta.key.clone(), entry(profile))).collect(),
        left: state.profiles.left().iter().map(left).collect(),
    };
    // The writer grows its buffer by copying; the size is reserved so that no copy of a key is left behind.
    let mut out = Zeroizing::new(Vec::with_capacity(RESERVE_PER_PROFILE * (1 + file.profiles.len())));
    serde_json::to_writer_pretty(&mut *out, &file)?;
    Ok(out)
}

/// Room for one profile, far above its usual two kilobytes.
const RESERVE_PER_PROFILE: usize = 16 << 10;

/// The state in a file.
///
/// # Errors
/// The file is damaged, from a later version, or tailscaled's.
pub fn decode(bytes: &[u8]) -> Result<Loaded, StateError> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "Version")]
        version: Option<u32>,
        #[serde(rename = "_machinekey")]
        foreign: Option<serde::de::IgnoredAny>,
    }
    if bytes.len() > MAX_LEN {
        return Err(StateError::Corrupt(format!("it is larger than {MAX_LEN} bytes")));
    }
    // The errors of the JSON reader name lines and columns, never values of text fields.
    let corrupt = |error: serde_json::Error| StateError::Corrupt(error.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(corrupt)?;
    match head.version {
        _ if head.foreign.is_some() => return Err(StateError::Foreign),
        Some(VERSION) => {}
        Some(version) if version > VERSION => return Err(StateError::TooNew(version)),
        Some(_) | None => return Err(StateError::Corrupt("it has no version".to_owned())),
    }
    let file: File = serde_json::from_slice(bytes).map_err(corrupt)?;
    let machine_key = file
        .machine_key
        .parse("MachineKey")?
        .filter(|key: &MachinePrivate| !key.is_zero())
        .ok_or_else(|| StateError::Corrupt("it has no machine key".to_owned()))?;
    if file.profiles.len() > MAX_PROFILE_COUNT {
        return Err(StateError::Corrupt(format!("it has more than {MAX_PROFILE_COUNT} profiles")));
    }
    let mut removed = Vec::new();
    let mut profiles = Vec::new();
    for (key, entry) in file.profiles {
        let id = entry.meta.id.clone();
        if id.is_empty() || key != format!("profile-{id}") || entry.meta.key != key {
            return Err(StateError::Corrupt(format!("the profile {key:?} does not carry its own name")));
        }
        let mut prefs = Prefs { config: None, ..entry.prefs };
        let taken_out = remove_unsupported(&mut prefs);
        if !taken_out.reasons.is_empty() {
            removed.push((id, taken_out));
        }
        profiles.push(Profile {
            meta: entry.meta,
            prefs,
            login: Login {
                node_key: entry.node_key.parse("NodeKey")?,
                old_node_key: entry.old_node_key.parse("OldNodeKey")?,
                lock_key: entry.lock_key.parse("LockKey")?,
                user: entry.user,
                node_id: entry.node_id,
                lock: entry.lock.known()?,
            },
        });
    }
    let left = file.left.iter().map(|left| {
        let known = left.lock.known()?;
        Ok(LeftLock { control_url: left.control_url.clone(), user: left.user, known })
    });
    let left = left.collect::<Result<Vec<_>, StateError>>()?;
    let profiles = Profiles::new(profiles, &file.current_profile, left);
    Ok(Loaded { state: State { machine_key, profiles }, removed })
}

#[cfg(test)]
mod tests;
