//! What flows may cost, and who has how much of it.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// Limits of all flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLimits {
    /// Flows in all.
    pub flows: usize,
    /// Flows of one peer.
    pub flows_per_peer: usize,
    /// Flows in all whose SYN is held.
    pub held: usize,
    /// The same of one peer.
    pub held_per_peer: usize,
    /// Bytes of memory of all buffers. A single step may go beyond it by what one flow may have.
    pub bytes: usize,
    /// The same of one peer: less than all of it, so that none can stop the others.
    pub bytes_per_peer: usize,
    /// Bytes that are buffered towards a peer, of one flow.
    pub send_bytes: usize,
    /// Bytes that are buffered from a peer, of one flow.
    pub receive_bytes: usize,
}

impl Default for FlowLimits {
    /// For a small host: ten thousand flows and more, and as much in buffers as a few fast flows over a long distance need.
    fn default() -> Self {
        Self {
            flows: 16_384,
            flows_per_peer: 12_288,
            held: 1024,
            held_per_peer: 512,
            bytes: 48 << 20,
            bytes_per_peer: 32 << 20,
            send_bytes: 4 << 20,
            receive_bytes: 4 << 20,
        }
    }
}

/// How much of the limits is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowUsage {
    /// Flows in all.
    pub flows: usize,
    /// Flows whose SYN is held.
    pub held: usize,
    /// Bytes of memory of all buffers.
    pub bytes: usize,
}

/// The usage, of all and of each peer that has flows.
#[derive(Debug)]
pub(super) struct Account {
    limits: FlowLimits,
    all: FlowUsage,
    peers: HashMap<Ipv4Addr, FlowUsage>,
}

impl Account {
    pub(super) fn new(limits: FlowLimits) -> Self {
        Self { limits, all: FlowUsage::default(), peers: HashMap::new() }
    }

    pub(super) const fn limits(&self) -> FlowLimits {
        self.limits
    }

    pub(super) const fn usage(&self) -> FlowUsage {
        self.all
    }

    /// A flow whose SYN is held. `false`: a limit is reached.
    pub(super) fn open(&mut self, peer: Ipv4Addr) -> bool {
        let limits = self.limits;
        let own = self.peers.get(&peer).copied().unwrap_or_default();
        let is_full = self.all.flows >= limits.flows
            || self.all.held >= limits.held
            || own.flows >= limits.flows_per_peer
            || own.held >= limits.held_per_peer;
        if !is_full {
            for usage in [&mut self.all, self.peers.entry(peer).or_default()] {
                usage.flows += 1;
                usage.held += 1;
            }
        }
        !is_full
    }

    /// It is no longer held.
    pub(super) fn accept(&mut self, peer: Ipv4Addr) {
        for usage in [Some(&mut self.all), self.peers.get_mut(&peer)].into_iter().flatten() {
            usage.held -= 1;
        }
    }

    /// It is over.
    pub(super) fn close(&mut self, peer: Ipv4Addr, is_held: bool, bytes: usize) {
        for usage in [Some(&mut self.all), self.peers.get_mut(&peer)].into_iter().flatten() {
            usage.flows -= 1;
            usage.held -= usize::from(is_held);
            usage.bytes -= bytes;
        }
        if self.peers.get(&peer).is_some_and(|usage| usage.flows == 0) {
            self.peers.remove(&peer);
        }
    }

    /// The buffers of a flow changed.
    pub(super) fn note_bytes(&mut self, peer: Ipv4Addr, before: usize, after: usize) {
        for usage in [Some(&mut self.all), self.peers.get_mut(&peer)].into_iter().flatten() {
            usage.bytes = usage.bytes + after - before;
        }
    }

    /// Whether flows of this peer may have more memory.
    pub(super) fn has_memory(&self, peer: Ipv4Addr) -> bool {
        let own = self.peers.get(&peer).map_or(0, |usage| usage.bytes);
        self.all.bytes < self.limits.bytes && own < self.limits.bytes_per_peer
    }
}
