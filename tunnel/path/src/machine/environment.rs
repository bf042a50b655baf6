//! What happens around us: the link, the sockets, the DERP connections (data-plane sheet §3.7, §3.8).

use std::net::SocketAddrV4;
use std::time::Instant;

use rand_core::CryptoRngCore;
use tsrs_base_types::{DiscoPrivate, NodePublic, RegionId};

use super::PathMachine;
use super::api::{DerpChange, Event, LinkChange, SendError};
use super::limits::REBIND_FLOOR;

impl<R: CryptoRngCore> PathMachine<R> {
    /// Our node key was renewed.
    pub fn set_node_key(&mut self, node_key: NodePublic) {
        self.config.node_key = node_key;
    }

    /// A new disco key of our own. Control must be told, so that peers learn it.
    pub fn set_disco_key(&mut self, disco_key: DiscoPrivate, now: Instant) {
        self.disco_public = disco_key.public();
        self.config.disco_key = disco_key;
        self.peers.forget_boxes();
        self.forget_measurements(now);
        self.start_refresh(now);
    }

    /// Whether UDP may be used at all (`only-tcp-443` says no).
    pub fn set_udp_allowed(&mut self, allowed: bool, now: Instant) {
        if self.udp_allowed != allowed {
            self.udp_allowed = allowed;
            self.netcheck.set_udp_allowed(allowed);
            self.forget_measurements(now);
            self.start_refresh(now);
        }
    }

    /// The host's network changed, or the host slept ([`LinkChange::Major`]).
    pub fn handle_link_change(&mut self, change: LinkChange, now: Instant) {
        tracing::debug!(?change, "link changed");
        match change {
            LinkChange::Major => {
                self.link_up = true;
                self.forget_measurements(now);
                let wanted = self.relays.wanted();
                self.events.extend(wanted.into_iter().map(Event::DerpCheck));
                self.keep_home_open(now);
                // STUN and pings wait for the new socket.
                self.awaits_rebind = true;
                self.last_rebind = Some(now);
                self.events.push_back(Event::Rebind);
            }
            LinkChange::Minor => {
                self.link_up = true;
                self.keep_home_open(now);
                self.start_refresh(now);
            }
            LinkChange::Down => {
                self.forget_measurements(now);
                self.link_up = false;
                let closed = self.relays.close_all();
                self.events.extend(closed.into_iter().map(Event::DerpClose));
                self.settle_all(now);
            }
        }
    }

    /// All best paths and what netcheck knows.
    fn forget_measurements(&mut self, now: Instant) {
        self.netcheck.reset();
        self.own.forget_reflexive();
        self.refresh.reset();
        for id in self.peers.ids() {
            if let Some(paths) = self.paths_mut(id) {
                paths.reset();
                self.settle(id, now);
            }
        }
    }

    fn settle_all(&mut self, now: Instant) {
        for id in self.peers.ids() {
            self.settle(id, now);
        }
    }

    /// A datagram (of ours or of WireGuard's) to this address could not be sent.
    pub fn handle_send_error(&mut self, to: SocketAddrV4, error: SendError, now: Instant) {
        match error {
            SendError::Unreachable => {
                self.netcheck.handle_send_error(to);
                for id in self.active.clone() {
                    if let Some(paths) = self.paths_mut(id) {
                        paths.note_unreachable(to);
                        self.settle(id, now);
                    }
                }
            }
            SendError::Socket => {
                let recently = |at: Instant| now.saturating_duration_since(at) < REBIND_FLOOR;
                if !self.last_rebind.is_some_and(recently) {
                    self.last_rebind = Some(now);
                    self.awaits_rebind = true;
                    self.events.push_back(Event::Rebind);
                }
            }
        }
    }

    /// Something happened to the connection of a region.
    pub fn handle_derp(&mut self, region: RegionId, change: DerpChange, now: Instant) {
        match change {
            DerpChange::Connected => {
                if self.relays.set_open(region, true) {
                    self.settle_heard(now);
                }
            }
            DerpChange::Lost => {
                let depended = self.relays.heard_peers();
                if self.relays.set_open(region, false) {
                    for id in depended {
                        self.settle(id, now);
                    }
                    // It may have been lost because our network changed.
                    self.start_refresh(now);
                }
            }
            DerpChange::Received => {
                self.relays.note_received(region, now);
                self.netcheck.note_heard(region, now);
            }
            DerpChange::PeerGone(peer) => {
                self.user_pings.note_unreached(&peer, region, now);
                if let Some(id) = self.peers.id(&peer)
                    && self.relays.note_gone(id, region)
                {
                    self.settle(id, now);
                }
            }
        }
    }
}
