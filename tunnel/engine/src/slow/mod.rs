//! The slow path: one task owns the [`DataPlane`] and all that is not data.

mod outputs;
mod questions;
pub(crate) mod relays;
mod timer;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tsrs_base_types::NodePrivate;
use tsrs_platform_api::SocketBinder;
use tsrs_platform_net::Net;
use tsrs_tunnel_dataplane::DataPlane;
use tsrs_tunnel_path::{DerpChange, LinkChange, Source};

use crate::api::EngineEvent;
use crate::derp_map::DerpMap;
use crate::worker::Plant;
use questions::{Answer, Questions};
use relays::{Happening, RelayEvent, Relays};
use timer::Timer;

/// Work for the task that owns the machine.
pub(crate) type Command = Box<dyn FnOnce(&mut SlowPath, Instant) + Send>;

/// Commands that wait at most. The agent waits for room: it has nothing to lose by that.
pub(crate) const MAX_COMMANDS: usize = 64;

/// Events that wait for the agent at most. When more come it is told that it has missed some, and asks for the state.
pub(crate) const MAX_EVENTS: usize = 1024;

/// What a slow path is made of.
pub(crate) struct SlowParts {
    pub(crate) plane: DataPlane,
    pub(crate) plant: Arc<Plant>,
    pub(crate) node_key: NodePrivate,
    pub(crate) net: Net,
    pub(crate) binder: Arc<dyn SocketBinder>,
    pub(crate) events: mpsc::Sender<EngineEvent>,
    pub(crate) services: mpsc::Sender<Box<[u8]>>,
}

/// The task's own things.
pub(crate) struct SlowPath {
    pub(crate) plane: DataPlane,
    plant: Arc<Plant>,
    relays: Relays,
    relay_events: mpsc::Receiver<RelayEvent>,
    questions: Questions,
    timer: Timer,
    binder: Arc<dyn SocketBinder>,
    /// Addresses of the host's interfaces.
    local: Vec<Ipv4Addr>,
    events: mpsc::Sender<EngineEvent>,
    services: mpsc::Sender<Box<[u8]>>,
    /// Events were lost since the agent was last told so.
    missed_events: bool,
}

/// What the task woke up for.
enum Input {
    Command(Command),
    Relay(RelayEvent),
    Answer(Answer),
    /// Notices, runs for relays, the timer, or the end.
    Look,
}

impl SlowPath {
    /// Must be called within a runtime.
    pub(crate) fn new(parts: SlowParts) -> io::Result<Self> {
        let SlowParts { plane, plant, node_key, net, binder, events, services } = parts;
        let timer = Timer::new(plant.clock)?;
        let questions = Questions::new(net.clone());
        let (relays, relay_events) = Relays::new(Arc::clone(&plant), net, node_key);
        Ok(Self {
            plane,
            plant,
            relays,
            relay_events,
            questions,
            timer,
            binder,
            local: Vec::new(),
            events,
            services,
            missed_events: false,
        })
    }

    /// Works until the engine stops.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut more_notices = false;
        while !self.plant.is_stopped() {
            self.timer.set(self.plane.poll_timeout());
            if more_notices {
                // A flood may bring notices faster than they are taken. The timer and the relays' sockets are polled
                // only while this task rests.
                tokio::task::yield_now().await;
            }
            let plant = Arc::clone(&self.plant);
            let input = tokio::select! {
                () = plant.slow.notified() => Input::Look,
                () = std::future::ready(()), if more_notices => Input::Look,
                () = self.timer.rings() => Input::Look,
                Some(event) = self.relay_events.recv() => Input::Relay(event),
                answer = self.questions.next() => Input::Answer(answer),
                command = commands.recv() => match command {
                    Some(command) => Input::Command(command),
                    None => return,
                },
            };
            self.relays.take_runs();
            let now = self.plant.clock.now();
            match input {
                Input::Command(command) => command(&mut self, now),
                Input::Relay(event) => self.take_relay_event(event, now),
                Input::Answer(answer) => self.take_answer(answer, now),
                Input::Look => {}
            }
            if self.plane.poll_timeout().is_some_and(|at| at <= now) {
                self.plane.handle_timeout(now);
            }
            self.drain(now);
            more_notices = self.plane.handle_notices(self.plant.clock.now());
            self.drain(now);
        }
    }

    fn take_relay_event(&mut self, event: RelayEvent, now: Instant) {
        let region = event.region;
        let change = match event.what {
            Happening::Connected => {
                self.tell(EngineEvent::RelayConnected(region));
                DerpChange::Connected
            }
            Happening::Lost => {
                self.tell(EngineEvent::RelayLost(region));
                DerpChange::Lost
            }
            Happening::Received => DerpChange::Received,
            Happening::PeerGone(peer) => DerpChange::PeerGone(peer),
            Happening::Heard(node) => return self.plane.note_relayed(Source::Derp { region, node }, now),
            Happening::Datagram { source, bytes } => {
                return self.plane.handle_datagram(Source::Derp { region, node: source }, &bytes, now);
            }
            Happening::Health(problem) => return self.tell(EngineEvent::RelayHealth { region, problem }),
        };
        self.plane.handle_derp(region, change, now);
    }

    fn take_answer(&mut self, answer: Answer, now: Instant) {
        self.plane.with_paths(now, |paths| match answer {
            Answer::Resolved { host, addresses } => paths.handle_resolved(&host, &addresses, now),
            Answer::Https { region, latency } => paths.handle_https_latency(region, latency, now),
        });
    }

    /// The DERP map changed.
    pub(crate) fn set_derp_map(&mut self, map: DerpMap, now: Instant) {
        let regions = map.for_paths();
        self.relays.set_regions(map.regions);
        self.plane.with_paths(now, |paths| paths.set_regions(regions, now));
    }

    /// Addresses of the host's interfaces, without those of the TUN.
    pub(crate) fn set_local(&mut self, addresses: Vec<Ipv4Addr>, now: Instant) {
        self.local = addresses;
        self.tell_paths_of_local(now);
    }

    /// The network changed.
    pub(crate) fn change_link(&mut self, change: LinkChange, addresses: Vec<Ipv4Addr>, now: Instant) {
        self.local = addresses;
        self.plane.with_paths(now, |paths| paths.handle_link_change(change, now));
        if change != LinkChange::Down {
            self.tell_paths_of_local(now);
        }
    }

    fn tell_paths_of_local(&mut self, now: Instant) {
        let port = self.plant.underlay.load().port();
        let local = &self.local;
        self.plane.with_paths(now, |paths| paths.set_local(local, port, now));
    }

    /// Our node key was renewed.
    pub(crate) fn set_node_key(&mut self, node_key: NodePrivate, now: Instant) {
        self.relays.set_node_key(node_key.clone());
        self.plane.set_node_key(node_key, now);
    }

    /// All relay connections are made anew.
    pub(crate) fn break_relays(&mut self) {
        self.relays.break_all();
    }
}
