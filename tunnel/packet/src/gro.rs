//! Finding packets of one flow that the kernel can take as one super-packet (data-plane sheet §1.9).
//!
//! Nothing is copied but headers: a run is the rewritten headers of its first packet and the payloads of all its packets where
//! they lie, ready for one gathering write.

mod candidate;
mod run;

use candidate::{Candidate, Kind};
pub use run::{Head, MAX_HEAD_LEN, Run, Slice};
use run::{NO_PACKET, RunState};

/// Most packets in one run. Kernels cut a UDP run into at most 64 datagrams (`UDP_MAX_SEGMENTS`); 64 full TCP segments
/// already exceed the 64 KiB of a packet at any MTU above 1023.
pub const MAX_RUN_PACKETS: u16 = 64;
/// Most bytes of a run: an IP packet cannot be longer.
const MAX_RUN_BYTES: usize = 65_535;
/// Flows that are followed at once. Two flows in one slot only cost a run that could have been longer.
const SLOT_COUNT: usize = 64;

/// What the kernel's TUN takes as super-packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Runs of TCP segments.
    pub tcp: bool,
    /// Runs of UDP datagrams (needs USO, Linux 6.2).
    pub udp: bool,
}

/// Coalesces one batch of packets after the other; its memory is reused.
#[derive(Debug)]
pub struct Gro {
    options: Options,
    /// The last run of the flows that fall into each slot.
    slots: [Option<usize>; SLOT_COUNT],
    runs: Vec<RunState>,
    /// For each packet of the batch: which one follows it in its run, and where its payload starts.
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    payload_start: u16,
}

impl Gro {
    /// An empty table.
    pub const fn new(options: Options) -> Self {
        Self { options, slots: [None; SLOT_COUNT], runs: Vec::new(), links: Vec::new() }
    }

    /// Changes what is coalesced, from the next batch on.
    pub const fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Sorts the packets `0..count` of a batch, each given by `packet`, into runs, which [`Self::runs`] then gives. Packets of one
    /// flow keep their order, unless a run can be completed to the front. Every packet is in exactly one run.
    pub fn coalesce<'a>(&mut self, count: u32, packet: impl Fn(u32) -> &'a [u8]) {
        self.slots = [None; SLOT_COUNT];
        self.runs.clear();
        self.links.clear();
        for index in 0..count {
            self.push(index, &packet);
        }
    }

    /// The runs of the last batch, each where its first-arrived packet stood.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().map(|state| Run { state, links: &self.links })
    }

    fn push<'a>(&mut self, index: u32, packet: &impl Fn(u32) -> &'a [u8]) {
        let bytes = packet(index);
        let candidate = Candidate::parse(bytes);
        let payload_start = candidate.as_ref().map_or(0, |found| found.header_len);
        self.links.push(Link { next: NO_PACKET, payload_start });
        let Some(candidate) = candidate else {
            self.runs.push(RunState::single(index));
            return;
        };
        let slot = candidate.slot(SLOT_COUNT);
        let enabled = match candidate.kind {
            Kind::Tcp => self.options.tcp,
            Kind::Udp => self.options.udp,
        };
        if !(enabled && candidate.mergeable) {
            // Later packets of the flow must not overtake this one.
            self.slots[slot] = None;
            self.runs.push(RunState::single(index));
            return;
        }
        if let Some(run) = self.slots[slot]
            && self.try_merge(run, index, &candidate, packet)
        {
            return;
        }
        self.slots[slot] = Some(self.runs.len());
        self.runs.push(RunState::open(index, &candidate));
    }

    fn try_merge<'a>(
        &mut self,
        run: usize,
        index: u32,
        candidate: &Candidate,
        packet: &impl Fn(u32) -> &'a [u8],
    ) -> bool {
        let state = &mut self.runs[run];
        let head = packet(state.first);
        let bytes = packet(index);
        let fits = state.packet_count < MAX_RUN_PACKETS
            && state.total_len + candidate.payload_len <= MAX_RUN_BYTES
            && candidate.same_headers(head, bytes);
        if !fits {
            return false;
        }
        let Some(place) = state.place_for(candidate) else {
            return false;
        };
        if !state.verified {
            if !candidate::verifies(head) {
                return false;
            }
            state.verified = true;
        }
        if !candidate::verifies(bytes) {
            return false;
        }
        state.merge(place, index, candidate, &mut self.links);
        true
    }
}

#[cfg(test)]
mod tests;
