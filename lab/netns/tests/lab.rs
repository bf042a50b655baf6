//! The lab against the real thing: stock `tailscaled`s join it, our own agent, and headscale, in namespaces.
//!
//! Needs root. `tailscaled` and `tailscale` are looked for in `TSRS_TAILSCALED_DIR` and on `PATH`, `headscale` on
//! `PATH`; tests without their programs are skipped, loudly. `TSRS_LOG` shows the servers' logs.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as the tests do")]

#[path = "lab/cleanup.rs"]
mod cleanup;
#[path = "lab/differential.rs"]
mod differential;
#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/headscale.rs"]
mod headscale;
#[path = "lab/host.rs"]
mod host;
#[path = "lab/lock.rs"]
mod lock;
#[path = "lab/login.rs"]
mod login;
#[path = "lab/matrix.rs"]
mod matrix;
#[path = "lab/meet.rs"]
mod meet;
#[path = "lab/network.rs"]
mod network;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tsrs_lab_netns::{MachineGuard, Net, TailscaledOptions, tools};

/// Time for something that takes a handful of round trips and a timer or two.
const SOON: Duration = Duration::from_secs(30);
/// The programs of Tailscale.
const TAILSCALE: [&str; 2] = ["tailscaled", "tailscale"];

/// What each test holds: the tests run one after the other, since they share two cores and one machine, and after each
/// the machine must be as it was.
struct Turn {
    machine: MachineGuard,
    _lock: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> Self {
        static LOCK: Mutex<()> = Mutex::new(());
        let lock = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
        let filter =
            tracing_subscriber::EnvFilter::try_from_env("TSRS_LOG").unwrap_or_else(|_| "warn".into());
        // Already set by an earlier test in this process.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
        Self { machine: MachineGuard::note(), _lock: lock }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A test that fails already says enough.
        if !std::thread::panicking() {
            self.machine.compare().unwrap();
        }
    }
}

/// A turn, if the agent is built.
fn turn_with_agent(test: &str) -> Option<Turn> {
    if tsrs_lab_netns::agent_binary().is_none() {
        tools::skip(test, "tsrs-agent is not built beside the tests");
        return None;
    }
    Some(Turn::take())
}

/// A turn, if the agent is built and these programs are there.
fn turn_with_agent_and(test: &str, programs: &[&str]) -> Option<Turn> {
    tools::find_all(test, programs)?;
    turn_with_agent(test)
}

/// A turn, if these programs are there.
fn turn_with(test: &str, programs: &[&str]) -> Option<Turn> {
    tools::find_all(test, programs)?;
    Some(Turn::take())
}

fn options(net: &Net) -> TailscaledOptions {
    TailscaledOptions { ca_file: Some(net.ca_file()), ..TailscaledOptions::default() }
}
