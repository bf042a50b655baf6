//! Running the programs that shape a lab (`ip`, `nft`) and reading what they say.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a program to its end; its standard output, or an error with all that it said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    finish(Command::new(program).args(arguments).stdin(Stdio::null()).output(), program, arguments)
}

/// Runs a program that reads `input`.
pub(crate) fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    // The programs fed this way read all of their input before they write more than a pipe holds.
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("feed {program}"))?;
    }
    finish(child.wait_with_output(), program, arguments).with_context(|| format!("input was:\n{input}"))
}

/// `ip` in a namespace, one command a line.
pub(crate) fn ip_batch(namespace: &str, lines: &[String]) -> Result<()> {
    run_with_input("ip", &["-n", namespace, "-batch", "-"], &(lines.join("\n") + "\n")).map(drop)
}

fn finish(output: std::io::Result<Output>, program: &str, arguments: &[&str]) -> Result<String> {
    let output = output.with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
