//! Health warnings: what the user should act on, shown by `status` and on the bus (client sheet §3.5).
//!
//! A problem is noted when it begins and when it ends. It is shown once it has lasted for its own time, and stays hidden
//! while another problem explains it.

mod catalogue;

use std::collections::BTreeMap;
use std::time::Instant;

use jiff::Timestamp;
use tsrs_agent_localapi::notify::{HealthAction, HealthState, HealthWarning};
use tsrs_base_types::time::WireTime;

use catalogue::entry;
pub use catalogue::{Problem, Severity};

/// Longest text of the system or of a server that a warning carries.
const MAX_DETAIL_LEN: usize = 1024;

/// Most messages of the control server that are kept: above what any server sends, and a bound against one that floods.
const MAX_CONTROL_MESSAGES: usize = 64;

/// The problems of the moment.
#[derive(Clone, Debug, Default)]
pub struct Health {
    problems: BTreeMap<Problem, Active>,
    control: BTreeMap<String, HealthWarning>,
}

#[derive(Clone, Debug)]
struct Active {
    since: Instant,
    since_wall: Timestamp,
    detail: String,
}

impl Health {
    /// A problem is there. `detail` completes its text. Says whether anything is new.
    pub fn set(&mut self, problem: Problem, detail: &str, now: Instant, wall: Timestamp) -> bool {
        let detail = shortened(detail);
        match self.problems.get_mut(&problem) {
            Some(active) if active.detail == detail => false,
            Some(active) => {
                active.detail = detail;
                true
            }
            None => {
                self.problems.insert(problem, Active { since: now, since_wall: wall, detail });
                true
            }
        }
    }

    /// A problem is gone. Says whether it was there.
    pub fn clear(&mut self, problem: Problem) -> bool {
        self.problems.remove(&problem).is_some()
    }

    /// [`Self::set`] or [`Self::clear`].
    pub fn note(&mut self, problem: Problem, detail: Option<&str>, now: Instant, wall: Timestamp) -> bool {
        match detail {
            Some(detail) => self.set(problem, detail, now, wall),
            None => self.clear(problem),
        }
    }

    /// Whether a problem is there, shown or not.
    pub fn has(&self, problem: Problem) -> bool {
        self.problems.contains_key(&problem)
    }

    /// The messages of the control server as they are now, by id.
    pub fn set_control(&mut self, messages: impl IntoIterator<Item = (String, HealthWarning)>) -> bool {
        let next = messages
            .into_iter()
            .take(MAX_CONTROL_MESSAGES)
            .map(|(id, warning)| {
                let code = format!("control-health.{id}");
                let text = shortened(&warning.text);
                (code.clone(), HealthWarning { code, text, ..warning })
            })
            .collect();
        let changed = self.control != next;
        self.control = next;
        changed
    }

    /// What is shown now, by code.
    pub fn warnings(&self, now: Instant) -> BTreeMap<String, HealthWarning> {
        let shown = self.problems.iter().filter(|(problem, active)| {
            let entry = entry(**problem);
            now.saturating_duration_since(active.since) >= entry.shown_after
                && !entry.explained_by.iter().any(|other| self.problems.contains_key(other))
        });
        let warning = |problem: Problem, active: &Active| {
            let entry = entry(problem);
            let mut args = BTreeMap::new();
            if !active.detail.is_empty() {
                args.insert("error".to_owned(), active.detail.clone());
            }
            HealthWarning {
                code: entry.code.to_owned(),
                severity: entry.severity.word().to_owned(),
                title: entry.title.to_owned(),
                text: entry.text.replace("{}", &active.detail),
                broken_since: Some(WireTime::from(active.since_wall)),
                args,
                depends_on: entry
                    .explained_by
                    .iter()
                    .map(|other| self::entry(*other).code.to_owned())
                    .collect(),
                impacts_connectivity: entry.impacts_connectivity,
                primary_action: None::<HealthAction>,
            }
        };
        let mut out = self.control.clone();
        out.extend(
            shown.map(|(problem, active)| (entry(*problem).code.to_owned(), warning(*problem, active))),
        );
        out
    }

    /// The form of the bus.
    pub fn state(&self, now: Instant) -> HealthState {
        let warnings = self.warnings(now);
        HealthState { warnings: (!warnings.is_empty()).then_some(warnings) }
    }

    /// The form of `status`: one text each.
    pub fn texts(&self, now: Instant) -> Vec<String> {
        self.warnings(now)
            .into_values()
            .map(|warning| if warning.text.is_empty() { warning.title } else { warning.text })
            .collect()
    }

    /// When the next warning becomes visible by time alone.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.problems
            .iter()
            .filter_map(|(problem, active)| active.since.checked_add(entry(*problem).shown_after))
            .filter(|shown_at| *shown_at > now)
            .min()
    }
}

fn shortened(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= MAX_DETAIL_LEN).unwrap_or(text.len());
    text[..end].to_owned()
}

#[cfg(test)]
mod tests;
