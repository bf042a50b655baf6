//! How the cost of a netmap grows with the tailnet: the first one, a change of one peer, and the memory.
//!
//! Each size runs in a process of its own. Frames are made first and read from files, so that the memory of making them is not
//! measured.

mod chain;
mod measure;
mod report;
mod tailnet;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::de::DeserializeOwned;

use crate::output::{progress, say, write_results};
use measure::Measured;

/// Most processor time that a change of one peer may take at any size, in microseconds.
pub(crate) const DELTA_LIMIT_MICROS: f64 = 200.0;

/// What `netmap` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Numbers of peers.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    peers: Vec<u32>,
    /// How often each kind of change is made.
    #[arg(long, default_value_t = 1_000)]
    iterations: u32,
    /// Folder for the results as text and JSON.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Fail when a change takes more than its limit at any size.
    #[arg(long)]
    gate: bool,
}

/// What the process of one size is told.
#[derive(Args, Debug)]
pub(crate) struct OneArguments {
    #[arg(long)]
    peers: u32,
    #[arg(long)]
    iterations: u32,
    #[arg(long)]
    frames: PathBuf,
    /// Fold only, and tell the memory of that.
    #[arg(long)]
    snapshot_only: bool,
}

/// Measures all sizes.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut all = Vec::new();
    for peers in &arguments.peers {
        let folder = tempfile::tempdir()?;
        progress(&format!("netmap of {peers} peers: making frames"));
        write_frames(*peers, folder.path())?;
        progress(&format!("netmap of {peers} peers: measuring"));
        let mut measured: Measured = in_own_process(*peers, arguments.iterations, folder.path(), &[])?;
        measured.memory.snapshot_only =
            in_own_process(*peers, arguments.iterations, folder.path(), &["--snapshot-only"])?;
        all.push(measured);
    }
    let text = report::text(&all);
    say(&text);
    if let Some(out) = &arguments.out {
        write_results(out, "netmap", &text, &all)?;
    }
    let slowest = all.iter().flat_map(|measured| &measured.deltas).map(|delta| delta.cpu.median);
    let slowest = slowest.fold(0.0, f64::max);
    ensure!(
        !arguments.gate || slowest <= DELTA_LIMIT_MICROS,
        "a change of one peer takes {slowest:.0} µs of CPU; {DELTA_LIMIT_MICROS:.0} are allowed"
    );
    Ok(())
}

/// Measures one size and prints the result as JSON.
pub(crate) fn run_one(arguments: &OneArguments) -> Result<()> {
    let json = if arguments.snapshot_only {
        serde_json::to_string(&measure::snapshot_memory(&arguments.frames)?)?
    } else {
        serde_json::to_string(&measure::measure(arguments.peers, arguments.iterations, &arguments.frames)?)?
    };
    say(&json);
    Ok(())
}

fn write_frames(peers: u32, folder: &Path) -> Result<()> {
    for (index, frame) in tailnet::first_frames(peers, tailnet::PEERS_PER_FRAME).enumerate() {
        fs::write(folder.join(format!("{index:03}.json")), frame?)?;
    }
    Ok(())
}

fn in_own_process<T: DeserializeOwned>(
    peers: u32,
    iterations: u32,
    frames: &Path,
    more: &[&str],
) -> Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["netmap-one", "--peers", &peers.to_string(), "--iterations", &iterations.to_string()]);
    command.arg("--frames").arg(frames).args(more);
    let output = command.stderr(Stdio::inherit()).output().context("start the process of one size")?;
    ensure!(output.status.success(), "{peers} peers: {}", output.status);
    serde_json::from_slice(&output.stdout).context("result of one size")
}
