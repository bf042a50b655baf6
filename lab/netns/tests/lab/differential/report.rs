//! What was found, and what of it is accepted.

use std::cell::{Cell, RefCell};

use super::accepted::{ACCEPTED, Part, is_chance};

/// Differences as they are found. The test goes on after each, so that one run names them all.
pub(super) struct Report {
    occurred: Vec<Cell<bool>>,
    findings: RefCell<Vec<String>>,
}

impl Report {
    pub(super) fn new() -> Self {
        Self { occurred: vec![Cell::new(false); ACCEPTED.len()], findings: RefCell::default() }
    }

    /// The two sides differ in this part of what the command gave.
    pub(super) fn differ(&self, command: &str, part: Part<'_>, detail: impl FnOnce() -> String) {
        if is_chance(part) {
            return;
        }
        let row = ACCEPTED.iter().position(|row| row.covers(command, part));
        match row.and_then(|row| self.occurred.get(row)) {
            Some(occurred) => occurred.set(true),
            None => self.fail(format!("{command}: {part:?}: {}", detail())),
        }
    }

    /// Something is wrong that no row can excuse.
    pub(super) fn fail(&self, finding: String) {
        self.findings.borrow_mut().push(finding);
    }

    /// Panics with everything that was found. A row of the table that nothing needed is wrong too: it would hide the day
    /// on which the difference comes back for another reason.
    pub(super) fn finish(self) {
        let mut findings = self.findings.into_inner();
        let stale = ACCEPTED.iter().zip(&self.occurred).filter(|(_, occurred)| !occurred.get());
        findings.extend(stale.map(|(row, _)| format!("no longer differs, remove the row: {row:?}")));
        assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
    }
}

#[test]
#[should_panic(expected = "no longer differs")]
fn a_row_that_nothing_needs_fails() {
    Report::new().finish();
}
