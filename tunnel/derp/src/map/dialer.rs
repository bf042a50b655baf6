//! Which node of a region is dialled next, and when.

use std::time::{Duration, Instant};

use rand_core::RngCore;

use super::{Node, Region};

/// First pause after all nodes of a region failed.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a relay that is back must be found quickly, since it may be the only way to a peer.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// What to do about a region.
#[derive(Debug, PartialEq)]
pub enum Dial<'a> {
    /// Dial this node.
    Node {
        /// The node.
        node: &'a Node,
        /// Name of the region's first node if this is another one; for the upgrade request.
        ideal_node: Option<&'a str>,
    },
    /// All failed a short time ago: ask again then.
    Wait(Instant),
    /// The region has no node that can be dialled.
    Impossible,
}

/// Takes the nodes in the order of the map, the next one after each failure, and pauses after a whole failed round.
#[derive(Debug, Default, Clone)]
pub struct RegionDialer {
    next: usize,
    failed_rounds: u32,
    not_before: Option<Instant>,
}

impl RegionDialer {
    /// Begins with the first node, at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// The node to dial now. Follow with [`Self::note_failed`] or [`Self::note_ready`].
    pub fn next<'a>(&mut self, region: &'a Region, now: Instant) -> Dial<'a> {
        if let Some(at) = self.not_before.filter(|&at| at > now) {
            return Dial::Wait(at);
        }
        let ideal = region.nodes.iter().find(|node| node.is_dialable());
        // The map may have shrunk since the last failure.
        let rest = region.nodes.get(self.next..).unwrap_or_default().iter().find(|node| node.is_dialable());
        let (Some(ideal), Some(node)) = (ideal, rest.or(ideal)) else { return Dial::Impossible };
        self.next = region.nodes.iter().position(|other| other == node).unwrap_or(0);
        Dial::Node { node, ideal_node: (node != ideal).then_some(ideal.name.as_str()) }
    }

    /// The node could not be reached, refused us, or broke off before it was ready.
    pub fn note_failed(&mut self, region: &Region, rng: &mut impl RngCore, now: Instant) {
        self.next += 1;
        let more = region.nodes.get(self.next..).unwrap_or_default().iter().any(Node::is_dialable);
        if !more {
            self.next = 0;
            self.pause(rng, now);
        }
    }

    /// The connection is ready for packets.
    pub fn note_ready(&mut self) {
        *self = Self::default();
    }

    /// A connection that had been ready ended. Begins with the first node again, after a short pause.
    pub fn note_lost(&mut self, rng: &mut impl RngCore, now: Instant) {
        self.next = 0;
        self.pause(rng, now);
    }

    /// Doubles with every failed round; half to one and a half of it, so that the clients of a lost relay spread out.
    fn pause(&mut self, rng: &mut impl RngCore, now: Instant) {
        let pause = BACKOFF_MIN.saturating_mul(1 << self.failed_rounds.min(16)).min(BACKOFF_MAX);
        self.failed_rounds = self.failed_rounds.saturating_add(1);
        let jitter = 0.5 + f64::from(rng.next_u32()) / f64::from(u32::MAX);
        self.not_before = Some(now + pause.mul_f64(jitter).min(BACKOFF_MAX));
    }
}
