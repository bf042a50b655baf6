//! [`DataPlane`]: the slow machine. It owns handshakes, paths and the published tables.

mod claims;
mod drain;
mod inner;
mod notices;
mod peers;
mod rng;

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tsrs_base_types::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic, RegionId};
use tsrs_tunnel_packet::{DropReason, tsmp};
use tsrs_tunnel_path as path;
use tsrs_tunnel_path::{DerpChange, Destination, PathMachine, Source};
use tsrs_tunnel_wireguard::{self as wireguard, Device};

use crate::config::{Change, TunnelConfig};
use crate::outbound::MAX_MTU;
use crate::policy::Policy;
use crate::rate::{Budget, COURTESY_BURST, COURTESY_RATE};
use crate::shared::Shared;
use crate::tables::{PrefixMap, Receivers, Routes, Tables};
use claims::Claims;
use peers::Peer;

/// What the machine begins with.
pub struct Setup<F> {
    /// Our node key; goes on until the next login.
    pub node_key: NodePrivate,
    /// Our disco key; new at each start.
    pub disco_key: DiscoPrivate,
    /// Whether the UDP port was asked for by configuration.
    pub port_is_fixed: bool,
    /// Our side of the tunnel.
    pub config: TunnelConfig,
    /// What may pass until [`DataPlane::set_policy`].
    pub policy: Policy,
    /// The time of day at the start.
    pub wall: Timestamp,
    /// Called after workers have put notices in; must not block.
    pub wake: F,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// All of it.
    pub datagram: Vec<u8>,
}

/// What the machine tells or asks its caller.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// From path finding. Changes of paths are already published, and told only when the direct address changes.
    Path(path::Event),
    /// A session with this peer begins, or goes on under a new key.
    SessionBegun(NodePublic),
    /// There is no session with this peer any more.
    SessionEnded(NodePublic),
    /// The peer does not answer.
    HandshakeAbandoned(NodePublic),
    /// The peer told us its disco key inside the tunnel. It is already in use.
    DiscoKeyLearned {
        /// Who.
        peer: NodePublic,
        /// Its key.
        key: DiscoPublic,
    },
    /// A peer answered a ping inside the tunnel.
    TsmpPong {
        /// Who.
        peer: NodePublic,
        /// As in the ping.
        data: tsmp::PingData,
        /// Port of the peer's peerAPI; 0 for none.
        peerapi_port: u16,
    },
    /// A peer refused a packet of ours.
    Rejected {
        /// Who.
        peer: NodePublic,
        /// Destination of the refused packet.
        dst: Ipv4Addr,
        /// Which and why.
        reject: tsmp::Reject,
    },
    /// The host sent a packet to the service address. Answers go in by [`DataPlane::send_to_host`].
    Service(Box<[u8]>),
}

/// What there is to say about a peer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerStatus {
    /// Handshakes and bytes.
    pub wireguard: wireguard::PeerStatus,
    /// Paths.
    pub path: path::PeerStatus,
    /// When data was last sent.
    pub last_sent: Option<Instant>,
    /// When an authenticated packet was last received.
    pub last_received: Option<Instant>,
}

/// How long packets may flow to a peer before path finding is told again. Its heartbeat of 3 s needs no better.
const ACTIVITY_REFRESH: Duration = Duration::from_secs(1);

/// The machine. One task owns it; after each input it drains all outputs.
pub struct DataPlane {
    shared: Arc<Shared>,
    device: Device,
    paths: PathMachine<Rng>,
    peers: HashMap<NodePublic, Peer>,
    claims: Claims,
    /// The copy that is changed; clones of it are published.
    routes: Routes,
    routes_changed: bool,
    receivers: Receivers,
    receivers_changed: bool,
    activity_refreshed: Instant,
    courtesy: Budget,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    to_host: VecDeque<Box<[u8]>>,
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane").field("peers", &self.peers.len()).finish_non_exhaustive()
    }
}

impl DataPlane {
    /// A machine without peers. `rng` is called for each generator that a part of it needs.
    pub fn new(
        setup: Setup<impl Fn() + Send + Sync + 'static>,
        mut rng: impl FnMut() -> Rng,
        now: Instant,
    ) -> Self {
        let config = clamp_mtu(setup.config);
        let mtu = config.mtu;
        let node_key = setup.node_key.public();
        let routes = Routes {
            config: Arc::new(config),
            disco_key: setup.disco_key.public(),
            policy: setup.policy,
            peers: PrefixMap::default(),
        };
        let path_config =
            path::Config { node_key, disco_key: setup.disco_key, port_is_fixed: setup.port_is_fixed };
        Self {
            shared: Shared::new(Tables::new(routes.clone()), setup.wake, now),
            device: Device::new(setup.node_key, mtu, Box::new(rng()), setup.wall, now),
            paths: PathMachine::new(path_config, rng()),
            peers: HashMap::new(),
            claims: Claims::default(),
            routes,
            routes_changed: false,
            receivers: Receivers::default(),
            receivers_changed: false,
            activity_refreshed: now,
            courtesy: Budget::new(COURTESY_RATE, COURTESY_BURST, now),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            to_host: VecDeque::new(),
        }
    }

    /// What workers need.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Our node key.
    pub fn node_key(&self) -> NodePublic {
        self.device.public_key()
    }

    /// Changes our side of the tunnel.
    pub fn set_config(&mut self, config: TunnelConfig) {
        let config = clamp_mtu(config);
        self.device.set_mtu(config.mtu);
        self.routes.config = Arc::new(config);
        self.routes_changed = true;
        self.publish();
    }

    /// Changes what may pass.
    pub fn set_policy(&mut self, policy: Policy) {
        self.routes.policy = policy;
        self.routes_changed = true;
        self.publish();
    }

    /// Our node key was renewed: all sessions end, and begin again with the next packets.
    pub fn set_node_key(&mut self, node_key: NodePrivate, now: Instant) {
        self.paths.set_node_key(node_key.public());
        self.device.set_private_key(node_key);
        self.drain(now);
    }

    /// Applies one step of the netmap: first what is taken away, then what is given. Workers see all of it at once.
    pub fn apply(&mut self, changes: Vec<Change>, now: Instant) {
        let (removals, rest): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| matches!(change, Change::Remove(_)));
        for change in removals.into_iter().chain(rest) {
            match change {
                Change::Remove(key) => self.remove_peer(&key),
                Change::Upsert(config) => self.upsert_peer(*config, now),
                Change::Patch(key, patch) => self.patch_peer(&key, patch, now),
            }
        }
        self.drain(now);
    }

    /// A datagram that is not data, or one over a relay that may be anything.
    pub fn handle_datagram(&mut self, source: Source, datagram: &[u8], now: Instant) {
        self.take_datagram(source, datagram, now);
        self.drain(now);
    }

    /// Packets of this peer came over a relay, also data that workers open.
    pub fn note_relayed(&mut self, source: Source, now: Instant) {
        if let Source::Derp { region, node } = source
            && self.peers.contains_key(&node)
        {
            self.paths.note_derp_heard(&node, region, now);
        }
    }

    /// Something happened to the connection of a region.
    pub fn handle_derp(&mut self, region: RegionId, change: DerpChange, now: Instant) {
        if let DerpChange::PeerGone(peer) = change {
            self.device.note_unreached(&peer, now);
        }
        self.paths.handle_derp(region, change, now);
        self.drain(now);
    }

    /// Takes notices of workers, some at a time. True when there may be more.
    pub fn handle_notices(&mut self, now: Instant) -> bool {
        let more = self.take_notices(now);
        self.drain(now);
        more
    }

    /// Path finding, for what concerns only it: link changes, measurements, pings.
    pub fn with_paths<T>(&mut self, now: Instant, work: impl FnOnce(&mut PathMachine<Rng>) -> T) -> T {
        let result = work(&mut self.paths);
        self.drain(now);
        result
    }

    /// What path finding knows.
    pub fn paths(&self) -> &PathMachine<Rng> {
        &self.paths
    }

    /// The system clock was set, or the host slept.
    pub fn note_wall_clock(&mut self, wall: Timestamp, now: Instant) {
        self.device.note_wall_clock(wall, now);
    }

    /// Sends an IP packet of the agent itself to a peer.
    pub fn send_to_peer(&mut self, peer: &NodePublic, packet: &[u8], now: Instant) -> Result<(), DropReason> {
        if !self.peers.contains_key(peer) {
            return Err(DropReason::NoPeer);
        }
        let result = self.device.send(peer, packet, now);
        self.drain(now);
        result
    }

    /// Asks a peer for a pong inside the tunnel (`ping --tsmp`); the answer is [`Event::TsmpPong`].
    pub fn send_tsmp_ping(
        &mut self,
        peer: &NodePublic,
        data: tsmp::PingData,
        now: Instant,
    ) -> Result<(), DropReason> {
        let known = self.peers.get(peer).ok_or(DropReason::NoPeer)?;
        let to = known.addresses.first().copied().ok_or(DropReason::NoPeer)?;
        let from = self.routes.config.addresses.first().copied().ok_or(DropReason::NoPeer)?;
        let mut packet = [0; tsmp::MAX_LEN];
        let len = tsmp::Message::Ping(data).write(from, to, &mut packet);
        self.send_to_peer(peer, &packet[..len], now)
    }

    /// Gives the host an IP packet of the agent itself.
    pub fn send_to_host(&mut self, packet: Box<[u8]>) {
        self.to_host.push_back(packet);
    }

    /// What there is to say about a peer.
    pub fn peer_status(&self, peer: &NodePublic, now: Instant) -> Option<PeerStatus> {
        let known = self.peers.get(peer)?;
        Some(PeerStatus {
            wireguard: self.device.peer_status(peer).unwrap_or_default(),
            path: self.paths.peer_status(peer, now).unwrap_or_default(),
            last_sent: known.slot.last_sent(),
            last_received: known.slot.last_received(),
        })
    }

    /// All peers with what there is to say about them.
    pub fn peer_statuses(&self, now: Instant) -> Vec<(NodePublic, PeerStatus)> {
        self.peers.keys().filter_map(|key| Some((*key, self.peer_status(key, now)?))).collect()
    }

    /// Number of peers.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.device.poll_timeout().is_some_and(|at| at <= now) {
            self.device.handle_timeout(now);
        }
        if self.paths.poll_timeout().is_some_and(|at| at <= now) {
            self.refresh_activity(now);
            self.paths.handle_timeout(now);
        }
        self.drain(now);
    }

    /// When [`Self::handle_timeout`] is wanted.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.device.poll_timeout(), self.paths.poll_timeout()].into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next packet for the host.
    pub fn poll_to_host(&mut self) -> Option<Box<[u8]>> {
        self.to_host.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Workers see what was changed.
    fn publish(&mut self) {
        if std::mem::take(&mut self.receivers_changed) {
            self.shared.tables.publish_receivers(&self.receivers);
        }
        if std::mem::take(&mut self.routes_changed) {
            self.shared.tables.publish_routes(&self.routes);
        }
    }
}

pub use notices::{MAX_HANDSHAKES_PER_CALL, MAX_NOTICES_PER_CALL};
pub use rng::Rng;

/// A larger packet would fit no run.
fn clamp_mtu(mut config: TunnelConfig) -> TunnelConfig {
    config.mtu = config.mtu.min(MAX_MTU);
    config
}
