//! The shell around the machine: one task that carries out its actions and keeps the clock.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand_core::OsRng;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;
use tsrs_control_netmap::{Requests, Session, Update};
use tsrs_control_tailcfg::{CapabilityVersion, Debug, MapRequest, RegisterResponse};

use crate::c2n::C2nHandler;
use crate::calls::{register, update};
use crate::config::{Config, LocalState};
use crate::connection::Connector;
use crate::error::Error;
use crate::event::Event;
use crate::handle::{Handle, LoginWish, Shared};
use crate::login::{Expiry, LoginSettings, check_auth_key};
use crate::machine::{Action, Machine, Now};
use crate::map_stream::{MapItem, read_map};
use crate::ping::{Wanted, answer, wanted};

/// Events that wait for the owner, beside those in the driver; with them the map stream stops being read.
const EVENT_QUEUE_LEN: usize = 16;
/// Answers to the server that may be under way. More requests than that are dropped.
const MAX_ANSWERS: usize = 4;
/// Longest time for which the server may make us sleep.
const MAX_SLEEP: Duration = Duration::from_secs(300);

type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// A control client.
pub struct ControlClient;

impl ControlClient {
    /// Starts a client on the current tokio runtime. It does nothing before [`Handle::login`].
    pub fn start(
        config: Config,
        net: tsrs_platform_net::Net,
    ) -> Result<(Handle, mpsc::Receiver<Event>), Error> {
        let Config {
            server,
            machine_key,
            node_keys,
            lock_key,
            auth_key,
            ephemeral,
            tailnet,
            local,
            cached_netmap,
            c2n,
        } = config;
        if let Some(key) = &auth_key {
            // Exposed to look at its kind.
            check_auth_key(key.expose())?;
        }
        let connector = Connector::new(net, server.clone(), machine_key, CapabilityVersion::CURRENT_NUMBER);
        if let Some(plan) = cached_netmap.as_ref().and_then(|netmap| netmap.dial_plan()) {
            connector.set_plan(Arc::clone(plan));
        }
        let settings = LoginSettings { lock_key, auth_key, ephemeral, tailnet };
        let machine = Machine::new(server, settings, node_keys, local.clone(), OsRng, now());
        let shared = Arc::new(Shared::new(connector, local.clone(), machine.node_key()));
        let (events_out, events) = mpsc::channel(EVENT_QUEUE_LEN);
        let driver = Driver {
            shared: Arc::clone(&shared),
            machine,
            local,
            session: cached_netmap.map_or_else(Session::new, Session::with_netmap),
            c2n,
            events: VecDeque::new(),
            events_out,
            register: None,
            update: None,
            expire: None,
            map: None,
            map_sleeps_until: None,
            answers: JoinSet::new(),
        };
        tokio::spawn(driver.run());
        Ok((Handle::new(shared), events))
    }
}

struct Driver {
    shared: Arc<Shared>,
    machine: Machine,
    /// What the machine was told of our own state.
    local: LocalState,
    session: Session,
    c2n: Arc<dyn C2nHandler>,
    events: VecDeque<Event>,
    events_out: mpsc::Sender<Event>,
    register: Pending<Result<RegisterResponse, Error>>,
    update: Pending<Result<(), Error>>,
    expire: Option<Expiring>,
    map: Option<Map>,
    /// The server asked us to read nothing before this.
    map_sleeps_until: Option<Instant>,
    answers: JoinSet<()>,
}

/// A logout or a change of expiry under way.
struct Expiring {
    expiry: Expiry,
    call: Pending<Result<RegisterResponse, Error>>,
    done: oneshot::Sender<Result<(), Error>>,
}

/// A map stream under way.
struct Map {
    items: mpsc::Receiver<MapItem>,
    reader: AbortHandle,
}

impl Drop for Map {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Driver {
    async fn run(mut self) {
        while self.take_inbox() {
            self.machine.handle_timeout(now());
            self.settle();
            self.wait().await;
        }
        self.shared.connector.disconnect();
    }

    /// Tells the machine what the owner wants; `false` when the owner is gone.
    fn take_inbox(&mut self) -> bool {
        let Taken { closed, login, paused, link_changed, local, expiry } = {
            let mut inbox = self.shared.inbox();
            let expiry = if self.expire.is_none() && !inbox.expiries.is_empty() {
                Some(inbox.expiries.remove(0))
            } else {
                None
            };
            Taken {
                closed: inbox.closed,
                login: inbox.login.take(),
                paused: inbox.paused,
                link_changed: std::mem::take(&mut inbox.link_changed),
                local: (inbox.local != self.local).then(|| inbox.local.clone()),
                expiry,
            }
        };
        if closed || self.events_out.is_closed() {
            return false;
        }
        let now = now();
        if let Some(local) = local {
            self.local = local.clone();
            self.machine.handle_local(local, now);
        }
        if link_changed {
            self.shared.connector.net().note_link_change();
            self.machine.handle_link_change(now);
        }
        self.machine.handle_paused(paused, now);
        if let Some(LoginWish { renew, auth_key }) = login {
            self.machine.handle_login(renew, auth_key, now);
        }
        if let Some((expiry, done)) = expiry {
            self.expire = Some(Expiring { expiry, call: None, done });
            self.machine.handle_expire(expiry, now);
        }
        true
    }

    /// Carries out what the machine wants, and collects its events.
    fn settle(&mut self) {
        loop {
            while let Some(action) = self.machine.poll_action() {
                self.perform(action);
            }
            self.shared.inbox().node_key = self.machine.node_key();
            while let Some(event) = self.machine.poll_event() {
                if matches!(event, Event::LoggedOut) {
                    self.session = Session::new();
                }
                self.events.push_back(event);
            }
            // Without a key there is no call.
            match self.expire.take() {
                Some(Expiring { expiry, call: None, done }) => {
                    let _ = done.send(match expiry {
                        Expiry::Logout => Ok(()),
                        Expiry::At(_) => Err(Error::Request("log in first".to_owned())),
                    });
                }
                waiting => {
                    self.expire = waiting;
                    return;
                }
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Register(request) => {
                let shared = Arc::clone(&self.shared);
                self.register = Some(Box::pin(async move { register(&shared.connector, &request).await }));
            }
            Action::CancelRegister => self.register = None,
            Action::OpenMap(request) => self.open_map(*request),
            Action::CloseMap => self.map = None,
            Action::Update(request) => {
                let shared = Arc::clone(&self.shared);
                self.update = Some(Box::pin(async move { update(&shared.connector, &request).await }));
            }
            Action::CancelUpdate => self.update = None,
            Action::Expire(request) => {
                if let Some(expire) = &mut self.expire {
                    let shared = Arc::clone(&self.shared);
                    expire.call = Some(Box::pin(async move { register(&shared.connector, &request).await }));
                }
            }
            Action::Disconnect => self.shared.connector.disconnect(),
        }
    }

    fn open_map(&mut self, request: MapRequest) {
        // One frame may wait while the one before is folded; more would only use memory.
        let (sender, items) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        let reader = tokio::spawn(async move { read_map(&shared.connector, &request, sender).await });
        self.session.begin_stream();
        self.map_sleeps_until = None;
        self.map = Some(Map { items, reader: reader.abort_handle() });
    }

    /// Waits for the next thing to happen, and handles it.
    async fn wait(&mut self) {
        let at = now();
        let has_events = !self.events.is_empty();
        let machine_due = self.machine.poll_timeout(at);
        // Peers whose keys expire; later, when the owner is behind.
        let session_due = self.session.poll_timeout().filter(|_| !has_events).and_then(|due| at.until(due));
        let map_sleeps = self.map_sleeps_until.filter(|until| *until > at.mono);
        let due = [machine_due, session_due, map_sleeps].into_iter().flatten().min();
        let reads_map = !has_events && map_sleeps.is_none();
        let wake = tokio::select! {
            () = self.shared.changed() => Wake::Owner,
            // The owner is gone: the next round ends.
            () = self.events_out.closed() => Wake::Owner,
            permit = self.events_out.reserve(), if has_events => {
                if let (Ok(permit), Some(event)) = (permit, self.events.pop_front()) {
                    permit.send(event);
                }
                Wake::Owner
            }
            result = ready(&mut self.register) => Wake::Registered(result),
            result = ready(&mut self.update) => Wake::Updated(result),
            result = expired(&mut self.expire) => Wake::Expired(result),
            item = next_item(&mut self.map), if reads_map => Wake::Map(item),
            Some(_) = self.answers.join_next() => Wake::Owner,
            () = sleep_until_some(due) => Wake::Time,
        };
        match wake {
            Wake::Owner => {}
            Wake::Registered(result) => {
                self.register = None;
                self.machine.handle_register_done(result, now());
            }
            Wake::Updated(result) => {
                self.update = None;
                self.machine.handle_update_done(result, now());
            }
            Wake::Expired(result) => self.finish_expire(result),
            Wake::Map(item) => self.handle_item(item),
            Wake::Time if session_due.is_some_and(|due| due <= Instant::now()) => {
                let update = self.session.handle_time(Timestamp::now());
                self.publish(update);
            }
            Wake::Time => {}
        }
    }

    fn handle_item(&mut self, item: MapItem) {
        match item {
            MapItem::Response(response) => match self.session.handle(*response, Timestamp::now()) {
                Ok(update) => {
                    let is_state = !update.requests.keep_alive;
                    self.publish(update);
                    if let (true, Some(netmap)) = (is_state, self.session.netmap()) {
                        self.machine.handle_netmap(netmap.self_node(), now());
                    }
                }
                Err(error) => {
                    self.map = None;
                    let error = Error::Garbage { what: "reading the map stream", reason: error.to_string() };
                    self.machine.handle_map_ended(&error, now());
                }
            },
            MapItem::Ended(error) => {
                self.map = None;
                self.machine.handle_map_ended(&error, now());
            }
        }
    }

    fn publish(&mut self, update: Update) {
        self.handle_requests(update.requests);
        if let Some(netmap) = update.netmap {
            self.events.push_back(Event::Netmap { netmap, changes: update.changes });
        }
    }

    fn handle_requests(&mut self, requests: Requests) {
        let Requests {
            keep_alive: _,
            ping,
            pop_browser_url,
            client_version,
            dial_plan,
            debug,
            default_auto_update,
        } = requests;
        if let Some(plan) = dial_plan {
            self.shared.connector.set_plan(plan);
        }
        if let Some(ping) = ping {
            if wanted(&ping) == Wanted::Peer {
                self.events.push_back(Event::Ping(ping));
            } else if self.answers.len() < MAX_ANSWERS {
                let (shared, c2n) = (Arc::clone(&self.shared), Arc::clone(&self.c2n));
                self.answers.spawn(async move {
                    if let Err(error) = answer(&shared.connector, &c2n, &ping).await {
                        tracing::debug!(%error, "request of the server was not answered");
                    }
                });
            }
        }
        if let Some(url) = pop_browser_url {
            match self.shared.connector.server().check_page(&url) {
                Ok(()) => self.events.push_back(Event::OpenPage(url)),
                Err(reason) => tracing::warn!(reason, "the server wants an unsafe page to be opened"),
            }
        }
        self.events.extend(client_version.map(Event::ClientVersion));
        self.events.extend(default_auto_update.map(Event::DefaultAutoUpdate));
        if let Some(Debug { sleep_seconds, exit, disable_log_tail: _ }) = debug {
            self.events.extend(exit.map(Event::ExitWanted));
            let sleep = Duration::try_from_secs_f64(sleep_seconds).unwrap_or_default().min(MAX_SLEEP);
            self.map_sleeps_until = (!sleep.is_zero()).then(|| Instant::now() + sleep);
        }
    }

    fn finish_expire(&mut self, result: Result<RegisterResponse, Error>) {
        let Some(Expiring { expiry, done, .. }) = self.expire.take() else { return };
        let result = result.and_then(|response| {
            if response.error.is_empty() { Ok(()) } else { Err(Error::Refused(response.error)) }
        });
        self.machine.handle_expiry_done(expiry, result.is_ok(), now());
        // Whoever asked may have stopped waiting.
        let _ = done.send(result);
    }
}

/// What woke the driver.
enum Wake {
    /// The owner did something, or something went to the owner: the next round looks.
    Owner,
    Registered(Result<RegisterResponse, Error>),
    Updated(Result<(), Error>),
    Expired(Result<RegisterResponse, Error>),
    Map(MapItem),
    Time,
}

/// What the driver takes out of the inbox in one go.
struct Taken {
    closed: bool,
    login: Option<LoginWish>,
    paused: bool,
    link_changed: bool,
    local: Option<LocalState>,
    expiry: Option<(Expiry, oneshot::Sender<Result<(), Error>>)>,
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: Timestamp::now() }
}

async fn ready<T>(call: &mut Pending<T>) -> T {
    match call {
        Some(call) => call.as_mut().await,
        None => pending().await,
    }
}

async fn expired(expire: &mut Option<Expiring>) -> Result<RegisterResponse, Error> {
    match expire {
        Some(expire) => ready(&mut expire.call).await,
        None => pending().await,
    }
}

async fn next_item(map: &mut Option<Map>) -> MapItem {
    match map {
        Some(map) => match map.items.recv().await {
            Some(item) => item,
            None => MapItem::Ended(Error::Broken("the reader of the map stream ended".to_owned())),
        },
        None => pending().await,
    }
}

async fn sleep_until_some(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
