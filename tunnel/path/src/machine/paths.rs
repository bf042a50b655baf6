//! The paths to one peer: candidates, the chosen one, its trust, outstanding pings (data-plane sheet §3.3).
//!
//! Pure state: it is told what happened and says what follows. It exists only for peers that we talked to, or that
//! pinged or called us.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use tsrs_base_types::RegionId;

use super::api::PingId;
use super::candidate::{Best, Candidate, is_usable};
use super::limits::{
    GOOD_ENOUGH_LATENCY, MAX_CANDIDATES, MAX_OUTSTANDING, PING_FLOOR, PING_TIMEOUT, SESSION_ACTIVE, TRUST,
    UPGRADE_INTERVAL,
};
use crate::disco::TxId;

/// Where a ping was sent to. Its pong proves that path, wherever the pong itself came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PingTo {
    Udp(SocketAddrV4),
    Derp(RegionId),
}

/// A ping that was not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Ping {
    pub(super) tx_id: TxId,
    pub(super) to: PingTo,
    pub(super) sent_at: Instant,
    /// A user waits for the answer.
    pub(super) cli: Option<PingId>,
}

/// What a ping from a peer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// The same ping was seen before.
    Duplicate,
    /// From an address that was known.
    Known,
    /// From an address that is a new candidate.
    New,
    /// From an address that finds no place among the candidates.
    NoRoom,
}

#[derive(Debug, Default)]
pub(super) struct Paths {
    pub(super) candidates: Vec<Candidate>,
    pub(super) best: Option<Best>,
    pub(super) trust_until: Option<Instant>,
    pub(super) last_sent: Option<Instant>,
    pub(super) last_full_ping: Option<Instant>,
    /// When the next heartbeat is due; set while the peer is active.
    pub(super) heartbeat_at: Option<Instant>,
    /// When the last CallMeMaybe made us ping all candidates anew.
    pub(super) last_call: Option<Instant>,
    /// In the order of sending.
    pings: VecDeque<Ping>,
}

impl Paths {
    pub(super) fn new(netmap: &[SocketAddrV4]) -> Self {
        let mut paths = Self::default();
        paths.set_netmap(netmap);
        paths
    }

    pub(super) fn is_trusted(&self, now: Instant) -> bool {
        self.best.is_some() && self.trust_until.is_some_and(|until| now < until)
    }

    /// Data was sent within the last 45 s.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|at| now.saturating_duration_since(at) < SESSION_ACTIVE)
    }

    /// Whether all candidates should be pinged again.
    pub(super) fn wants_full_ping(&self, now: Instant) -> bool {
        let (Some(best), Some(last)) = (&self.best, self.last_full_ping) else { return true };
        if !self.is_trusted(now) {
            return true;
        }
        best.latency > GOOD_ENOUGH_LATENCY && now.saturating_duration_since(last) >= UPGRADE_INTERVAL
    }

    pub(super) fn candidate_mut(&mut self, address: &SocketAddrV4) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.address == *address)
    }

    /// The candidate of this address, made if there is room. A full list loses the one that was pinged from longest
    /// ago, but never what the netmap or a CallMeMaybe lists, or the path in use.
    fn insert(&mut self, address: SocketAddrV4) -> Option<&mut Candidate> {
        if !is_usable(&address) {
            return None;
        }
        if let Some(at) = self.candidates.iter().position(|candidate| candidate.address == address) {
            return self.candidates.get_mut(at);
        }
        if self.candidates.len() >= MAX_CANDIDATES {
            let best = self.best.map(|best| best.address);
            let expendable = self.candidates.iter().enumerate().filter(|(_, candidate)| {
                !candidate.in_netmap && !candidate.in_call && Some(candidate.address) != best
            });
            let (at, _) =
                expendable.min_by_key(|(_, candidate)| candidate.last_received.map(|(at, _)| at))?;
            self.candidates.swap_remove(at);
        }
        self.candidates.push(Candidate::new(address));
        self.candidates.last_mut()
    }

    /// The netmap's list of endpoints.
    pub(super) fn set_netmap(&mut self, addresses: &[SocketAddrV4]) {
        self.candidates.iter_mut().for_each(|candidate| candidate.in_netmap = false);
        for address in addresses {
            if let Some(candidate) = self.insert(*address) {
                candidate.in_netmap = true;
            }
        }
    }

    /// The list of a CallMeMaybe. Those of the one before that are absent now are gone, whoever else lists them.
    pub(super) fn set_call(&mut self, addresses: &[SocketAddrV4]) {
        self.candidates.retain(|candidate| !candidate.in_call || addresses.contains(&candidate.address));
        self.candidates.iter_mut().for_each(|candidate| candidate.in_call = false);
        for address in addresses {
            if let Some(candidate) = self.insert(*address) {
                candidate.in_call = true;
            }
        }
        self.forget_lost_best();
    }

    /// A ping came from this address.
    pub(super) fn note_ping_received(&mut self, from: SocketAddrV4, tx_id: TxId, now: Instant) -> Received {
        if let Some(candidate) = self.candidate_mut(&from) {
            let duplicate = candidate.last_received.is_some_and(|(_, last)| last == tx_id);
            candidate.last_received = Some((now, tx_id));
            return if duplicate { Received::Duplicate } else { Received::Known };
        }
        match self.insert(from) {
            Some(candidate) => {
                candidate.last_received = Some((now, tx_id));
                Received::New
            }
            None => Received::NoRoom,
        }
    }

    /// Drops the candidates for which nothing speaks any more. The path in use speaks for itself as long as it is trusted:
    /// a peer that only receives does not ping us.
    pub(super) fn prune(&mut self, now: Instant) {
        let trusted = self.best.filter(|_| self.is_trusted(now)).map(|best| best.address);
        self.candidates.retain(|candidate| candidate.is_alive(now) || Some(candidate.address) == trusted);
        self.forget_lost_best();
    }

    fn forget_lost_best(&mut self) {
        let address = self.best.map(|best| best.address);
        if address.is_some_and(|address| self.candidate_mut(&address).is_none()) {
            self.forget_best();
        }
    }

    /// Addresses that are due for a discovery ping.
    pub(super) fn due_candidates(&self, now: Instant) -> Vec<SocketAddrV4> {
        let is_due = |candidate: &&Candidate| {
            candidate.last_pinged.is_none_or(|at| now.saturating_duration_since(at) >= PING_FLOOR)
        };
        self.candidates.iter().filter(is_due).map(|candidate| candidate.address).collect()
    }

    pub(super) fn has_ping_room(&self) -> bool {
        self.pings.len() < MAX_OUTSTANDING
    }

    pub(super) fn note_ping_sent(&mut self, ping: Ping) {
        // A user's ping does not delay those that choose the path.
        if let (PingTo::Udp(address), None) = (ping.to, ping.cli)
            && let Some(candidate) = self.candidate_mut(&address)
        {
            candidate.last_pinged = Some(ping.sent_at);
        }
        self.pings.push_back(ping);
    }

    /// Takes the ping that a pong answers.
    pub(super) fn take_ping(&mut self, tx_id: TxId) -> Option<Ping> {
        let at = self.pings.iter().position(|ping| ping.tx_id == tx_id)?;
        self.pings.remove(at)
    }

    /// Takes a ping whose time is over.
    pub(super) fn take_expired_ping(&mut self, now: Instant) -> Option<Ping> {
        let ping = self.pings.pop_front_if(|ping| now >= ping.sent_at + PING_TIMEOUT)?;
        if self.best.is_some_and(|best| ping.to == PingTo::Udp(best.address)) && !self.is_trusted(now) {
            self.forget_best();
        }
        Some(ping)
    }

    /// All outstanding pings, which are given up.
    pub(super) fn take_pings(&mut self) -> impl Iterator<Item = Ping> {
        std::mem::take(&mut self.pings).into_iter()
    }

    /// A pong proved this address.
    pub(super) fn note_pong(&mut self, address: SocketAddrV4, latency: Duration, now: Instant) {
        if self.candidate_mut(&address).is_none() {
            return;
        }
        let proved = Best { address, latency };
        match &self.best {
            Some(best) if best.address == address => {}
            Some(best) if self.is_trusted(now) && !proved.is_better_than(best) => return,
            Some(_) | None => {}
        }
        self.best = Some(proved);
        self.trust_until = Some(now + TRUST);
    }

    pub(super) fn forget_best(&mut self) {
        self.best = None;
        self.trust_until = None;
    }

    /// A packet to this address could not be sent.
    pub(super) fn note_unreachable(&mut self, address: SocketAddrV4) {
        if self.best.is_some_and(|best| best.address == address) {
            self.forget_best();
        }
    }

    /// Nothing that was measured holds any longer (the network changed, or the peer was restarted).
    pub(super) fn reset(&mut self) {
        self.forget_best();
        self.last_full_ping = None;
        self.candidates.iter_mut().for_each(|candidate| candidate.last_pinged = None);
        self.pings.retain(|ping| ping.cli.is_some());
    }

    /// When something happens by itself.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let ping = self.pings.front().map(|ping| ping.sent_at + PING_TIMEOUT);
        let trust = self.best.and(self.trust_until);
        [self.heartbeat_at, trust, ping].into_iter().flatten().min()
    }

    /// Gives memory back that only an active peer needs.
    pub(super) fn compact(&mut self, now: Instant) {
        self.prune(now);
        self.candidates.shrink_to_fit();
        self.pings.shrink_to_fit();
    }
}
