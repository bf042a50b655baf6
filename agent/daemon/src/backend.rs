//! The owner of the agent: one task that takes events and commands and carries out what follows from them.
//!
//! Everything that changes goes through [`Backend::run`]; readers use the snapshot that it publishes after each step. No
//! lock is held while it waits. What takes long (a log-out at the server, settings of the host) goes on elsewhere and
//! comes back as an event.

mod actions;
mod log;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rand_core::OsRng;
use tokio::sync::{mpsc, oneshot, watch};
use tsrs_agent_core::agent::{Agent, ControlEvent, Now, Snapshot};
use tsrs_agent_core::health::Problem;
use tsrs_agent_core::lock::LockAnswer;
use tsrs_agent_core::wanted::DnsBase;
use tsrs_agent_services::dns::DnsService;
use tsrs_platform_api::{Change, DnsEvent, DnsStatus, PlatformEvent, RouterEvent};
use tsrs_platform_net::{DnsServers, Net};

use crate::bus::Bus;
use crate::control::{ControlHandle, ControlStarter, TunnelFacts};
use crate::host::{Host, HostDone};
use crate::store::Store;
use crate::tunnel::{Tunnel, TunnelEvent};
use crate::tunnel_routes::TunnelRoutes;

/// Inputs that wait for the backend.
const INPUT_QUEUE_LEN: usize = 128;

/// How long the server may take to hear of a log-out; after that the account is forgotten here all the same.
const LOGOUT_LIMIT: Duration = Duration::from_secs(15);

/// How long after a failure the state is written again.
pub(crate) const SAVE_RETRY: Duration = Duration::from_secs(30);

/// What reaches the backend from elsewhere.
pub(crate) enum Input {
    /// Work for the owner of the agent.
    Call(Call),
    /// From the control client with this number.
    Control(u64, ControlEvent),
    /// From the engine.
    Tunnel(TunnelEvent),
    /// From the thread that sets the host.
    Host(HostDone),
    /// From the system.
    Platform(PlatformEvent),
    /// The host's name resolution, as it is now.
    DnsStatus(DnsStatus),
    /// Control answered a call about Tailnet Lock, or could not be asked.
    LockAnswer(u64, Result<LockAnswer, String>),
    /// The server answered a log-out, or took too long.
    LogoutDone(Result<(), String>, oneshot::Sender<Result<(), String>>),
    /// End.
    Shutdown,
}

/// Work that a client asks for.
pub(crate) type Call = Box<dyn FnOnce(&mut Backend) + Send>;

/// What the backend is made of.
pub(crate) struct Parts {
    pub(crate) agent: Agent<OsRng>,
    pub(crate) store: Store,
    pub(crate) control: Box<dyn ControlStarter>,
    pub(crate) tunnel: Arc<dyn Tunnel>,
    pub(crate) host: Host,
    pub(crate) dns: Option<DnsService>,
    pub(crate) net: Option<Net>,
    pub(crate) routes: TunnelRoutes,
    pub(crate) bus: Bus,
}

/// See the module's documentation.
pub(crate) struct Backend {
    pub(crate) agent: Agent<OsRng>,
    store: Store,
    starter: Box<dyn ControlStarter>,
    control: Option<RunningControl>,
    last_control: u64,
    facts: TunnelFacts,
    tunnel: Arc<dyn Tunnel>,
    host: Host,
    router_asked: u64,
    dns_asked: u64,
    dns: Option<DnsService>,
    net: Option<Net>,
    routes: TunnelRoutes,
    bus: Bus,
    logged: log::Logged,
    snapshot: watch::Sender<Arc<Snapshot>>,
    inputs: mpsc::Sender<Input>,
    /// Why the state could not be written, while it could not.
    pub(crate) save_error: Option<String>,
    save_again: Option<Instant>,
    /// Who waits for the log-out that is about to begin.
    logout_reply: Option<oneshot::Sender<Result<(), String>>>,
    /// The end has come, orderly or because the tunnel failed.
    ended: Option<Result<(), String>>,
}

struct RunningControl {
    number: u64,
    handle: Box<dyn ControlHandle>,
}

/// A hand on the running backend.
#[derive(Clone)]
pub(crate) struct BackendHandle {
    inputs: mpsc::Sender<Input>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

/// The backend has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is shutting down")]
pub(crate) struct Ended;

impl BackendHandle {
    /// The agent as it was after the last step.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Waits until a snapshot is as wanted.
    pub(crate) async fn until(&self, wanted: impl FnMut(&Arc<Snapshot>) -> bool) -> Result<(), Ended> {
        self.snapshot.clone().wait_for(wanted).await.map(drop).map_err(|_| Ended)
    }

    /// Where inputs go.
    pub(crate) fn inputs(&self) -> mpsc::Sender<Input> {
        self.inputs.clone()
    }

    /// Runs `work` in the backend's task and waits until all that follows from it is done or under way. Also gives the
    /// reason if the state could not be saved.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Backend, Now) -> T + Send + 'static,
    ) -> Result<(T, Option<String>), Ended> {
        let (reply, answer) = oneshot::channel();
        let first: Call = Box::new(move |backend| {
            let result = work(backend, now());
            // The caller may have left; the work is done all the same.
            let _ = reply.send(result);
        });
        self.send(Input::Call(first)).await?;
        let result = answer.await.map_err(|_| Ended)?;
        // Inputs are taken in order, and each is carried out before the next.
        let (reply, answer) = oneshot::channel();
        let second: Call = Box::new(move |backend| drop(reply.send(backend.save_error.clone())));
        self.send(Input::Call(second)).await?;
        Ok((result, answer.await.map_err(|_| Ended)?))
    }

    /// Logs out; `Err` if the server could not be told.
    pub(crate) async fn logout(&self) -> Result<Result<(), String>, Ended> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Call(Box::new(move |backend| backend.logout(reply)))).await?;
        answer.await.map_err(|_| Ended)
    }

    pub(crate) async fn send(&self, input: Input) -> Result<(), Ended> {
        self.inputs.send(input).await.map_err(|_| Ended)
    }
}

/// This moment, on both clocks.
pub(crate) fn now() -> Now {
    Now { mono: Instant::now(), wall: Timestamp::now() }
}

impl Backend {
    /// A backend that has not begun; `inputs` is where it takes what comes.
    pub(crate) fn new(parts: Parts) -> (Self, mpsc::Receiver<Input>, BackendHandle) {
        let (inputs, receiver) = mpsc::channel(INPUT_QUEUE_LEN);
        let (snapshot, snapshots) = watch::channel(Arc::new(parts.agent.snapshot(now())));
        let handle = BackendHandle { inputs: inputs.clone(), snapshot: snapshots };
        let facts = TunnelFacts { disco_key: parts.tunnel.disco_key(), ..TunnelFacts::default() };
        let backend = Self {
            agent: parts.agent,
            store: parts.store,
            starter: parts.control,
            control: None,
            last_control: 0,
            facts,
            tunnel: parts.tunnel,
            host: parts.host,
            router_asked: 0,
            dns_asked: 0,
            dns: parts.dns,
            net: parts.net,
            routes: parts.routes,
            bus: parts.bus,
            logged: log::Logged::default(),
            snapshot,
            inputs,
            save_error: None,
            save_again: None,
            logout_reply: None,
            ended: None,
        };
        (backend, receiver, handle)
    }

    /// Begins with what the last run left, then serves until it is told to end.
    pub(crate) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) -> Result<(), String> {
        if let Some(status) = self.host.dns_status().await {
            self.note_dns_status(&status);
        }
        let id = self.agent.state().profiles.current().meta.id.clone();
        let kept = self.read_kept(&id).await;
        self.agent.begin(kept, now());
        self.drain().await;
        let ended = loop {
            if let Some(ended) = self.ended.take() {
                break ended;
            }
            let wake = [self.agent.poll_timeout(now()), self.save_again].into_iter().flatten().min();
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => self.handle(input).await,
                    None => break Ok(()),
                },
                () = sleep_until(wake) => self.handle_timeout().await,
            }
            self.drain().await;
        };
        self.close().await;
        ended
    }

    async fn handle_timeout(&mut self) {
        self.agent.handle_timeout(now());
        if self.save_again.is_some_and(|at| at <= Instant::now()) {
            self.save().await;
        }
    }

    async fn handle(&mut self, input: Input) {
        match input {
            Input::Call(work) => work(self),
            Input::Control(number, event) => {
                if self.control.as_ref().is_some_and(|control| control.number == number) {
                    self.agent.set_peers_watched(self.bus.peers_are_watched());
                    self.agent.handle_control(event, now());
                }
            }
            Input::Tunnel(event) => self.handle_tunnel(event),
            Input::Host(done) => match done {
                HostDone::Router(number, result, warnings) if number == self.router_asked => {
                    self.agent.handle_router_done(result, &warnings, now());
                }
                HostDone::Dns(number, result) if number == self.dns_asked => {
                    self.agent.handle_dns_done(result, now());
                }
                HostDone::Forwarding(problem) => {
                    self.agent.note_problem(Problem::IpForwardingOff, problem.as_deref(), now());
                }
                // A newer wish is under way; its result counts.
                HostDone::Router(..) | HostDone::Dns(..) => {}
            },
            Input::Platform(event) => self.handle_platform(event).await,
            Input::DnsStatus(status) => self.note_dns_status(&status),
            Input::LockAnswer(number, answer) => self.agent.handle_lock_answer(number, answer, now()),
            Input::LogoutDone(result, reply) => {
                self.agent.finish_logout(now());
                self.drain().await;
                // The caller may have left.
                let _ = reply.send(result);
            }
            Input::Shutdown => self.ended = self.ended.take().or(Some(Ok(()))),
        }
    }

    fn handle_tunnel(&mut self, event: TunnelEvent) {
        match event {
            TunnelEvent::Agent(event) => self.agent.handle_engine(event, now()),
            TunnelEvent::Endpoints(endpoints) => {
                self.facts.endpoints = endpoints;
                self.tell_facts();
            }
            TunnelEvent::NetInfo(net_info) => {
                self.facts.net_info = Some(net_info);
                self.tell_facts();
            }
            TunnelEvent::RelayProblem(problem) => {
                self.agent.note_problem(Problem::DerpRegionError, problem.as_deref(), now());
            }
            TunnelEvent::Failed(reason) => {
                tracing::error!(reason, "the tunnel failed");
                self.ended = Some(Err(reason));
            }
        }
    }

    fn tell_facts(&self) {
        if let Some(control) = &self.control {
            control.handle.set_facts(&self.facts);
        }
    }

    async fn handle_platform(&mut self, event: PlatformEvent) {
        match event {
            PlatformEvent::Link(event) => {
                tracing::info!(change = ?event.change, slept = ?event.slept, "the network changed");
                self.agent.handle_link(Arc::clone(&event.state), now());
                if event.change == Change::Major {
                    if let Some(control) = &self.control {
                        control.handle.note_link_change();
                    }
                    if let Some(net) = &self.net {
                        net.note_link_change();
                    }
                    self.host.flush_dns();
                }
                self.tunnel.change_link(event).await;
            }
            PlatformEvent::Router(event) => self.handle_router_event(event),
            PlatformEvent::Dns(event) => self.handle_dns_event(event),
        }
    }

    fn handle_router_event(&mut self, event: RouterEvent) {
        match event {
            RouterEvent::Repaired { what } => {
                tracing::warn!(what, "another program removed what this agent set; it was put back");
                self.agent.note_problem(Problem::RouterContested, None, now());
            }
            RouterEvent::Contested { what } => {
                self.agent.note_problem(Problem::RouterContested, Some(what), now());
            }
            RouterEvent::RepairFailed { error } => {
                self.agent.note_problem(Problem::RouterContested, Some(&error), now());
            }
        }
    }

    fn handle_dns_event(&mut self, event: DnsEvent) {
        match event {
            DnsEvent::BaseChanged { .. } => {
                // The whole status is read again: who owns name resolution may have changed too.
                let (host, inputs) = (self.host.clone(), self.inputs.clone());
                tokio::spawn(async move {
                    if let Some(status) = host.dns_status().await {
                        // The backend may be ending.
                        let _ = inputs.send(Input::DnsStatus(status)).await;
                    }
                });
            }
            DnsEvent::Repaired => {
                tracing::warn!("another program overwrote the DNS settings; they were put back");
                self.agent.note_problem(Problem::ResolvConfOverwritten, None, now());
            }
            DnsEvent::Contested => {
                self.agent.note_problem(Problem::ResolvConfOverwritten, Some(""), now());
            }
            DnsEvent::RepairFailed { error } => {
                self.agent.note_problem(Problem::DnsSetFailed, Some(&error), now());
            }
        }
    }

    fn note_dns_status(&mut self, status: &DnsStatus) {
        let base = DnsBase { can_split: status.can_split, nameservers: status.base_nameservers.clone() };
        self.agent.handle_dns_base(base, now());
        if let Some(net) = &self.net {
            let servers = status.base_nameservers.iter().filter_map(|server| match server {
                std::net::SocketAddr::V4(server) => Some(*server),
                std::net::SocketAddr::V6(_) => None,
            });
            net.set_dns(DnsServers::new(servers, status.base_search.iter().cloned()));
        }
    }

    fn logout(&mut self, reply: oneshot::Sender<Result<(), String>>) {
        use tsrs_agent_core::agent::LoginStep;
        match self.agent.begin_logout(now()) {
            // The caller may have left.
            LoginStep::Done => drop(reply.send(Ok(()))),
            LoginStep::AskServer => self.logout_reply = Some(reply),
        }
    }

    /// Gives back what was taken from the host and ends what was begun.
    async fn close(mut self) {
        tracing::info!("shutting down");
        self.agent.flush();
        self.drain().await;
        self.control = None;
        self.host.close().await;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
