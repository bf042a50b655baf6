//! What the engine counts beside the data plane: system calls and the socket.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tsrs_base_aead::Implementation;
use tsrs_tunnel_dataplane::counters::{Counter, DirectionCounters};
use tsrs_tunnel_packet::DropReason;

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Written by the workers, once per system call or batch.
#[derive(Debug, Default)]
pub(crate) struct IoCounters {
    pub(crate) tun_reads: Counter,
    pub(crate) tun_writes: Counter,
    pub(crate) send_calls: Counter,
    pub(crate) receive_calls: Counter,
    pub(crate) receive_errors: Counter,
    pub(crate) socket_full: Counter,
    pub(crate) runs_cut_here: Counter,
    pub(crate) socket_drops: Gauge,
}

/// Everything that was counted so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// From the host to peers.
    pub outbound: DirectionMetrics,
    /// From peers to the host.
    pub inbound: DirectionMetrics,
    /// Packets or super-packets read from the TUN.
    pub tun_reads: u64,
    /// Packets or super-packets written to the TUN.
    pub tun_writes: u64,
    /// Batches handed to the socket.
    pub send_calls: u64,
    /// Batches taken from the socket.
    pub receive_calls: u64,
    /// Errors of the socket while receiving.
    pub receive_errors: u64,
    /// Times that the socket had no room.
    pub socket_full: u64,
    /// Runs that were sent datagram by datagram, because the kernel would not cut them.
    pub runs_cut_here: u64,
    /// Datagrams that the socket has dropped for want of room (`SO_RXQ_OVFL`).
    pub socket_drops: u64,
    /// Who seals and opens the packets of new sessions: `ring`, or the vector instructions that do.
    pub cipher: &'static str,
}

/// One direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectionMetrics {
    /// Packets by UDP between the nodes.
    pub direct_packets: u64,
    /// Bytes of these packets, without what WireGuard adds.
    pub direct_bytes: u64,
    /// Packets over relays.
    pub derp_packets: u64,
    /// Bytes of these packets.
    pub derp_bytes: u64,
    /// Runs on the wire of up to 1, 2, 4, 8, 16, 32, 64 packets, and more.
    pub wire_runs: [u64; 8],
    /// Runs of the TUN, likewise.
    pub tun_runs: [u64; 8],
    /// Dropped packets by reason; reasons that did not occur are left out.
    pub drops: Vec<(DropReason, u64)>,
}

impl DirectionMetrics {
    fn new(counters: &DirectionCounters) -> Self {
        Self {
            direct_packets: counters.direct.packets.value(),
            direct_bytes: counters.direct.bytes.value(),
            derp_packets: counters.derp.packets.value(),
            derp_bytes: counters.derp.bytes.value(),
            wire_runs: counters.wire_runs.values(),
            tun_runs: counters.tun_runs.values(),
            drops: counters.drops.iter().filter(|(_, count)| *count > 0).collect(),
        }
    }
}

impl Metrics {
    pub(crate) fn new(
        outbound: &DirectionCounters,
        inbound: &DirectionCounters,
        io: &IoCounters,
        cipher: Implementation,
    ) -> Self {
        Self {
            outbound: DirectionMetrics::new(outbound),
            inbound: DirectionMetrics::new(inbound),
            tun_reads: io.tun_reads.value(),
            tun_writes: io.tun_writes.value(),
            send_calls: io.send_calls.value(),
            receive_calls: io.receive_calls.value(),
            receive_errors: io.receive_errors.value(),
            socket_full: io.socket_full.value(),
            runs_cut_here: io.runs_cut_here.value(),
            socket_drops: io.socket_drops.value(),
            cipher: cipher.name(),
        }
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "tun reads {} writes {}; socket sends {} receives {} errors {} full {} cut here {} dropped {}; cipher {}",
            self.tun_reads,
            self.tun_writes,
            self.send_calls,
            self.receive_calls,
            self.receive_errors,
            self.socket_full,
            self.runs_cut_here,
            self.socket_drops,
            self.cipher
        )?;
        for (name, direction) in [("out", &self.outbound), ("in", &self.inbound)] {
            writeln!(
                f,
                "{name}: direct {} packets {} bytes, relayed {} packets {} bytes, runs on the wire {:?}, of the TUN {:?}, \
                 dropped {:?}",
                direction.direct_packets,
                direction.direct_bytes,
                direction.derp_packets,
                direction.derp_bytes,
                direction.wire_runs,
                direction.tun_runs,
                direction.drops
            )?;
        }
        Ok(())
    }
}
