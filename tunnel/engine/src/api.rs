//! What the agent sees of the engine.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use jiff::Timestamp;
use rand_core::OsRng;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tsrs_base_types::{DiscoPrivate, NodePrivate, NodePublic, RegionId};
use tsrs_platform_api::{SocketBinder, TunOffload};
use tsrs_platform_net::Net;
use tsrs_tunnel_dataplane::machine::Rng;
use tsrs_tunnel_dataplane::{Change, DataPlane, Event, PeerStatus, Policy, Setup, Shared, TunnelConfig};
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::tsmp::PingData;
use tsrs_tunnel_path::{LinkChange, PathMachine};

use crate::clock::Clock;
use crate::derp_map::DerpMap;
use crate::metrics::Metrics;
use crate::offload::{Disabled, Offload, Switches, kernel_damages_equal_tails};
use crate::slow::{Command, MAX_COMMANDS, MAX_EVENTS, SlowParts, SlowPath};
use crate::tun::TunQueue;
use crate::udp::Underlay;
use crate::worker::receive::Receiver;
use crate::worker::transmit::Transmitter;
use crate::worker::{Plant, PlantParts};

/// Packets for the service address that wait for the resolver at most; a host asks for few names at once.
const MAX_SERVICE_PACKETS: usize = 256;

/// What an engine is started with.
pub struct EngineConfig {
    /// The TUN device. The engine makes it non-blocking and owns it.
    pub tun: OwnedFd,
    /// What the kernel agreed to for it.
    pub tun_offload: TunOffload,
    /// UDP port that is tried first; 0 for any.
    pub port: u16,
    /// Whether the port was asked for by configuration.
    pub port_is_fixed: bool,
    /// Keeps our sockets out of the tunnel.
    pub binder: Arc<dyn SocketBinder>,
    /// Makes the connections to relays.
    pub net: Net,
    /// Our node key.
    pub node_key: NodePrivate,
    /// Our disco key.
    pub disco_key: DiscoPrivate,
    /// Our side of the tunnel.
    pub tunnel: TunnelConfig,
    /// What may pass at first.
    pub policy: Policy,
    /// Offloads that must not be used.
    pub disabled: Disabled,
}

/// Why an engine does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The TUN cannot be used.
    #[error("cannot use the TUN device: {0}")]
    Tun(io::Error),
    /// No UDP socket could be bound or marked.
    #[error("cannot bind a UDP socket that bypasses the tunnel: {0}")]
    Udp(io::Error),
    /// Threads, timers or events could not be made.
    #[error("cannot start the workers: {0}")]
    Workers(io::Error),
}

/// The engine has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the engine has stopped")]
pub struct Stopped;

/// What the engine tells the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum EngineEvent {
    /// From the data plane.
    Plane(Event),
    /// The connection to a relay is ready.
    RelayConnected(RegionId),
    /// The connection to a relay is lost or cannot be made; it is tried again.
    RelayLost(RegionId),
    /// A relay has a problem with us, for instance that another node has our key; empty when it is over.
    RelayHealth {
        /// Which.
        region: RegionId,
        /// Its words.
        problem: String,
    },
    /// Events were lost because they were not taken in time: ask for the state.
    Missed,
    /// A worker ended: the TUN is gone or a socket cannot be used. Nothing is carried any more.
    Failed(String),
}

/// A running engine. Dropping it stops it and waits for its threads.
pub struct Engine {
    plant: Arc<Plant>,
    threads: Vec<JoinHandle<()>>,
    handle: EngineHandle,
}

/// Commands for a running engine. Clones are the same.
#[derive(Clone)]
pub struct EngineHandle {
    plant: Arc<Plant>,
    commands: mpsc::Sender<Command>,
}

/// What comes out of a running engine.
#[derive(Debug)]
pub struct Outputs {
    /// Events in their order.
    pub events: mpsc::Receiver<EngineEvent>,
    /// Packets of the host to the service address, but echo requests. Answer by [`EngineHandle::send_to_host`].
    pub services: mpsc::Receiver<Box<[u8]>>,
    /// Whether the wanted UDP port was free.
    pub wanted_port_was_free: bool,
}

impl Engine {
    /// Starts the workers.
    pub fn start(config: EngineConfig) -> Result<(Self, Outputs), StartError> {
        let switches = Switches::new(config.disabled);
        let release = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
        if release.is_ok_and(|release| kernel_damages_equal_tails(&release)) {
            switches.switch_off(Offload::EqualTail);
        }
        tracing::info!(cipher = switches.cipher().name(), "starting the tunnel");
        let tun = TunQueue::new(config.tun, config.tun_offload, &switches).map_err(StartError::Tun)?;
        let (underlay, wanted_port_was_free) =
            Underlay::bind(config.port, &*config.binder, &switches).map_err(StartError::Udp)?;
        let clock = Clock::new();
        let slow = Arc::new(tokio::sync::Notify::new());
        let wake = Arc::clone(&slow);
        let setup = Setup {
            node_key: config.node_key.clone(),
            disco_key: config.disco_key,
            port_is_fixed: config.port_is_fixed,
            config: config.tunnel,
            policy: config.policy,
            wall: Timestamp::now(),
            wake: move || wake.notify_one(),
        };
        let plane = DataPlane::new(setup, || Rng::new(OsRng), clock.now());
        let shared = Arc::clone(plane.shared());
        let plant = Plant::new(PlantParts { shared, tun, underlay, switches, clock, slow });
        let plant = Arc::new(plant.map_err(StartError::Workers)?);
        let (commands, command_receiver) = mpsc::channel(MAX_COMMANDS);
        let (event_sender, events) = mpsc::channel(MAX_EVENTS);
        let (service_sender, services) = mpsc::channel(MAX_SERVICE_PACKETS);
        let handle = EngineHandle { plant: Arc::clone(&plant), commands };
        let parts = SlowParts {
            plane,
            plant: Arc::clone(&plant),
            node_key: config.node_key,
            net: config.net,
            binder: config.binder,
            events: event_sender.clone(),
            services: service_sender,
        };
        let mut engine = Self { plant, threads: Vec::new(), handle };
        engine.spawn_all(parts, command_receiver, &event_sender).map_err(StartError::Workers)?;
        Ok((engine, Outputs { events, services, wanted_port_was_free }))
    }

    fn spawn_all(
        &mut self,
        parts: SlowParts,
        commands: mpsc::Receiver<Command>,
        events: &mpsc::Sender<EngineEvent>,
    ) -> io::Result<()> {
        let transmitter = Transmitter::new(Arc::clone(&self.plant))?;
        let receiver = Receiver::new(Arc::clone(&self.plant))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.spawn("tsrs-transmit", events.clone(), move || transmitter.run())?;
        self.spawn("tsrs-receive", events.clone(), move || receiver.run())?;
        self.spawn("tsrs-paths", events.clone(), move || {
            runtime.block_on(async move {
                SlowPath::new(parts)?.run(commands).await;
                Ok(())
            })
        })
    }

    fn spawn(
        &mut self,
        name: &str,
        events: mpsc::Sender<EngineEvent>,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let plant = Arc::clone(&self.plant);
        let thread_name = name.to_owned();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = work() {
                tracing::error!(%error, thread = thread_name, "worker ended");
                let _ = events.try_send(EngineEvent::Failed(format!("{thread_name}: {error}")));
                plant.stop();
            }
        })?;
        self.threads.push(thread);
        Ok(())
    }

    /// For commands.
    pub fn handle(&self) -> &EngineHandle {
        &self.handle
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.plant.stop();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

impl EngineHandle {
    /// Applies one step of the netmap.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<(), Stopped> {
        self.call(move |slow, now| slow.plane.apply(changes, now)).await
    }

    /// Changes our side of the tunnel.
    pub async fn set_config(&self, config: TunnelConfig) -> Result<(), Stopped> {
        self.call(move |slow, _| slow.plane.set_config(config)).await
    }

    /// Changes what may pass.
    pub async fn set_policy(&self, policy: Policy) -> Result<(), Stopped> {
        self.call(move |slow, _| slow.plane.set_policy(policy)).await
    }

    /// Our node key was renewed.
    pub async fn set_node_key(&self, node_key: NodePrivate) -> Result<(), Stopped> {
        self.call(move |slow, now| slow.set_node_key(node_key, now)).await
    }

    /// The DERP map changed.
    pub async fn set_derp_map(&self, map: DerpMap) -> Result<(), Stopped> {
        self.call(move |slow, now| slow.set_derp_map(map, now)).await
    }

    /// Addresses of the host's interfaces, without those of the TUN.
    pub async fn set_local_addresses(&self, addresses: Vec<Ipv4Addr>) -> Result<(), Stopped> {
        self.call(move |slow, now| slow.set_local(addresses, now)).await
    }

    /// The network changed, or the host slept.
    pub async fn change_link(&self, change: LinkChange, addresses: Vec<Ipv4Addr>) -> Result<(), Stopped> {
        self.call(move |slow, now| {
            slow.plane.note_wall_clock(Timestamp::now(), now);
            slow.change_link(change, addresses, now);
        })
        .await
    }

    /// Asks path finding, or tells it something that concerns only it: pings, a netcheck, endpoints, reports.
    pub async fn with_paths<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut PathMachine<Rng>, Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        self.call(move |slow, now| slow.plane.with_paths(now, |paths| work(paths, now))).await
    }

    /// Asks a peer for a pong inside the tunnel; the answer is an event.
    pub async fn tsmp_ping(
        &self,
        peer: NodePublic,
        data: PingData,
    ) -> Result<Result<(), DropReason>, Stopped> {
        self.call(move |slow, now| slow.plane.send_tsmp_ping(&peer, data, now)).await
    }

    /// All relay connections are made anew (`debug break-derp-conns`).
    pub async fn break_relays(&self) -> Result<(), Stopped> {
        self.call(|slow, _| slow.break_relays()).await
    }

    /// Switches an offload on or off while the engine runs. One that the kernel does not offer stays off.
    pub fn set_offload(&self, offload: Offload, on: bool) {
        self.plant.set_offload(offload, on);
    }

    /// Gives the host an IP packet, for instance an answer of the resolver.
    pub async fn send_to_host(&self, packet: Box<[u8]>) -> Result<(), Stopped> {
        self.call(move |slow, _| slow.plane.send_to_host(packet)).await
    }

    /// What there is to say about a peer.
    pub async fn peer_status(&self, peer: NodePublic) -> Result<Option<PeerStatus>, Stopped> {
        self.call(move |slow, now| slow.plane.peer_status(&peer, now)).await
    }

    /// All peers with what there is to say about them.
    pub async fn peer_statuses(&self) -> Result<Vec<(NodePublic, PeerStatus)>, Stopped> {
        self.call(move |slow, now| slow.plane.peer_statuses(now)).await
    }

    /// Tables and counters, readable at any time without asking the engine.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.plant.shared
    }

    /// What was counted so far.
    pub fn metrics(&self) -> Metrics {
        let shared = &self.plant.shared;
        Metrics::new(&shared.outbound, &shared.inbound, &self.plant.counters, self.plant.switches.cipher())
    }

    /// The UDP port in use.
    pub fn port(&self) -> u16 {
        self.plant.underlay.load().port()
    }

    /// Runs `work` in the task that owns the machine; what follows from it is sent before the next command.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SlowPath, Instant) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let (answer, wait) = oneshot::channel();
        let command: Command = Box::new(move |slow, now| {
            let _ = answer.send(work(slow, now));
        });
        self.commands.send(command).await.map_err(|_| Stopped)?;
        wait.await.map_err(|_| Stopped)
    }
}
