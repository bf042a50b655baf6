//! [`Agent`]: the machine that joins prefs, accounts, control, tunnel and host.
//!
//! It does no input or output. The caller feeds commands of clients, events of the control client and of the engine,
//! link changes and the time; after each input it drains [`Agent::poll_action`] and [`Agent::poll_notice`] before the
//! next. What the agent is (`NeedsLogin`, `Running`, …) follows from facts each time and is stored nowhere.

mod action;
mod commands;
mod control;
mod event;
mod lock;
mod netmap;
mod snapshot;
mod tunnel;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use jiff::{SignedDuration, Timestamp};
use rand_core::CryptoRngCore;
use tsrs_agent_localapi::{BackendState, Notify};
use tsrs_base_types::Redacted;
use tsrs_control_netmap::Netmap;
use tsrs_platform_api::LinkState;

use crate::agent_state::{Facts, derive};
use crate::health::{Health, Problem};
use crate::prefs::PrefsContext;
use crate::state_file::State;
use crate::wanted::{DnsBase, HostFacts};

pub use action::{Action, ControlAction, ControlStart, Notice, TunnelAction};
pub use commands::{CommandError, LoginStep};
pub use event::{ControlEvent, EngineEvent, TroubleKind};
use lock::LockState;
pub use lock::{LockCommandError, LockView, OwnKey, Standing};
pub use netmap::Kept;
pub use snapshot::Snapshot;
use tunnel::Tunnel;

/// How long the first relay or peer may take until the agent counts as running without one: the address is set and
/// peers on the same network can be reached, so nothing is gained by waiting longer.
const RELAY_GRACE: Duration = Duration::from_secs(5);

/// How long before its expiry a node key is warned about.
const KEY_WARNING: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How often the wall clock is looked at for things that lie far ahead.
const LONG_LOOK: Duration = Duration::from_secs(6 * 3600);

/// Before this time no clock is believed: the protocol is younger (control sheet §20).
const EARLIEST_CLOCK: Timestamp = Timestamp::constant(1_673_373_066, 0);

/// How long after a failure the host's settings are tried again.
const APPLY_RETRY: Duration = Duration::from_secs(15);

/// How long after `start` a plain registration waits, so that the `login-interactive` that some clients send right behind
/// it asks once and not twice.
const START_DELAY: Duration = Duration::from_millis(300);

/// How long after `start` a `login-interactive` is taken for the second half of the same `up`. Clients send it right behind;
/// on a busy host the login may have succeeded before it comes. So long a plain registration with an auth key waits, too:
/// the key may be good for one use only, which is then the one that the second half wants, and the node runs meanwhile.
const START_PAIR: Duration = Duration::from_secs(10);

/// How long after a change the netmap is written to disk, so that a burst is written once.
const CACHE_DELAY: Duration = Duration::from_secs(10);

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers.
    pub mono: Instant,
    /// For times of the protocol.
    pub wall: Timestamp,
}

/// What the agent is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the state file held.
    pub state: State,
    /// Facts about the host.
    pub host: HostFacts,
    /// Version of the daemon, for clients.
    pub version: String,
}

/// A login that is under way.
#[derive(Debug, Default)]
struct LoginAttempt {
    /// The user asked for it and it has not succeeded yet.
    wanted: bool,
    /// Where the user must go.
    auth_url: Option<String>,
    /// The last failure, as the server or the client put it.
    error: Option<String>,
    /// The user was there: an interactive login, or one with a key.
    by_user: bool,
    /// A registration that waits for [`START_DELAY`] or [`START_PAIR`].
    delayed: Option<Delayed>,
    /// Until when a `login-interactive` belongs to the `start` that began this login.
    pair_until: Option<Instant>,
    /// The server is being told that we leave.
    leaving: bool,
}

#[derive(Debug)]
struct Delayed {
    at: Instant,
    renew: bool,
    auth_key: Option<Redacted<String>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Agent<R> {
    version: String,
    host: HostFacts,
    state: State,
    rng: R,
    health: Health,
    shown_health: Vec<String>,
    /// What may be seen of the netmap; [`LockState::full`] is the whole.
    netmap: Option<Arc<Netmap>>,
    lock: LockState,
    link: Arc<LinkState>,
    dns_base: DnsBase,
    /// A configuration file has locked the prefs.
    locked: bool,
    /// A control client runs.
    control_running: bool,
    control_online: bool,
    /// The server knows no node with our key; a registration asks whether it may come back.
    node_unknown: bool,
    login: LoginAttempt,
    tunnel: Tunnel,
    /// The last state that watchers were told.
    told_state: BackendState,
    starting_since: Option<Instant>,
    /// A relay or a peer was reached since then. That it is lost again is a matter of health.
    had_contact: bool,
    cache_due: Option<Instant>,
    /// The netmap of the last run was asked for. Until it is here no control client starts: what the first frame changes
    /// must be told against the netmap that the tunnel has.
    cache_asked: bool,
    /// Whether anybody wants to hear about peers.
    peers_watched: bool,
    actions: VecDeque<Action>,
    notices: VecDeque<Notice>,
}

impl<R: CryptoRngCore> Agent<R> {
    /// An agent that has done nothing yet. Call [`Self::begin`] when the caller is ready for its first actions.
    pub fn new(setup: Setup, rng: R) -> Self {
        Self {
            version: setup.version,
            host: setup.host,
            state: setup.state,
            rng,
            health: Health::default(),
            shown_health: Vec::new(),
            netmap: None,
            lock: LockState::default(),
            link: Arc::default(),
            dns_base: DnsBase::default(),
            locked: false,
            control_running: false,
            control_online: false,
            node_unknown: false,
            login: LoginAttempt::default(),
            tunnel: Tunnel::default(),
            told_state: BackendState::NoState,
            starting_since: None,
            had_contact: false,
            cache_due: None,
            cache_asked: false,
            peers_watched: false,
            actions: VecDeque::new(),
            notices: VecDeque::new(),
        }
    }

    /// Begins: with the account of the last run, what is kept of it, and the wish to run as it was.
    pub fn begin(&mut self, kept: Kept, now: Now) {
        self.ensure_lock_key();
        self.health.set(Problem::WarmingUp, "", now.mono, now.wall);
        self.adopt_kept(kept, now);
        self.tell_node_key();
        self.settle(now);
    }

    /// The state to write to the state file.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The newest netmap.
    pub fn netmap(&self) -> Option<&Arc<Netmap>> {
        self.netmap.as_ref()
    }

    /// What to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What to tell watchers next.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self, now: Now) -> Option<Instant> {
        let expiry = self.key_expiry().map(|expiry| {
            let warning = expiry.checked_sub(KEY_WARNING).unwrap_or(expiry);
            let next = if warning > now.wall { warning } else { expiry };
            let ahead = Duration::try_from(next.duration_since(now.wall)).unwrap_or_default();
            now.mono + ahead.clamp(Duration::from_secs(1), LONG_LOOK)
        });
        let grace = self.starting_since.map(|since| since + RELAY_GRACE);
        [
            self.health.poll_timeout(now.mono),
            expiry.filter(|_| !self.is_key_expired(now.wall)),
            grace.filter(|at| *at > now.mono),
            self.tunnel.retry_at,
            self.login.delayed.as_ref().map(|delayed| delayed.at),
            self.cache_due,
            self.lock.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.login.delayed.as_ref().is_some_and(|delayed| delayed.at <= now.mono) {
            self.register_now();
        }
        if self.cache_due.take_if(|at| *at <= now.mono).is_some() {
            self.write_cache();
        }
        self.settle(now);
    }

    /// Makes the registration that waits, if there is one.
    fn register_now(&mut self) {
        if let Some(delayed) = self.login.delayed.take() {
            self.control(ControlAction::Login { renew: delayed.renew, auth_key: delayed.auth_key });
        }
    }

    /// The host's interfaces changed.
    pub fn handle_link(&mut self, link: Arc<LinkState>, now: Now) {
        let was_up = self.link.any_up();
        self.link = link;
        let is_up = self.link.any_up();
        self.health.note(Problem::NetworkStatus, (!is_up).then_some(""), now.mono, now.wall);
        if self.control_running && was_up != is_up {
            self.control(ControlAction::Pause(!is_up));
        }
        self.tell_control_about_us();
        self.reconsider();
        self.settle(now);
    }

    /// What the host's own DNS can do changed.
    pub fn handle_dns_base(&mut self, base: DnsBase, now: Now) {
        self.dns_base = base;
        self.reconsider();
        self.settle(now);
    }

    /// Whether anybody wants to hear about changes of peers; while nobody does, none are put together.
    pub fn set_peers_watched(&mut self, watched: bool) {
        self.peers_watched = watched;
    }

    /// A problem that the caller found began, or ended (`None`).
    pub fn note_problem(&mut self, problem: Problem, detail: Option<&str>, now: Now) {
        self.health.note(problem, detail, now.mono, now.wall);
        self.settle(now);
    }

    /// Locks the prefs, or unlocks them: a configuration file rules.
    pub fn set_locked(&mut self, locked: bool) {
        self.locked = locked;
    }

    /// The facts that the state follows from.
    fn facts(&self, now: Now) -> Facts {
        let profile = self.state.profiles.current();
        Facts {
            loaded: true,
            want_running: profile.prefs.want_running,
            logged_out: profile.prefs.logged_out,
            have_node_key: profile.login.node_key.is_some(),
            // What the server said of a node that it has forgotten holds no longer, though it may come back as it was.
            have_netmap: self.netmap.is_some() && !self.node_unknown,
            key_expired: self.is_key_expired(now.wall),
            machine_authorized: self
                .netmap
                .as_ref()
                .is_some_and(|netmap| netmap.self_node().machine_authorized),
            login_blocked: self.login.auth_url.is_some() || self.login.error.is_some(),
            tunnel_up: self.tunnel.is_up() && (self.had_contact || self.grace_is_over(now.mono)),
        }
    }

    fn grace_is_over(&self, now: Instant) -> bool {
        self.starting_since.is_some_and(|since| now.saturating_duration_since(since) >= RELAY_GRACE)
    }

    fn key_expiry(&self) -> Option<Timestamp> {
        self.netmap.as_ref()?.self_node().key_expiry.timestamp()
    }

    fn is_key_expired(&self, wall: Timestamp) -> bool {
        let Some(netmap) = &self.netmap else { return false };
        let passed = self.key_expiry().is_some_and(|expiry| wall >= EARLIEST_CLOCK && expiry <= wall);
        netmap.self_node().expired || passed
    }

    /// Draws the consequences of whatever changed: state, tunnel, host, control, health, watchers.
    fn settle(&mut self, now: Now) {
        let state = derive(&self.facts(now));
        let live = matches!(state, BackendState::Starting | BackendState::Running);
        match (live, self.starting_since) {
            (true, None) => self.starting_since = Some(now.mono),
            (false, Some(_)) => self.starting_since = None,
            (true, Some(_)) | (false, None) => {}
        }
        self.settle_lock(now);
        self.had_contact = live && self.netmap.is_some() && (self.had_contact || self.tunnel.has_contact());
        self.settle_control();
        self.settle_tunnel(live, now);
        // Taking the tunnel up or down is itself a fact.
        let state = derive(&self.facts(now));
        self.settle_health(state, now);
        if state != self.told_state {
            self.told_state = state;
            self.tell(Notify { state: Some(state), ..self.message() });
            if state == BackendState::Running {
                self.notices.push_back(Notice::EngineStatus);
            }
        }
        self.tell_health(now);
    }

    fn settle_health(&mut self, state: BackendState, now: Now) {
        let profile = self.state.profiles.current();
        let down = state == BackendState::Stopped
            || (state == BackendState::NeedsLogin && !profile.prefs.want_running);
        let warming = matches!(state, BackendState::NoState | BackendState::Starting)
            || (state == BackendState::NeedsLogin && self.login.wanted);
        let expiry = self.key_expiry().filter(|expiry| {
            let left = expiry.duration_since(now.wall);
            left > SignedDuration::ZERO && left <= KEY_WARNING && now.wall >= EARLIEST_CLOCK
        });
        let expiry = expiry.map(|expiry| expiry.to_string());
        let accepts = profile.prefs.route_all;
        let offered = !accepts && self.tunnel.routes_offered();
        let not_advertised = crate::prefs::routes_without_effect(&profile.prefs, &self.link.on_link());
        let not_advertised = joined(&not_advertised);
        let [lock_unverified, lock_refused, locked_out, weak_signature] = self.lock_problems();
        let login_error = self.login.error.clone();
        for (problem, detail) in [
            (Problem::WantRunningFalse, down.then_some("")),
            (Problem::WarmingUp, warming.then_some("")),
            (Problem::LoginState, login_error.as_deref()),
            (Problem::KeyExpiresSoon, expiry.as_deref()),
            (Problem::RoutesNotAccepted, offered.then_some("")),
            (Problem::RoutesNotAdvertised, not_advertised.as_deref()),
            (Problem::LockUnverified, lock_unverified.as_deref()),
            (Problem::LockRefused, lock_refused.as_deref()),
            (Problem::LockedOut, locked_out.as_deref()),
            (Problem::LockWeakSignature, weak_signature.as_deref()),
        ] {
            self.health.note(problem, detail, now.mono, now.wall);
        }
        let off_the_stream = (self.control_running && !self.control_online).then_some("");
        self.health.note(Problem::NotInMapPoll, off_the_stream, now.mono, now.wall);
        let cached = self.netmap.as_ref().is_some_and(|netmap| netmap.is_cached());
        let cached = (cached && state != BackendState::Stopped).then_some("the last run");
        self.health.note(Problem::CachedNetmap, cached, now.mono, now.wall);
    }

    fn tell_health(&mut self, now: Now) {
        let shown = self.health.texts(now.mono);
        if shown != self.shown_health {
            self.shown_health = shown;
            let health = Some(self.health.state(now.mono));
            self.tell(Notify { health, ..self.message() });
        }
    }

    fn message(&self) -> Notify {
        Notify { version: self.version.clone(), ..Notify::default() }
    }

    fn tell(&mut self, notify: Notify) {
        self.notices.push_back(Notice::Message(Box::new(notify)));
    }

    fn tell_prefs(&mut self) {
        let prefs = Some(Box::new(self.state.profiles.current().public_prefs()));
        self.tell(Notify { prefs, ..self.message() });
    }

    fn control(&mut self, action: ControlAction) {
        self.actions.push_back(Action::Control(action));
    }

    fn save(&mut self) {
        if !matches!(self.actions.back(), Some(Action::Save)) {
            self.actions.push_back(Action::Save);
        }
    }

    /// The advertised routes in effect.
    fn subnets(&self) -> Vec<Ipv4Net> {
        crate::prefs::effective_routes(&self.state.profiles.current().prefs, &self.link.on_link())
    }

    fn with_context<T>(
        &self,
        user_exists: &dyn Fn(&str) -> bool,
        act: impl FnOnce(&PrefsContext<'_>) -> T,
    ) -> T {
        let (on_link, names) = (self.link.on_link(), self.state.profiles.other_names());
        act(&PrefsContext {
            on_link: &on_link,
            user_exists,
            other_profile_names: &names,
            locked: self.locked,
        })
    }
}

/// Reasons as one sentence; `None` if there is none.
fn joined<T: ToString>(reasons: &[T]) -> Option<String> {
    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

#[cfg(test)]
mod tests;
