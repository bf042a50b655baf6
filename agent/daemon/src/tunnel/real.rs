//! The real engine.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rand_core::{OsRng, RngCore};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tsrs_agent_core::agent::{EngineEvent as AgentEvent, TunnelAction};
use tsrs_agent_core::status::{LiveStatus, PeerLive};
use tsrs_agent_core::wanted;
use tsrs_base_types::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic, RegionId};
use tsrs_platform_api::{Change as LinkSize, LinkEvent, LinkState, SocketBinder, TunDevice};
use tsrs_platform_net::Net;
use tsrs_tunnel_dataplane::{Change, Event as PlaneEvent, Policy, TunnelConfig};
use tsrs_tunnel_engine::offload::{DISABLE_VARIABLE, Disabled};
use tsrs_tunnel_engine::{
    DerpMap, DirectionMetrics as EngineDirection, Engine, EngineConfig, EngineEvent, EngineHandle, Outputs,
};
use tsrs_tunnel_path::{Event as PathEvent, LinkChange, PingError, PongVia};

use super::pings::{LIMIT, Pings, ProbeId};
use super::{DirectionMetrics, NO_REPLY, Pong, Probe, Tunnel, TunnelEvent, TunnelMetrics};

/// What the engine is made of.
pub(crate) struct TunnelParts {
    pub(crate) tun: TunDevice,
    pub(crate) port: u16,
    pub(crate) port_is_fixed: bool,
    pub(crate) binder: Arc<dyn SocketBinder>,
    pub(crate) net: Net,
    pub(crate) link: Arc<LinkState>,
}

/// The engine, and what is known of it without asking.
pub(crate) struct RealTunnel {
    handle: EngineHandle,
    disco_key: DiscoPublic,
    facts: Arc<Mutex<Facts>>,
    pings: Arc<Pings>,
    // Dropped last: it waits for the threads.
    _engine: Engine,
}

#[derive(Default)]
struct Facts {
    peers: HashSet<NodePublic>,
    sessions: HashSet<NodePublic>,
    relays: HashSet<RegionId>,
    home: Option<RegionId>,
    endpoints: Vec<SocketAddr>,
}

/// What a running engine hands out besides itself.
pub(crate) struct TunnelOutputs {
    /// Packets of the host to the service address.
    pub(crate) services: mpsc::Receiver<Box<[u8]>>,
    /// For answers to them.
    pub(crate) handle: EngineHandle,
}

impl RealTunnel {
    /// Starts the engine; events go to `tell`.
    pub(crate) async fn start(
        parts: TunnelParts,
        tell: mpsc::Sender<TunnelEvent>,
    ) -> anyhow::Result<(Self, TunnelOutputs)> {
        let disco_key = DiscoPrivate::generate(&mut OsRng);
        let public = disco_key.public();
        let config = EngineConfig {
            tun: parts.tun.fd,
            tun_offload: parts.tun.offload,
            port: parts.port,
            port_is_fixed: parts.port_is_fixed,
            binder: parts.binder,
            net: parts.net,
            // A throw-away key until the agent tells the real one.
            node_key: NodePrivate::generate(&mut OsRng),
            disco_key,
            tunnel: TunnelConfig::default(),
            policy: Policy::Closed,
            disabled: Disabled::from_env().context(DISABLE_VARIABLE)?,
        };
        let (engine, outputs) = Engine::start(config).context("start the tunnel")?;
        let Outputs { events, services, wanted_port_was_free: _ } = outputs;
        let handle = engine.handle().clone();
        let (facts, pings) = (Arc::new(Mutex::new(Facts::default())), Arc::new(Pings::default()));
        let port = AgentEvent::UdpPort { port: handle.port(), wanted: parts.port };
        tell.send(TunnelEvent::Agent(port)).await.context("tell the port")?;
        let listener =
            Listener { facts: Arc::clone(&facts), pings: Arc::clone(&pings), tell, handle: handle.clone() };
        tokio::spawn(listener.run(events));
        let local: Vec<_> = parts.link.local_addresses().collect();
        handle.set_local_addresses(local).await.context("tell the host's addresses")?;
        let outputs = TunnelOutputs { services, handle: handle.clone() };
        Ok((Self { handle, disco_key: public, facts, pings, _engine: engine }, outputs))
    }

    fn with_facts<T>(&self, work: impl FnOnce(&mut Facts) -> T) -> T {
        work(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn apply(&self, changes: Vec<Change>) {
        self.with_facts(|facts| {
            for change in &changes {
                match change {
                    Change::Upsert(peer) => drop(facts.peers.insert(peer.key)),
                    Change::Remove(key) => drop(facts.peers.remove(key)),
                    Change::Patch(..) => {}
                }
            }
        });
        warn_stopped(self.handle.apply(changes).await);
    }

    async fn rest(&self) {
        let peers: Vec<NodePublic> = self.with_facts(|facts| facts.peers.drain().collect());
        warn_stopped(self.handle.apply(peers.into_iter().map(Change::Remove).collect()).await);
    }
}

fn warn_stopped(result: Result<(), tsrs_tunnel_engine::Stopped>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a change did not reach the tunnel");
    }
}

impl Tunnel for RealTunnel {
    fn act(&self, action: TunnelAction) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            match action {
                TunnelAction::NodeKey(key) => warn_stopped(self.handle.set_node_key(key).await),
                TunnelAction::Policy(policy) => warn_stopped(self.handle.set_policy(policy).await),
                TunnelAction::Config(config) => warn_stopped(self.handle.set_config(config).await),
                TunnelAction::Peers(changes) => self.apply(changes).await,
                TunnelAction::DerpMap(map) => {
                    let (regions, scores) = wanted::relays(&map);
                    warn_stopped(self.handle.set_derp_map(DerpMap { regions, scores }).await);
                }
                TunnelAction::Up(true) => {}
                TunnelAction::ControlReachable(reachable) => {
                    let told = self.handle.with_paths(move |paths, _| paths.set_control_connected(reachable));
                    warn_stopped(told.await);
                }
                TunnelAction::Up(false) => self.rest().await,
            }
        })
    }

    fn change_link(&self, event: LinkEvent) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let change = match event.change {
                _ if !event.state.any_up() => LinkChange::Down,
                LinkSize::Major => LinkChange::Major,
                LinkSize::Minor => LinkChange::Minor,
            };
            let addresses = event.state.local_addresses().collect();
            warn_stopped(self.handle.change_link(change, addresses).await);
        })
    }

    fn disco_key(&self) -> DiscoPublic {
        self.disco_key
    }

    fn live(&self) -> BoxFuture<'_, LiveStatus> {
        Box::pin(async move {
            let (endpoints, home_derp, live_derp_count) =
                self.with_facts(|facts| (facts.endpoints.clone(), facts.home, facts.relays.len()));
            let statuses = self.handle.peer_statuses().await.unwrap_or_default();
            let (now, wall) = (Instant::now(), Timestamp::now());
            let wall_time = |at: Instant| wall.checked_sub(now.saturating_duration_since(at)).ok();
            let peers = statuses.into_iter().map(|(key, status)| {
                let live = PeerLive {
                    direct: status.path.path.direct,
                    rx_bytes: status.wireguard.received_bytes,
                    tx_bytes: status.wireguard.sent_bytes,
                    last_handshake: status.wireguard.last_handshake,
                    last_write: status.last_sent.and_then(wall_time),
                    active: status.path.active,
                    has_session: status.wireguard.has_session,
                };
                (key, live)
            });
            LiveStatus { endpoints, home_derp, live_derp_count, peers: peers.collect() }
        })
    }

    fn ping(&self, peer: NodePublic, probe: Probe) -> BoxFuture<'_, Result<Pong, String>> {
        Box::pin(async move {
            let stopped = |_| "the tunnel is not running".to_owned();
            let too_many = || "too many pings at once".to_owned();
            let wait = match probe {
                Probe::Disco { size } => {
                    let pings = Arc::clone(&self.pings);
                    // The wait begins before the answer can come: both happen in the engine's task.
                    let started = self.handle.with_paths(move |paths, now| {
                        let id = paths.ping(&peer, size, now).map_err(ping_refusal)?;
                        pings.wait(ProbeId::Disco(id)).ok_or_else(too_many)
                    });
                    started.await.map_err(stopped)??
                }
                Probe::Tsmp => {
                    let mut data = [0; 8];
                    OsRng.fill_bytes(&mut data);
                    let id = ProbeId::Tsmp(peer, data);
                    let wait = self.pings.wait(id).ok_or_else(too_many)?;
                    let sent = self.handle.tsmp_ping(peer, data).await.map_err(stopped)?;
                    sent.map_err(|reason| reason.name().to_owned())?;
                    wait
                }
            };
            match tokio::time::timeout(LIMIT, wait).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err("the tunnel is not running".to_owned()),
                Err(_) => Err(NO_REPLY.to_owned()),
            }
        })
    }

    fn netcheck(&self) -> BoxFuture<'_, Value> {
        Box::pin(async move {
            let report = self.handle.with_paths(|paths, _| paths.report().cloned()).await.ok().flatten();
            netcheck_json(&report.unwrap_or_default())
        })
    }

    fn restun(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { warn_stopped(self.handle.with_paths(|paths, now| paths.restun(now)).await) })
    }

    fn rebind(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let addresses = self.with_facts(|facts| facts.endpoints.clone());
            let local = addresses.iter().filter_map(|addr| match addr {
                SocketAddr::V4(addr) if addr.ip().is_private() => Some(*addr.ip()),
                SocketAddr::V4(_) | SocketAddr::V6(_) => None,
            });
            warn_stopped(self.handle.change_link(LinkChange::Major, local.collect()).await);
        })
    }

    fn break_relays(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { warn_stopped(self.handle.break_relays().await) })
    }

    fn metrics(&self) -> TunnelMetrics {
        let metrics = self.handle.metrics();
        let direction = |engine: &EngineDirection| {
            let mut drops: Vec<(&'static str, u64)> = Vec::new();
            for (reason, count) in &engine.drops {
                match drops.iter_mut().find(|(label, _)| *label == reason.metric_label()) {
                    Some((_, sum)) => *sum += count,
                    None => drops.push((reason.metric_label(), *count)),
                }
            }
            DirectionMetrics {
                direct_packets: engine.direct_packets,
                direct_bytes: engine.direct_bytes,
                derp_packets: engine.derp_packets,
                derp_bytes: engine.derp_bytes,
                drops,
            }
        };
        let mut detail = vec![
            ("tun_reads".to_owned(), metrics.tun_reads),
            ("tun_writes".to_owned(), metrics.tun_writes),
            ("udp_send_calls".to_owned(), metrics.send_calls),
            ("udp_receive_calls".to_owned(), metrics.receive_calls),
            ("udp_receive_errors".to_owned(), metrics.receive_errors),
            ("udp_socket_full".to_owned(), metrics.socket_full),
            ("udp_socket_drops".to_owned(), metrics.socket_drops),
        ];
        for (word, engine) in [("inbound", &metrics.inbound), ("outbound", &metrics.outbound)] {
            for (reason, count) in &engine.drops {
                detail.push((format!("{word}_dropped_{}", reason.name().replace(['-', ' '], "_")), *count));
            }
        }
        TunnelMetrics { inbound: direction(&metrics.inbound), outbound: direction(&metrics.outbound), detail }
    }
}

/// Why a probe was not sent. Where a peer is may become known any moment, so that not knowing it is no more than a lost
/// probe: clients make their next one, as they do at the official daemon.
fn ping_refusal(error: PingError) -> String {
    if error == PingError::NoPath { NO_REPLY.to_owned() } else { error.to_string() }
}

fn netcheck_json(report: &tsrs_tunnel_path::netcheck::Report) -> Value {
    let nanos = |latencies: &std::collections::BTreeMap<RegionId, Duration>| -> Value {
        let entry = |(region, latency): (&RegionId, &Duration)| {
            (region.to_string(), json!(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)))
        };
        Value::Object(latencies.iter().map(entry).collect())
    };
    let counts = report.global_v4_counts.iter().map(|(addr, count)| (addr.to_string(), json!(count)));
    json!({
        "Now": Timestamp::now().to_string(),
        "UDP": report.udp,
        "IPv6": false,
        "IPv4": report.global_v4.is_some(),
        "IPv6CanSend": false,
        "IPv4CanSend": report.ipv4_can_send,
        "OSHasIPv6": false,
        "ICMPv4": false,
        "MappingVariesByDestIP": report.mapping_varies_by_dest,
        "UPnP": Value::Null,
        "PMP": Value::Null,
        "PCP": Value::Null,
        "PreferredDERP": report.preferred_derp.unwrap_or_default(),
        "RegionLatency": nanos(&report.region_latency),
        "RegionV4Latency": nanos(&report.region_v4_latency),
        "RegionV6Latency": {},
        "GlobalV4Counters": counts.collect::<serde_json::Map<_, _>>(),
        "GlobalV6Counters": Value::Null,
        "GlobalV4": report.global_v4.map(|addr| addr.to_string()).unwrap_or_default(),
        "GlobalV6": "",
        "CaptivePortal": Value::Null,
    })
}

/// Turns the engine's events into those of the backend.
struct Listener {
    facts: Arc<Mutex<Facts>>,
    pings: Arc<Pings>,
    tell: mpsc::Sender<TunnelEvent>,
    handle: EngineHandle,
}

impl Listener {
    async fn run(self, mut events: mpsc::Receiver<EngineEvent>) {
        while let Some(event) = events.recv().await {
            for event in self.translate(event).await {
                if self.tell.send(event).await.is_err() {
                    return;
                }
            }
        }
        // The engine ends before the backend only when a worker failed. At an orderly end nobody listens any more.
        let _ = self.tell.send(TunnelEvent::Failed("the workers of the tunnel ended".to_owned())).await;
    }

    /// What events would have told that were lost. Relays are not among it: their connections tell again as they change.
    async fn ask_for_state(&self) -> Vec<TunnelEvent> {
        tracing::warn!("events of the tunnel were lost; its state is read instead");
        let paths = self.handle.with_paths(|paths, _| (paths.endpoints().to_vec(), paths.home_derp())).await;
        let (Ok((endpoints, home)), Ok(statuses)) = (paths, self.handle.peer_statuses().await) else {
            return Vec::new();
        };
        self.with_facts(|facts| {
            let live = statuses.into_iter().filter(|(_, status)| status.wireguard.has_session);
            facts.sessions = live.map(|(peer, _)| peer).collect();
        });
        let mut events = self.translate_path(PathEvent::EndpointsChanged(endpoints));
        events.extend(self.translate_path(PathEvent::HomeDerpChanged(home)));
        events
    }

    fn with_facts<T>(&self, work: impl FnOnce(&mut Facts) -> T) -> T {
        work(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many relays and peers there are, and whether home is among the relays.
    fn contact(&self) -> Vec<TunnelEvent> {
        self.with_facts(|facts| {
            let contact = AgentEvent::Contact {
                live_derp_count: facts.relays.len(),
                live_peer_count: facts.sessions.len(),
            };
            let home = facts.home.map(|home| AgentEvent::HomeConnected(facts.relays.contains(&home)));
            [Some(contact), home].into_iter().flatten().map(TunnelEvent::Agent).collect()
        })
    }

    async fn translate(&self, event: EngineEvent) -> Vec<TunnelEvent> {
        match event {
            EngineEvent::Plane(event) => self.translate_plane(event),
            EngineEvent::RelayConnected(region) => {
                self.with_facts(|facts| facts.relays.insert(region));
                self.contact()
            }
            EngineEvent::RelayLost(region) => {
                self.with_facts(|facts| facts.relays.remove(&region));
                self.contact()
            }
            EngineEvent::RelayHealth { region: _, problem } => {
                vec![TunnelEvent::RelayProblem((!problem.is_empty()).then_some(problem))]
            }
            EngineEvent::Missed => self.ask_for_state().await,
            EngineEvent::Failed(reason) => vec![TunnelEvent::Failed(reason)],
        }
    }

    fn translate_plane(&self, event: PlaneEvent) -> Vec<TunnelEvent> {
        match event {
            PlaneEvent::Path(event) => self.translate_path(event),
            PlaneEvent::SessionBegun(peer) => {
                let first = self.with_facts(|facts| facts.sessions.insert(peer) && facts.sessions.len() == 1);
                if first { self.contact() } else { Vec::new() }
            }
            PlaneEvent::SessionEnded(peer) => {
                let last = self.with_facts(|facts| facts.sessions.remove(&peer) && facts.sessions.is_empty());
                if last { self.contact() } else { Vec::new() }
            }
            PlaneEvent::TsmpPong { peer, data, peerapi_port } => {
                let pong = Pong { peer_api_port: peerapi_port, ..Pong::default() };
                self.pings.answer(ProbeId::Tsmp(peer, data), pong, None);
                Vec::new()
            }
            PlaneEvent::HandshakeAbandoned(_)
            | PlaneEvent::DiscoKeyLearned { .. }
            | PlaneEvent::Rejected { .. }
            | PlaneEvent::Service(_) => Vec::new(),
        }
    }

    fn translate_path(&self, event: PathEvent) -> Vec<TunnelEvent> {
        match event {
            PathEvent::EndpointsChanged(endpoints) => {
                let endpoints: Vec<_> = endpoints.iter().map(wanted::endpoint).collect();
                self.with_facts(|facts| facts.endpoints = endpoints.iter().map(|(addr, _)| *addr).collect());
                vec![TunnelEvent::Endpoints(endpoints)]
            }
            PathEvent::NetInfoChanged(info) => vec![TunnelEvent::NetInfo(wanted::net_info(&info))],
            PathEvent::HomeDerpChanged(home) => {
                self.with_facts(|facts| facts.home = home);
                let mut events = vec![TunnelEvent::Agent(AgentEvent::HomeDerp(home))];
                events.extend(self.contact());
                events
            }
            PathEvent::Pong { id, peer: _, via, latency } => {
                let pong = match via {
                    PongVia::Udp(addr) => Pong { endpoint: Some(SocketAddr::V4(addr)), ..Pong::default() },
                    PongVia::Derp(region) => Pong { derp: Some(region), ..Pong::default() },
                };
                self.pings.answer(ProbeId::Disco(id), pong, Some(latency));
                Vec::new()
            }
            PathEvent::PingTimedOut { id, peer: _ } => {
                self.pings.fail(ProbeId::Disco(id), NO_REPLY);
                Vec::new()
            }
            // The engine acts on these itself.
            PathEvent::PathChanged { .. }
            | PathEvent::PeerIdle(_)
            | PathEvent::DerpConnect(_)
            | PathEvent::DerpClose(_)
            | PathEvent::DerpCheck(_)
            | PathEvent::Rebind
            | PathEvent::ResolveHost(_)
            | PathEvent::MeasureHttps(_) => Vec::new(),
        }
    }
}
