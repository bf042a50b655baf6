//! What the tunnels' processes use while something is measured, and what the rest of the machine uses meanwhile.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// Reads the processor time of some processes and of the whole machine.
#[derive(Debug)]
pub(super) struct Meter {
    tunnels: Vec<i32>,
    /// Threads of the kernel that work for us: those that carry packets when a system call has done its share.
    kernel: Vec<i32>,
    ticks_per_second: f64,
}

/// Readings at one moment, in ticks.
#[derive(Debug)]
pub(super) struct Reading {
    at: Instant,
    tunnels: u64,
    ours: u64,
    machine: u64,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    pub(super) seconds: f64,
    /// By the tunnels' processes together.
    pub(super) tunnel_cpu_seconds: f64,
    /// Processors that others kept busy.
    pub(super) foreign_cores: f64,
}

impl Meter {
    /// For the processes of both ends.
    pub(super) fn new(tunnels: &[i32]) -> Result<Self> {
        let ticks = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Self {
            tunnels: tunnels.to_vec(),
            kernel: kernel_threads()?,
            ticks_per_second: f64::from(i32::try_from(ticks)?),
        })
    }

    /// Reads everything.
    pub(super) fn read(&self) -> Result<Reading> {
        let sum = |pids: &[i32]| pids.iter().map(|pid| process_ticks(&pid.to_string())).sum::<Result<u64>>();
        let tunnels = sum(&self.tunnels)?;
        Ok(Reading {
            at: Instant::now(),
            tunnels,
            ours: tunnels + sum(&self.kernel)? + process_ticks("self")?,
            machine: machine_ticks(&fs::read_to_string("/proc/stat")?)?,
        })
    }

    /// What was used since `before`.
    pub(super) fn since(&self, before: &Reading) -> Result<Used> {
        let now = self.read()?;
        let seconds = (now.at - before.at).as_secs_f64();
        let ticks = |now: u64, before: u64| {
            u32::try_from(now.saturating_sub(before)).map_or(0.0, f64::from) / self.ticks_per_second
        };
        let foreign = ticks(now.machine, before.machine) - ticks(now.ours, before.ours);
        Ok(Used {
            seconds,
            tunnel_cpu_seconds: ticks(now.tunnels, before.tunnels),
            foreign_cores: (foreign / seconds).max(0.0),
        })
    }

    /// The larger end's peak of resident memory, in MB.
    pub(super) fn peak_megabytes(&self) -> Result<f64> {
        let mut peak = 0.0;
        for pid in &self.tunnels {
            let kib = status_number(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmHWM")?;
            peak = f64::max(peak, f64::from(u32::try_from(kib)?) * 1024.0 / 1e6);
        }
        Ok(peak)
    }

    /// Context switches per second of the busier end, all threads, while `time` passes.
    pub(super) fn switches_per_second(&self, time: Duration) -> Result<f64> {
        let read = || self.tunnels.iter().map(|pid| switches(*pid)).collect::<Result<Vec<u64>>>();
        let before = read()?;
        std::thread::sleep(time);
        let grown = read()?.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before)).max();
        Ok(f64::from(u32::try_from(grown.unwrap_or_default())?) / time.as_secs_f64())
    }
}

/// The `ksoftirqd` of each processor.
fn kernel_threads() -> Result<Vec<i32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end while it is looked at.
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            threads.push(pid);
        }
    }
    Ok(threads)
}

/// User and system time of a process with all its threads (proc(5), fields 14 and 15 of `stat`).
fn process_ticks(pid: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| path.clone())?;
    ticks_from(&stat).with_context(|| path)
}

fn ticks_from(stat: &str) -> Result<u64> {
    // The name in brackets may hold anything; what follows its end begins with field 3.
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| -> Result<u64> { Ok(fields.get(number - 3).context("too short")?.parse()?) };
    Ok(field(14)? + field(15)?)
}

/// Ticks during which any processor was busy, also for other guests of the host.
fn machine_ticks(stat: &str) -> Result<u64> {
    let line =
        stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no sum of processors")?;
    let fields = line.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
    // user nice system idle iowait irq softirq steal …; the rest is contained in the first.
    const IDLE: [usize; 2] = [3, 4];
    Ok(fields
        .iter()
        .take(8)
        .enumerate()
        .filter(|(index, _)| !IDLE.contains(index))
        .map(|(_, ticks)| ticks)
        .sum())
}

fn switches(pid: i32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while it is looked at.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        for name in ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"] {
            sum += status_number(&status, name)?;
        }
    }
    Ok(sum)
}

fn status_number(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number =
        line.and_then(|line| line.split_whitespace().next()).with_context(|| format!("no {name}"))?;
    Ok(number.parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15";
        assert_eq!(ticks_from(stat).unwrap(), 11 + 12);
        assert!(ticks_from("7 (a) S 1 2").is_err());
    }

    #[test]
    fn the_machine_is_busy_when_it_is_neither_idle_nor_waits() {
        assert_eq!(
            machine_ticks("cpu  1 2 4 8 16 32 64 128 256 512\ncpu0 1 2 4\n").unwrap(),
            1 + 2 + 4 + 32 + 64 + 128
        );
    }

    #[test]
    fn own_work_is_seen_as_the_tunnels() {
        let meter = Meter::new(&[i32::try_from(std::process::id()).unwrap()]).unwrap();
        let before = meter.read().unwrap();
        while meter.since(&before).unwrap().tunnel_cpu_seconds == 0.0 {}
        assert!(meter.peak_megabytes().unwrap() > 0.5);
        assert!(switches(i32::try_from(std::process::id()).unwrap()).unwrap() > 0);
    }
}
