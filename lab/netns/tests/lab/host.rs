//! What the real daemon does to its host: routes, firewall, names, accounts, and what the kernel says of it.

#[path = "host/accounts.rs"]
mod accounts;
#[path = "host/control.rs"]
mod control;
#[path = "host/firewall.rs"]
mod firewall;
#[path = "host/instances.rs"]
mod instances;
#[path = "host/links.rs"]
mod links;
#[path = "host/names.rs"]
mod names;
#[path = "host/settings.rs"]
mod settings;
#[path = "host/subnets.rs"]
mod subnets;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tsrs_lab_netns::{Agent, Host, Net, UpArgs, wait};

use crate::SOON;

/// Time for a packet that must not arrive: many times what one takes that does.
const IN_VAIN: Duration = Duration::from_millis(700);
/// The service address for DNS.
const MAGIC_DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)), 53);

/// An agent that has joined.
fn joined<'a>(net: &'a Net, host: &str, url: &str, key: &str) -> Agent<'a> {
    net.host(host).agent(UpArgs::join(url, key).trusting(net.ca_file())).unwrap()
}

/// A daemon that trusts the net's servers and has not joined.
fn daemon<'a>(net: &'a Net, host: &str, flags: &[&str]) -> Agent<'a> {
    let daemon_flags = flags.iter().map(|&flag| flag.to_owned()).collect();
    let arguments = UpArgs { daemon_flags, ca_file: Some(net.ca_file()), ..UpArgs::default() };
    net.host(host).agent(arguments).unwrap()
}

fn wait_state(agent: &Agent<'_>, state: &str) {
    let what = format!("state {state}");
    agent.wait_status(&what, SOON, |status| (status["BackendState"] == state).then_some(())).unwrap();
}

/// Runs a command of the client that must fail with exit code 1; what it said.
fn refused(agent: &Agent<'_>, arguments: &[&str]) -> String {
    let output = agent.output(arguments).unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

/// Asserts that a text names all of these.
#[track_caller]
fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

/// What a shell line on the host prints.
#[track_caller]
fn shell(host: &Host, line: &str) -> String {
    host.run("sh", &["-c", line]).unwrap()
}

/// Waits until what a shell line prints is such.
#[track_caller]
fn wait_shell(host: &Host, line: &str, such: impl Fn(&str) -> bool) {
    let mut last = String::new();
    let found = wait::until(line, SOON, || {
        last = host.run("sh", &["-c", line]).unwrap_or_default();
        such(&last).then_some(())
    });
    if let Err(error) = found {
        panic!("{error:#}: {last}");
    }
}

/// Whether an address answers within the time of a packet that must not arrive.
fn answers(host: &Host, address: Ipv4Addr) -> bool {
    host.ping(address, 1, IN_VAIN).unwrap().received == 1
}

/// Waits until an address no longer answers.
fn wait_silent(host: &Host, address: Ipv4Addr) {
    let what = format!("{address} no longer answers {}", host.name());
    wait::until(&what, SOON, || (!answers(host, address)).then_some(())).unwrap();
}
