//! Pings that a user asked for (`tsrs-agent ping`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::{NodePublic, RegionId};

use super::PathMachine;
use super::api::{Event, PingError, PingId, PongVia, SendPath};
use super::limits::{MAX_CLI_PINGS, MAX_PING_SIZE, PING_TIMEOUT, UNREACHED_RETRY};
use super::paths::{Ping, PingTo};
use super::peers::PeerId;

/// Users' pings that were not answered yet.
#[derive(Debug, Default)]
pub(super) struct UserPings {
    last_id: u64,
    waiting: BTreeMap<PingId, Waiting>,
}

impl UserPings {
    /// When a ping is sent again.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|waiting| waiting.again_at).min()
    }

    /// What was sent last over this region did not reach the peer, as the relay says.
    pub(super) fn note_unreached(&mut self, peer: &NodePublic, region: RegionId, now: Instant) {
        for waiting in self.waiting.values_mut() {
            if waiting.peer == *peer && waiting.relay == Some(region) && now < waiting.until {
                waiting.again_at.get_or_insert(now + UNREACHED_RETRY);
            }
        }
    }
}

#[derive(Debug)]
struct Waiting {
    peer: NodePublic,
    /// Datagrams that may still be answered.
    outstanding: usize,
    size: usize,
    /// The region over which it was sent last.
    relay: Option<RegionId>,
    /// It did not reach the peer over that one: when it is sent again. For one that had no way yet, when it is given up.
    again_at: Option<Instant>,
    /// When it is too late to send it again.
    until: Instant,
}

impl<R: CryptoRngCore> PathMachine<R> {
    /// Sends a user's ping on the trusted path, or else on all that may work; the first answer counts. `size` is the
    /// wanted size of the datagram; 0 means the usual. It keeps the peer active, as data does.
    pub fn ping(&mut self, peer: &NodePublic, size: usize, now: Instant) -> Result<PingId, PingError> {
        let id = self.peers.id(peer).ok_or(PingError::UnknownPeer)?;
        let found = self.peers.get_mut(id).ok_or(PingError::UnknownPeer)?;
        if found.expired {
            return Err(PingError::Expired);
        }
        if found.disco_key.is_none() {
            return Err(PingError::NoDisco);
        }
        if size > MAX_PING_SIZE {
            return Err(PingError::Size);
        }
        if self.user_pings.waiting.len() >= MAX_CLI_PINGS {
            return Err(PingError::TooMany);
        }
        let home = found.home;
        let paths = found.paths_mut();
        let (direct, relay): (Vec<_>, _) = match paths.best.filter(|_| paths.is_trusted(now)) {
            Some(best) => (vec![best.address], None),
            None => {
                let candidates = paths.candidates.iter().map(|candidate| candidate.address);
                (candidates.collect(), self.relays.route(id, home))
            }
        };
        let has_way = relay.is_some() || !direct.is_empty();
        let targets = direct.into_iter().map(PingTo::Udp).chain(relay.map(PingTo::Derp));
        self.user_pings.last_id += 1;
        let ping_id = PingId(self.user_pings.last_id);
        let outstanding = targets.filter(|&to| self.send_ping(id, to, Some(ping_id), size, now)).count();
        // A peer that has just come up may be known before its home and its addresses are.
        if outstanding > 0 || !has_way {
            let until = now + PING_TIMEOUT;
            let again_at = (!has_way).then_some(until);
            let waiting = Waiting { peer: *peer, outstanding, size, relay, again_at, until };
            self.user_pings.waiting.insert(ping_id, waiting);
        }
        // Also without a way of its own: a peer whose addresses are unknown may call us back.
        self.note_sent(peer, now, now);
        self.settle(id, now);
        if outstanding > 0 || !has_way { Ok(ping_id) } else { Err(PingError::NoPath) }
    }

    /// Sends pings again that did not reach their peer, when it is time, and gives up those that found no way.
    pub(super) fn run_user_pings(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (&ping_id, waiting) in &mut self.user_pings.waiting {
            if waiting.again_at.take_if(|at| *at <= now).is_some() {
                due.push((ping_id, waiting.peer));
            }
        }
        for (ping_id, peer) in due {
            if let Some(id) = self.peers.id(&peer) {
                self.repeat_user_ping(id, ping_id, now);
                self.settle(id, now);
            }
            self.end_user_ping_without_datagram(ping_id);
        }
    }

    /// Data goes to a peer another way: so do the pings that wait for an answer and have not tried it.
    pub(super) fn redirect_user_pings(&mut self, id: PeerId, path: SendPath, now: Instant) {
        if self.user_pings.waiting.is_empty() || path.is_none() {
            return;
        }
        let Some(peer) = self.peers.get(id).map(|peer| peer.node_key) else { return };
        let relay = path.derp_now();
        let is_late = |waiting: &Waiting| {
            let untried = waiting.outstanding == 0 || (relay.is_some() && waiting.relay != relay);
            waiting.peer == peer && untried && now < waiting.until
        };
        let late = self.user_pings.waiting.iter().filter(|(_, waiting)| is_late(waiting));
        for ping_id in late.map(|(&ping_id, _)| ping_id).collect::<Vec<_>>() {
            self.repeat_user_ping(id, ping_id, now);
        }
    }

    /// Sends a ping the way that data goes now.
    fn repeat_user_ping(&mut self, id: PeerId, ping_id: PingId, now: Instant) {
        let path = self.peers.get(id).map(|peer| peer.published).unwrap_or_default();
        let Some(waiting) = self.user_pings.waiting.get_mut(&ping_id) else { return };
        let to = match path.derp_now() {
            Some(region) => PingTo::Derp(region),
            None => match path.direct {
                Some(address) => PingTo::Udp(address),
                None => return,
            },
        };
        waiting.again_at = None;
        waiting.relay = path.derp_now();
        let size = waiting.size;
        if self.send_ping(id, to, Some(ping_id), size, now)
            && let Some(waiting) = self.user_pings.waiting.get_mut(&ping_id)
        {
            waiting.outstanding += 1;
        }
    }

    pub(super) fn note_user_ping_answered(&mut self, id: PeerId, ping: &Ping, latency: Duration) {
        let Some(ping_id) = ping.cli else { return };
        let (Some(_), Some(peer)) = (self.user_pings.waiting.remove(&ping_id), self.peers.get(id)) else {
            return;
        };
        let via = match ping.to {
            PingTo::Udp(address) => PongVia::Udp(address),
            PingTo::Derp(region) => PongVia::Derp(region),
        };
        self.events.push_back(Event::Pong { id: ping_id, peer: peer.node_key, via, latency });
    }

    /// A datagram of a ping will not be answered; the ping is lost with its last one.
    pub(super) fn note_user_ping_lost(&mut self, ping_id: Option<PingId>) {
        let Some(id) = ping_id else { return };
        let Some(waiting) = self.user_pings.waiting.get_mut(&id) else { return };
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        self.end_user_ping_without_datagram(id);
    }

    fn end_user_ping_without_datagram(&mut self, id: PingId) {
        if let Some(waiting) = self.user_pings.waiting.get(&id).filter(|waiting| waiting.outstanding == 0) {
            let peer = waiting.peer;
            self.user_pings.waiting.remove(&id);
            self.events.push_back(Event::PingTimedOut { id, peer });
        }
    }
}
