//! Bad input and faults, with the real daemon: a clear text with the next step, and nothing lost.

#[path = "faults/hostile.rs"]
mod hostile;
#[path = "faults/idle.rs"]
mod idle;
#[path = "faults/login.rs"]
mod login;
#[path = "faults/outage.rs"]
mod outage;
#[path = "faults/secrets.rs"]
mod secrets;
#[path = "faults/settings.rs"]
mod settings;
#[path = "faults/start.rs"]
mod start;
#[path = "faults/undo.rs"]
mod undo;

use std::process::{Command, Output};

use tsrs_lab_netns::{Agent, Host, Net, Process, UpArgs, agent_binary, wait};

use crate::SOON;

/// The gate that has to be open for everything but the tests of the gate.
const GATE: (&str, &str) = ("TS_RS_EXPERIMENT", "this_is_unstable_software");
/// State directory of the agents.
const STATE_DIR: &str = "/var/lib/tsrs-agent";
/// State file of the agents.
const STATE_FILE: &str = "/var/lib/tsrs-agent/tsrs-agent.state";

/// A daemon that trusts the net's servers and has not joined.
fn daemon<'a>(net: &'a Net, host: &str, flags: &[&str]) -> Agent<'a> {
    net.host(host).agent(daemon_arguments(net, flags)).unwrap()
}

fn daemon_arguments(net: &Net, flags: &[&str]) -> UpArgs {
    let daemon_flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    UpArgs { daemon_flags, ca_file: Some(net.ca_file()), ..UpArgs::default() }
}

/// An agent that has joined.
fn joined<'a>(net: &'a Net, host: &str, url: &str, key: &str) -> Agent<'a> {
    net.host(host).agent(UpArgs::join(url, key).trusting(net.ca_file())).unwrap()
}

/// A command of the agent's binary, with the gate open.
fn agent_command(host: &Host, arguments: &[&str]) -> Command {
    let mut command = host.command(agent_binary().unwrap());
    command.args(arguments).env(GATE.0, GATE.1);
    command
}

/// Runs what must fail; the exit code and all that it said.
fn failure(output: &Output) -> (i32, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "succeeded: {said}");
    (output.status.code().unwrap(), said)
}

/// Runs a command that must fail with exit code 1; what it said.
fn refused(agent: &Agent<'_>, arguments: &[&str]) -> String {
    let (code, said) = failure(&agent.output(arguments).unwrap());
    assert_eq!(code, 1, "{said}");
    said
}

/// Waits until a process that must not go on has ended with exit code 1; what it said.
fn ended(process: &Process) -> String {
    let status = wait::until("the process ends", SOON, || process.exit_status()).unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.log());
    process.log()
}

/// Starts a daemon that must refuse; what it said.
fn daemon_refusal(host: &Host, log: &str, flags: &[&str]) -> String {
    let mut arguments = vec!["daemon"];
    arguments.extend(flags);
    ended(&host.spawn(log, agent_command(host, &arguments)).unwrap())
}

/// Asserts that a text names all of these.
#[track_caller]
fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// The health texts of an agent.
fn health(agent: &Agent<'_>) -> String {
    agent.status().unwrap()["Health"].to_string()
}

/// Waits until the agent's health says this, or no longer says it.
fn wait_health(agent: &Agent<'_>, part: &str, there: bool) {
    let what = format!("health {} {part:?}", if there { "says" } else { "no longer says" });
    agent
        .wait_status(&what, SOON, |status| {
            (status["Health"].to_string().contains(part) == there).then_some(())
        })
        .unwrap();
}

fn wait_state(agent: &Agent<'_>, state: &str) {
    let what = format!("state {state}");
    agent.wait_status(&what, SOON, |status| (status["BackendState"] == state).then_some(())).unwrap();
}

/// Runs all of these at once; fails as the first of them does.
fn at_once(scenarios: &[&(dyn Fn() + Sync)]) {
    std::thread::scope(|scope| {
        let running: Vec<_> = scenarios.iter().map(|scenario| scope.spawn(scenario)).collect();
        for scenario in running {
            if let Err(panic) = scenario.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
