//! Medians, ranges and ratios as a table.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::Contender;
use super::measures::{FOREIGN_LIMIT, MEASURES, Measure, Sample};
use super::plot::svg;
use crate::output::Table;
use crate::stats::Summary;

/// Who stands beside whom: name, title, and whether they are whole agents.
const GROUPS: [(&str, &str, bool); 2] = [("plain", "Plain tunnels", false), ("agents", "Whole agents", true)];

/// What ours may use of the processor, as a part of what others use: far enough from what is measured that noise does not
/// reach it, and below what the loss of an offload or of batching would cost.
const GATES: [(&str, f64); 3] = [("tcp1_cpu", 0.8), ("steady_cpu", 0.6), ("udp_cpu", 0.5)];

/// All runs of one contender.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    name: String,
    #[serde(skip)]
    contender: Contender,
    summaries: BTreeMap<&'static str, Summary>,
    samples: Vec<Sample>,
    failures: Vec<String>,
}

impl Outcome {
    /// Without runs.
    pub(super) fn new(contender: Contender) -> Self {
        Self {
            name: contender.name(),
            contender,
            summaries: BTreeMap::new(),
            samples: Vec::new(),
            failures: Vec::new(),
        }
    }

    fn summarize(&mut self) {
        for measure in MEASURES {
            let values: Vec<f64> =
                self.samples.iter().filter_map(|sample| sample.values.get(measure.key).copied()).collect();
            if !values.is_empty() {
                self.summaries.insert(measure.key, Summary::of(values));
            }
        }
    }

    fn noisy(&self, key: &str) -> bool {
        let noisy =
            self.samples.iter().filter(|sample| sample.noisy.iter().any(|noisy| noisy == key)).count();
        noisy * 2 > self.samples.len()
    }
}

/// All of a run.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    outcomes: Vec<Outcome>,
}

impl Results {
    /// Of these contenders.
    pub(super) fn new(outcomes: impl Iterator<Item = Outcome>) -> Self {
        Self { outcomes: outcomes.collect() }
    }

    /// One more run.
    pub(super) fn add(&mut self, index: usize, sample: Sample) {
        if let Some(outcome) = self.outcomes.get_mut(index) {
            outcome.failures.extend(sample.problems.iter().cloned());
            outcome.samples.push(sample);
            outcome.summarize();
        }
    }

    /// One more run that gave nothing.
    pub(super) fn fail(&mut self, index: usize, error: &str) {
        if let Some(outcome) = self.outcomes.get_mut(index) {
            outcome.failures.push(error.to_owned());
        }
    }

    /// Runs, and parts of runs, that gave nothing.
    pub(super) fn failures(&self) -> usize {
        self.outcomes.iter().map(|outcome| outcome.failures.len()).sum()
    }

    /// The gates that ours does not pass.
    pub(super) fn gate_misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        for (_, _, agents) in GROUPS {
            let group = self.group(agents);
            let (ours, theirs): (Vec<_>, Vec<_>) =
                group.into_iter().partition(|outcome| outcome.contender.is_ours());
            for (key, limit) in GATES {
                let of = |outcome: &Outcome| outcome.summaries.get(key).map(|summary| summary.median);
                for (ours, theirs) in
                    ours.iter().flat_map(|ours| theirs.iter().map(move |their| (ours, their)))
                {
                    if let (Some(our), Some(their)) = (of(ours), of(theirs))
                        && our > limit * their
                    {
                        let ratio = our / their;
                        misses.push(format!(
                            "{key} of {}: {ratio:.2} of {}'s, {limit} allowed",
                            ours.name, theirs.name
                        ));
                    }
                }
            }
        }
        misses
    }

    /// A picture of each group that was measured, by the name of its file.
    pub(super) fn plots(&self) -> Vec<(&'static str, String)> {
        let mut plots = Vec::new();
        for (name, title, agents) in GROUPS {
            let mut group = self.group(agents);
            group.sort_by_key(|outcome| !outcome.contender.is_ours());
            let of = |key| group.iter().map(|outcome| outcome.summaries.get(key)).collect::<Vec<_>>();
            let rows = MEASURES.into_iter().map(|measure| (measure, of(measure.key)));
            let rows: Vec<_> = rows.filter(|(_, values)| values.iter().any(Option::is_some)).collect();
            let names: Vec<_> = group.iter().map(|outcome| outcome.name.as_str()).collect();
            if !rows.is_empty() {
                plots.push((
                    name,
                    svg(&format!("{title}: medians (least–most), the longer the better"), &names, &rows),
                ));
            }
        }
        plots
    }

    fn group(&self, agents: bool) -> Vec<&Outcome> {
        self.outcomes.iter().filter(|outcome| outcome.contender.is_agent() == agents).collect()
    }

    /// The tables, and what to know of them.
    pub(super) fn text(&self, skipped: usize) -> String {
        let mut text = String::new();
        for (_, title, agents) in GROUPS {
            let group = self.group(agents);
            if group.iter().any(|outcome| !outcome.samples.is_empty()) {
                text.push_str(&format!("{title}: medians (least–most); ratios are ours to theirs\n"));
                text.push_str(&table(&group));
                text.push('\n');
            }
        }
        let runs: usize = self.outcomes.iter().map(|outcome| outcome.samples.len()).sum();
        text.push_str(&format!(
            "{runs} runs, {} failed, {skipped} peers skipped. † others kept more than {FOREIGN_LIMIT} processors busy in most runs.\n",
            self.failures()
        ));
        for outcome in &self.outcomes {
            for failure in &outcome.failures {
                text.push_str(&format!(
                    "{} failed: {}\n",
                    outcome.name,
                    failure.lines().next().unwrap_or_default()
                ));
            }
        }
        text
    }
}

fn table(group: &[&Outcome]) -> String {
    let ours = group.iter().find(|outcome| outcome.contender.is_ours());
    let theirs: Vec<_> = group.iter().filter(|outcome| !outcome.contender.is_ours()).collect();

    let names = group.iter().map(|outcome| outcome.name.clone());
    let ratios = theirs.iter().map(|outcome| format!("to {}", outcome.name));
    let headings = std::iter::once(String::new()).chain(names).chain(ratios);
    let mut table = Table::with(headings);
    for measure in MEASURES {
        if !group.iter().any(|outcome| outcome.summaries.contains_key(measure.key)) {
            continue;
        }
        let values = group.iter().map(|outcome| cell(outcome, measure));
        let ratios = theirs.iter().map(|their| {
            let of = |outcome: &Outcome| outcome.summaries.get(measure.key).map(|summary| summary.median);
            ours.and_then(|ours| Some(ratio(measure, of(ours)?, of(their)?))).unwrap_or_default()
        });
        table.row(std::iter::once(measure.label.to_owned()).chain(values).chain(ratios));
    }
    table.render()
}

fn cell(outcome: &Outcome, measure: Measure) -> String {
    let Some(summary) = outcome.summaries.get(measure.key) else { return "–".to_owned() };
    let digits = measure.digits;
    let mark = if outcome.noisy(measure.key) { "†" } else { "" };
    format!("{:.digits$}{mark} ({:.digits$}–{:.digits$})", summary.median, summary.min, summary.max)
}

/// The ratio, and whether it is in our favour.
fn ratio(measure: Measure, ours: f64, theirs: f64) -> String {
    let ratio = ours / theirs;
    let good = if measure.more_is_better { ratio >= 1.0 } else { ratio <= 1.0 };
    format!("{ratio:.2}×{}", if good { "" } else { " !" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(value: f64) -> Sample {
        Sample { values: BTreeMap::from([("tcp1".to_owned(), value)]), ..Sample::default() }
    }

    #[test]
    fn gates_name_what_costs_too_much() {
        let contenders = [Contender::Agent, Contender::Tailscaled("1.2.3".to_owned())];
        let mut results = Results::new(contenders.into_iter().map(Outcome::new));
        let cpu = |tcp: f64, udp: f64| Sample {
            values: [("tcp1_cpu", tcp), ("udp_cpu", udp)].map(|(key, value)| (key.to_owned(), value)).into(),
            ..Sample::default()
        };
        results.add(0, cpu(2.0, 2.0));
        results.add(1, cpu(3.0, 3.0));
        assert_eq!(results.gate_misses(), ["udp_cpu of tsrs-agent: 0.67 of tailscaled 1.2.3's, 0.5 allowed"]);
    }

    #[test]
    fn table_shows_medians_ranges_and_ratios() {
        let contenders = [Contender::Agent, Contender::Tailscaled("1.2.3".to_owned())];
        let mut results = Results::new(contenders.into_iter().map(Outcome::new));
        for value in [4.0, 6.0, 5.0] {
            results.add(0, sample(value));
            results.add(1, sample(value * 2.0));
        }
        results.fail(1, "boom\nmore");
        let text = results.text(1);
        assert!(text.contains("5.00 (4.00–6.00)"), "{text}");
        assert!(text.contains("0.50× !"), "{text}");
        assert!(text.contains("6 runs, 1 failed, 1 peers skipped"), "{text}");
        assert!(text.contains("tailscaled 1.2.3 failed: boom\n"), "{text}");
        let plots = results.plots();
        assert!(matches!(&plots[..], [("agents", svg)] if svg.contains("tailscaled 1.2.3")), "{plots:?}");
    }
}
