//! What the data plane counts. Each worker has counters of its own, so that no cache line wanders per packet.

use std::sync::atomic::{AtomicU64, Ordering};

use tsrs_tunnel_packet::{DropCounters, DropReason};

/// A number that only grows; written by one worker, read by anybody.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes of one kind.
#[derive(Debug, Default)]
pub struct Traffic {
    /// IP packets.
    pub packets: Counter,
    /// Their bytes, without what WireGuard adds.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts packets that travelled together.
    pub fn add(&self, packet_count: u64, byte_count: u64) {
        self.packets.add(packet_count);
        self.bytes.add(byte_count);
    }
}

/// Number of buckets of [`RunLengths`].
const BUCKET_COUNT: usize = 8;

/// How many packets travelled together: 1, 2, up to 4, 8, 16, 32, 64 and more.
#[derive(Debug, Default)]
pub struct RunLengths([Counter; BUCKET_COUNT]);

impl RunLengths {
    /// Counts one run.
    pub fn add(&self, packet_count: usize) {
        let bucket = packet_count.max(1).next_power_of_two().trailing_zeros();
        let bucket = usize::try_from(bucket).unwrap_or(BUCKET_COUNT).min(BUCKET_COUNT - 1);
        self.0[bucket].add(1);
    }

    /// Runs of each size: up to 1, 2, 4, 8, 16, 32, 64 packets, and more.
    pub fn values(&self) -> [u64; BUCKET_COUNT] {
        std::array::from_fn(|bucket| self.0[bucket].value())
    }
}

/// One direction of the tunnel.
#[derive(Debug, Default)]
pub struct DirectionCounters {
    /// By UDP between the two nodes.
    pub direct: Traffic,
    /// Over a relay.
    pub derp: Traffic,
    /// Runs as they were sealed (outbound) or came from the kernel (inbound).
    pub wire_runs: RunLengths,
    /// Runs as the TUN gave them (outbound) or took them (inbound).
    pub tun_runs: RunLengths,
    /// What was dropped and why.
    pub drops: DropCounters,
}

impl DirectionCounters {
    /// Counts dropped packets.
    pub fn drop_packets(&self, reason: DropReason, packet_count: usize) {
        self.drops.add(reason, u64::try_from(packet_count).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_lengths_fall_into_powers_of_two() {
        let runs = RunLengths::default();
        for len in [0, 1, 2, 3, 4, 5, 33, 64, 65, 5_000] {
            runs.add(len);
        }
        assert_eq!(runs.values(), [2, 1, 2, 1, 0, 0, 2, 2]);
    }
}
