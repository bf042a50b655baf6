//! The session machine: login, map stream and updates as three loops of their own (control protocol sheet §20).
//!
//! It does no input or output: the driver carries out its [`Action`]s and tells it how they ended. After each input the
//! driver drains [`Machine::poll_action`] and [`Machine::poll_event`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand_core::{CryptoRngCore, OsRng};
use tsrs_base_types::{NodePublic, Redacted};
use tsrs_control_tailcfg::{CapabilityVersion, MapRequest, Node, RegisterRequest, RegisterResponse};

use crate::backoff::Backoff;
use crate::config::{LocalState, NodeKeys};
use crate::error::{Error, ErrorKind};
use crate::event::{Activity, Event, Trouble};
use crate::login::{Expiry, Login, LoginSettings, Outcome};
use crate::server::ServerUrl;

/// A moment, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) mono: Instant,
    pub(crate) wall: Timestamp,
}

impl Now {
    /// The moment at which the wall clock will show `time`, as long as nobody sets it; `None` if that is too far off to
    /// matter.
    pub(crate) fn until(self, time: Timestamp) -> Option<Instant> {
        self.mono.checked_add(Duration::try_from(time.duration_since(self.wall)).unwrap_or(Duration::ZERO))
    }
}

/// What the driver is to do. Opening and closing come in pairs: nothing is opened that is open.
#[derive(Debug)]
pub(crate) enum Action {
    Register(Box<RegisterRequest>),
    CancelRegister,
    OpenMap(Box<MapRequest>),
    CloseMap,
    Update(Box<MapRequest>),
    CancelUpdate,
    /// A change of the key's expiry; told by [`Machine::handle_expiry_done`].
    Expire(Box<RegisterRequest>),
    /// Close the connection.
    Disconnect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MapPhase {
    Closed,
    Due(Instant),
    /// `true` once a netmap came.
    Open(bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpdatePhase {
    Due(Instant),
    InFlight,
}

pub(crate) struct Machine<R = OsRng> {
    server: ServerUrl,
    rng: R,
    login: Login,
    local: LocalState,
    /// The server has accepted the key in use during this run.
    registered: bool,
    paused: bool,
    map: MapPhase,
    map_backoff: Backoff,
    update: UpdatePhase,
    update_backoff: Backoff,
    /// The server does not know our newest state.
    dirty: bool,
    /// When the key in use expires, as far as it is known.
    key_expiry: Option<Timestamp>,
    key_expired: bool,
    machine_authorized: Option<bool>,
    actions: VecDeque<Action>,
    events: VecDeque<Event>,
}

impl<R: CryptoRngCore> Machine<R> {
    pub(crate) fn new(
        server: ServerUrl,
        settings: LoginSettings,
        keys: NodeKeys,
        local: LocalState,
        rng: R,
        now: Now,
    ) -> Self {
        Self {
            server,
            rng,
            login: Login::new(settings, keys),
            local,
            registered: false,
            paused: false,
            map: MapPhase::Closed,
            map_backoff: Backoff::NEW,
            update: UpdatePhase::Due(now.mono),
            update_backoff: Backoff::NEW,
            dirty: false,
            key_expiry: None,
            key_expired: false,
            machine_authorized: None,
            actions: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// What to do next.
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What to tell the owner next.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Machine::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self, now: Now) -> Option<Instant> {
        let expiry = self.key_expiry.filter(|_| !self.key_expired).and_then(|expiry| now.until(expiry));
        if self.paused {
            return expiry;
        }
        let map = match self.map {
            MapPhase::Due(at) if self.registered => Some(at),
            MapPhase::Due(_) | MapPhase::Closed | MapPhase::Open(_) => None,
        };
        let update = match self.update {
            UpdatePhase::Due(at) if self.registered && self.dirty => Some(at),
            UpdatePhase::Due(_) | UpdatePhase::InFlight => None,
        };
        [expiry, map, update, self.login.poll_timeout()].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) {
        self.check_expiry(now);
        self.advance(now);
    }

    /// The public key in use.
    pub(crate) fn node_key(&self) -> NodePublic {
        self.login.node_key()
    }

    /// The user wants to log in. `renew` asks for a new key even though the one in use works.
    pub(crate) fn handle_login(&mut self, renew: bool, auth_key: Option<Redacted<String>>, now: Now) {
        let new_auth_key = auth_key.is_some();
        // Who asks for a new node key and names no auth key is there to visit a page; the auth key of then is not used once more.
        if new_auth_key || renew {
            self.login.set_auth_key(auth_key);
        }
        let renew = renew || self.key_expired;
        if let (Some(url), false, false) = (self.login.waiting_for(), renew, new_auth_key) {
            // It waits for the user already: say where, and go on waiting.
            let url = url.to_owned();
            self.events.push_back(Event::AuthUrl(url));
            return;
        }
        self.cancel_register();
        self.login.start(renew, &mut self.rng, now.mono);
        self.advance(now);
    }

    /// The user wants to log out, or to let the key expire earlier.
    pub(crate) fn handle_expire(&mut self, expiry: Expiry, now: Now) {
        if expiry == Expiry::Logout {
            self.cancel_register();
            self.login.stop();
        }
        match self.login.expiry_request(expiry, &self.local.wire_hostinfo()) {
            Some(request) => self.actions.push_back(Action::Expire(Box::new(request))),
            // Without a key we are logged out already.
            None => self.handle_expiry_done(expiry, true, now),
        }
    }

    /// The call for [`Action::Expire`] ended.
    pub(crate) fn handle_expiry_done(&mut self, expiry: Expiry, succeeded: bool, now: Now) {
        if expiry == Expiry::Logout && succeeded {
            self.cancel_register();
            self.login.forget_keys();
            self.registered = false;
            self.key_expiry = None;
            self.key_expired = false;
            self.machine_authorized = None;
            self.close_map();
            self.cancel_update(now);
            self.events.push_back(Event::LoggedOut);
        }
        self.advance(now);
    }

    /// Nothing can or shall be sent for a while.
    pub(crate) fn handle_paused(&mut self, paused: bool, now: Now) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        if paused {
            self.interrupt(now);
        }
        self.advance(now);
    }

    /// The network is another one: what is under way hangs on a dead connection.
    pub(crate) fn handle_link_change(&mut self, now: Now) {
        self.interrupt(now);
        self.advance(now);
    }

    /// Our own state is another one.
    pub(crate) fn handle_local(&mut self, local: LocalState, now: Now) {
        let same = self.local.same_to_server(&local);
        self.local = local;
        if !same {
            self.dirty = true;
            self.advance(now);
        }
    }

    pub(crate) fn handle_register_done(&mut self, result: Result<RegisterResponse, Error>, now: Now) {
        let outcome = match result {
            Ok(response) => self.login.handle_response(response, &self.server, &mut self.rng, now.mono),
            Err(error) => self.login.handle_failure(error, &mut self.rng, now.mono),
        };
        match outcome {
            Outcome::GoOn => {}
            Outcome::Visit(url) => self.events.push_back(Event::AuthUrl(url)),
            Outcome::Failed(error, retry_in) => self.trouble(Activity::Login, &error, Some(retry_in)),
            Outcome::LoggedIn(response) => self.note_login(*response, now),
        }
        self.advance(now);
    }

    /// A frame with state came and was folded.
    pub(crate) fn handle_netmap(&mut self, self_node: &Node, now: Now) {
        if self.map == MapPhase::Open(false) {
            self.map = MapPhase::Open(true);
            self.map_backoff.reset();
            self.events.push_back(Event::Online);
        }
        if self.machine_authorized != Some(self_node.machine_authorized) {
            self.machine_authorized = Some(self_node.machine_authorized);
            self.events.push_back(Event::MachineAuthorized(self_node.machine_authorized));
        }
        if self_node.key == self.node_key() {
            self.key_expiry = self_node.key_expiry.timestamp();
            if self.key_expiry.is_none_or(|expiry| expiry > now.wall) {
                self.key_expired = false;
            }
        }
        self.check_expiry(now);
        self.advance(now);
    }

    pub(crate) fn handle_map_ended(&mut self, error: &Error, now: Now) {
        let MapPhase::Open(delivered) = self.map else { return };
        if delivered {
            self.events.push_back(Event::Offline);
        }
        let retry_in = error.retry_after().unwrap_or_else(|| self.map_backoff.fail(&mut self.rng));
        self.map = MapPhase::Due(now.mono + retry_in);
        self.trouble(Activity::Map, error, Some(retry_in));
        self.check_known(error, now);
        self.advance(now);
    }

    pub(crate) fn handle_update_done(&mut self, result: Result<(), Error>, now: Now) {
        if self.update != UpdatePhase::InFlight {
            return;
        }
        match result {
            Ok(()) => {
                self.update = UpdatePhase::Due(now.mono);
                self.update_backoff.reset();
            }
            Err(error) => {
                self.dirty = true;
                let retry_in = error.retry_after().unwrap_or_else(|| self.update_backoff.fail(&mut self.rng));
                self.update = UpdatePhase::Due(now.mono + retry_in);
                self.trouble(Activity::Update, &error, Some(retry_in));
                self.check_known(&error, now);
            }
        }
        self.advance(now);
    }

    fn note_login(&mut self, response: RegisterResponse, now: Now) {
        self.registered = true;
        self.key_expiry = None;
        self.key_expired = false;
        self.events.push_back(Event::LoggedIn {
            keys: self.login.keys().clone(),
            user: response.user,
            login: response.login,
        });
        // A stream of the key before is of no use, and the server knows nothing of us under this key.
        self.close_map();
        self.map = MapPhase::Due(now.mono);
        self.map_backoff.reset();
        self.cancel_update(now);
        self.dirty = true;
    }

    /// Starts what is due.
    fn advance(&mut self, now: Now) {
        if self.paused {
            return;
        }
        if let Some(request) = self.login.poll_request(&self.local.wire_hostinfo(), now.mono) {
            self.actions.push_back(Action::Register(Box::new(request)));
        }
        if !self.registered {
            return;
        }
        if matches!(self.map, MapPhase::Due(at) if at <= now.mono) {
            self.map = MapPhase::Open(false);
            let request = MapRequest { stream: true, ..self.map_request() };
            self.actions.push_back(Action::OpenMap(Box::new(request)));
        }
        if self.dirty && matches!(self.update, UpdatePhase::Due(at) if at <= now.mono) {
            self.dirty = false;
            self.update = UpdatePhase::InFlight;
            let request = MapRequest { omit_peers: true, ..self.map_request() };
            self.actions.push_back(Action::Update(Box::new(request)));
        }
    }

    fn map_request(&self) -> MapRequest {
        MapRequest {
            version: CapabilityVersion::CURRENT,
            compress: "zstd".to_owned(),
            keep_alive: true,
            node_key: self.node_key(),
            disco_key: self.local.disco_key,
            hostinfo: Some(Box::new(self.local.wire_hostinfo())),
            endpoints: self.local.endpoints.iter().map(|endpoint| endpoint.addr).collect(),
            endpoint_types: self.local.endpoints.iter().map(|endpoint| endpoint.kind).collect(),
            tka_head: self.local.tka_head.clone(),
            ..MapRequest::default()
        }
    }

    /// Cancels all that is under way, to be started again.
    fn interrupt(&mut self, now: Now) {
        if self.login.is_in_flight() {
            self.actions.push_back(Action::CancelRegister);
        }
        self.login.interrupt(now.mono);
        self.close_map();
        if self.registered {
            self.map = MapPhase::Due(now.mono);
        }
        self.map_backoff.reset();
        self.cancel_update(now);
        self.actions.push_back(Action::Disconnect);
    }

    fn cancel_register(&mut self) {
        if self.login.is_in_flight() {
            self.actions.push_back(Action::CancelRegister);
        }
    }

    fn close_map(&mut self) {
        if let MapPhase::Open(delivered) = self.map {
            self.actions.push_back(Action::CloseMap);
            if delivered {
                self.events.push_back(Event::Offline);
            }
        }
        self.map = MapPhase::Closed;
    }

    fn cancel_update(&mut self, now: Now) {
        if self.update == UpdatePhase::InFlight {
            self.actions.push_back(Action::CancelUpdate);
            self.dirty = true;
        }
        self.update = UpdatePhase::Due(now.mono);
        self.update_backoff.reset();
    }

    /// A server that does not know the node is asked by a registration whether the node may come back; before its
    /// answer nothing else makes sense.
    fn check_known(&mut self, error: &Error, now: Now) {
        if error.kind() != ErrorKind::NodeUnknown {
            return;
        }
        self.registered = false;
        self.close_map();
        if self.login.is_done() {
            self.login.start(false, &mut self.rng, now.mono);
        }
    }

    fn check_expiry(&mut self, now: Now) {
        if !self.key_expired && self.key_expiry.is_some_and(|expiry| expiry <= now.wall) {
            self.key_expired = true;
            self.events.push_back(Event::KeyExpired);
        }
    }

    fn trouble(&mut self, activity: Activity, error: &Error, retry_in: Option<Duration>) {
        let trouble = Trouble { activity, kind: error.kind(), text: error.to_string(), retry_in };
        tracing::debug!(?activity, error = trouble.text, ?retry_in, "call to the control server failed");
        // An owner that does not listen gets the newest of each kind.
        self.events.retain(|event| !matches!(event, Event::Trouble(old) if old.activity == activity));
        self.events.push_back(Event::Trouble(trouble));
    }
}

#[cfg(test)]
mod tests;
