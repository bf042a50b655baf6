//! After each input: what the parts of the machine have to say goes where it belongs.

use std::sync::Arc;
use std::time::Instant;

use tsrs_base_types::NodePublic;
use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_path::{self as path, Destination};
use tsrs_tunnel_wireguard as wireguard;
use tsrs_tunnel_wireguard::wire::{DATA_OVERHEAD, data_receiver};

use super::{ACTIVITY_REFRESH, DataPlane, Event, Transmit};
use crate::tables::Receiver;

impl DataPlane {
    /// Moves all outputs of the parts to ours, then publishes what changed.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.device.poll_event() {
                self.take_device_event(event);
            } else if let Some(transmit) = self.device.poll_transmit() {
                self.take_device_transmit(transmit, now);
            } else if let Some(event) = self.paths.poll_event() {
                self.take_path_event(event, now);
            } else if let Some(transmit) = self.paths.poll_transmit() {
                self.transmits.push_back(Transmit { to: transmit.to, datagram: transmit.bytes });
            } else {
                break;
            }
        }
        self.publish();
    }

    fn take_device_event(&mut self, event: wireguard::Event) {
        match event {
            wireguard::Event::SessionAdded(session) => {
                let Some(peer) = self.peers.get(&session.peer()) else { return };
                let receiver = Receiver { session: Arc::clone(&session), peer: Arc::clone(&peer.slot) };
                self.receivers.insert(session.local_index(), receiver);
                self.receivers_changed = true;
            }
            wireguard::Event::SessionRemoved { local_index, .. } => {
                self.receivers_changed |= self.receivers.remove(local_index).is_some();
            }
            wireguard::Event::SendSession { peer, session } => {
                let Some(known) = self.peers.get(&peer) else { return };
                let begun = session.is_some();
                known.slot.set_session(session);
                self.events.push_back(if begun {
                    Event::SessionBegun(peer)
                } else {
                    Event::SessionEnded(peer)
                });
            }
            wireguard::Event::HandshakeAbandoned { peer, dropped_packets } => {
                self.shared.outbound.drop_packets(DropReason::HandshakeTimeout, dropped_packets);
                self.events.push_back(Event::HandshakeAbandoned(peer));
            }
        }
    }

    fn take_device_transmit(&mut self, transmit: wireguard::Transmit, now: Instant) {
        let datagram = transmit.payload;
        match transmit.to {
            wireguard::Destination::Peer(peer) => self.send_by_path(peer, datagram, now),
            wireguard::Destination::Source(wireguard::Source::Udp(addr)) => {
                if let std::net::SocketAddr::V4(addr) = addr {
                    self.transmits.push_back(Transmit { to: Destination::Udp(addr), datagram });
                }
            }
            wireguard::Destination::Source(wireguard::Source::Relay { region, node }) => {
                self.transmits.push_back(Transmit { to: Destination::Derp { region, node }, datagram });
            }
        }
    }

    /// By the path in use: direct, over the relay, or both.
    fn send_by_path(&mut self, peer: NodePublic, datagram: Vec<u8>, now: Instant) {
        let Some(known) = self.peers.get(&peer) else { return };
        let slot = Arc::clone(&known.slot);
        // The path may be found by being told of the wish to send.
        self.paths.note_sent(&peer, now, now);
        let path = slot.path();
        if path.is_none() || slot.is_expired() {
            self.shared.outbound.drop_packets(DropReason::NoPath, 1);
            return;
        }
        if let Some(len) = datagram.len().checked_sub(DATA_OVERHEAD).filter(|len| *len > 0)
            && data_receiver(&datagram).is_some()
        {
            // A packet that waited for the session; its padding is counted with it.
            let outbound = &self.shared.outbound;
            let traffic = if path.direct.is_some() { &outbound.direct } else { &outbound.derp };
            traffic.add(1, u64::try_from(len).unwrap_or(0));
        }
        if let Some(region) = path.derp_now() {
            let to = Destination::Derp { region, node: peer };
            self.transmits.push_back(Transmit { to, datagram: datagram.clone() });
        }
        if let Some(addr) = path.direct {
            self.transmits.push_back(Transmit { to: Destination::Udp(addr), datagram });
        }
    }

    fn take_path_event(&mut self, event: path::Event, now: Instant) {
        match &event {
            path::Event::PathChanged { peer, path } => {
                let Some(known) = self.peers.get(peer) else { return };
                let before = known.slot.path().direct;
                known.slot.set_path(*path);
                if before == path.direct {
                    // Every peer of a new netmap has a relay: nothing that anybody waits to hear.
                    return;
                }
            }
            path::Event::PeerIdle(peer) => return self.take_idle(*peer, now),
            path::Event::EndpointsChanged(_)
            | path::Event::NetInfoChanged(_)
            | path::Event::HomeDerpChanged(_)
            | path::Event::DerpConnect(_)
            | path::Event::DerpClose(_)
            | path::Event::DerpCheck(_)
            | path::Event::Rebind
            | path::Event::ResolveHost(_)
            | path::Event::MeasureHttps(_)
            | path::Event::Pong { .. }
            | path::Event::PingTimedOut { .. } => {}
        }
        self.events.push_back(Event::Path(event));
    }

    /// The next packet to the peer is told at once. One may have been sent since path finding was last told.
    fn take_idle(&mut self, peer: NodePublic, now: Instant) {
        let Some(known) = self.peers.get(&peer) else { return };
        known.slot.set_idle();
        if let Some(at) = known.slot.last_sent()
            && now.saturating_duration_since(at) <= 2 * ACTIVITY_REFRESH
        {
            self.paths.note_sent(&peer, at, now);
        }
    }

    /// Tells path finding to whom data was sent since it was last told.
    pub(super) fn refresh_activity(&mut self, now: Instant) {
        if now.saturating_duration_since(self.activity_refreshed) < ACTIVITY_REFRESH {
            return;
        }
        self.activity_refreshed = now;
        let active: Vec<_> = self.paths.active_peers().copied().collect();
        for peer in active {
            if let Some(at) = self.peers.get(&peer).and_then(|known| known.slot.last_sent()) {
                self.paths.note_sent(&peer, at, now);
            }
        }
    }
}
