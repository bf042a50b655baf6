//! Probing the paths to peers: only for peers to which data is sent (data-plane sheet §3.3, §3.4).

use std::net::SocketAddr;
use std::time::Instant;

use rand_core::CryptoRngCore;
use tsrs_base_types::NodePublic;

use super::PathMachine;
use super::api::{Event, PingId};
use super::limits::{HEARTBEAT, PING_FLOOR, SESSION_ACTIVE};
use super::paths::{Paths, Ping, PingTo};
use super::peers::PeerId;
use crate::disco::{Message, TxId};

impl<R: CryptoRngCore> PathMachine<R> {
    /// Data was last sent to this peer at `at`. The first call after idleness starts probing; later ones keep it going.
    /// Call it at once for the first packet, and for all [`Self::active_peers`] before [`Self::handle_timeout`].
    pub fn note_sent(&mut self, peer: &NodePublic, at: Instant, now: Instant) {
        let Some(id) = self.peers.id(peer) else { return };
        let Some(peer) = self.peers.get_mut(id).filter(|peer| !peer.expired) else { return };
        let speaks_disco = peer.disco_key.is_some();
        let paths = peer.paths_mut();
        paths.last_sent = paths.last_sent.max(Some(at));
        if !paths.is_active(now) {
            return;
        }
        let was_idle = self.active.insert(id);
        if was_idle {
            paths.heartbeat_at = Some(next_heartbeat(paths, speaks_disco, now));
        }
        let due = paths.last_full_ping.is_none_or(|last| now.saturating_duration_since(last) >= PING_FLOOR);
        if !paths.is_trusted(now) && (was_idle || due) {
            self.discover(id, true, now);
        }
        if was_idle {
            self.schedule_refresh(now);
        }
        self.settle(id, now);
    }

    pub(super) fn on_peer_timer(&mut self, id: PeerId, now: Instant) {
        while let Some(ping) = self.paths_mut(id).and_then(|paths| paths.take_expired_ping(now)) {
            self.note_user_ping_lost(ping.cli);
        }
        if self.paths_mut(id).is_some_and(|paths| paths.heartbeat_at.is_some_and(|at| at <= now)) {
            self.heartbeat(id, now);
        }
        if let Some(paths) = self.paths_mut(id)
            && paths.trust_until.is_some_and(|until| until <= now)
        {
            // Data goes by DERP too from now on; the path itself is kept, it may come back.
            paths.trust_until = None;
            if self.active.contains(&id) {
                self.discover(id, true, now);
            }
        }
        self.settle(id, now);
    }

    fn heartbeat(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        let speaks_disco = peer.disco_key.is_some();
        let paths = peer.paths_mut();
        if !paths.is_active(now) {
            self.deactivate(id, now);
            return;
        }
        paths.heartbeat_at = Some(next_heartbeat(paths, speaks_disco, now));
        let best = paths.best;
        let wants_full_ping = paths.wants_full_ping(now);
        if let Some(best) = best {
            self.send_ping(id, PingTo::Udp(best.address), None, 0, now);
        }
        if wants_full_ping {
            self.discover(id, true, now);
        }
    }

    /// Nothing is sent to this peer any longer.
    pub(super) fn deactivate(&mut self, id: PeerId, now: Instant) {
        let was_active = self.active.remove(&id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if let Some(paths) = &mut peer.paths {
            paths.heartbeat_at = None;
            paths.compact(now);
        }
        if was_active {
            self.events.push_back(Event::PeerIdle(peer.node_key));
        }
    }

    /// Pings all candidates that were not pinged for a while. With `call`, the peer is then asked by CallMeMaybe to do
    /// the same, so that NATs on both sides open.
    pub(super) fn discover(&mut self, id: PeerId, call: bool, now: Instant) {
        let Some(peer) = self.peers.get_mut(id).filter(|peer| peer.disco_key.is_some()) else { return };
        if !self.udp_allowed {
            return;
        }
        let paths = peer.paths_mut();
        paths.last_full_ping = Some(now);
        paths.prune(now);
        let due = paths.due_candidates(now);
        // A peer of which no address is known can still call us back.
        let worth_a_call = !due.is_empty() || paths.candidates.is_empty();
        for address in due {
            self.send_ping(id, PingTo::Udp(address), None, 0, now);
        }
        if call && worth_a_call {
            self.call(id, now);
        }
    }

    /// Sends a CallMeMaybe, now or as soon as our own endpoints are fresh.
    pub(super) fn call(&mut self, id: PeerId, now: Instant) {
        if !self.refresh.is_fresh(now) {
            self.refresh.postpone_call(id);
            if !self.netcheck.is_running() {
                self.start_refresh(now);
            }
            return;
        }
        let Some(peer) = self.peers.get(id).filter(|peer| !peer.expired) else { return };
        let (node_key, disco_key, home) = (peer.node_key, peer.disco_key, peer.home);
        let (Some(key), Some(region)) = (disco_key, self.relays.route(id, home)) else { return };
        let endpoints: Vec<SocketAddr> = self.own.collect().iter().map(|own| own.address.into()).collect();
        if endpoints.is_empty() {
            return;
        }
        if let Some(bytes) = self.seal(&key, &Message::CallMeMaybe { endpoints }) {
            self.send_derp(region, node_key, bytes, now);
        }
    }

    /// Sends one ping; `size` is the wanted size of the datagram. Returns whether it went out.
    pub(super) fn send_ping(
        &mut self,
        id: PeerId,
        to: PingTo,
        cli: Option<PingId>,
        size: usize,
        now: Instant,
    ) -> bool {
        let may_send = self.link_up && (self.udp_allowed || matches!(to, PingTo::Derp(_)));
        let Some(peer) = self.peers.get_mut(id).filter(|_| may_send) else { return false };
        let (node_key, disco_key) = (peer.node_key, peer.disco_key);
        let paths = peer.paths_mut();
        let (Some(key), true) = (disco_key, paths.has_ping_room()) else { return false };
        let mut tx_id = TxId([0; 12]);
        self.rng.fill_bytes(&mut tx_id.0);
        paths.note_ping_sent(Ping { tx_id, to, sent_at: now, cli });
        let padding_len = size.saturating_sub(PLAIN_PING_SIZE);
        let message = Message::Ping { tx_id, node_key: Some(self.config.node_key), padding_len };
        let Some(bytes) = self.seal(&key, &message) else { return false };
        match to {
            PingTo::Udp(address) => self.send_udp(address, bytes),
            PingTo::Derp(region) => self.send_derp(region, node_key, bytes, now),
        }
        true
    }

    pub(super) fn paths_mut(&mut self, id: PeerId) -> Option<&mut Paths> {
        self.peers.get_mut(id)?.paths.as_deref_mut()
    }
}

/// Size of a ping datagram without padding.
const PLAIN_PING_SIZE: usize = 124;

/// A peer that speaks no disco is only looked at again when it may have become idle.
fn next_heartbeat(paths: &Paths, speaks_disco: bool, now: Instant) -> Instant {
    let idle_at = paths.last_sent.map_or(now, |at| at + SESSION_ACTIVE);
    if speaks_disco { now + HEARTBEAT } else { idle_at.max(now + HEARTBEAT) }
}
