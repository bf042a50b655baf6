//! The privileged agent: start-up, state store, LocalAPI server, wiring and shutdown.
//!
//! [`run`] is `tsrs-agent daemon`, [`cleanup`] is `tsrs-agent cleanup`. One task, the backend, owns the agent of
//! `agent/core` and everything that changes; the LocalAPI reads snapshots and asks the backend for changes. Only the module
//! `platform` names an operating system.
#![forbid(unsafe_code)]

mod api;
mod backend;
mod bus;
mod chain_store;
mod config_file;
mod control;
mod flags;
mod host;
mod host_facts;
mod logging;
mod output;
mod platform;
mod startup;
mod store;
mod tunnel;
mod tunnel_net;
mod tunnel_routes;

use std::ffi::OsString;
use std::process::ExitCode;

use tsrs_agent_localapi::gate;

use crate::flags::{Flags, USAGE, UsageError};

/// Exit code for a command line that is not understood, as Go programs have it.
const USAGE_EXIT: u8 = 2;

/// Threads for the LocalAPI, DNS and the connections to control and relays. Packets have threads of their own.
const WORKER_THREADS: usize = 2;

/// Runs the daemon with the arguments behind `daemon`.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let flags = match Flags::parse(args) {
        Ok(flags) => flags,
        Err(error) => return usage(&error),
    };
    if flags.cleanup {
        return clean(&flags);
    }
    if let Err(closed) = gate::check(std::env::var_os(gate::VARIABLE).as_deref()) {
        output::error(&closed);
        return ExitCode::FAILURE;
    }
    logging::begin(flags.verbose);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .thread_name("tsrs-agent")
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(startup::run(flags));
            // What is still waiting on a blocking call is not waited for.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format_args!("tsrs-agent: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Undoes what a dead daemon left, with the arguments behind `cleanup`. The gate does not stand before it: taking
/// changes back is always allowed.
pub fn cleanup(args: Vec<OsString>) -> ExitCode {
    match Flags::parse(args) {
        Ok(flags) => clean(&flags),
        Err(error) => usage(&error),
    }
}

fn clean(flags: &Flags) -> ExitCode {
    logging::begin(flags.verbose);
    match startup::cleanup(flags) {
        Ok(undone) if undone.is_empty() => output::line(&"There was nothing to undo."),
        Ok(undone) => output::line(&format_args!("Undone: {}.", undone.join(", "))),
        Err(error) => {
            output::error(&format_args!("tsrs-agent: {error:#}"));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn usage(error: &UsageError) -> ExitCode {
    if *error == UsageError::Help {
        output::line(&USAGE);
        return ExitCode::SUCCESS;
    }
    output::error(&format_args!("{error}\n{USAGE}"));
    ExitCode::from(USAGE_EXIT)
}
