//! The command line: one file per command, text and JSON output.
//!
//! Every command is a thin client of the daemon's LocalAPI; what it decides by itself is how to ask and how to show. Flags,
//! exit codes and JSON shapes are those of the official client (client sheet §1), and errors name the next step.
#![forbid(unsafe_code)]

mod client;
mod commands;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod output;
mod settings;
mod start;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::client::Client;
use crate::commands::Command;
use crate::error::CliError;

/// Where the daemon of instance 0 listens.
pub const DEFAULT_SOCKET: &str = "/run/tsrs-agent/tailscaled.sock";

/// A VPN client that joins a tailnet.
#[derive(Parser, Debug)]
#[command(name = "tsrs-agent", version, disable_help_subcommand = true, propagate_version = true)]
struct Cli {
    /// Socket of the daemon.
    #[arg(long, global = true, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Command,
}

/// Runs a client command. `args` begins with the program's name.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let bare = args.len() <= 1;
    let matches = match Cli::command().try_get_matches_from(args) {
        // Whoever asks for nothing is shown what there is.
        Err(error) if bare => {
            return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    if cli.command.talks_to_daemon()
        && let Err(closed) =
            tsrs_agent_localapi::gate::check(std::env::var_os(tsrs_agent_localapi::gate::VARIABLE).as_deref())
    {
        output::note(closed);
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&CliError::from(error)),
    };
    let result = runtime.block_on(cli.command.run(&Client::new(cli.socket)));
    // A pending read of standard input must not hold the program back.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

/// The command line's grammar, for completions.
fn grammar() -> clap::Command {
    Cli::command()
}

/// Help and version go to standard output and succeed.
fn usage(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    if shown.is_err() { ExitCode::from(2) } else { ExitCode::from(usage_code(error)) }
}

/// The exit codes of the official client: 2 for a flag that is unknown, given twice or given wrongly, 1 for wrong
/// arguments and subcommands.
fn usage_code(error: &clap::Error) -> u8 {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        Some(ContextValue::Strings(texts)) => texts.first().map_or("", String::as_str),
        _ => "",
    };
    let argument = context(ContextKind::InvalidArg);
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return 0;
    }
    // Two flags that exclude each other count as wrong arguments; one that excludes itself was given twice.
    let excluded = kind == ErrorKind::ArgumentConflict && argument != context(ContextKind::PriorArg);
    if argument.starts_with('-') && !excluded { 2 } else { 1 }
}

fn failed(error: &CliError) -> ExitCode {
    output::note(format_args!("{error}"));
    if error.denied && !nix::unistd::geteuid().is_root() {
        let command = std::env::args().map(|arg| quoted(&arg)).collect::<Vec<_>>().join(" ");
        output::note(format_args!("\nUse 'sudo {command}'."));
        output::note("To not require root, use 'sudo tsrs-agent set --operator=$USER' once.");
    }
    ExitCode::FAILURE
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=/.,:@%+".contains(&byte);
    if !arg.is_empty() && arg.bytes().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
