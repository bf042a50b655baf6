//! What the demo prints.

use std::time::Instant;

/// Steps so far and how they went.
#[derive(Default)]
pub(crate) struct Report {
    steps: Vec<Step>,
}

struct Step {
    name: &'static str,
    ok: bool,
    secs: f64,
}

impl Report {
    /// Begins a part.
    pub(crate) fn headline(&mut self, text: &str) {
        self.print(&format!("\n== {text}"));
    }

    /// Evidence.
    pub(crate) fn show(&mut self, text: &str) {
        for line in text.trim_end().lines() {
            self.print(&format!("   {line}"));
        }
    }

    /// Runs a step; its failure stands in the summary and is given back.
    pub(crate) fn step(
        &mut self,
        name: &'static str,
        run: impl FnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.headline(name);
        let start = Instant::now();
        let result = run(self);
        self.steps.push(Step { name, ok: result.is_ok(), secs: start.elapsed().as_secs_f64() });
        result
    }

    /// Says which steps went how.
    pub(crate) fn summary(&mut self) {
        self.headline("Summary");
        let lines: Vec<String> = (self.steps.iter())
            .map(|step| {
                format!("{}  {:5.1} s  {}", if step.ok { "ok    " } else { "FAILED" }, step.secs, step.name)
            })
            .collect();
        for line in lines {
            self.show(&line);
        }
    }

    #[expect(clippy::print_stdout, reason = "the demo's output")]
    fn print(&mut self, line: &str) {
        println!("{line}");
    }
}
