//! Auth keys.

use std::time::Duration;

use jiff::Timestamp;
use rand_core::{OsRng, RngCore};
use serde::{Deserialize, Serialize};

/// What an auth key is good for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeySpec {
    /// Login name of the user whose nodes it makes; empty is the first user.
    pub user: String,
    /// Whether more than one node may use it.
    pub reusable: bool,
    /// Whether its nodes are deleted when they go away.
    pub ephemeral: bool,
    /// Whether its nodes need no machine approval.
    pub preauthorized: bool,
    /// Tags of its nodes; a tagged node belongs to no user and its key never expires.
    pub tags: Vec<String>,
    /// Time until it expires; `None` is for ever, zero is at once.
    pub lifetime: Option<Duration>,
}

impl KeySpec {
    /// A key for one node of the first user.
    pub fn single_use() -> Self {
        Self::default()
    }

    /// A key for any number of nodes of the first user.
    pub fn reusable() -> Self {
        Self { reusable: true, ..Self::default() }
    }

    /// The same key for this user.
    pub fn of_user(self, user: &str) -> Self {
        Self { user: user.to_owned(), ..self }
    }

    /// The same key for ephemeral nodes.
    pub fn ephemeral(self) -> Self {
        Self { ephemeral: true, ..self }
    }

    /// The same key for nodes with these tags.
    pub fn tagged(self, tags: &[&str]) -> Self {
        Self { tags: tags.iter().map(|&tag| tag.to_owned()).collect(), ..self }
    }

    /// The same key with a lifetime.
    pub fn expiring(self, lifetime: Duration) -> Self {
        Self { lifetime: Some(lifetime), ..self }
    }
}

/// A key that was given out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AuthKey {
    pub(crate) text: String,
    pub(crate) spec: KeySpec,
    pub(crate) expires: Option<Timestamp>,
    pub(crate) used: bool,
}

/// Why a key was refused. The texts are those that servers in the field give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyRefused {
    #[error("invalid pre auth key")]
    Unknown,
    #[error("authkey expired")]
    Expired,
    #[error("authkey already used")]
    Used,
}

impl AuthKey {
    pub(crate) fn new(spec: KeySpec, now: Timestamp) -> Self {
        let mut random = [0; 24];
        OsRng.fill_bytes(&mut random);
        let text = format!("tskey-auth-lab{}", data_encoding::HEXLOWER.encode(&random));
        let expires = spec.lifetime.map(|lifetime| now.saturating_add(lifetime).unwrap_or(now));
        Self { text, spec, expires, used: false }
    }

    /// Whether it may be used for one more node.
    pub(crate) fn check(&self, now: Timestamp) -> Result<(), KeyRefused> {
        if self.expires.is_some_and(|expires| expires <= now) {
            return Err(KeyRefused::Expired);
        }
        if self.used && !self.spec.reusable {
            return Err(KeyRefused::Used);
        }
        Ok(())
    }
}
