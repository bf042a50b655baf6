//! Path 1: from the TUN to the wire (design.md §4).
//!
//! One worker owns an [`Outbound`]. For each batch it gives what it reads from the TUN to [`Outbound::judge`] and what is to
//! be sent to [`Outbound::append`], then calls [`Outbound::seal`], sends [`Outbound::runs`] and takes them out with
//! [`Outbound::drain`]. Packets of one peer keep their order.

mod judge;
mod run;

use std::sync::Arc;
use std::time::Instant;

use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_packet::gso::SuperPacket;
use tsrs_tunnel_packet::icmp::{self, Unreachable};
use tsrs_tunnel_packet::vnet::VirtioNetHdr;
use tsrs_tunnel_wireguard as wireguard;

use crate::notice::Notice;
use crate::policy::LastFlow;
use crate::rate::{Budget, COURTESY_BURST, COURTESY_RATE};
use crate::shared::Shared;
use crate::tables::{PeerSlot, Routes};
use judge::{Judgement, judge};
pub use run::{MAX_MTU, MAX_RUN_BYTES, MAX_RUN_DATAGRAMS, Run};

/// Runs that are filled at once: flows to this many peers, or of this many packet sizes, share a batch.
pub const MAX_OPEN_RUNS: usize = 16;

/// Bytes of runs after which a batch is sent, so that the first packet does not wait long (performance.md §7 point 2).
const BATCH_BYTES: usize = 3 * MAX_RUN_BYTES;

/// Segments of one super-packet that are kept for a peer without a session: what TCP sends first is one, and a full queue of
/// such packets stays below 6 MB.
const MAX_STAGED_SEGMENTS: usize = 4;

/// A packet that was judged and is on its way into runs.
#[derive(Debug)]
pub struct Routed<'t, 'p> {
    peer: &'t Arc<PeerSlot>,
    packet: SuperPacket<'p>,
    /// First segment that is not yet in a run.
    next: usize,
}

/// The outgoing side of the fast path.
#[derive(Debug)]
pub struct Outbound {
    shared: Arc<Shared>,
    runs: Vec<Run>,
    /// Bytes in `runs`.
    bytes: usize,
    equal_tail: bool,
    courtesy: Budget,
    last_flow: LastFlow,
}

impl Outbound {
    /// For one worker.
    pub fn new(shared: Arc<Shared>, now: Instant) -> Self {
        Self {
            shared,
            runs: Vec::with_capacity(MAX_OPEN_RUNS),
            bytes: 0,
            equal_tail: true,
            courtesy: Budget::new(COURTESY_RATE, COURTESY_BURST, now),
            last_flow: LastFlow::default(),
        }
    }

    /// Whether runs may end with a datagram as long as the others. False adds a short one that receivers drop.
    pub fn set_equal_tail(&mut self, equal_tail: bool) {
        self.equal_tail = equal_tail;
    }

    /// Judges a packet that was read from the TUN. What does not go to a peer is finished here; the rest is given to
    /// [`Self::append`].
    pub fn judge<'t, 'p>(
        &mut self,
        routes: &'t Routes,
        offload: &VirtioNetHdr,
        packet: &'p [u8],
        now: Instant,
    ) -> Option<Routed<'t, 'p>> {
        match judge(routes, &self.shared.flows, &mut self.last_flow, offload, packet) {
            Judgement::Send(peer, packet) => {
                self.shared.outbound.tun_runs.add(packet.count());
                return Some(Routed { peer, packet, next: 0 });
            }
            Judgement::Service => self.notify_service(offload, packet),
            Judgement::Unreachable(reason, unreachable) => {
                self.shared.outbound.drop_packets(reason, 1);
                self.tell_host(routes, unreachable, packet, now);
            }
            Judgement::Drop(reason) => self.shared.outbound.drop_packets(reason, 1),
        }
        None
    }

    /// Puts a packet into runs. False when there is no room: seal and send, then call it again with the same packet.
    pub fn append(&mut self, routes: &Routes, routed: &mut Routed<'_, '_>, now: Instant) -> bool {
        let path = routed.peer.path();
        if path.is_none() {
            self.shared.outbound.drop_packets(DropReason::NoPath, routed.packet.count() - routed.next);
            self.note_activity(routed.peer);
            return true;
        }
        let guard = routed.peer.session();
        let Some(session) = guard.as_ref().filter(|session| !session.is_expired(now)) else {
            self.stage(routed);
            return true;
        };
        while routed.next < routed.packet.count() {
            // The last run of the session decides: an earlier one would overtake it.
            let last = self.runs.iter_mut().rev().find(|run| run.is_of(session));
            let run = match last.filter(|run| run.continues(session, path)) {
                Some(run) => run,
                None => {
                    if self.runs.len() == MAX_OPEN_RUNS {
                        return false;
                    }
                    let Some(buffer) = self.shared.outbound_pool.take() else {
                        if self.runs.is_empty() {
                            let left = routed.packet.count() - routed.next;
                            self.shared.outbound.drop_packets(DropReason::RelayFull, left);
                            return true;
                        }
                        return false;
                    };
                    let peer = Arc::clone(routed.peer);
                    self.runs.push(Run::new(buffer, peer, Arc::clone(session), path, self.equal_tail));
                    let Some(run) = self.runs.last_mut() else { return true };
                    run
                }
            };
            let before = run.datagrams().len();
            run.append(&routed.packet, &mut routed.next, routes.config.mtu);
            self.bytes += run.datagrams().len() - before;
            if run.count() == 0 {
                // Cannot be: an empty run takes every packet that the MTU allows.
                self.runs.pop();
                self.shared.outbound.drop_packets(DropReason::TooBig, routed.packet.count() - routed.next);
                return true;
            }
        }
        true
    }

    /// Whether the batch is large enough to be sent.
    pub fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.runs.len() == MAX_OPEN_RUNS
    }

    /// Encrypts what was collected. The runs are then ready to be sent.
    pub fn seal(&mut self, now: Instant) {
        let shared = &self.shared;
        self.runs.retain_mut(|run| match run.seal(now) {
            Ok(notice) => {
                if notice == wireguard::Notice::Wake {
                    shared.notices.push_session(run.session());
                }
                note_sent(shared, run, now);
                true
            }
            Err(reason) => {
                shared.outbound.drop_packets(reason, run.count());
                false
            }
        });
        // The next batch may be judged by another policy.
        self.last_flow = LastFlow::default();
        self.shared.notices.flush();
    }

    /// The runs of the batch, in the order in which they are to be sent.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The batch was sent. Takes out each run: to be dropped, or given to a relay.
    pub fn drain(&mut self) -> impl Iterator<Item = Run> + '_ {
        self.bytes = 0;
        self.runs.drain(..)
    }

    /// Keeps the packet for a peer that has no session; the machine makes one.
    fn stage(&self, routed: &Routed<'_, '_>) {
        let packet = &routed.packet;
        let end = packet.count().min(routed.next + MAX_STAGED_SEGMENTS);
        self.shared.outbound.drop_packets(DropReason::StagedFull, packet.count() - end);
        let packets: Vec<_> = (routed.next..end).map(|index| segment(packet, index)).collect();
        let count = packets.len();
        if !self.notify(Notice::Staged { peer: Arc::clone(routed.peer), packets }) {
            self.shared.outbound.drop_packets(DropReason::SlowPathFull, count);
        }
    }

    /// Answers a packet that goes nowhere. The answer is lost when there are too many or the machine is busy.
    fn tell_host(&mut self, routes: &Routes, reason: Unreachable, packet: &[u8], now: Instant) {
        let Some(own) = routes.config.addresses.first().copied() else { return };
        if !self.courtesy.take(now) {
            return;
        }
        let mut message = [0; icmp::MAX_LEN];
        if let Some(len) = icmp::unreachable(reason, own, packet, &mut message) {
            self.notify(Notice::ToHost(message[..len].into()));
        }
    }

    /// Hands a packet for the service address over, its checksums made.
    fn notify_service(&self, offload: &VirtioNetHdr, packet: &[u8]) {
        let packet = match SuperPacket::new(offload, packet) {
            Ok(packet) => packet,
            Err(reason) => return self.shared.outbound.drop_packets(reason, 1),
        };
        for index in 0..packet.count() {
            if !self.notify(Notice::Service(segment(&packet, index))) {
                self.shared.outbound.drop_packets(DropReason::SlowPathFull, packet.count() - index);
                return;
            }
        }
    }

    fn note_activity(&self, peer: &Arc<PeerSlot>) {
        if peer.note_wanted() {
            self.shared.notices.push_active(peer);
        }
    }

    fn notify(&self, notice: Notice) -> bool {
        self.shared.notices.push(notice)
    }
}

/// One segment as a packet of its own.
fn segment(packet: &SuperPacket<'_>, index: usize) -> Box<[u8]> {
    let mut segment = vec![0; packet.len_of(index)].into_boxed_slice();
    packet.write(index, &mut segment);
    segment
}

/// Counts a sealed run and tells the machine if the peer was idle.
fn note_sent(shared: &Shared, run: &Run, now: Instant) {
    let peer = run.peer();
    if peer.note_sent(run.count(), run.packet_bytes(), now) {
        shared.notices.push_active(peer);
    }
    let traffic = if run.path().direct.is_some() { &shared.outbound.direct } else { &shared.outbound.derp };
    traffic.add(count(run.count()), count(run.packet_bytes()));
    shared.outbound.wire_runs.add(run.count());
}

fn count(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
