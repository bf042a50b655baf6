//! Static guards: what a reviewer would otherwise have to look for in every change.
//!
//! `cargo run -p checks` reads cargo's metadata, the syntax trees of the workspace and the texts at its root, and prints
//! one line per violation with what to do about it. It decides by structure, never by searching text:
//!
//! - [`layers`]: crates depend downwards only, by the table of ARCHITECTURE.md;
//! - [`dependencies`]: every external crate is listed with its reason;
//! - [`house`]: lints are inherited, `unsafe` stays in `sys` modules of four crates, no build scripts or macros of our own;
//! - [`sans_io`]: protocol crates name no socket, file, clock, thread or process; no crate makes an unbounded channel;
//! - [`exit`]: exit traffic has one module that makes sockets, no IPv6, and no setting that means "direct";
//! - [`decoders`]: every decoder of foreign input has a fuzz target;
//! - [`texts`]: what ARCHITECTURE.md names exists, and every crate is named there.
#![forbid(unsafe_code)]
#![expect(clippy::wildcard_enum_match_arm, reason = "syn's enums are open: most of their forms name no path")]

mod decoders;
mod dependencies;
mod exit;
mod house;
mod layers;
mod paths;
mod sans_io;
mod source;
mod texts;

use std::process::ExitCode;

use anyhow::Context;

/// One broken rule, as a line that says what to do.
pub(crate) type Violation = String;

fn main() -> ExitCode {
    match run() {
        Ok(violations) if violations.is_empty() => ExitCode::SUCCESS,
        Ok(violations) => {
            report(&violations);
            ExitCode::FAILURE
        }
        Err(error) => {
            report(&[format!("checks could not run, which counts as a failure: {error:#}")]);
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<Vec<Violation>> {
    let metadata = cargo_metadata::MetadataCommand::new().exec().context("cargo metadata")?;
    let sources = source::workspace(&metadata)?;
    let mut violations = Vec::new();
    violations.extend(layers::check(&metadata));
    violations.extend(dependencies::check(&metadata));
    violations.extend(house::check(&metadata, &sources)?);
    violations.extend(sans_io::check(&sources));
    violations.extend(exit::check(&sources));
    violations.extend(decoders::check(&metadata, &sources)?);
    violations.extend(texts::check(&metadata)?);
    violations.sort();
    violations.dedup();
    Ok(violations)
}

#[expect(clippy::print_stderr, reason = "the program's output")]
fn report(violations: &[Violation]) {
    for violation in violations {
        eprintln!("{violation}");
    }
    eprintln!("{} violation(s)", violations.len());
}
