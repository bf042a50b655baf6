//! The slow path: one task owns the [`DataPlane`] and all that is not data.

mod timer;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tsrs_tunnel_dataplane::{DataPlane, Event};
use tsrs_tunnel_packet::{DropReason, vnet};
use tsrs_tunnel_path::{Destination, SendError};

use crate::api::EngineEvent;
use crate::worker::Plant;
use timer::Timer;

/// Work for the task that owns the machine.
pub(crate) type Command = Box<dyn FnOnce(&mut SlowPath, Instant) + Send>;

/// Commands that wait at most. The agent waits for room: it has nothing to lose by that.
pub(crate) const MAX_COMMANDS: usize = 64;

/// Events that wait for the agent at most. When more come it is told that it has missed some, and asks for the state.
pub(crate) const MAX_EVENTS: usize = 1024;

/// The task's own things.
pub(crate) struct SlowPath {
    pub(crate) plane: DataPlane,
    plant: Arc<Plant>,
    timer: Timer,
    events: mpsc::Sender<EngineEvent>,
    services: mpsc::Sender<Box<[u8]>>,
    /// Events were lost since the agent was last told so.
    missed_events: bool,
}

impl SlowPath {
    /// Must be called within a runtime.
    pub(crate) fn new(
        plane: DataPlane,
        plant: Arc<Plant>,
        events: mpsc::Sender<EngineEvent>,
        services: mpsc::Sender<Box<[u8]>>,
    ) -> io::Result<Self> {
        let timer = Timer::new(plant.clock)?;
        Ok(Self { plane, plant, timer, events, services, missed_events: false })
    }

    /// Works until the engine stops.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while !self.plant.is_stopped() {
            self.timer.set(self.plane.poll_timeout());
            let plant = Arc::clone(&self.plant);
            let command = tokio::select! {
                () = plant.slow.notified() => None,
                () = self.timer.rings() => None,
                command = commands.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
            };
            let now = self.plant.clock.now();
            if let Some(command) = command {
                command(&mut self, now);
            }
            if self.plane.poll_timeout().is_some_and(|at| at <= now) {
                self.plane.handle_timeout(now);
            }
            self.drain(now);
            while self.plane.handle_notices(self.plant.clock.now()) {
                self.drain(now);
                // Relays and commands have their turn under a flood.
                tokio::task::yield_now().await;
            }
            self.drain(now);
        }
    }

    /// Everything that the machine has to say goes out.
    fn drain(&mut self, now: Instant) {
        loop {
            if let Some(transmit) = self.plane.poll_transmit() {
                self.transmit(transmit.to, &transmit.datagram, now);
            } else if let Some(packet) = self.plane.poll_to_host() {
                self.write_to_host(&packet);
            } else if let Some(event) = self.plane.poll_event() {
                self.take_event(event);
            } else {
                return;
            }
        }
    }

    fn transmit(&mut self, to: Destination, datagram: &[u8], now: Instant) {
        match to {
            Destination::Udp(addr) => {
                let Err(error) = self.plant.underlay.load().send_one(addr, datagram) else { return };
                self.plant.shared.outbound.drop_packets(DropReason::SendFailed, 1);
                if error.kind() != io::ErrorKind::WouldBlock {
                    let error = send_error(&error);
                    self.plane.with_paths(now, |paths| paths.handle_send_error(addr, error, now));
                }
            }
            Destination::Derp { .. } => self.plant.shared.outbound.drop_packets(DropReason::NoPath, 1),
        }
    }

    fn write_to_host(&self, packet: &[u8]) {
        if let Err(error) = self.plant.tun.write(&[0; vnet::LEN], &[packet]) {
            tracing::debug!(%error, "cannot write to the TUN");
            self.plant.shared.inbound.drop_packets(DropReason::TunWriteFailed, 1);
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Service(packet) => {
                if self.services.try_send(packet).is_err() {
                    self.plant.shared.outbound.drop_packets(DropReason::NoService, 1);
                }
            }
            Event::Path(_)
            | Event::SessionBegun(_)
            | Event::SessionEnded(_)
            | Event::HandshakeAbandoned(_)
            | Event::DiscoKeyLearned { .. }
            | Event::TsmpPong { .. }
            | Event::Rejected { .. } => self.tell(EngineEvent::Plane(event)),
        }
    }

    /// Never waits for the agent.
    fn tell(&mut self, event: EngineEvent) {
        if self.missed_events && self.events.try_send(EngineEvent::Missed).is_ok() {
            self.missed_events = false;
        }
        if self.events.try_send(event).is_err() {
            self.missed_events = true;
        }
    }
}

pub(crate) fn send_error(error: &io::Error) -> SendError {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EPIPE | libc::ENOTCONN) => SendError::Socket,
        _ => SendError::Unreachable,
    }
}
