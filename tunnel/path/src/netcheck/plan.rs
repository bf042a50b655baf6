//! Which STUN requests a report sends, and when (data-plane sheet §5.2).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tsrs_base_types::RegionId;

use super::{Region, StunHost, StunNode};

/// Regions that one report probes at most. Tailscale's map has about thirty.
pub(super) const MAX_REGIONS: usize = 256;
/// Tries per region in a full report.
const FULL_TRIES: usize = 3;
/// Pause between tries where no latency is known.
const DEFAULT_RETRY: Duration = Duration::from_millis(100);
/// Pause between tries of an incremental report where no latency is known.
const DEFAULT_INCREMENTAL_RETRY: Duration = Duration::from_millis(200);
/// Regions of an incremental report, beside the home.
const INCREMENTAL_REGIONS: usize = 3;
/// Tries for the home region in an incremental report, for the two fastest, and for the others.
const HOME_TRIES: usize = 4;
const FASTEST_TRIES: usize = 2;
const OTHER_TRIES: usize = 1;
/// Added for each try from the third on, so that a loaded path gets more time.
const LATE_TRY_EXTRA: Duration = Duration::from_millis(50);

/// One request to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Probe {
    pub(super) at: Instant,
    pub(super) region: RegionId,
    pub(super) node: StunNode,
}

/// What an incremental report builds on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) latency: &'a BTreeMap<RegionId, Duration>,
    pub(super) home: Option<RegionId>,
}

/// Requests of a report in the order of time. Without `known` it is a full one: all regions.
pub(super) fn probes(regions: &[Region], known: Option<Known<'_>>, now: Instant) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (rank, region) in chosen_regions(regions, known).into_iter().enumerate() {
        let nodes: Vec<&StunNode> = region.nodes.iter().filter(|node| can_probe(node)).collect();
        let (tries, retry) = match known {
            None => (FULL_TRIES, DEFAULT_RETRY),
            Some(known) => {
                let tries = match rank {
                    _ if known.home == Some(region.id) => HOME_TRIES,
                    0 | 1 => FASTEST_TRIES,
                    _ => OTHER_TRIES,
                };
                let latency = known.latency.get(&region.id).map(|latency| latency.mul_f64(1.2));
                (tries, latency.unwrap_or(DEFAULT_INCREMENTAL_RETRY))
            }
        };
        for (n, (&node, number)) in nodes.iter().cycle().zip(0u32..).take(tries).enumerate() {
            let extra = if known.is_some() && n >= 2 { LATE_TRY_EXTRA * number } else { Duration::ZERO };
            probes.push(Probe { at: now + retry * number + extra, region: region.id, node: node.clone() });
        }
    }
    probes.sort_by_key(|probe| probe.at);
    probes
}

/// Regions of a report, the fastest first where latencies are known.
pub(super) fn chosen_regions<'a>(regions: &'a [Region], known: Option<Known<'_>>) -> Vec<&'a Region> {
    let mut chosen: Vec<&Region> =
        regions.iter().filter(|region| !region.no_measure_no_home).take(MAX_REGIONS).collect();
    if let Some(known) = known {
        let latency = |region: &&Region| known.latency.get(&region.id).copied().unwrap_or(Duration::MAX);
        chosen.sort_by_key(latency);
        let mut rank = 0;
        chosen.retain(|region| {
            rank += 1;
            rank <= INCREMENTAL_REGIONS || known.home == Some(region.id)
        });
    }
    chosen
}

fn can_probe(node: &StunNode) -> bool {
    node.stun_port.is_some() && node.host != StunHost::Unreachable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: i64, nodes: usize) -> Region {
        let node = StunNode { host: StunHost::Name("stun.test".to_owned()), stun_port: Some(3478) };
        let nodes = (0..nodes)
            .map(|n| StunNode { stun_port: Some(3478 + u16::try_from(n).unwrap()), ..node.clone() });
        Region {
            id: RegionId(id),
            avoid: false,
            no_measure_no_home: false,
            score: 1.0,
            nodes: nodes.collect(),
        }
    }

    /// Region, milliseconds, node.
    fn shown(probes: &[Probe], now: Instant) -> Vec<(i64, u128, u16)> {
        let mut shown: Vec<_> = probes
            .iter()
            .map(|probe| (probe.region.0, (probe.at - now).as_millis(), probe.node.stun_port.unwrap() - 3478))
            .collect();
        shown.sort_unstable();
        shown
    }

    #[test]
    fn a_full_report_tries_each_region_three_times_on_its_nodes_in_turn() {
        let now = Instant::now();
        let mut hidden = region(3, 1);
        hidden.no_measure_no_home = true;
        let mut mute = region(4, 1);
        mute.nodes[0].stun_port = None;
        let mut gone = region(5, 1);
        gone.nodes[0].host = StunHost::Unreachable;
        let plan = probes(&[region(1, 1), region(2, 2), hidden, mute, gone], None, now);
        assert_eq!(
            shown(&plan, now),
            [(1, 0, 0), (1, 100, 0), (1, 200, 0), (2, 0, 0), (2, 100, 1), (2, 200, 0)]
        );
        assert!(plan.is_sorted_by_key(|probe| probe.at));
    }

    #[test]
    fn an_incremental_report_asks_the_three_fastest_and_the_home() {
        let now = Instant::now();
        let regions: Vec<Region> = (1..=6).map(|id| region(id, 1)).collect();
        let latency =
            (1..=5).map(|id| (RegionId(id), Duration::from_millis(u64::try_from(id).unwrap() * 100)));
        let latency: BTreeMap<_, _> = latency.collect();
        let known = Known { latency: &latency, home: Some(RegionId(6)) };
        assert_eq!(
            shown(&probes(&regions, Some(known), now), now),
            [
                (1, 0, 0),
                (1, 120, 0),
                (2, 0, 0),
                (2, 240, 0),
                (3, 0, 0),
                (6, 0, 0),
                (6, 200, 0),
                (6, 500, 0),
                (6, 750, 0)
            ]
        );
        let known = Known { latency: &latency, home: Some(RegionId(1)) };
        let plan = shown(&probes(&regions, Some(known), now), now);
        assert_eq!(plan.iter().filter(|probe| probe.0 == 1).count(), 4);
        assert_eq!(plan.len(), 4 + 2 + 1);
    }
}
