//! What workers know of one peer.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use ipnet::Ipv4Net;
use tsrs_base_types::NodePublic;
use tsrs_tunnel_path::SendPath;
use tsrs_tunnel_wireguard::Session;

use super::path_cell::PathCell;
use super::stamp::{Epoch, Stamp};
use crate::counters::Traffic;

/// One peer. The machine changes it, workers read it; a change of its session or path rebuilds no table.
#[derive(Debug)]
pub struct PeerSlot {
    key: NodePublic,
    epoch: Epoch,
    /// The session under which we send; none before the first handshake and after the last one has expired.
    session: ArcSwapOption<Session>,
    path: PathCell,
    /// What the peer may send from.
    sources: ArcSwap<Vec<Ipv4Net>>,
    expired: AtomicBool,
    jailed: AtomicBool,
    /// Whether the machine knows that data is being sent.
    active: AtomicBool,
    last_sent: Stamp,
    last_received: Stamp,
    sent: Traffic,
    received: Traffic,
}

impl PeerSlot {
    /// A peer without session, path and addresses.
    pub(crate) fn new(key: NodePublic, epoch: Epoch) -> Self {
        Self {
            key,
            epoch,
            session: ArcSwapOption::empty(),
            path: PathCell::default(),
            sources: ArcSwap::default(),
            expired: AtomicBool::new(false),
            jailed: AtomicBool::new(false),
            active: AtomicBool::new(false),
            last_sent: Stamp::default(),
            last_received: Stamp::default(),
            sent: Traffic::default(),
            received: Traffic::default(),
        }
    }

    /// Its key.
    pub fn key(&self) -> &NodePublic {
        &self.key
    }

    /// The session under which data is sent now.
    pub fn session(&self) -> Guard<Option<Arc<Session>>> {
        self.session.load()
    }

    /// How data is sent now.
    pub fn path(&self) -> SendPath {
        self.path.load()
    }

    /// Whether its node key has expired, so that nothing may be sent.
    pub fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Whether it may only answer.
    pub fn is_jailed(&self) -> bool {
        self.jailed.load(Ordering::Relaxed)
    }

    /// The prefixes that it may send from.
    pub fn sources(&self) -> Guard<Arc<Vec<Ipv4Net>>> {
        self.sources.load()
    }

    /// Whether it may send from this address.
    pub fn may_send_from(&self, source: Ipv4Addr) -> bool {
        self.sources.load().iter().any(|prefix| prefix.contains(&source))
    }

    /// Data goes out. True when the machine has to be told; see [`Self::note_wanted`].
    pub(crate) fn note_sent(&self, packet_count: usize, byte_count: usize, now: Instant) -> bool {
        self.last_sent.set(self.epoch, now);
        self.sent.add(count(packet_count), count(byte_count));
        self.note_wanted()
    }

    /// The host wants to send data. True when the machine has to be told, which is once until it finds the peer idle.
    pub(crate) fn note_wanted(&self) -> bool {
        !self.active.load(Ordering::Relaxed) && !self.active.swap(true, Ordering::Relaxed)
    }

    /// Authenticated data came in.
    pub(crate) fn note_received(&self, packet_count: usize, byte_count: usize, now: Instant) {
        self.last_received.set(self.epoch, now);
        self.received.add(count(packet_count), count(byte_count));
    }

    /// When data was last sent.
    pub fn last_sent(&self) -> Option<Instant> {
        self.last_sent.get(self.epoch)
    }

    /// When an authenticated packet was last received.
    pub fn last_received(&self) -> Option<Instant> {
        self.last_received.get(self.epoch)
    }

    /// What was sent to it.
    pub fn sent(&self) -> &Traffic {
        &self.sent
    }

    /// What was received from it.
    pub fn received(&self) -> &Traffic {
        &self.received
    }

    pub(crate) fn set_session(&self, session: Option<Arc<Session>>) {
        self.session.store(session);
    }

    pub(crate) fn set_path(&self, path: SendPath) {
        self.path.store(path);
    }

    pub(crate) fn set_sources_unless_equal(&self, sources: &[Ipv4Net]) {
        if **self.sources.load() != *sources {
            self.sources.store(Arc::new(sources.to_vec()));
        }
    }

    pub(crate) fn set_expired(&self, expired: bool) {
        self.expired.store(expired, Ordering::Relaxed);
    }

    pub(crate) fn set_jailed(&self, jailed: bool) {
        self.jailed.store(jailed, Ordering::Relaxed);
    }

    /// The next packet is to be told again.
    pub(crate) fn set_idle(&self) {
        self.active.store(false, Ordering::Relaxed);
    }
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
