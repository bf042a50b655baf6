//! The way of a netmap: bytes of the map stream → snapshot and changes → wanted state and its difference → tables of the data
//! plane. What the daemon does between these crates, less its channels.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use rand_core::OsRng;
use serde::{Deserialize, Serialize};
use tsrs_agent_core::agent::{
    Action, Agent, ControlEvent, EngineEvent, Kept, Now, Setup as AgentSetup, Snapshot, TunnelAction,
};
use tsrs_agent_core::prefs;
use tsrs_agent_core::profiles::Profiles;
use tsrs_agent_core::state_file::State;
use tsrs_agent_core::wanted::{HostChange, HostFacts};
use tsrs_agent_localapi::{Prefs, StartOptions};
use tsrs_base_types::{DiscoPrivate, MachinePrivate, NodePrivate, RegionId, UserId};
use tsrs_control_netmap::{Netmap, Session};
use tsrs_control_tailcfg::{DerpMap, Login, User};
use tsrs_platform_api::{Interface, LinkState, RouterConfig};
use tsrs_tunnel_dataplane::machine::Rng;
use tsrs_tunnel_dataplane::outbound::Outbound;
use tsrs_tunnel_dataplane::{Change, DataPlane, Event, PeerConfig, Policy, Setup, TunnelConfig};
use tsrs_tunnel_dns::Hosts;
use tsrs_tunnel_packet::checksum::Sum;
use tsrs_tunnel_packet::vnet::VirtioNetHdr;
use tsrs_tunnel_path::netcheck::Region;
use tsrs_tunnel_path::{self as path, Destination, SendPath, Source};

use super::tailnet::{OWN, PaperNode};
use crate::usage::{Spent, Stopwatch};

/// The time of day throughout: that of the frames.
const WALL: Timestamp = Timestamp::constant(1_795_342_273, 0);

/// Where the agent is told that it is.
const UPLINK: &str = "198.51.100.7/24";

/// What a step took in each part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stages {
    /// `control/netmap`: parse the frame, make the snapshot and the changes.
    pub(super) fold: Spent,
    /// `agent/core`: from the changes to what is asked of tunnel and host, and the snapshot for readers.
    pub(super) agent: Spent,
    /// `tunnel/dataplane`: peers, paths and published tables.
    pub(super) plane: Spent,
    /// `tunnel/dns`: the host table.
    pub(super) names: Spent,
}

impl Stages {
    pub(super) fn total(&self) -> Spent {
        let mut total = self.fold;
        for stage in [self.agent, self.plane, self.names] {
            total += stage;
        }
        total
    }
}

impl std::ops::AddAssign for Stages {
    fn add_assign(&mut self, other: Self) {
        self.fold += other.fold;
        self.agent += other.agent;
        self.plane += other.plane;
        self.names += other.names;
    }
}

/// What a step asked of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Router configurations.
    pub(super) routers: usize,
    /// Host names that were set or removed.
    pub(super) names: usize,
    /// Changes of peers.
    pub(super) peers: usize,
}

/// What became of a packet of the host.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fate {
    /// Encrypted for this peer, to go by this way.
    Sent(tsrs_base_types::NodePublic, SendPath),
    /// It waits, and a handshake with this peer goes out.
    Waits(tsrs_base_types::NodePublic),
    /// Nobody has the address.
    Dropped,
}

/// The parts of an agent that a netmap goes through.
pub(super) struct Chain {
    session: Session,
    agent: Agent<OsRng>,
    plane: DataPlane,
    outbound: Outbound,
    hosts: Hosts,
    router: RouterConfig,
    /// What readers of the daemon are given.
    snapshot: Option<Arc<Snapshot>>,
}

impl Chain {
    /// Logged in, without a netmap.
    pub(super) fn new() -> Result<Self> {
        let now = now();
        let state =
            State { machine_key: MachinePrivate::generate(&mut OsRng), profiles: Profiles::default() };
        let host = HostFacts { hostname: "own".into(), os: "linux".into(), ..HostFacts::default() };
        let agent = Agent::new(AgentSetup { state, host, version: "0.1.0".into() }, OsRng);
        let plane = plane(PaperNode::new(OWN).node_key(), DiscoPrivate::generate(&mut OsRng), Policy::Closed);
        let mut chain = Self {
            session: Session::new(),
            agent,
            outbound: Outbound::new(Arc::clone(plane.shared()), now.mono),
            plane,
            hosts: Hosts::default(),
            router: RouterConfig::default(),
            snapshot: None,
        };
        chain.agent.handle_link(Arc::new(link()?), now);
        chain.agent.begin(Kept::default(), now);
        let wanted = Prefs { want_running: true, logged_out: false, ..prefs::defaults() };
        let options = StartOptions {
            update_prefs: Some(wanted),
            auth_key: "tskey-auth-bench".into(),
            ..StartOptions::default()
        };
        chain.agent.start(options, &|_| true, now).context("start")?;
        chain.carry_out(now);
        let user = User { id: UserId(1), ..User::default() };
        let login = Login { login_name: "bench".into(), ..Login::default() };
        let logged_in = ControlEvent::LoggedIn {
            node_key: PaperNode::new(OWN).node_key(),
            old_node_key: None,
            user: Box::new(user),
            login: Box::new(login),
        };
        for event in [logged_in, ControlEvent::Online] {
            chain.agent.handle_control(event, now);
            chain.carry_out(now);
        }
        chain.agent.handle_engine(EngineEvent::Contact { live_derp_count: 1, live_peer_count: 0 }, now);
        chain.carry_out(now);
        Ok(chain)
    }

    /// The newest netmap.
    pub(super) fn netmap(&self) -> Option<&Arc<Netmap>> {
        self.session.netmap()
    }

    /// What was last asked of the host's network.
    pub(super) fn router(&self) -> &RouterConfig {
        &self.router
    }

    /// Peers in the data plane.
    pub(super) fn peer_count(&self) -> usize {
        self.plane.peer_count()
    }

    /// The next frame is the first of a new stream.
    pub(super) fn begin_stream(&mut self) {
        self.session.begin_stream();
    }

    /// Takes a frame of the map stream all the way.
    pub(super) fn frame(&mut self, json: &[u8]) -> Result<(Stages, Asked)> {
        let now = now();
        let watch = Stopwatch::start();
        let update = self.session.handle_frame(json, now.wall)?;
        let fold = watch.spent();
        let mut stages = Stages { fold, ..Stages::default() };
        let Some(netmap) = update.netmap else { return Ok((stages, Asked::default())) };
        let event = ControlEvent::Netmap { netmap, changes: update.changes };
        self.agent.handle_control(event, now);
        let (elsewhere, asked) = self.carry_out(now);
        let all = watch.spent();
        stages += elsewhere;
        let known = stages.total();
        stages.agent =
            Spent { wall: all.wall.saturating_sub(known.wall), cpu: all.cpu.saturating_sub(known.cpu) };
        Ok((stages, asked))
    }

    /// Lets the agent's timers run, as if `time` had passed; how many netmaps it wants written.
    pub(super) fn let_time_pass(&mut self, time: Duration) -> usize {
        let mut now = now();
        now.mono += time;
        self.agent.handle_timeout(now);
        let mut written = 0;
        while let Some(action) = self.agent.poll_action() {
            written += usize::from(matches!(action, Action::CacheNetmap { .. }));
        }
        written
    }

    /// Does what the agent asks; what that took outside the agent.
    fn carry_out(&mut self, now: Now) -> (Stages, Asked) {
        let (mut stages, mut asked) = (Stages::default(), Asked::default());
        loop {
            while self.agent.poll_notice().is_some() {}
            match self.agent.poll_action() {
                None => break,
                Some(Action::Tunnel(action)) => {
                    let watch = Stopwatch::start();
                    if let TunnelAction::Peers(changes) = &action {
                        asked.peers += changes.len();
                    }
                    self.tunnel(action, now);
                    stages.plane += watch.spent();
                }
                Some(Action::Hosts(changes)) => {
                    let watch = Stopwatch::start();
                    asked.names += changes.len();
                    for change in changes {
                        match change {
                            HostChange::Set(entry) => {
                                self.hosts.insert(entry.name, entry.addresses, entry.with_subdomains)
                            }
                            HostChange::Remove(name) => self.hosts.remove(&name),
                        }
                    }
                    stages.names += watch.spent();
                }
                Some(Action::Router(config)) => {
                    asked.routers += 1;
                    self.router = config;
                    self.agent.handle_router_done(Ok(()), &[], now);
                }
                Some(Action::Dns(_)) => self.agent.handle_dns_done(Ok(()), now),
                Some(
                    Action::Save
                    | Action::CacheNetmap { .. }
                    | Action::ForgetProfile(_)
                    | Action::LoadProfile(_)
                    | Action::StoreLock { .. }
                    | Action::Control(_)
                    | Action::Resolver(_),
                ) => {}
            }
        }
        self.snapshot = Some(Arc::new(self.agent.snapshot(now)));
        (stages, asked)
    }

    fn tunnel(&mut self, action: TunnelAction, now: Now) {
        match action {
            TunnelAction::NodeKey(key) => self.plane.set_node_key(key, now.mono),
            TunnelAction::Policy(policy) => self.plane.set_policy(policy),
            TunnelAction::Config(config) => self.plane.set_config(config),
            TunnelAction::Peers(changes) => self.plane.apply(changes, now.mono),
            TunnelAction::DerpMap(map) => {
                self.plane.with_paths(now.mono, |paths| paths.set_regions(regions(&map), now.mono));
            }
            TunnelAction::Up(_) | TunnelAction::ControlReachable(_) => {}
        }
        // Datagrams of path finding and events have nowhere to go here.
        while self.plane.poll_transmit().is_some() {}
        while self.plane.poll_event().is_some() {}
    }

    /// Sends a packet of the host to this address: what became of it, and what that took.
    pub(super) fn send(&mut self, to: Ipv4Addr) -> Result<(Fate, Spent)> {
        let packet = udp_packet(PaperNode::new(OWN).address(), to)?;
        let now = now().mono;
        let shared = Arc::clone(self.plane.shared());
        let watch = Stopwatch::start();
        let routes = shared.tables.routes();
        let Some(mut routed) = self.outbound.judge(&routes, &VirtioNetHdr::default(), &packet, now) else {
            let spent = watch.spent();
            self.settle(now);
            return Ok((Fate::Dropped, spent));
        };
        ensure!(self.outbound.append(&routes, &mut routed, now), "no room for one packet");
        self.outbound.seal(now);
        let spent = watch.spent();
        let sent: Vec<_> = self.outbound.drain().map(|run| (*run.peer().key(), run.path())).collect();
        let transmits = self.settle(now);
        match (&sent[..], &transmits[..]) {
            ([(peer, path)], _) => Ok((Fate::Sent(*peer, *path), spent)),
            ([], [(Destination::Derp { node, .. }, _), ..]) => Ok((Fate::Waits(*node), spent)),
            other => bail!("one packet became {other:?}"),
        }
    }

    /// Lets the machine answer notices of the worker; the datagrams that it sends.
    fn settle(&mut self, now: Instant) -> Vec<(Destination, Vec<u8>)> {
        while self.plane.handle_notices(now) {}
        transmits(&mut self.plane)
    }

    /// Makes a session with a peer, over the relay.
    pub(super) fn make_session(&mut self, node: PaperNode) -> Result<()> {
        let own = PaperNode::new(OWN);
        let mut remote = plane(node.node_key(), node.disco_key(), Policy::Open);
        let us = PeerConfig {
            disco_key: Some(own.disco_key().public()),
            home_derp: Some(RegionId(1)),
            ..PeerConfig::new(own.node_key().public())
        };
        let now = now().mono;
        remote.with_paths(now, |paths| paths.set_regions(vec![region(RegionId(1))], now));
        remote.apply(vec![Change::Upsert(Box::new(us))], now);
        let packet = udp_packet(own.address(), node.address())?;
        let key = node.node_key().public();
        self.plane
            .send_to_peer(&key, &packet, now)
            .map_err(|reason| anyhow::anyhow!("first packet: {}", reason.name()))?;
        let mut flying = transmits(&mut self.plane);
        let mut to_remote = true;
        while !flying.is_empty() {
            let from = if to_remote { own.node_key().public() } else { key };
            let source = Source::Derp { region: RegionId(1), node: from };
            let receiver = if to_remote { &mut remote } else { &mut self.plane };
            for (to, datagram) in flying {
                if matches!(to, Destination::Derp { .. }) {
                    receiver.handle_datagram(source, &datagram, now);
                }
            }
            flying = transmits(receiver);
            to_remote = !to_remote;
        }
        ensure!(
            self.plane.peer_status(&key, now).is_some_and(|status| status.wireguard.has_session),
            "no session with peer {}; dropped: {:?} {:?}",
            node.number,
            self.plane.shared().inbound.drops,
            remote.shared().inbound.drops
        );
        Ok(())
    }
}

/// Takes what a machine sends; relays that it wants are there.
fn transmits(plane: &mut DataPlane) -> Vec<(Destination, Vec<u8>)> {
    while let Some(event) = plane.poll_event() {
        if let Event::Path(path::Event::DerpConnect(region)) = event {
            let now = Instant::now();
            plane.with_paths(now, |paths| paths.handle_derp(region, path::DerpChange::Connected, now));
        }
    }
    std::iter::from_fn(|| plane.poll_transmit()).map(|transmit| (transmit.to, transmit.datagram)).collect()
}

fn now() -> Now {
    Now { mono: Instant::now(), wall: WALL }
}

fn plane(node_key: NodePrivate, disco_key: DiscoPrivate, policy: Policy) -> DataPlane {
    let setup = Setup {
        node_key,
        disco_key,
        port_is_fixed: false,
        config: TunnelConfig::default(),
        policy,
        wall: WALL,
        wake: || (),
    };
    DataPlane::new(setup, || Rng::new(OsRng), Instant::now())
}

fn regions(map: &DerpMap) -> Vec<Region> {
    map.regions().map(|given| region(given.region_id)).collect()
}

/// A region of which nothing is measured.
fn region(id: RegionId) -> Region {
    Region { id, avoid: false, no_measure_no_home: false, score: 1.0, nodes: Vec::new() }
}

fn link() -> Result<LinkState> {
    let interface = Interface {
        index: 2,
        name: "eth0".into(),
        up: true,
        loopback: false,
        addresses: vec![UPLINK.parse()?],
    };
    Ok(LinkState { interfaces: vec![interface], default_route: None })
}

/// A UDP packet of the host (RFC 791, RFC 768), without a checksum of its own.
fn udp_packet(from: Ipv4Addr, to: Ipv4Addr) -> Result<Vec<u8>> {
    const PAYLOAD: &[u8] = b"0123456789abcdef";
    let udp_len = u16::try_from(8 + PAYLOAD.len())?;
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + udp_len).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let checksum = Sum::new().bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(&[0x04, 0x00, 0x04, 0x01]);
    packet.extend_from_slice(&udp_len.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(PAYLOAD);
    Ok(packet)
}
