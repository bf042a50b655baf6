//! Throughput, latency, processor time and memory of the tunnel, beside the implementations found on this machine.
//!
//! Our engine alone stands beside plain WireGuard programs, our whole agent beside tailscaled. Every run of a contender
//! is a network of its own with fresh processes; the contenders take turns in random order within each repetition,
//! so that what changes on the machine meets all of them. Only ratios within one run count.

mod contender;
mod measures;
mod meter;
mod plot;
mod report;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use rand_core::{OsRng, RngCore as _};
use tsrs_lab_netns::{MachineGuard, tools};

use crate::output::{progress, say, write_results};
use contender::{Contender, Rig, found};
use measures::{Plan, Sample, measure};
use report::{Outcome, Results};

/// How long context switches are counted.
const IDLE: Duration = Duration::from_secs(120);

/// What `tunnel` is told.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// About three minutes: two repetitions with short loads.
    #[arg(long)]
    quick: bool,
    /// Repetitions; medians of less than five are a look and no result.
    #[arg(long)]
    repetitions: Option<usize>,
    /// Only contenders whose names contain one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A further wireguard-go to measure beside the one on PATH; may be given several times.
    #[arg(long)]
    wireguard_go: Vec<PathBuf>,
    /// MTU of the plain tunnels; agents have their own.
    #[arg(long, default_value_t = 1420)]
    mtu: u16,
    /// How often a measure is made again when others keep the processors busy.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Lets this session's processes go before others (autogroup of the scheduler). Not for shared machines.
    #[arg(long)]
    priority: bool,
    /// Takes our programs as they lie beside this one, and does not build them.
    #[arg(long)]
    no_build: bool,
    /// Fails where ours uses more of the processor beside the others than it may. These ratios are steady; rates are not.
    #[arg(long)]
    gate: bool,
    /// Folder for the results as text, JSON and pictures.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Arguments {
    fn plan(&self, repetition: usize) -> Plan {
        let millis = Duration::from_millis;
        let (warm_up, load, probe) = if self.quick { (300, 1_200, 1_000) } else { (500, 2_500, 3_000) };
        Plan {
            warm_up: millis(warm_up),
            load: millis(load),
            probe: millis(probe),
            // Takes three minutes and hardly varies.
            idle: (!self.quick && repetition == 1).then_some(IDLE),
            repeats: self.repeats,
        }
    }
}

/// Measures everything.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces need root");
    if arguments.priority {
        std::fs::write("/proc/self/autogroup", "-18").context("raise the priority of this session")?;
    }
    if !arguments.no_build {
        build()?;
    }
    let guard = MachineGuard::note();
    let engine = tools::beside("examples/static_peers");
    let mut contenders = found(engine, &arguments.wireguard_go);
    contenders.retain(|contender| {
        arguments.only.is_empty()
            || arguments.only.iter().any(|part| contender.name().contains(part.as_str()))
    });
    let repetitions = arguments.repetitions.unwrap_or(if arguments.quick { 2 } else { 5 });
    let mut results = Results::new(contenders.iter().map(|contender| Outcome::new(contender.clone())));
    for repetition in 1..=repetitions {
        for index in shuffled(contenders.len()) {
            let contender = &contenders[index];
            progress(&format!("repetition {repetition} of {repetitions}: {}", contender.name()));
            match run_once(contender, arguments.mtu, arguments.plan(repetition)) {
                Ok(sample) => results.add(index, sample),
                Err(error) => {
                    progress(&format!("{} failed: {error:#}", contender.name()));
                    results.fail(index, &format!("{error:#}"));
                }
            }
        }
    }
    guard.compare()?;
    let text = results.text(tools::skipped());
    say(&text);
    if let Some(out) = &arguments.out {
        write_results(out, "tunnel", &text, &results)?;
        for (name, svg) in results.plots() {
            let path = out.join(format!("{name}.svg"));
            std::fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
        }
    }
    ensure!(results.failures() == 0, "{} runs failed", results.failures());
    if arguments.gate {
        let misses = results.gate_misses();
        ensure!(misses.is_empty(), "more than is allowed: {}", misses.join("; "));
    }
    Ok(())
}

fn run_once(contender: &Contender, mtu: u16, plan: Plan) -> Result<Sample> {
    let rig = Rig::build(contender)?;
    let tunnel = rig.start(contender, mtu)?;
    measure(&tunnel, plan, contender.is_agent())
}

/// Builds our programs with the profile that this one was built with, through the cargo that runs it.
fn build() -> Result<()> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
    let profile = if folder == "debug" { "dev" } else { folder };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    for target in [&["-p", "tsrs-agent"][..], &["-p", "tsrs-tunnel-engine", "--example", "static_peers"]] {
        let mut command = Command::new(&cargo);
        command.args(["build", "--quiet", "--profile", profile]).args(target);
        let status = command.status().context("run cargo; --no-build takes what lies beside this program")?;
        ensure!(status.success(), "cargo build {}: {status}", target.join(" "));
    }
    Ok(())
}

/// The numbers below `count` in random order (Fisher and Yates).
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = usize::try_from(OsRng.next_u32()).unwrap_or_default() % (last + 1);
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_holds_every_number_once() {
        let mut order = shuffled(20);
        order.sort_unstable();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
        assert!(shuffled(0).is_empty());
    }
}
