//! Where results go: standard output, and files.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Writes a line to standard output.
#[expect(clippy::print_stdout, reason = "the program's output")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// Writes a line about the progress to standard error.
#[expect(clippy::print_stderr, reason = "the program's progress")]
pub(crate) fn progress(line: &str) {
    eprintln!("{line}");
}

/// Writes `result` as text and as JSON into a folder, which is made.
pub(crate) fn write_results(folder: &Path, name: &str, text: &str, result: &impl Serialize) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let write = |ending: &str, content: &str| {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    };
    write("txt", text)?;
    write("json", &(serde_json::to_string_pretty(result)? + "\n"))
}

/// A table in columns: the first is left-aligned, the others right-aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these column headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self::with(headings.iter().map(|heading| (*heading).to_owned()))
    }

    /// With these column headings.
    pub(crate) fn with(headings: impl IntoIterator<Item = String>) -> Self {
        Self { rows: vec![headings.into_iter().collect()] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as lines of text.
    pub(crate) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a string cannot fail.
                let _ = match index {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
