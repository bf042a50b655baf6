//! The one place that writes to the terminal.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::error::Result;

/// Writes a line to standard output. A reader that went away ends the program quietly, as in any pipeline.
pub(crate) fn line(text: impl Display) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Writes text to standard output without a line end.
pub(crate) fn text(text: impl Display) {
    let mut out = std::io::stdout().lock();
    if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes a line to standard error: progress, questions and warnings.
pub(crate) fn note(text: impl Display) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes JSON as the official client does: two blanks of indent.
pub(crate) fn json(value: &impl Serialize) -> Result {
    line(serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Rows in columns, each as wide as its widest cell.
pub(crate) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut out = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            out.push_str(&format!("{cell:width$}  "));
        }
        line(out.trim_end());
    }
}

/// A line on standard error that shows that something is waited for; it replaces itself on a terminal.
pub(crate) struct Progress {
    last: String,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { last: String::new(), terminal: std::io::stderr().is_terminal() }
    }

    /// Says what is waited for now; said once as long as it does not change.
    pub(crate) fn say(&mut self, text: &str) {
        if self.last == text {
            return;
        }
        self.last = text.to_owned();
        let mut err = std::io::stderr().lock();
        let _ = if self.terminal { write!(err, "\r\x1b[K{text}") } else { writeln!(err, "{text}") };
        let _ = err.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && !self.last.is_empty() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
