//! Which DERP connections there are, and which one leads to a peer (data-plane sheet §3.8).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use tsrs_base_types::RegionId;

use super::limits::{DERP_IDLE, DERP_IDLE_CHECK, MAX_HEARD_REGIONS};
use super::peers::PeerId;

#[derive(Debug, Clone, Copy)]
struct Connection {
    open: bool,
    last_used: Instant,
}

/// The wanted connections and their state.
#[derive(Debug, Default)]
pub(super) struct Relays {
    known: BTreeSet<RegionId>,
    wanted: BTreeMap<RegionId, Connection>,
    home: Option<RegionId>,
    /// Regions other than its home over which a peer was heard, the latest last.
    heard: HashMap<PeerId, Vec<RegionId>>,
    check_at: Option<Instant>,
}

impl Relays {
    /// The regions of the map; gives those whose connection must be closed.
    pub(super) fn set_known(&mut self, known: BTreeSet<RegionId>) -> Vec<RegionId> {
        self.known = known;
        let lost: Vec<RegionId> =
            self.wanted.keys().copied().filter(|region| !self.known.contains(region)).collect();
        for region in &lost {
            self.wanted.remove(region);
            self.forget_region(*region);
        }
        lost
    }

    pub(super) fn set_home(&mut self, home: Option<RegionId>) {
        self.home = home;
    }

    /// A connection to this region is needed now. Returns whether it has to be opened first.
    pub(super) fn touch(&mut self, region: RegionId, now: Instant) -> bool {
        if !self.known.contains(&region) {
            return false;
        }
        let mut new = false;
        let connection = self.wanted.entry(region).or_insert_with(|| {
            new = true;
            Connection { open: false, last_used: now }
        });
        connection.last_used = now;
        if self.home != Some(region) && self.check_at.is_none() {
            self.check_at = Some(now + DERP_IDLE_CHECK);
        }
        new
    }

    /// Something was received over this connection.
    pub(super) fn note_received(&mut self, region: RegionId, now: Instant) {
        if let Some(connection) = self.wanted.get_mut(&region) {
            connection.last_used = now;
        }
    }

    /// Returns whether that changed anything.
    pub(super) fn set_open(&mut self, region: RegionId, open: bool) -> bool {
        let Some(connection) = self.wanted.get_mut(&region) else { return false };
        let changed = std::mem::replace(&mut connection.open, open) != open;
        if !open {
            self.forget_region(region);
        }
        changed
    }

    fn forget_region(&mut self, region: RegionId) {
        self.heard.retain(|_, regions| {
            regions.retain(|heard| *heard != region);
            !regions.is_empty()
        });
    }

    /// A peer was heard over a region that is not its home. Returns whether that is new.
    pub(super) fn note_heard(&mut self, peer: PeerId, region: RegionId) -> bool {
        let regions = self.heard.entry(peer).or_default();
        if regions.last() == Some(&region) {
            return false;
        }
        regions.retain(|heard| *heard != region);
        if regions.len() >= MAX_HEARD_REGIONS {
            regions.remove(0);
        }
        regions.push(region);
        true
    }

    /// The relay of this region does not know the peer any longer. Returns whether we had believed so.
    pub(super) fn note_gone(&mut self, peer: PeerId, region: RegionId) -> bool {
        let Some(regions) = self.heard.get_mut(&peer) else { return false };
        let before = regions.len();
        regions.retain(|heard| *heard != region);
        let changed = regions.len() != before;
        if regions.is_empty() {
            self.heard.remove(&peer);
        }
        changed
    }

    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        self.heard.remove(&peer);
    }

    /// Peers that were heard over other regions than their home: the only ones whose route depends on which connections
    /// are open.
    pub(super) fn heard_peers(&self) -> Vec<PeerId> {
        self.heard.keys().copied().collect()
    }

    /// The region by which a peer is reached: an open connection to its home, else an open one over which it was heard,
    /// else its home.
    pub(super) fn route(&self, peer: PeerId, peer_home: Option<RegionId>) -> Option<RegionId> {
        let is_open = |region: &RegionId| self.wanted.get(region).is_some_and(|connection| connection.open);
        let peer_home = peer_home.filter(|region| self.known.contains(region));
        if let Some(home) = peer_home.filter(is_open) {
            return Some(home);
        }
        let heard = self.heard.get(&peer).and_then(|regions| regions.iter().rev().copied().find(is_open));
        heard.or(peer_home)
    }

    pub(super) fn wanted(&self) -> Vec<RegionId> {
        self.wanted.keys().copied().collect()
    }

    /// All connections are given up; gives their regions.
    pub(super) fn close_all(&mut self) -> Vec<RegionId> {
        self.heard.clear();
        self.check_at = None;
        std::mem::take(&mut self.wanted).into_keys().collect()
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.check_at
    }

    /// Gives the regions whose connection has not been used for too long.
    pub(super) fn close_idle(&mut self, now: Instant) -> Vec<RegionId> {
        if self.check_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let idle = |(region, connection): (&RegionId, &Connection)| {
            let unused = now.saturating_duration_since(connection.last_used) >= DERP_IDLE;
            (unused && self.home != Some(*region)).then_some(*region)
        };
        let idle: Vec<RegionId> = self.wanted.iter().filter_map(idle).collect();
        for region in &idle {
            self.wanted.remove(region);
            self.forget_region(*region);
        }
        let others = self.wanted.keys().any(|region| self.home != Some(*region));
        self.check_at = others.then_some(now + DERP_IDLE_CHECK);
        idle
    }
}
