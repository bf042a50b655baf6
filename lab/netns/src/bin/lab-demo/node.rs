//! What runs on a host of the demo.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde_json::Value;
use tsrs_lab_netns::{Agent, Host, Process, Tailscaled, TailscaledOptions, UpArgs};

use crate::control::Control;
use crate::report::Report;

/// What runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// tsrs-agent.
    Agent,
    /// The real tailscaled.
    Tailscaled,
}

/// A node of the demo.
pub(crate) enum Node<'a> {
    Agent(Box<Agent<'a>>, &'a Host),
    Tailscaled(Box<Tailscaled<'a>>, &'a Host),
}

impl<'a> Node<'a> {
    /// Starts the daemon; it does not join yet.
    pub(crate) fn start(host: &'a Host, kind: Kind, control: &Control<'_>) -> Result<Self> {
        Ok(match kind {
            Kind::Agent => {
                let arguments = UpArgs::default().trusting(control.ca_file());
                Self::Agent(Box::new(host.agent(arguments)?), host)
            }
            Kind::Tailscaled => {
                let options =
                    TailscaledOptions { ca_file: Some(control.ca_file()), ..TailscaledOptions::default() };
                Self::Tailscaled(Box::new(host.tailscaled(&options)?), host)
            }
        })
    }

    pub(crate) fn host(&self) -> &'a Host {
        match self {
            Self::Agent(_, host) | Self::Tailscaled(_, host) => host,
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Agent(..) => "tsrs-agent",
            Self::Tailscaled(..) => "tailscaled",
        }
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> Result<String> {
        match self {
            Self::Agent(agent, _) => agent.cli(arguments),
            Self::Tailscaled(tailscaled, _) => tailscaled.cli(arguments),
        }
    }

    pub(crate) fn up(&self, url: &str, key: &str) -> Result<()> {
        let (server, key) = (format!("--login-server={url}"), format!("--auth-key={key}"));
        self.cli(&["up", &server, &key, "--timeout=60s"]).map(drop)
    }

    pub(crate) fn ipv4(&self) -> Result<Ipv4Addr> {
        match self {
            Self::Agent(agent, _) => agent.ipv4(),
            Self::Tailscaled(tailscaled, _) => tailscaled.ipv4(),
        }
    }

    pub(crate) fn wait_status<T>(
        &self,
        what: &str,
        limit: Duration,
        such: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        match self {
            Self::Agent(agent, _) => agent.wait_status(what, limit, such),
            Self::Tailscaled(tailscaled, _) => tailscaled.wait_status(what, limit, such),
        }
    }

    pub(crate) fn restart(&mut self) -> Result<()> {
        match self {
            Self::Agent(agent, _) => agent.restart(),
            Self::Tailscaled(tailscaled, _) => tailscaled.restart(),
        }
    }

    fn process(&self) -> &Process {
        match self {
            Self::Agent(agent, _) => agent.process(),
            Self::Tailscaled(tailscaled, _) => tailscaled.process(),
        }
    }

    /// The client's program, with the flags that find the daemon.
    fn client(&self) -> String {
        let show = |path: &Path| path.display().to_string();
        match self {
            Self::Agent(agent, _) => show(agent.binary()),
            Self::Tailscaled(tailscaled, _) => show(tailscaled.cli_program()),
        }
    }
}

/// How to play with a tailnet that was left up.
pub(crate) fn print_commands(nodes: &[Node<'_>], control: &Control<'_>, report: &mut Report) {
    report.headline("The tailnet stays up. Commands to play with it, as root:");
    for node in nodes {
        let (name, kind) = (node.host().name(), node.kind());
        report.show(&format!("# host {name}: {kind}, log {}", node.process().log_path().display()));
        report.show(&format!("nsenter -t {} -n -m -u {} status", node.process().pid(), node.client()));
    }
    report.show(&control.command());
    report.show("# take everything away again");
    report.show(&format!("{} remove {}", lab_tool(), std::process::id()));
}

fn lab_tool() -> String {
    tsrs_lab_netns::tools::beside("lab-tool")
        .map_or_else(|| "lab-tool".to_owned(), |path| path.display().to_string())
}
