//! What the engine counts beside the data plane: system calls and the socket.

use std::sync::atomic::{AtomicU64, Ordering};

use tsrs_tunnel_dataplane::counters::Counter;

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Written by the workers, once per system call or batch.
#[derive(Debug, Default)]
pub(crate) struct IoCounters {
    /// Packets or super-packets read from the TUN.
    pub(crate) tun_reads: Counter,
    /// Packets or super-packets written to the TUN.
    pub(crate) tun_writes: Counter,
    /// Batches handed to the socket.
    pub(crate) send_calls: Counter,
    /// Batches taken from the socket.
    pub(crate) receive_calls: Counter,
    /// Errors of the socket while receiving.
    pub(crate) receive_errors: Counter,
    /// Times that the socket had no room.
    pub(crate) socket_full: Counter,
    /// Runs that were sent datagram by datagram.
    pub(crate) runs_cut_here: Counter,
    /// Datagrams that the socket has dropped for want of room (`SO_RXQ_OVFL`).
    pub(crate) socket_drops: Gauge,
}
