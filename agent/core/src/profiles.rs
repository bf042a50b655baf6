//! Accounts: which there are, which is current, and what each keeps.
//!
//! A profile without an id is the blank one that a first login starts from. It is not listed and gets an id, a name and
//! an entry in the state file when a login succeeds (client sheet §2.3, captured runs `login-second-profile`, `logout`).

use std::fmt;

use rand_core::CryptoRngCore;
use tsrs_agent_localapi::prefs::LoginConfig;
use tsrs_agent_localapi::{LoginProfile, NetworkProfile, Prefs, UserProfile};
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{LockPrivate, NodePrivate, NodePublic, StableNodeId, UserId};

use crate::lock::Known;
use crate::prefs;

/// Most profiles that are kept: a list that a user can still read, and a bound for the state file.
pub const MAX_PROFILE_COUNT: usize = 64;

/// What a login leaves behind and a restart needs.
#[derive(Clone, Default, PartialEq)]
pub struct Login {
    /// The node key in use; `None` before the first login.
    pub node_key: Option<NodePrivate>,
    /// The key before it, named when the next one is registered (control sheet §8.3).
    pub old_node_key: Option<NodePrivate>,
    /// Key of Tailnet Lock, made once per profile.
    pub lock_key: Option<LockPrivate>,
    /// Who logged in.
    pub user: UserProfile,
    /// Stable id of this node.
    pub node_id: StableNodeId,
    /// The lock of its tailnet.
    pub lock: Known,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("node_key", &self.public_node_key())
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// The public node key, or the zero key.
    pub fn public_node_key(&self) -> NodePublic {
        self.node_key.as_ref().map(NodePrivate::public).unwrap_or_default()
    }
}

/// One account.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// What clients see of it.
    pub meta: LoginProfile,
    /// Its settings; `config` stays empty here and is filled in for readers.
    pub prefs: Prefs,
    /// Its login.
    pub login: Login,
}

impl Profile {
    /// The blank profile.
    pub fn blank() -> Self {
        Self { meta: LoginProfile::default(), prefs: prefs::defaults(), login: Login::default() }
    }

    /// Whether it has been saved under an id.
    pub fn is_saved(&self) -> bool {
        !self.meta.id.is_empty()
    }

    /// The prefs as readers may see them: with the login, without its keys.
    pub fn public_prefs(&self) -> Prefs {
        let config = (!self.login.node_id.0.is_empty()).then(|| LoginConfig {
            user_profile: self.login.user.clone(),
            node_id: self.login.node_id.clone(),
            ..LoginConfig::default()
        });
        Prefs { config, ..self.prefs.clone() }
    }
}

/// All accounts and the one in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Profiles {
    current: Profile,
    others: Vec<Profile>,
    left: Vec<LeftLock>,
}

/// What a log-out leaves behind: a server that is logged in to again gets no chance to present another lock.
#[derive(Clone, Debug, PartialEq)]
pub struct LeftLock {
    /// The server that the account was on.
    pub control_url: String,
    /// Whose account it was.
    pub user: UserId,
    /// What was known.
    pub known: Known,
}

/// A profile that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("profile not found")]
pub struct NoSuchProfile;

impl Default for Profiles {
    fn default() -> Self {
        Self { current: Profile::blank(), others: Vec::new(), left: Vec::new() }
    }
}

impl Profiles {
    /// From what the state file held.
    pub fn new(mut saved: Vec<Profile>, current_id: &str, mut left: Vec<LeftLock>) -> Self {
        saved.truncate(MAX_PROFILE_COUNT);
        left.truncate(MAX_PROFILE_COUNT);
        let current = match saved.iter().position(|profile| profile.meta.id == current_id) {
            Some(index) => saved.remove(index),
            None => Profile::blank(),
        };
        Self { current, others: saved, left }
    }

    /// The profile in use.
    pub fn current(&self) -> &Profile {
        &self.current
    }

    /// The profile in use, to change.
    pub fn current_mut(&mut self) -> &mut Profile {
        &mut self.current
    }

    /// The saved profiles, ordered by name and then by id.
    pub fn saved(&self) -> impl Iterator<Item = &Profile> {
        let mut all: Vec<&Profile> =
            self.others.iter().chain([&self.current]).filter(|profile| profile.is_saved()).collect();
        all.sort_by(|a, b| (&a.meta.name, &a.meta.id).cmp(&(&b.meta.name, &b.meta.id)));
        all.into_iter()
    }

    /// Names of the profiles that are not in use.
    pub fn other_names(&self) -> Vec<String> {
        self.others.iter().map(|profile| profile.meta.name.clone()).collect()
    }

    /// A saved profile.
    pub fn find(&self, id: &str) -> Option<&Profile> {
        self.saved().find(|profile| profile.meta.id == id)
    }

    /// Leaves the current profile for the blank one.
    pub fn start_new(&mut self) {
        self.put_away(Profile::blank());
    }

    /// Makes a saved profile the current one.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn switch(&mut self, id: &str) -> Result<(), NoSuchProfile> {
        if self.current.is_saved() && self.current.meta.id == id {
            return Ok(());
        }
        let index = self.others.iter().position(|profile| profile.meta.id == id).ok_or(NoSuchProfile)?;
        let next = self.others.remove(index);
        self.put_away(next);
        Ok(())
    }

    /// Forgets a profile; forgetting the current one leads to the blank one. Says whether anything was there.
    pub fn delete(&mut self, id: &str) -> bool {
        if self.current.is_saved() && self.current.meta.id == id {
            self.current = Profile::blank();
            return true;
        }
        let before = self.others.len();
        self.others.retain(|profile| profile.meta.id != id);
        self.others.len() != before
    }

    /// Forgets the current profile and its keys, but not the lock of its tailnet, which comes back with the next login at the same
    /// server.
    pub fn log_out_current(&mut self) {
        let left = std::mem::replace(&mut self.current, Profile::blank());
        if left.login.lock != Known::default() {
            let lock = LeftLock {
                control_url: left.prefs.control_url,
                user: left.login.user.id,
                known: left.login.lock,
            };
            self.left.retain(|other| (&other.control_url, other.user) != (&lock.control_url, lock.user));
            self.left.push(lock);
            // The oldest go first; there are as many as there may be accounts.
            let excess = self.left.len().saturating_sub(MAX_PROFILE_COUNT);
            self.left.drain(..excess);
        }
    }

    /// What log-outs left behind.
    pub fn left(&self) -> &[LeftLock] {
        &self.left
    }

    /// The lock that a log-out from the server of the current profile left: that of the same user, else the newest. Control names the user,
    /// so another name is no way around a lock.
    fn take_left(&mut self, user: UserId) -> Option<Known> {
        let here = |left: &LeftLock| left.control_url == self.current.prefs.control_url;
        let same = self.left.iter().rposition(|left| here(left) && left.user == user);
        let index = same.or_else(|| self.left.iter().rposition(here))?;
        Some(self.left.remove(index).known)
    }

    /// Forgets every profile.
    pub fn delete_all(&mut self) {
        *self = Self::default();
    }

    /// Takes over what a login and its first netmap told, and gives the profile an id if it has none.
    ///
    /// A saved profile of the same user on the same server is replaced, so that logging in twice makes no second
    /// entry. Says whether anything changed that has to be saved.
    pub fn note_login(
        &mut self,
        user: UserProfile,
        node_id: StableNodeId,
        network: NetworkProfile,
        now: WireTime,
        rng: &mut impl CryptoRngCore,
    ) -> bool {
        let before = self.current.clone();
        let same_account = |profile: &Profile| {
            profile.meta.user_profile.id == user.id
                && profile.meta.control_url == self.current.prefs.control_url
        };
        let twin = self.others.iter().position(same_account).map(|index| self.others.remove(index));
        if self.current.login.lock.lock.is_none() {
            let known = twin.as_ref().map(|twin| twin.login.lock.clone());
            let known = known.filter(|known| *known != Known::default());
            // An account that is in the list already has its own tailnet.
            let left = if self.current.is_saved() { None } else { self.take_left(user.id) };
            if let Some(known) = known.or(left) {
                let awaited = known.lock.is_none() && (known.awaited || self.current.login.lock.awaited);
                self.current.login.lock = Known { awaited, ..known };
            }
        }
        let id = match (&self.current.meta.id, &twin) {
            (id, _) if !id.is_empty() => id.clone(),
            (_, Some(twin)) => twin.meta.id.clone(),
            (_, None) => self.free_id(rng),
        };
        let created = twin.as_ref().map_or(before.meta.created, |twin| twin.meta.created);
        let name = if self.current.prefs.profile_name.is_empty() {
            user.login_name.clone()
        } else {
            self.current.prefs.profile_name.clone()
        };
        self.current.meta = LoginProfile {
            key: format!("profile-{id}"),
            id,
            name,
            network_profile: network,
            user_profile: user.clone(),
            node_id: node_id.clone(),
            local_user_id: String::new(),
            control_url: self.current.prefs.control_url.clone(),
            created: if created.is_zero() { now } else { created },
        };
        self.current.login.user = user;
        self.current.login.node_id = node_id;
        twin.is_some() || self.current != before
    }

    /// Brings the name in line with an edited nickname.
    pub fn note_prefs_changed(&mut self) {
        let Profile { meta, prefs, .. } = &mut self.current;
        if !meta.id.is_empty() {
            let name = if prefs.profile_name.is_empty() {
                &meta.user_profile.login_name
            } else {
                &prefs.profile_name
            };
            meta.name.clone_from(name);
        }
    }

    fn put_away(&mut self, next: Profile) {
        let previous = std::mem::replace(&mut self.current, next);
        if previous.is_saved() && self.others.len() < MAX_PROFILE_COUNT {
            self.others.push(previous);
        }
    }

    /// Four hex digits that no profile has.
    fn free_id(&self, rng: &mut impl CryptoRngCore) -> String {
        loop {
            let mut raw = [0; 2];
            rng.fill_bytes(&mut raw);
            let id = format!("{:02x}{:02x}", raw[0], raw[1]);
            if self.others.iter().all(|profile| profile.meta.id != id) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests;
