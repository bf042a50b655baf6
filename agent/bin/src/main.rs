//! The binary `tsrs-agent`: dispatch only.
//!
//! `daemon` and `cleanup` are the privileged agent; every other command is a client of its socket.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|word| word.to_str()) {
        Some("daemon") => tsrs_agent_daemon::run(args.into_iter().skip(2).collect()),
        Some("cleanup") => tsrs_agent_daemon::cleanup(args.into_iter().skip(2).collect()),
        Some(_) | None => tsrs_agent_cli::run(args),
    }
}
