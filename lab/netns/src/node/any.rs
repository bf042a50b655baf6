//! A node of either kind, as far as tests and the demo use both alike.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Agent, Server, Tailscaled, TailscaledOptions, UpArgs};
use crate::host::Host;
use crate::process::Process;

/// What runs on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// tsrs-agent.
    Agent,
    /// The real tailscaled.
    Tailscaled,
}

/// A node of either kind.
#[derive(Debug)]
pub enum Node<'a> {
    /// tsrs-agent.
    Agent(Box<Agent<'a>>),
    /// The real tailscaled.
    Tailscaled(Box<Tailscaled<'a>>),
}

impl<'a> Node<'a> {
    /// Starts the daemon, trusting the server; it does not join yet.
    pub fn start(host: &'a Host, kind: NodeKind, server: &Server<'_>) -> Result<Self> {
        Ok(match kind {
            NodeKind::Agent => {
                Self::Agent(Box::new(host.agent(UpArgs::default().trusting(server.ca_file()))?))
            }
            NodeKind::Tailscaled => {
                let ca_file = Some(server.ca_file().clone());
                let options = TailscaledOptions { ca_file, ..TailscaledOptions::default() };
                Self::Tailscaled(Box::new(host.tailscaled(&options)?))
            }
        })
    }

    /// Its host.
    pub fn host(&self) -> &'a Host {
        match self {
            Self::Agent(agent) => agent.host(),
            Self::Tailscaled(tailscaled) => tailscaled.host(),
        }
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agent(_) => "tsrs-agent",
            Self::Tailscaled(_) => "tailscaled",
        }
    }

    /// Runs a command of its client; both have the same commands.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        match self {
            Self::Agent(agent) => agent.cli(arguments),
            Self::Tailscaled(tailscaled) => tailscaled.cli(arguments),
        }
    }

    /// Runs a command of Tailscale's own client against the node's LocalAPI, which is the same for both kinds.
    pub fn tailscale(&self, arguments: &[&str]) -> Result<String> {
        match self {
            Self::Agent(agent) => agent.tailscale(arguments),
            Self::Tailscaled(tailscaled) => tailscaled.cli(arguments),
        }
    }

    /// Joins.
    pub fn up(&self, server: &Server<'_>, key: &str) -> Result<()> {
        let (server, key) = (format!("--login-server={}", server.url()), format!("--auth-key={key}"));
        self.cli(&["up", &server, &key, "--timeout=60s"]).map(drop).with_context(|| self.process().log())
    }

    /// Its own IPv4 address in the tailnet.
    pub fn ipv4(&self) -> Result<Ipv4Addr> {
        match self {
            Self::Agent(agent) => agent.ipv4(),
            Self::Tailscaled(tailscaled) => tailscaled.ipv4(),
        }
    }

    /// Waits until its status is such.
    pub fn wait_status<T>(
        &self,
        what: &str,
        limit: Duration,
        such: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        match self {
            Self::Agent(agent) => agent.wait_status(what, limit, such),
            Self::Tailscaled(tailscaled) => tailscaled.wait_status(what, limit, such),
        }
    }

    /// Waits until so many peers are online and their home relays known: a server may tell the one before the other.
    pub fn wait_peers(&self, count: usize, limit: Duration) -> Result<()> {
        self.wait_status(&format!("{count} peers online"), limit, |status| {
            let peers = status["Peer"].as_object()?;
            let met = |peer: &&Value| peer["Online"] == true && peer["Relay"] != "";
            (peers.values().filter(met).count() >= count).then_some(())
        })
    }

    /// Pings until the path is direct; the last line that the client printed.
    pub fn ping_direct(&self, target: Ipv4Addr) -> Result<String> {
        let said =
            self.cli(&["ping", "--until-direct=true", "--c=60", "--timeout=1s", &target.to_string()])?;
        let last = said.trim_end().lines().last().unwrap_or_default();
        if !last.starts_with("pong") || last.contains("via DERP") {
            bail!("no direct path: {said}");
        }
        Ok(last.to_owned())
    }

    /// Pings once over the relay; the line that the client printed.
    pub fn ping_relayed(&self, target: Ipv4Addr) -> Result<String> {
        let said =
            self.cli(&["ping", "--until-direct=false", "--c=1", "--timeout=5s", &target.to_string()])?;
        if !said.contains("via DERP") {
            bail!("not over the relay: {said}");
        }
        Ok(said.trim_end().to_owned())
    }

    /// Stops the daemon properly and starts it again, without joining anew.
    pub fn restart(&mut self) -> Result<()> {
        match self {
            Self::Agent(agent) => agent.restart(),
            Self::Tailscaled(tailscaled) => tailscaled.restart(),
        }
    }

    /// The daemon's process.
    pub fn process(&self) -> &Process {
        match self {
            Self::Agent(agent) => agent.process(),
            Self::Tailscaled(tailscaled) => tailscaled.process(),
        }
    }

    /// The client's program.
    pub fn client(&self) -> &Path {
        match self {
            Self::Agent(agent) => agent.binary(),
            Self::Tailscaled(tailscaled) => tailscaled.cli_program(),
        }
    }
}
