//! What is measured, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::contender::Tunnel;
use super::meter::{Meter, Reading, Used};
use super::traffic::{self, Load};
use crate::stats::Summary;

/// One measure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    /// In JSON.
    pub(super) key: &'static str,
    /// In tables, with the unit.
    pub(super) label: &'static str,
    /// Whether more is better.
    pub(super) more_is_better: bool,
    /// Digits behind the point.
    pub(super) digits: usize,
}

const fn more(key: &'static str, label: &'static str, digits: usize) -> Measure {
    Measure { key, label, more_is_better: true, digits }
}

const fn less(key: &'static str, label: &'static str, digits: usize) -> Measure {
    Measure { key, label, more_is_better: false, digits }
}

/// All measures in the order of the table.
pub(super) const MEASURES: [Measure; 24] = [
    more("tcp1", "TCP 1 stream → Gb/s", 2),
    less("tcp1_cpu", "  CPU-s/GB", 2),
    more("tcp1_back", "TCP 1 stream ← Gb/s", 2),
    less("tcp1_back_cpu", "  CPU-s/GB", 2),
    more("tcp4", "TCP 4 streams → Gb/s", 2),
    less("tcp4_cpu", "  CPU-s/GB", 2),
    more("tcp4_back", "TCP 4 streams ← Gb/s", 2),
    more("both", "TCP both ways, sum Gb/s", 2),
    less("both_cpu", "  CPU-s/GB", 2),
    less("steady_cpu", "TCP at 200 Mb/s CPU-s/GB", 2),
    less("rtt_p50", "RTT idle p50 ms", 3),
    less("rtt_p99", "RTT idle p99 ms", 3),
    less("rtt_steady_p50", "RTT at 200 Mb/s p50 ms", 3),
    less("rtt_steady_p99", "RTT at 200 Mb/s p99 ms", 3),
    less("rtt_full_p50", "RTT at TCP saturation p50 ms", 3),
    less("rtt_full_p99", "RTT at TCP saturation p99 ms", 3),
    less("udp_cpu", "UDP 64 B at 20 k pps, µs CPU/packet", 1),
    more("udp_kept", "  received of sent %", 1),
    more("udp_flood", "UDP 64 B flood, received k pps", 1),
    more("derp_tcp1", "TCP 1 stream over DERP Gb/s", 2),
    less("derp_tcp1_cpu", "  CPU-s/GB", 2),
    less("joined", "from up to first ping s", 3),
    less("switches", "idle context switches/s", 2),
    less("peak_rss", "peak RSS of the larger end MB", 1),
];

/// Datagrams a second of the measure at a fixed rate.
const STEADY_PPS: u32 = 20_000;
/// Rate of the measure at a fixed rate, in bits a second.
const STEADY_BITS: u64 = 200_000_000;
/// After so long without traffic nothing is kept up for a peer any more: paths rest after 45 s (data-plane sheet §3).
const REST: Duration = Duration::from_secs(60);
/// Busy processors of others above which a measure is made again.
pub(super) const FOREIGN_LIMIT: f64 = 0.15;

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Before each load is measured.
    pub(super) warm_up: Duration,
    /// Of each load.
    pub(super) load: Duration,
    /// Of each probe of round trips.
    pub(super) probe: Duration,
    /// Of being idle, after [`REST`]; `None` leaves the measure out.
    pub(super) idle: Option<Duration>,
    /// How often a measure is made again at most when others were busy.
    pub(super) repeats: usize,
}

/// What one run of a contender gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) values: BTreeMap<String, f64>,
    /// The most that others kept busy during a value that stayed.
    pub(super) foreign_cores: f64,
    /// Values that stayed although others were busy.
    pub(super) noisy: Vec<String>,
    /// Measures that could not be made.
    pub(super) problems: Vec<String>,
}

/// Measures a tunnel that has just been started.
pub(super) fn measure(tunnel: &Tunnel<'_>, plan: Plan, with_relay: bool) -> Result<Sample> {
    let meter = Meter::new(&tunnel.pids())?;
    let mut run = Run { tunnel, plan, meter, sample: Sample::default() };
    if let Some(joined) = tunnel.joined {
        run.set("joined", joined.as_secs_f64());
    }
    run.idle_round_trips()?;
    run.tcp(&["tcp1", "tcp1_cpu"], &[(false, 1)])?;
    run.tcp(&["tcp1_back", "tcp1_back_cpu"], &[(true, 1)])?;
    run.tcp(&["tcp4", "tcp4_cpu"], &[(false, 4)])?;
    run.tcp(&["tcp4_back"], &[(true, 4)])?;
    run.tcp(&["both", "both_cpu"], &[(false, 1), (true, 1)])?;
    run.steady()?;
    run.full_round_trips()?;
    run.udp_steady()?;
    run.udp_flood()?;
    if let Some(idle) = plan.idle.filter(|_| with_relay) {
        std::thread::sleep(REST);
        let switches = run.meter.switches_per_second(idle)?;
        run.set("switches", switches);
    }
    run.set("peak_rss", run.meter.peak_megabytes()?);
    if with_relay && let Err(error) = run.over_relay() {
        // The rest stays good.
        run.sample.problems.push(format!("over the relay: {error:#}"));
    }
    Ok(run.sample)
}

struct Run<'a> {
    tunnel: &'a Tunnel<'a>,
    plan: Plan,
    meter: Meter,
    sample: Sample,
}

impl Run<'_> {
    fn set(&mut self, key: &str, value: f64) {
        self.sample.values.insert(key.to_owned(), value);
    }

    /// Makes a measure, again while others are busy, and keeps the values of the quietest time.
    fn quiet(&mut self, keys: &[&str], once: impl Fn(&Self) -> Result<(Vec<f64>, Used)>) -> Result<()> {
        let mut best: Option<(Vec<f64>, f64)> = None;
        for _ in 0..=self.plan.repeats {
            let (values, used) = once(self).with_context(|| keys.join(", "))?;
            if best.as_ref().is_none_or(|(_, foreign)| used.foreign_cores < *foreign) {
                best = Some((values, used.foreign_cores));
            }
            if used.foreign_cores <= FOREIGN_LIMIT {
                break;
            }
        }
        let (values, foreign) = best.context("nothing measured")?;
        for (key, value) in keys.iter().zip(values) {
            self.set(key, value);
            if foreign > FOREIGN_LIMIT {
                self.sample.noisy.push((*key).to_owned());
            }
        }
        self.sample.foreign_cores = self.sample.foreign_cores.max(foreign);
        Ok(())
    }

    /// Waits, then counts what arrives and what is used while `during` runs.
    fn window<T>(&self, loads: &[Load], during: impl FnOnce() -> Result<T>) -> Result<(u64, Used, T)> {
        std::thread::sleep(self.plan.warm_up);
        let sum = || loads.iter().map(Load::received).sum::<u64>();
        let (before, reading): (u64, Reading) = (sum(), self.meter.read()?);
        let value = during()?;
        let (received, used) = (sum() - before, self.meter.since(&reading)?);
        Ok((received, used, value))
    }

    fn load_time(&self) -> Result<()> {
        std::thread::sleep(self.plan.load);
        Ok(())
    }

    /// Loads, each given as backwards or not and its number of streams. Values: Gb/s, CPU-s/GB.
    fn tcp(&mut self, keys: &[&str], flows: &[(bool, usize)]) -> Result<()> {
        self.quiet(keys, |run| {
            let loads = flows
                .iter()
                .map(|(back, streams)| run.tcp_load(*back, *streams, None))
                .collect::<Result<Vec<_>>>()?;
            let (bytes, used, ()) = run.window(&loads, || run.load_time())?;
            Ok((vec![gigabits(bytes, used), cpu_per_gigabyte(bytes, used)], used))
        })
    }

    fn tcp_load(&self, back: bool, streams: usize, rate: Option<u64>) -> Result<Load> {
        let ([from, to], [_, target]) = self.ends(back);
        traffic::tcp(from, to, target, streams, rate)
    }

    fn ends(&self, back: bool) -> ([&tsrs_lab_netns::Host; 2], [std::net::Ipv4Addr; 2]) {
        let ([a, b], [inside_a, inside_b]) = (self.tunnel.hosts, self.tunnel.addresses);
        if back { ([b, a], [inside_b, inside_a]) } else { ([a, b], [inside_a, inside_b]) }
    }

    fn round_trips(&self) -> Result<Vec<f64>> {
        traffic::round_trips(self.tunnel.hosts[0], self.tunnel.addresses[1], self.plan.probe)
    }

    fn idle_round_trips(&mut self) -> Result<()> {
        self.quiet(&["rtt_p50", "rtt_p99"], |run| {
            let (_, used, times) = run.window(&[], || run.round_trips())?;
            Ok((percentiles(times), used))
        })
    }

    /// A load that everybody can carry.
    fn steady(&mut self) -> Result<()> {
        self.quiet(&["rtt_steady_p50", "rtt_steady_p99", "steady_cpu"], |run| {
            let load = [run.tcp_load(false, 1, Some(STEADY_BITS))?];
            let (bytes, used, times) = run.window(&load, || run.round_trips())?;
            let mut values = percentiles(times);
            values.push(cpu_per_gigabyte(bytes, used));
            Ok((values, used))
        })
    }

    fn full_round_trips(&mut self) -> Result<()> {
        self.quiet(&["rtt_full_p50", "rtt_full_p99"], |run| {
            let load = [run.tcp_load(false, 1, None)?];
            let (_, used, times) = run.window(&load, || run.round_trips())?;
            Ok((percentiles(times), used))
        })
    }

    fn udp_steady(&mut self) -> Result<()> {
        self.quiet(&["udp_cpu", "udp_kept"], |run| {
            let load = [run.udp_load(Some(STEADY_PPS))?];
            let (packets, used, ()) = run.window(&load, || run.load_time())?;
            let packets = count(packets);
            let sent = f64::from(STEADY_PPS) * used.seconds;
            Ok((vec![used.tunnel_cpu_seconds * 1e6 / packets.max(1.0), 100.0 * packets / sent], used))
        })
    }

    fn udp_flood(&mut self) -> Result<()> {
        self.quiet(&["udp_flood"], |run| {
            let load = [run.udp_load(None)?];
            let (packets, used, ()) = run.window(&load, || run.load_time())?;
            Ok((vec![count(packets) / used.seconds / 1e3], used))
        })
    }

    fn over_relay(&mut self) -> Result<()> {
        self.tunnel.force_relay()?;
        self.tcp(&["derp_tcp1", "derp_tcp1_cpu"], &[(false, 1)])
    }

    fn udp_load(&self, per_second: Option<u32>) -> Result<Load> {
        let ([from, to], [_, target]) = self.ends(false);
        traffic::udp(from, to, target, per_second)
    }
}

fn percentiles(times: Vec<f64>) -> Vec<f64> {
    let summary = Summary::of(times);
    vec![summary.median, summary.p99]
}

fn gigabits(bytes: u64, used: Used) -> f64 {
    count(bytes) * 8.0 / 1e9 / used.seconds
}

fn cpu_per_gigabyte(bytes: u64, used: Used) -> f64 {
    used.tunnel_cpu_seconds / (count(bytes) / 1e9).max(f64::MIN_POSITIVE)
}

/// A count as a number to divide; counts here stay far below 2^53.
fn count(value: u64) -> f64 {
    let [high, low] = [value >> 32, value & 0xffff_ffff].map(|part| u32::try_from(part).unwrap_or(u32::MAX));
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_follow_from_counts() {
        let used = Used { seconds: 2.0, tunnel_cpu_seconds: 3.0, foreign_cores: 0.0 };
        assert_eq!(gigabits(1_000_000_000, used), 4.0);
        assert_eq!(cpu_per_gigabyte(1_000_000_000, used), 3.0);
        assert_eq!(count((7 << 32) + 9), 30_064_771_081.0);
    }

    #[test]
    fn keys_are_unique() {
        let keys: std::collections::BTreeSet<_> = MEASURES.iter().map(|measure| measure.key).collect();
        assert_eq!(keys.len(), MEASURES.len());
    }
}
