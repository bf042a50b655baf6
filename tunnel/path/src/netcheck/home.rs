//! Choice of the home region (data-plane sheet §5.4): steady, so that peers need not learn of a new one too often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tsrs_base_types::RegionId;

use super::Region;

/// Reports that count: a little more than the time between two full ones.
pub(super) const HISTORY: Duration = Duration::from_secs(305);
/// The old home works if anything was received from it this long ago.
const RECENTLY_HEARD: Duration = Duration::from_secs(8);
/// Without any measurement the old home is kept if anything was received from it this long ago.
const HEARD_WITHOUT_REPORT: Duration = Duration::from_secs(120);
/// A new region must be faster by this much...
const MIN_GAIN: Duration = Duration::from_millis(10);
/// ... and take at most this part of the old one's latency.
const MAX_PART: f64 = 2.0 / 3.0;

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) regions: &'a [Region],
    /// Latencies of the reports of the last [`HISTORY`], this one included.
    pub(super) history: &'a [(Instant, BTreeMap<RegionId, Duration>)],
    /// Latencies of this report.
    pub(super) current: &'a BTreeMap<RegionId, Duration>,
    pub(super) old: Option<RegionId>,
    /// When anything was last received from the old home over DERP.
    pub(super) old_heard: Option<Instant>,
    /// Begin of this report.
    pub(super) started: Instant,
}

/// The home region, or none when nothing speaks for any.
pub(super) fn choose(facts: Facts<'_>, now: Instant) -> Option<RegionId> {
    let heard_within = |time| facts.old_heard.is_some_and(|at| now.saturating_duration_since(at) < time);
    if facts.current.is_empty() {
        return facts.old.filter(|_| heard_within(HEARD_WITHOUT_REPORT));
    }
    let score = |id: RegionId| facts.regions.iter().find(|region| region.id == id).map_or(1.0, usable_score);
    let may_be_home = |id: RegionId| {
        let region = facts.regions.iter().find(|region| region.id == id);
        region.is_some_and(|region| !region.no_measure_no_home && (!region.avoid || facts.old == Some(id)))
    };
    let best_recent = |id: RegionId| {
        let recent = facts.history.iter().filter_map(|(_, latency)| latency.get(&id));
        recent.min().copied().unwrap_or(Duration::MAX).min(facts.current[&id]).mul_f64(score(id))
    };
    let candidates = facts.current.keys().copied().filter(|&id| may_be_home(id));
    let (best, best_latency) =
        candidates.map(|id| (id, best_recent(id))).min_by_key(|&(_, latency)| latency)?;
    let Some(old) = facts.old.filter(|&old| old != best) else { return Some(best) };

    let old_latency = facts.current.get(&old).map(|latency| latency.mul_f64(score(old)));
    let keep = match old_latency {
        Some(old_latency) => {
            old_latency.saturating_sub(best_latency) < MIN_GAIN
                || best_latency > old_latency.mul_f64(MAX_PART)
        }
        // It did not answer, but the relay itself was heard.
        None => heard_within(RECENTLY_HEARD) || facts.old_heard.is_some_and(|at| at > facts.started),
    };
    Some(if keep { old } else { best })
}

/// A factor that is zero, negative or no number is ignored.
fn usable_score(region: &Region) -> f64 {
    if region.score.is_finite() && region.score > 0.0 { region.score.min(MAX_SCORE) } else { 1.0 }
}

/// Larger factors say no more, and might leave the range of a duration.
const MAX_SCORE: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::*;

    fn region(id: i64) -> Region {
        Region { id: RegionId(id), avoid: false, no_measure_no_home: false, score: 1.0, nodes: Vec::new() }
    }

    fn latency(pairs: &[(i64, u64)]) -> BTreeMap<RegionId, Duration> {
        pairs.iter().map(|&(id, millis)| (RegionId(id), Duration::from_millis(millis))).collect()
    }

    struct Case {
        regions: Vec<Region>,
        history: Vec<(Instant, BTreeMap<RegionId, Duration>)>,
        current: BTreeMap<RegionId, Duration>,
        old: Option<i64>,
        heard_ago: Option<u64>,
    }

    impl Case {
        fn new(current: &[(i64, u64)], old: Option<i64>) -> Self {
            let regions = (1..=4).map(region).collect();
            Self { regions, history: Vec::new(), current: latency(current), old, heard_ago: None }
        }

        fn home(&self) -> Option<i64> {
            let now = Instant::now() + Duration::from_secs(1000);
            let facts = Facts {
                regions: &self.regions,
                history: &self.history,
                current: &self.current,
                old: self.old.map(RegionId),
                old_heard: self.heard_ago.map(|secs| now - Duration::from_secs(secs)),
                started: now - Duration::from_secs(1),
            };
            choose(facts, now).map(|id| id.0)
        }
    }

    #[test]
    fn the_fastest_region_that_answered_now_is_first_choice() {
        assert_eq!(Case::new(&[(1, 50), (2, 20)], None).home(), Some(2));
        // Region 3 was faster a minute ago, but does not answer now.
        let mut case = Case::new(&[(1, 50), (2, 60)], None);
        case.history = vec![(Instant::now(), latency(&[(3, 5), (2, 10)]))];
        assert_eq!(case.home(), Some(2), "its best recent latency counts");
    }

    #[test]
    fn the_old_home_stays_unless_the_gain_is_large_in_both_ways() {
        for (old, new, expected) in
            [(20, 11, 1), (20, 9, 2), (100, 80, 1), (100, 67, 1), (100, 66, 2), (12, 3, 1)]
        {
            assert_eq!(
                Case::new(&[(1, old), (2, new)], Some(1)).home(),
                Some(expected),
                "{old} against {new}"
            );
        }
    }

    #[test]
    fn an_old_home_that_did_not_answer_stays_while_its_relay_is_heard() {
        let mut case = Case::new(&[(2, 5)], Some(1));
        assert_eq!(case.home(), Some(2));
        case.heard_ago = Some(7);
        assert_eq!(case.home(), Some(1));
        case.heard_ago = Some(9);
        assert_eq!(case.home(), Some(2));
    }

    #[test]
    fn without_answers_the_old_home_stays_for_two_minutes_after_it_was_heard() {
        let mut case = Case::new(&[], Some(1));
        assert_eq!(case.home(), None);
        case.heard_ago = Some(119);
        assert_eq!(case.home(), Some(1));
        case.heard_ago = Some(120);
        assert_eq!(case.home(), None);
    }

    #[test]
    fn scores_and_flags_of_the_map_are_obeyed() {
        let mut case = Case::new(&[(1, 50), (2, 20), (3, 10)], None);
        case.regions[2].avoid = true;
        case.regions[1].score = 3.0;
        assert_eq!(case.home(), Some(1));
        case.old = Some(3);
        assert_eq!(case.home(), Some(3), "avoid does not drive out the present home");
        case.old = None;
        case.regions[0].no_measure_no_home = true;
        assert_eq!(case.home(), Some(2));
        for odd in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            case.regions[1].score = odd;
            assert_eq!(case.home(), Some(2), "score {odd}");
        }
    }
}
