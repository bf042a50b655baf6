//! What a client of the LocalAPI may ask of the backend, and the way there.
//!
//! Reads that the snapshot answers need no question: [`AskSender::snapshot`]. Everything else is an [`Ask`] with the place
//! for its answer. The backend answers after all that follows from a command is carried out and the snapshot is
//! published, so that a client which reads after its write sees it. What takes long is answered from a task of its own;
//! a caller that has left is no error. Dropping a [`Reply`] tells the caller that the backend has ended.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tsrs_agent_core::agent::{CommandError, Snapshot};
use tsrs_agent_core::status::LiveStatus;
use tsrs_agent_localapi::requests::{DnsOsConfig, Reloaded};
use tsrs_agent_localapi::{MaskedPrefs, Notify, Prefs, StartOptions, WatchMask};
use tsrs_base_types::{NodePublic, RegionId};
use tsrs_control_netmap::Netmap;
use tsrs_tunnel_dns::{Name, QueryType, Upstream};

/// Questions that wait for the backend. Each is a connection of a local client, which waits for its answer.
pub(crate) const ASK_QUEUE_LEN: usize = 128;

/// Messages that a watcher of the bus may be behind; a slower one is dropped (client sheet §2.4). The capacity of the
/// channel behind [`Watch::items`].
pub(crate) const BUS_QUEUE_LEN: usize = 128;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Failure>>;

/// Why there is no answer, or why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The agent refuses; nothing changed.
    #[error(transparent)]
    Refused(#[from] CommandError),
    /// It holds until the daemon ends, but could not be saved, for this reason.
    #[error("the change could not be saved: {0}")]
    NotSaved(String),
    /// The control server refuses, with an HTTP status: 501 where it does not offer the call.
    #[error("{text}")]
    Control {
        /// Its status.
        status: u16,
        /// Its words.
        text: String,
    },
    /// Nobody answered within the time limit.
    #[error("no answer in time")]
    NoAnswer,
    /// It did not work: no engine, too many at once. One line for the user.
    #[error("{0}")]
    Failed(String),
    /// The backend has ended.
    #[error("the daemon is shutting down")]
    Ended,
}

/// A question or a command.
#[derive(Debug)]
pub(crate) enum Ask {
    /// What the engine knows now.
    Live(Reply<LiveStatus>),
    /// Change some prefs; the answer is all of them.
    EditPrefs(Box<MaskedPrefs>, Reply<Prefs>),
    /// Whether whole prefs could be had.
    CheckPrefs(Box<Prefs>, Reply<()>),
    /// Run with whole prefs, log in where that is needed.
    Start(Box<StartOptions>, Reply<()>),
    /// The user is there to log in.
    LoginInteractive(Reply<()>),
    /// Log out, for this reason (may be empty). Answered when the account is forgotten.
    Logout(String, Reply<()>),
    /// Forget every account.
    ResetAuth(Reply<()>),
    /// Leave the account for a blank one.
    NewProfile(Reply<()>),
    /// Change to the account with this id.
    SwitchProfile(String, Reply<()>),
    /// Forget the account with this id; unknown ones are fine.
    DeleteProfile(String, Reply<()>),
    /// Watch the bus. The material for the first message belongs to the moment at which the watch begins.
    Watch(WatchMask, Reply<Watch>),
    /// Ask a peer for a sign of life; the answer comes with it, or [`Failure::NoAnswer`] after a limit.
    Ping(NodePublic, Probe, Reply<Pong>),
    /// The engine's newest netcheck report in the shape of `netcheck --format=json` (client sheet §1.6); measured anew when
    /// there is none.
    Netcheck(Reply<Value>),
    /// The host's name resolution below ours.
    DnsOsConfig(Reply<DnsOsConfig>),
    /// Ask the resolver at the service address: the whole DNS message, and who was asked.
    DnsQuery(Name, QueryType, Reply<(Vec<u8>, Vec<Upstream>)>),
    /// One of the actions of `debug`.
    Debug(DebugAction, Reply<()>),
    /// What the engine counted.
    Metrics(Reply<TunnelMetrics>),
    /// Read the configuration file again.
    ReloadConfig(Reply<Reloaded>),
    /// End, as on SIGTERM. Answered before.
    Shutdown(Reply<()>),
    /// Let the node key expire sooner.
    SetExpirySooner(Timestamp, Reply<()>),
    /// Ask the control server how a feature is switched on; the answer is the body that it sent.
    QueryFeature(String, Reply<Value>),
    /// Ask the control server for an id token; the answer is the body that it sent.
    IdToken(String, Reply<Value>),
    /// Why the host does not forward; `None` if it does.
    ForwardingProblem(Reply<Option<String>>),
    /// What a bug report holds beside what the snapshot shows: a title and lines of text each, such as the newest log,
    /// routes and rules. Without secrets; the API redacts what looks like one once more.
    BugReport(Reply<Vec<(String, String)>>),
}

/// Actions of `debug` that need the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DebugAction {
    /// Measure the network again.
    Restun,
    /// Make new sockets, then measure.
    Rebind,
    /// Make all relay connections anew.
    BreakRelays,
    /// Begin a new map stream.
    ForceNetmapUpdate,
}

/// A probe that the engine itself makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// By path finding, padded to a size; 0 = the usual.
    Disco {
        /// Bytes.
        size: usize,
    },
    /// Inside the tunnel, to the peer's engine.
    Tsmp,
}

/// The answer to a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pong {
    /// Round trip.
    pub(crate) latency_seconds: f64,
    /// The UDP address that a direct answer came from.
    pub(crate) endpoint: Option<SocketAddr>,
    /// The relay that the answer came over.
    pub(crate) derp: Option<RegionId>,
    /// Port of the peer's PeerAPI, in answers to TSMP; 0 = none.
    pub(crate) peer_api_port: u16,
}

/// What the engine counted (client sheet §2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TunnelMetrics {
    /// From peers to the host.
    pub(crate) inbound: DirectionMetrics,
    /// From the host to peers.
    pub(crate) outbound: DirectionMetrics,
    /// Everything by name, for `debug metrics`.
    pub(crate) detail: Vec<(String, u64)>,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectionMetrics {
    /// Packets by UDP between the nodes.
    pub(crate) direct_packets: u64,
    /// Their bytes.
    pub(crate) direct_bytes: u64,
    /// Packets over relays.
    pub(crate) derp_packets: u64,
    /// Their bytes.
    pub(crate) derp_bytes: u64,
    /// Dropped packets by the label `reason`; a label may occur more than once.
    pub(crate) drops: Vec<(&'static str, u64)>,
}

/// One message on its way to the watchers. Watchers cut it to what they asked for.
#[derive(Clone, Debug)]
pub(crate) struct BusItem {
    /// The message.
    pub(crate) notify: Arc<Notify>,
    /// The netmap for watchers that want it, with the node key that it was sent for.
    pub(crate) netmap: Option<(Arc<Netmap>, NodePublic)>,
}

/// One watcher's end of the bus. Dropping it ends the watch.
pub(crate) struct Watch {
    /// Everything that is told from now on.
    pub(crate) items: broadcast::Receiver<BusItem>,
    /// The agent at this moment.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The engine at this moment.
    pub(crate) live: LiveStatus,
    /// Held while the watch goes on; the backend counts its watchers by it.
    pub(crate) guard: Box<dyn Any + Send>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("behind", &self.items.len()).finish_non_exhaustive()
    }
}

/// The way to the backend. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct AskSender {
    asks: mpsc::Sender<Ask>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
}

impl AskSender {
    /// A way to whoever takes the questions and publishes `snapshot` after each step.
    pub(crate) fn new(snapshot: watch::Receiver<Arc<Snapshot>>) -> (Self, mpsc::Receiver<Ask>) {
        let (asks, receiver) = mpsc::channel(ASK_QUEUE_LEN);
        (Self { asks, snapshot }, receiver)
    }

    /// The agent as it was after the backend's last step.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Sends one question, made by `ask` around the place for its answer, and waits for that.
    ///
    /// ```ignore
    /// let prefs = sender.ask(|reply| Ask::EditPrefs(edit, reply)).await?;
    /// ```
    ///
    /// # Errors
    /// The answer is a failure, or the backend has ended.
    pub(crate) async fn ask<T>(&self, ask: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| Failure::Ended)?;
        answer.await.map_err(|_| Failure::Ended)?
    }
}
