//! The real `tailscaled` and its command-line client.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::host::Host;
use crate::process::Process;
use crate::{tools, wait};

/// Time that the daemon gets to open its socket.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Time that `up` gets.
const UP_LIMIT: &str = "60s";
const SOCKET: &str = "/run/tailscale/tailscaled.sock";
const STATE: &str = "/var/lib/tailscale";

/// How to start a `tailscaled`.
#[derive(Clone, Debug, Default)]
pub struct TailscaledOptions {
    /// File with the CA of the control and DERP servers.
    pub ca_file: Option<PathBuf>,
    /// UDP port; 0 is any.
    pub port: u16,
    /// Further environment.
    pub environment: Vec<(String, String)>,
}

/// A running `tailscaled`; it ends with this value.
#[derive(Debug)]
pub struct Tailscaled<'a> {
    host: &'a Host,
    daemon: PathBuf,
    cli: PathBuf,
    options: TailscaledOptions,
    process: Process,
}

impl Host {
    /// Starts the `tailscaled` found by [`tools::find`].
    pub fn tailscaled(&self, options: &TailscaledOptions) -> Result<Tailscaled<'_>> {
        let daemon = tools::find("tailscaled").context("tailscaled not found")?;
        let cli = tools::find("tailscale").context("tailscale not found")?;
        for folder in ["/run/tailscale/", "/var/lib/tailscale/"] {
            std::fs::create_dir_all(self.outside(folder))?;
        }
        let process = start(self, &daemon, options)?;
        Ok(Tailscaled { host: self, daemon, cli, options: options.clone(), process })
    }
}

fn start(host: &Host, daemon: &Path, options: &TailscaledOptions) -> Result<Process> {
    let mut command = host.command(daemon);
    // Never uploads logs.
    command.env("TS_NO_LOGS_NO_SUPPORT", "true").args(["--statedir", STATE, "--socket", SOCKET]);
    command.arg(format!("--port={}", options.port));
    if let Some(ca_file) = &options.ca_file {
        command.env("SSL_CERT_FILE", ca_file);
    }
    command.envs(options.environment.iter().map(|(name, value)| (name, value)));
    let process = host.spawn("tailscaled", command)?;
    let socket = host.outside(SOCKET);
    let open = || std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(());
    wait::until("tailscaled opens its socket", START_LIMIT, open).with_context(|| tail(&process.log()))?;
    Ok(process)
}

impl<'a> Tailscaled<'a> {
    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its host.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// The client's program.
    pub fn cli_program(&self) -> &Path {
        &self.cli
    }

    /// Stops the daemon properly and starts it again, without joining anew.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop()?;
        self.process = start(self.host, &self.daemon, &self.options)?;
        Ok(())
    }

    /// Runs the client; its standard output, or an error with all that it said.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let cli = self.cli.to_string_lossy();
        let socket = format!("--socket={SOCKET}");
        let mut all = vec![socket.as_str()];
        all.extend_from_slice(arguments);
        self.host.run(&cli, &all)
    }

    /// `tailscale up` with a login server and an auth key.
    pub fn up(&self, login_server: &str, auth_key: &str, more: &[&str]) -> Result<()> {
        let server = format!("--login-server={login_server}");
        let key = format!("--auth-key={auth_key}");
        let limit = format!("--timeout={UP_LIMIT}");
        let mut arguments = vec!["up", &server, &key, &limit];
        arguments.extend_from_slice(more);
        self.cli(&arguments).map(drop).with_context(|| tail(&self.process.log()))
    }

    /// `tailscale status --json`.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.cli(&["status", "--json"])?).context("status")
    }

    /// Its own IPv4 address in the tailnet.
    pub fn ipv4(&self) -> Result<Ipv4Addr> {
        self.cli(&["ip", "-4"])?.trim().parse().context("address of tailscaled")
    }

    /// Waits until its status is such.
    pub fn wait_status<T>(
        &self,
        what: &str,
        limit: Duration,
        such: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = Value::Null;
        let found = wait::until(what, limit, || {
            last = self.status().ok()?;
            such(&last)
        });
        found.with_context(|| format!("status: {last:#}\n{}", tail(&self.process.log())))
    }

    /// Waits until a peer of this host name is on its map and online; the peer's status.
    pub fn wait_peer(&self, host_name: &str, limit: Duration) -> Result<Value> {
        self.wait_status(&format!("peer {host_name} online"), limit, |status| {
            let peers = status["Peer"].as_object()?;
            peers.values().find(|peer| peer["HostName"] == host_name && peer["Online"] == true).cloned()
        })
    }

    /// `tailscale ping` until a direct path is found, or the limit has passed; what it printed.
    pub fn ping(&self, target: &str, until_direct: bool) -> Result<String> {
        let until_direct = format!("--until-direct={until_direct}");
        self.cli(&["ping", &until_direct, "--c=20", "--timeout=2s", target])
            .with_context(|| tail(&self.process.log()))
    }
}

/// The end of a log, for errors.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(40);
    format!("end of the log:\n{}", lines[from..].join("\n"))
}
