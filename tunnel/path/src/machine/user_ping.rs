//! Pings that a user asked for (`tsrs-agent ping`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rand_core::CryptoRngCore;
use tsrs_base_types::NodePublic;

use super::PathMachine;
use super::api::{Event, PingError, PingId, PongVia};
use super::limits::{MAX_CLI_PINGS, MAX_PING_SIZE};
use super::paths::{Ping, PingTo};
use super::peers::PeerId;

/// Users' pings that were not answered yet.
#[derive(Debug, Default)]
pub(super) struct UserPings {
    last_id: u64,
    waiting: HashMap<PingId, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    peer: NodePublic,
    /// Datagrams that may still be answered.
    outstanding: usize,
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
        let targets: Vec<PingTo> = match paths.best.filter(|_| paths.is_trusted(now)) {
            Some(best) => vec![PingTo::Udp(best.address)],
            None => {
                let direct = paths.candidates.iter().map(|candidate| PingTo::Udp(candidate.address));
                direct.chain(self.relays.route(id, home).map(PingTo::Derp)).collect()
            }
        };
        self.user_pings.last_id += 1;
        let ping_id = PingId(self.user_pings.last_id);
        let outstanding =
            targets.into_iter().filter(|&to| self.send_ping(id, to, Some(ping_id), size, now)).count();
        if outstanding > 0 {
            self.user_pings.waiting.insert(ping_id, Waiting { peer: *peer, outstanding });
        }
        // Also without a way of its own: a peer whose addresses are unknown may call us back.
        self.note_sent(peer, now, now);
        self.settle(id, now);
        if outstanding > 0 { Ok(ping_id) } else { Err(PingError::NoPath) }
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
        if waiting.outstanding == 0 {
            let peer = waiting.peer;
            self.user_pings.waiting.remove(&id);
            self.events.push_back(Event::PingTimedOut { id, peer });
        }
    }
}
