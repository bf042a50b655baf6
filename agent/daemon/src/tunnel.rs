//! The engine as the backend sees it: a trait, so that tests put their own in its place, and the real one.

mod pings;
mod real;

use std::net::SocketAddr;

use futures_util::future::BoxFuture;
use serde_json::Value;
use tsrs_agent_core::agent::{EngineEvent, TunnelAction};
use tsrs_agent_core::status::LiveStatus;
use tsrs_base_types::{DiscoPublic, NodePublic, RegionId};
use tsrs_control_tailcfg::{EndpointType, NetInfo};
use tsrs_platform_api::LinkEvent;

pub(crate) use real::{RealTunnel, TunnelOutputs, TunnelParts};

/// A running engine.
pub(crate) trait Tunnel: Send + Sync {
    /// Carries out one step of the agent.
    fn act(&self, action: TunnelAction) -> BoxFuture<'_, ()>;
    /// The host's network changed.
    fn change_link(&self, event: LinkEvent) -> BoxFuture<'_, ()>;
    /// Our key for path finding.
    fn disco_key(&self) -> DiscoPublic;
    /// What is going on now.
    fn live(&self) -> BoxFuture<'_, LiveStatus>;
    /// Asks a peer for a sign of life.
    fn ping(&self, peer: NodePublic, probe: Probe) -> BoxFuture<'_, Result<Pong, String>>;
    /// The newest netcheck, in the official shape.
    fn netcheck(&self) -> BoxFuture<'_, Value>;
    /// Measures again.
    fn restun(&self) -> BoxFuture<'_, ()>;
    /// Makes new sockets and measures again.
    fn rebind(&self) -> BoxFuture<'_, ()>;
    /// Makes all relay connections anew.
    fn break_relays(&self) -> BoxFuture<'_, ()>;
    /// Counters for people who watch.
    fn metrics(&self) -> TunnelMetrics;
}

/// What a probe is told whose answer did not come.
pub(crate) const NO_REPLY: &str = "timeout waiting for ping reply";

/// A probe that the engine itself makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// By path finding, padded to a size; 0 = the usual.
    Disco { size: usize },
    /// Inside the tunnel, to the peer's engine.
    Tsmp,
}

/// The answer to a probe.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pong {
    pub(crate) latency_seconds: f64,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) derp: Option<RegionId>,
    pub(crate) peer_api_port: u16,
}

/// What the engine counted (client sheet §2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TunnelMetrics {
    pub(crate) inbound: DirectionMetrics,
    pub(crate) outbound: DirectionMetrics,
    /// Everything, for `debug metrics`.
    pub(crate) detail: Vec<(String, u64)>,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DirectionMetrics {
    pub(crate) direct_packets: u64,
    pub(crate) direct_bytes: u64,
    pub(crate) derp_packets: u64,
    pub(crate) derp_bytes: u64,
    /// Dropped packets by the label of the user metrics.
    pub(crate) drops: Vec<(&'static str, u64)>,
}

/// What the engine tells.
#[derive(Clone, Debug)]
pub(crate) enum TunnelEvent {
    /// For the agent.
    Agent(EngineEvent),
    /// Where peers may reach us.
    Endpoints(Vec<(SocketAddr, EndpointType)>),
    /// The network around the host.
    NetInfo(NetInfo),
    /// A relay has a problem with us; `None` = it is over.
    RelayProblem(Option<String>),
    /// Nothing is carried any more, and nothing will be: the TUN is gone, or a worker ended.
    Failed(String),
}
