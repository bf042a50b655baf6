//! [`PathMachine`]: the state of all paths of this node.

mod api;
mod candidate;
mod environment;
mod incoming;
pub mod limits;
mod own;
mod paths;
mod peers;
mod probing;
mod refresh;
mod relays;
mod user_ping;

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddrV4;
use std::time::Instant;

use rand_core::CryptoRngCore;
use tsrs_base_types::{DiscoPublic, NodePublic, RegionId};

pub use api::*;

use crate::disco::Message;
use crate::netcheck::{Netcheck, Report};
use limits::MAX_TIMERS_PER_CALL;
use own::OwnEndpoints;
use peers::{PeerId, PeerTable, usable_endpoints, usable_home};
use refresh::Refresh;
use relays::Relays;
use user_ping::UserPings;

/// The machine. See the crate documentation for what its caller must do.
#[derive(Debug)]
pub struct PathMachine<R> {
    config: Config,
    disco_public: DiscoPublic,
    rng: R,
    peers: PeerTable,
    /// Next deadline of each peer that has one.
    timers: BTreeSet<(Instant, PeerId)>,
    /// Peers to which data was sent in the last 45 s.
    active: BTreeSet<PeerId>,
    relays: Relays,
    own: OwnEndpoints,
    netcheck: Netcheck,
    refresh: Refresh,
    user_pings: UserPings,
    link_up: bool,
    udp_allowed: bool,
    last_rebind: Option<Instant>,
    /// A new socket was asked for and is not there yet.
    awaits_rebind: bool,
    counters: Counters,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl<R: CryptoRngCore> PathMachine<R> {
    /// A machine without peers, regions and addresses. It is silent until it has them.
    pub fn new(config: Config, mut rng: R) -> Self {
        Self {
            disco_public: config.disco_key.public(),
            config,
            peers: PeerTable::default(),
            timers: BTreeSet::new(),
            active: BTreeSet::new(),
            relays: Relays::default(),
            own: OwnEndpoints::default(),
            netcheck: Netcheck::new(),
            refresh: Refresh::new(&mut rng),
            user_pings: UserPings::default(),
            link_up: true,
            udp_allowed: true,
            last_rebind: None,
            awaits_rebind: false,
            counters: Counters::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            rng,
        }
    }

    /// Adds a peer or replaces what the netmap says of it; paths that are in use go on. O(endpoints).
    pub fn upsert_peer(&mut self, peer: PeerConfig, now: Instant) {
        if self.peers.id(&peer.node_key).is_some() {
            let node_key = peer.node_key;
            let patch = PeerPatch {
                disco_key: Some(peer.disco_key.unwrap_or_default()),
                home: Some(peer.home.unwrap_or_default()),
                endpoints: Some(peer.endpoints),
                expired: Some(peer.expired),
            };
            self.patch_peer(&node_key, patch, now);
        } else if let Some(id) = self.peers.insert(peer) {
            self.settle(id, now);
        }
    }

    /// Changes some facts of a peer. Returns whether the peer is known.
    pub fn patch_peer(&mut self, peer: &NodePublic, patch: PeerPatch, now: Instant) -> bool {
        let Some(id) = self.peers.id(peer) else { return false };
        let disco_changed = patch.disco_key.is_some_and(|key| self.peers.set_disco_key(id, Some(key)));
        let Some(peer) = self.peers.get_mut(id) else { return false };
        if let Some(home) = patch.home {
            peer.home = usable_home(Some(home));
        }
        if let Some(expired) = patch.expired {
            peer.expired = expired;
        }
        if disco_changed && let Some(paths) = &mut peer.paths {
            // The peer's process is a new one: what was proved of the old one means nothing.
            paths.reset();
        }
        if let Some(endpoints) = patch.endpoints {
            let endpoints = usable_endpoints(&endpoints);
            if endpoints != peer.endpoints {
                peer.endpoints = endpoints;
                if let Some(paths) = &mut peer.paths {
                    paths.set_netmap(&peer.endpoints);
                    paths.prune(now);
                }
            }
        }
        if peer.expired {
            self.deactivate(id, now);
        }
        self.settle(id, now);
        true
    }

    /// Forgets a peer.
    pub fn remove_peer(&mut self, peer: &NodePublic) {
        let Some(id) = self.peers.id(peer) else { return };
        let Some(mut peer) = self.peers.remove(id) else { return };
        if let Some(at) = peer.timer {
            self.timers.remove(&(at, id));
        }
        self.active.remove(&id);
        self.relays.forget_peer(id);
        self.refresh.forget_peer(id);
        for ping in peer.paths.iter_mut().flat_map(|paths| paths.take_pings()) {
            self.note_user_ping_lost(ping.cli);
        }
    }

    /// Peers to which data was sent in the last 45 s.
    pub fn active_peers(&self) -> impl Iterator<Item = &NodePublic> {
        self.active.iter().filter_map(|id| self.peers.get(*id)).map(|peer| &peer.node_key)
    }

    /// How data goes to this peer now.
    pub fn path(&self, peer: &NodePublic) -> SendPath {
        self.peers
            .id(peer)
            .and_then(|id| self.peers.get(id))
            .map_or_else(SendPath::default, |peer| peer.published)
    }

    /// What `status` shows of this peer.
    pub fn peer_status(&self, peer: &NodePublic, now: Instant) -> Option<PeerStatus> {
        let id = self.peers.id(peer)?;
        let peer = self.peers.get(id)?;
        let paths = peer.paths.as_deref();
        Some(PeerStatus {
            path: peer.published,
            latency: paths.and_then(|paths| paths.best).map(|best| best.latency),
            active: paths.is_some_and(|paths| paths.is_active(now)),
            last_sent: paths.and_then(|paths| paths.last_sent),
        })
    }

    /// Our endpoints as last published.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.refresh.endpoints
    }

    /// The last complete netcheck.
    pub fn report(&self) -> Option<&Report> {
        self.refresh.report.as_ref()
    }

    /// Home region.
    pub fn home_derp(&self) -> Option<RegionId> {
        self.refresh.home
    }

    /// Our disco key, for the map request.
    pub fn disco_key(&self) -> &DiscoPublic {
        &self.disco_public
    }

    /// What became of received datagrams.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] is wanted; none when the machine waits for nothing. It may lie in the past when
    /// there was more to do than one call does.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let peer = self.timers.first().map(|(at, _)| *at);
        let timeouts = [peer, self.netcheck.poll_timeout(), self.refresh.next_at, self.relays.next_timeout()];
        let timeouts = timeouts.into_iter().chain([self.user_pings.next_timeout()]);
        timeouts.flatten().min()
    }

    /// Time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..MAX_TIMERS_PER_CALL {
            match self.timers.first() {
                Some(&(at, id)) if at <= now => self.on_peer_timer(id, now),
                Some(_) | None => break,
            }
        }
        for region in self.relays.close_idle(now) {
            self.events.push_back(Event::DerpClose(region));
            self.settle_heard(now);
        }
        self.run_user_pings(now);
        self.on_refresh_timer(now);
    }

    /// The path that follows from the state of a peer (the table of data-plane sheet §3.3).
    fn send_path(&self, id: PeerId, now: Instant) -> SendPath {
        let Some(peer) = self.peers.get(id).filter(|peer| !peer.expired) else { return SendPath::default() };
        let paths = peer.paths.as_deref();
        let best = paths.and_then(|paths| paths.best);
        SendPath {
            direct: best.map(|best| best.address),
            also_derp: best.is_some() && !paths.is_some_and(|paths| paths.is_trusted(now)),
            derp: self.relays.route(id, peer.home),
        }
    }

    /// Publishes what changed for a peer and arms its timer. Every change of a peer ends here.
    fn settle(&mut self, id: PeerId, now: Instant) {
        let path = self.send_path(id, now);
        let active = self.active.contains(&id);
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.published != path {
            peer.published = path;
            tracing::debug!(
                peer = ?peer.node_key,
                direct = ?path.direct,
                also_derp = path.also_derp,
                derp = ?path.derp,
                "path changed"
            );
            self.events.push_back(Event::PathChanged { peer: peer.node_key, path });
            self.redirect_user_pings(id, path, now);
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        let next = peer.paths.as_deref().and_then(|paths| paths.next_timeout());
        let old = std::mem::replace(&mut peer.timer, next);
        if old != next {
            old.map(|at| self.timers.remove(&(at, id)));
            next.map(|at| self.timers.insert((at, id)));
        }
        if active && let Some(region) = path.derp_now() {
            self.use_relay(region, now);
        }
    }

    /// Peers whose route depends on which connections are open.
    fn settle_heard(&mut self, now: Instant) {
        for id in self.relays.heard_peers() {
            self.settle(id, now);
        }
    }

    fn use_relay(&mut self, region: RegionId, now: Instant) {
        if self.link_up && self.relays.touch(region, now) {
            self.events.push_back(Event::DerpConnect(region));
        }
    }

    fn send_udp(&mut self, to: SocketAddrV4, bytes: Vec<u8>) {
        if self.link_up && self.udp_allowed {
            self.transmits.push_back(Transmit { to: Destination::Udp(to), bytes });
        }
    }

    fn send_derp(&mut self, region: RegionId, node: NodePublic, bytes: Vec<u8>, now: Instant) {
        if self.link_up {
            self.use_relay(region, now);
            self.transmits.push_back(Transmit { to: Destination::Derp { region, node }, bytes });
        }
    }

    /// A sealed message for the holder of a peer's disco key.
    fn seal(&mut self, key: &DiscoPublic, message: &Message) -> Option<Vec<u8>> {
        let cache = self.peers.box_cache(key)?;
        Some(cache.seal(&mut self.rng, &self.config.disco_key, &self.disco_public, key, message))
    }
}
