//! Throughput, latency, memory and netmap scale, against the peers found on the machine.
#![forbid(unsafe_code)]

fn main() {}
