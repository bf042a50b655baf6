//! What the machine has to say goes out.

use std::time::Instant;

use tsrs_tunnel_dataplane::Event;
use tsrs_tunnel_packet::{DropReason, vnet};
use tsrs_tunnel_path::{self as path, Destination};

use super::SlowPath;
use crate::api::EngineEvent;
use crate::udp::{Underlay, send_error};

impl SlowPath {
    /// Until the machine has nothing more to say. Events come first: one of them may open the connection to the relay
    /// that a datagram is for, which would be dropped without it.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.plane.poll_event() {
                self.take_event(event, now);
            } else if let Some(transmit) = self.plane.poll_transmit() {
                self.transmit(transmit.to, transmit.datagram, now);
            } else if let Some(packet) = self.plane.poll_to_host() {
                self.write_to_host(&packet);
            } else {
                return;
            }
        }
    }

    fn transmit(&mut self, to: Destination, datagram: Vec<u8>, now: Instant) {
        let addr = match to {
            Destination::Udp(addr) => addr,
            Destination::Derp { region, node } => return self.relays.send_datagram(region, node, datagram),
        };
        let Err(error) = self.plant.underlay.load().send_one(addr, &datagram) else { return };
        self.plant.shared.outbound.drop_packets(DropReason::SendFailed, 1);
        if let Some(error) = send_error(&error) {
            self.plane.with_paths(now, |paths| paths.handle_send_error(addr, error, now));
        }
    }

    fn write_to_host(&self, packet: &[u8]) {
        if let Err(error) = self.plant.tun.write(&[0; vnet::LEN], &[packet]) {
            tracing::debug!(%error, "cannot write to the TUN");
            self.plant.shared.inbound.drop_packets(DropReason::TunWriteFailed, 1);
        }
    }

    fn take_event(&mut self, event: Event, now: Instant) {
        match event {
            Event::Service(packet) => {
                if self.services.try_send(packet).is_err() {
                    self.plant.shared.outbound.drop_packets(DropReason::NoService, 1);
                }
            }
            Event::Path(event) => self.take_path_event(event, now),
            Event::SessionBegun(_)
            | Event::SessionEnded(_)
            | Event::HandshakeAbandoned(_)
            | Event::DiscoKeyLearned { .. }
            | Event::TsmpPong { .. }
            | Event::Rejected { .. } => self.tell(EngineEvent::Plane(event)),
        }
    }

    /// What path finding asks for is done here; what concerns the agent is passed on.
    fn take_path_event(&mut self, event: path::Event, now: Instant) {
        match event {
            path::Event::DerpConnect(region) => self.relays.connect(region),
            path::Event::DerpClose(region) => self.relays.close(region),
            path::Event::DerpCheck(region) => self.relays.check(region),
            path::Event::Rebind => self.rebind(now),
            path::Event::ResolveHost(host) => self.questions.resolve(host),
            path::Event::MeasureHttps(region) => {
                self.questions.measure_https(region, self.relays.region(region));
            }
            path::Event::HomeDerpChanged(home) => {
                self.relays.set_home(home);
                self.tell(EngineEvent::Plane(Event::Path(event)));
            }
            path::Event::PeerIdle(_) => {}
            path::Event::PathChanged { .. }
            | path::Event::EndpointsChanged(_)
            | path::Event::NetInfoChanged(_)
            | path::Event::Pong { .. }
            | path::Event::PingTimedOut { .. } => self.tell(EngineEvent::Plane(Event::Path(event))),
        }
    }

    /// A new socket, on the port of the old one if that can be. When none can be had the old one stays in use.
    pub(super) fn rebind(&mut self, now: Instant) {
        let old = self.plant.underlay.load_full();
        match Underlay::replacing(&old, &*self.binder, &self.plant.switches) {
            Ok(underlay) => self.plant.replace_underlay(underlay),
            Err(error) => tracing::warn!(%error, "cannot bind a new UDP socket"),
        }
        self.tell_paths_of_local(now);
    }

    /// Never waits for the agent.
    pub(super) fn tell(&mut self, event: EngineEvent) {
        if self.missed_events && self.events.try_send(EngineEvent::Missed).is_ok() {
            self.missed_events = false;
        }
        if self.events.try_send(event).is_err() {
            self.missed_events = true;
        }
    }
}
