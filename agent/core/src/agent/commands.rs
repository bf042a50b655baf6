//! What clients ask for: settings, logins, accounts.

use rand_core::CryptoRngCore;
use tsrs_agent_localapi::{BackendState, MaskedPrefs, Notify, Prefs, StartOptions};
use tsrs_base_types::{LockPrivate, Redacted};
use tsrs_control_tka::WrappedAuthKey;

use super::{Action, Agent, ControlAction, Delayed, LoginAttempt, Now, START_DELAY, START_PAIR};
use crate::prefs::{self, PrefsRefusal};
use crate::profiles::NoSuchProfile;

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The prefs cannot be had.
    #[error(transparent)]
    Prefs(#[from] PrefsRefusal),
    /// No such account.
    #[error(transparent)]
    Profile(#[from] NoSuchProfile),
    /// There is nothing to log out from at the server.
    #[error("not logged in")]
    NotLoggedIn,
}

/// What a log-out needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStep {
    /// It is done.
    Done,
    /// The server is being told; [`Agent::finish_logout`] follows when it answered or took too long.
    AskServer,
}

impl<R: CryptoRngCore> Agent<R> {
    /// Changes some prefs; gives all of them, for readers.
    ///
    /// # Errors
    /// They cannot be had; nothing changed.
    pub fn edit_prefs(
        &mut self,
        edit: &MaskedPrefs,
        user_exists: &dyn Fn(&str) -> bool,
        now: Now,
    ) -> Result<Prefs, CommandError> {
        let current = self.state.profiles.current().prefs.clone();
        let next = self.with_context(user_exists, |context| prefs::edit(&current, edit, context))?;
        self.adopt_prefs(next, now);
        self.settle(now);
        Ok(self.state.profiles.current().public_prefs())
    }

    /// Whether whole prefs could be had.
    ///
    /// # Errors
    /// They could not.
    pub fn check_prefs(&self, given: &Prefs, user_exists: &dyn Fn(&str) -> bool) -> Result<(), PrefsRefusal> {
        let current = &self.state.profiles.current().prefs;
        self.with_context(user_exists, |context| prefs::replace(current, given, context)).map(|_| ())
    }

    /// Runs with whole prefs, and logs in where that is needed (client sheet §2.5).
    ///
    /// # Errors
    /// The prefs cannot be had; nothing changed.
    pub fn start(
        &mut self,
        options: StartOptions,
        user_exists: &dyn Fn(&str) -> bool,
        now: Now,
    ) -> Result<(), CommandError> {
        if let Some(given) = &options.update_prefs {
            let current = &self.state.profiles.current().prefs;
            let next = self.with_context(user_exists, |context| prefs::replace(current, given, context))?;
            self.adopt_prefs(next, now);
        }
        self.tell_prefs();
        let auth_key = (!options.auth_key.is_empty()).then(|| Redacted::new(options.auth_key));
        // Exposed to be read: a key that signs its node promises a lock.
        if auth_key.as_ref().is_some_and(|key| WrappedAuthKey::parse(key.expose()).is_some()) {
            self.await_lock(now);
        }
        let expired = self.is_key_expired(now.wall);
        let profile = self.state.profiles.current();
        let wants = profile.prefs.want_running && !profile.prefs.logged_out;
        let has_key = profile.login.node_key.is_some();
        self.login.pair_until = None;
        if wants || auth_key.is_some() {
            self.login.error = None;
            if has_key && !expired {
                // The tunnel goes on meanwhile; the server learns of tags and of the auth key.
                self.settle_control();
                let delay = if auth_key.is_some() { START_PAIR } else { START_DELAY };
                self.login.delayed = Some(Delayed { at: now.mono + delay, renew: false, auth_key });
            } else {
                self.begin_login(expired, auth_key);
                self.login.pair_until = Some(now.mono + START_PAIR);
            }
        }
        // Clients wait for a state after `start`, changed or not.
        self.told_state = BackendState::NoState;
        self.settle(now);
        Ok(())
    }

    /// The user is there to log in; with a key that works, a new one is asked for.
    pub fn login_interactive(&mut self, now: Now) {
        let waiting = self.login.delayed.take();
        let has_key = self.state.profiles.current().login.node_key.is_some();
        let belongs_to_start = self.login.pair_until.take().is_some_and(|until| now.mono <= until);
        if belongs_to_start || (self.login.wanted && !has_key) {
            // It is under way or done already; a second registration could use up an auth key twice.
            if let Some(url) = self.login.auth_url.clone() {
                self.tell(Notify { browse_to_url: Some(url), ..self.message() });
            }
        } else {
            let auth_key = waiting.and_then(|waiting| waiting.auth_key);
            self.begin_login(has_key, auth_key);
        }
        self.settle(now);
    }

    fn begin_login(&mut self, renew: bool, auth_key: Option<Redacted<String>>) {
        self.login = LoginAttempt { wanted: true, by_user: true, ..LoginAttempt::default() };
        self.settle_control();
        self.control(ControlAction::Login { renew, auth_key });
    }

    /// Logs out. The server is asked first where it knows of us.
    pub fn begin_logout(&mut self, now: Now) -> LoginStep {
        let profile = self.state.profiles.current();
        if profile.login.node_key.is_none() {
            self.finish_logout(now);
            return LoginStep::Done;
        }
        self.login = LoginAttempt { leaving: true, ..LoginAttempt::default() };
        self.settle_control();
        self.control(ControlAction::Logout);
        LoginStep::AskServer
    }

    /// Forgets the account and its keys, whether or not the server could be told.
    pub fn finish_logout(&mut self, now: Now) {
        let id = self.state.profiles.current().meta.id.clone();
        self.state.profiles.log_out_current();
        self.forget_cached(id);
        self.change_profile(now);
    }

    /// Forgets every account.
    pub fn reset_auth(&mut self, now: Now) {
        let ids: Vec<String> = self.state.profiles.saved().map(|profile| profile.meta.id.clone()).collect();
        self.state.profiles.delete_all();
        for id in ids {
            self.forget_cached(id);
        }
        self.change_profile(now);
    }

    /// Leaves the account for a blank one.
    pub fn new_profile(&mut self, now: Now) {
        self.write_cache();
        self.state.profiles.start_new();
        self.change_profile(now);
    }

    /// Changes to another account.
    ///
    /// # Errors
    /// There is none with this id.
    pub fn switch_profile(&mut self, id: &str, now: Now) -> Result<(), CommandError> {
        if self.state.profiles.current().is_saved() && self.state.profiles.current().meta.id == id {
            return Ok(());
        }
        self.write_cache();
        self.state.profiles.switch(id)?;
        self.change_profile(now);
        Ok(())
    }

    /// Forgets an account; unknown ones are fine.
    pub fn delete_profile(&mut self, id: &str, now: Now) {
        let was_current = self.state.profiles.current().meta.id == id;
        if !self.state.profiles.delete(id) {
            return;
        }
        self.forget_cached(id.to_owned());
        if was_current {
            self.change_profile(now);
        } else {
            self.save();
        }
    }

    /// The account is gone, and with it what was known of its tailnet.
    fn forget_netmap(&mut self) {
        self.netmap = None;
        self.tunnel.forget_filter();
        self.leave_lock();
    }

    fn forget_cached(&mut self, id: String) {
        if !id.is_empty() {
            self.actions.push_back(Action::ForgetProfile(id));
        }
    }

    /// Everything that belonged to the account before is taken down, then the new one begins.
    fn change_profile(&mut self, now: Now) {
        self.stop_control();
        self.login = LoginAttempt::default();
        self.forget_netmap();
        self.cache_due = None;
        self.health.set_control([]);
        self.settle_tunnel(false, now);
        self.ensure_lock_key();
        self.save();
        self.tell_node_key();
        self.tell_prefs();
        let id = self.state.profiles.current().meta.id.clone();
        self.cache_asked = !id.is_empty();
        if self.cache_asked {
            self.actions.push_back(Action::LoadProfile(id));
        }
        self.settle(now);
    }

    pub(super) fn ensure_lock_key(&mut self) {
        let lock_key = &mut self.state.profiles.current_mut().login.lock_key;
        if lock_key.is_none() {
            *lock_key = LockPrivate::generate(&mut self.rng);
        }
    }

    fn adopt_prefs(&mut self, next: Prefs, now: Now) {
        let profile = self.state.profiles.current();
        if next == profile.prefs {
            return;
        }
        if next.control_url != profile.prefs.control_url {
            self.move_to_server(&next);
        }
        let profile = self.state.profiles.current_mut();
        let down = profile.prefs.want_running && !next.want_running;
        profile.prefs = next;
        self.state.profiles.note_prefs_changed();
        if down && self.state.profiles.current().login.node_key.is_none() {
            self.login = LoginAttempt::default();
        }
        self.save();
        self.tell_prefs();
        self.tell_control_about_us();
        self.reconsider();
        self.reconsider_doors(now);
    }

    /// Nothing of one server is shown to another: a login under way ends, and an account with keys stays behind in the
    /// list.
    fn move_to_server(&mut self, next: &Prefs) {
        self.stop_control();
        self.login = LoginAttempt::default();
        if !self.has_node_key() {
            return;
        }
        self.write_cache();
        self.forget_netmap();
        self.state.profiles.start_new();
        self.state.profiles.current_mut().prefs.control_url.clone_from(&next.control_url);
        self.ensure_lock_key();
        self.tell_node_key();
    }

    /// Whether a log-out would need the server.
    pub fn has_node_key(&self) -> bool {
        self.state.profiles.current().login.node_key.is_some()
    }
}
