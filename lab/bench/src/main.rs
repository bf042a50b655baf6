//! Throughput, latency, memory and netmap scale, against the peers found on the machine.
//!
//! `bench netmap` runs in this process and needs no rights. `bench tunnel` builds network namespaces, runs as root and
//! starts every peer that it finds on `PATH`.
#![forbid(unsafe_code)]

mod netmap;
mod output;
mod stats;
mod tunnel;
mod usage;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Measures the agent and its parts, beside other implementations")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A netmap of many peers: the first one, a change of one peer, and the memory.
    Netmap(netmap::Arguments),
    /// Our tunnel beside others: throughput, latency, processor time, memory. Needs root.
    Tunnel(tunnel::Arguments),
    /// One size of `netmap`, in a process of its own so that its memory is its own.
    #[command(hide = true)]
    NetmapOne(netmap::OneArguments),
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Netmap(arguments) => netmap::run(&arguments),
        What::Tunnel(arguments) => tunnel::run(&arguments),
        What::NetmapOne(arguments) => netmap::run_one(&arguments),
    }
}
