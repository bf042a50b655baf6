//! The resolver at 100.100.100.100: joins the user-space stack of the service address to the resolver's machine, and asks
//! upstreams over real sockets.
//!
//! One task owns both machines. Packets come from and go to the data plane over bounded channels; a full one loses
//! packets, as a link does.

mod upstream;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand_core::{OsRng, RngCore};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tsrs_platform_api::SocketBinder;
use tsrs_platform_net::Net;
use tsrs_tunnel_dns::{
    Action, Config, FlightId, Leg, LegFailure, Name, Query, QueryId, QueryType, Resolver, SERVICE_ADDRESS,
    Transport, Upstream,
};
use tsrs_tunnel_service::{QueryId as StackQueryId, ServiceStack};

/// Commands and questions that wait for the task.
const QUEUE_LEN: usize = 256;
/// MTU of the service's side of the TUN.
const MTU: usize = 1280;
/// How long a question from inside the agent waits.
const ASK_LIMIT: Duration = Duration::from_secs(11);

/// Queries of the host count from zero; those of the agent itself from here.
const FIRST_OWN_QUERY: u64 = 1 << 63;

/// A change of one host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostChange {
    /// The name has these addresses now.
    Set {
        /// The name.
        name: Name,
        /// Its addresses, in order of preference.
        addresses: Vec<IpAddr>,
        /// Whether names below it resolve to it too.
        with_subdomains: bool,
    },
    /// The name is gone.
    Remove(Name),
}

/// Says whether an address is reached through the tunnel.
pub type ThroughTunnel = Arc<dyn Fn(Ipv4Addr) -> bool + Send + Sync>;

/// What the service needs from the rest of the agent.
pub struct DnsSettings {
    /// Packets of the host to the service address.
    pub from_tun: mpsc::Receiver<Vec<u8>>,
    /// Packets for the host.
    pub to_tun: mpsc::Sender<Vec<u8>>,
    /// Makes the connections of DNS over HTTPS.
    pub net: Net,
    /// Marks sockets that go around the tunnel.
    pub binder: Arc<dyn SocketBinder>,
    /// Decides for each resolver whether it is asked through the tunnel.
    pub through_tunnel: ThroughTunnel,
}

/// The resolver gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The service has ended.
    #[error("the resolver is not running")]
    Stopped,
    /// No upstream answered in time.
    #[error("no resolver answered in time")]
    NoAnswer,
}

/// A handle on the running service. The task ends when the last one is dropped.
#[derive(Clone)]
pub struct DnsService {
    commands: mpsc::Sender<Command>,
}

enum Command {
    Config(Config),
    Hosts(Vec<HostChange>),
    Ask { message: Vec<u8>, name: Name, reply: oneshot::Sender<(Vec<u8>, Vec<Upstream>)> },
}

impl DnsService {
    /// Starts the service. It answers SERVFAIL until it is configured.
    pub fn start(settings: DnsSettings) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE_LEN);
        tokio::spawn(Task::new(settings).run(inbox));
        Self { commands }
    }

    /// Replaces routes and local domains.
    pub async fn set_config(&self, config: Config) {
        // A service that has ended has nothing to configure.
        let _ = self.commands.send(Command::Config(config)).await;
    }

    /// Changes host names.
    pub async fn change_hosts(&self, changes: Vec<HostChange>) {
        let _ = self.commands.send(Command::Hosts(changes)).await;
    }

    /// Asks the resolver as a program of this host would; also says which upstreams the name belongs to.
    ///
    /// # Errors
    /// The service has ended, or nobody answered.
    pub async fn ask(&self, name: Name, query_type: QueryType) -> Result<(Vec<u8>, Vec<Upstream>), AskError> {
        let (reply, answer) = oneshot::channel();
        let id = u16::try_from(OsRng.next_u32() >> 16).unwrap_or_default();
        let message = Query::build(id, &name, query_type);
        let command = Command::Ask { message, name, reply };
        self.commands.send(command).await.map_err(|_| AskError::Stopped)?;
        let answered = tokio::time::timeout(ASK_LIMIT, answer).await.map_err(|_| AskError::NoAnswer)?;
        answered.map_err(|_| AskError::NoAnswer)
    }
}

type Asking = (oneshot::Sender<(Vec<u8>, Vec<Upstream>)>, Vec<Upstream>);

struct Task {
    settings: DnsSettings,
    stack: ServiceStack,
    resolver: Resolver,
    /// Attempts under way; aborted with their flight.
    legs: JoinSet<(Leg, Result<Vec<u8>, LegFailure>)>,
    leg_tasks: std::collections::HashMap<FlightId, Vec<tokio::task::AbortHandle>>,
    asking: std::collections::HashMap<QueryId, Asking>,
    next_own: u64,
}

impl Task {
    fn new(settings: DnsSettings) -> Self {
        Self {
            settings,
            stack: ServiceStack::new(SERVICE_ADDRESS, MTU, OsRng.next_u64(), Instant::now()),
            resolver: Resolver::new(),
            legs: JoinSet::new(),
            leg_tasks: std::collections::HashMap::new(),
            asking: std::collections::HashMap::new(),
            next_own: FIRST_OWN_QUERY,
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut tun_open = true;
        loop {
            let now = Instant::now();
            let wake =
                [self.stack.poll_timeout(now), self.resolver.poll_timeout()].into_iter().flatten().min();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                packet = self.settings.from_tun.recv(), if tun_open => match packet {
                    Some(packet) => self.stack.handle_packet(&packet, Instant::now()),
                    None => tun_open = false,
                },
                Some(done) = self.legs.join_next(), if !self.legs.is_empty() => self.handle_leg(done),
                () = sleep_until(wake), if wake.is_some() => {
                    let now = Instant::now();
                    self.stack.handle_timeout(now);
                    self.resolver.handle_timeout(now);
                }
            }
            self.drain();
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Config(config) => self.resolver.set_config(config),
            Command::Hosts(changes) => {
                let hosts = self.resolver.hosts_mut();
                for change in changes {
                    match change {
                        HostChange::Set { name, addresses, with_subdomains } => {
                            hosts.insert(name, addresses, with_subdomains);
                        }
                        HostChange::Remove(name) => hosts.remove(&name),
                    }
                }
            }
            Command::Ask { message, name, reply } => {
                // Callers that gave up make room.
                self.asking.retain(|_, (reply, _)| !reply.is_closed());
                let id = QueryId(self.next_own);
                self.next_own += 1;
                let upstreams = self.resolver.upstreams(&name).to_vec();
                self.asking.insert(id, (reply, upstreams));
                self.resolver.handle_query(id, Transport::Tcp, &message, unix_secs(), Instant::now());
            }
        }
    }

    fn handle_leg(&mut self, done: Result<(Leg, Result<Vec<u8>, LegFailure>), tokio::task::JoinError>) {
        // An attempt that was aborted belongs to a flight that is over.
        let Ok((leg, result)) = done else { return };
        match result {
            Ok(message) => self.resolver.handle_answer(leg, message),
            Err(failure) => self.resolver.handle_failure(leg, failure),
        }
    }

    /// Moves everything that the two machines have for each other and for the outside.
    fn drain(&mut self) {
        loop {
            let mut moved = false;
            while let Some(query) = self.stack.poll_query() {
                let transport = if query.by_tcp { Transport::Tcp } else { Transport::Udp };
                let id = QueryId(query.id.0);
                self.resolver.handle_query(id, transport, &query.message, unix_secs(), Instant::now());
                moved = true;
            }
            while let Some(action) = self.resolver.poll_action() {
                self.act(action);
                moved = true;
            }
            if !moved {
                break;
            }
        }
        while let Some(packet) = self.stack.poll_packet() {
            if self.settings.to_tun.try_send(packet).is_err() {
                tracing::debug!(
                    "a packet of the service address is lost: the way to the TUN is full or closed"
                );
            }
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Answer { query, message } => match self.asking.remove(&query) {
                Some((reply, upstreams)) => {
                    // The caller may have given up.
                    let _ = reply.send((message, upstreams));
                }
                None => self.stack.handle_answer(StackQueryId(query.0), &message, Instant::now()),
            },
            Action::Ask { leg, kind, message } => {
                let asking = upstream::ask(
                    kind,
                    message,
                    self.settings.net.clone(),
                    Arc::clone(&self.settings.binder),
                    Arc::clone(&self.settings.through_tunnel),
                );
                let task = self.legs.spawn(async move { (leg, asking.await) });
                self.leg_tasks.entry(leg.flight).or_default().push(task);
            }
            Action::Close { flight } => {
                for task in self.leg_tasks.remove(&flight).unwrap_or_default() {
                    task.abort();
                }
            }
        }
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Wall clock for the serial of SOA records; wraps in 2106, which a serial may.
fn unix_secs() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(since & u64::from(u32::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
