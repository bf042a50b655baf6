//! What a thread or a process has used: processor time and memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};

/// Time that has passed and processor time that a thread has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spent {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.wall += other.wall;
        self.cpu += other.cpu;
    }
}

/// Measures what the calling thread spends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    wall: Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// Begins.
    pub(crate) fn start() -> Self {
        Self { wall: Instant::now(), cpu: thread_cpu() }
    }

    /// What was spent since it began.
    pub(crate) fn spent(&self) -> Spent {
        Spent { wall: self.wall.elapsed(), cpu: thread_cpu().saturating_sub(self.cpu) }
    }
}

/// Processor time of the calling thread; zero where the system has no such clock.
fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Memory of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// In use now (`VmRSS`).
    pub(crate) resident_bytes: u64,
    /// The most it ever was (`VmHWM`).
    pub(crate) peak_bytes: u64,
}

/// Memory of this process.
pub(crate) fn own_memory() -> Result<Memory> {
    memory_from(&std::fs::read_to_string("/proc/self/status")?)
}

fn memory_from(status: &str) -> Result<Memory> {
    let bytes = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).with_context(|| format!("no {name}"))?;
        Ok(kib.trim().parse::<u64>()? << 10)
    };
    Ok(Memory { resident_bytes: bytes("VmRSS")?, peak_bytes: bytes("VmHWM")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status_file() {
        let memory = memory_from("Name:\tx\nVmHWM:\t     300 kB\nVmRSS:\t 20 kB\n").unwrap();
        assert_eq!(memory, Memory { resident_bytes: 20 << 10, peak_bytes: 300 << 10 });
        assert!(memory_from("VmRSS: 20 kB\n").is_err());
        assert!(own_memory().unwrap().resident_bytes > 0);
    }

    #[test]
    fn a_stopwatch_counts_the_work_of_its_thread() {
        let watch = Stopwatch::start();
        while watch.spent().cpu.is_zero() {}
        let spent = watch.spent();
        assert!(spent.wall >= Duration::from_nanos(1) && spent.cpu >= Duration::from_nanos(1));
    }
}
