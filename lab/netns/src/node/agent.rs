//! Our own agent.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::net::Ipv4Addr;

use crate::host::Host;
use crate::process::Process;
use crate::{tools, wait};

/// Where the binary is looked for before the target folder.
const BINARY_VARIABLE: &str = "TSRS_AGENT";
/// Name of the binary.
const BINARY: &str = "tsrs-agent";
/// The gate that whoever runs the agent must open, and what opens it.
const GATE: (&str, &str) = ("TS_RS_EXPERIMENT", "this_is_unstable_software");
/// Time that the daemon gets to open its socket.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How an agent is started and joins.
#[derive(Clone, Debug, Default)]
pub struct UpArgs {
    /// Login server; empty starts the daemon and does not join.
    pub login_server: String,
    /// Auth key.
    pub auth_key: String,
    /// File with the CA of the control and DERP servers.
    pub ca_file: Option<PathBuf>,
    /// Further flags of the daemon.
    pub daemon_flags: Vec<String>,
    /// Further flags of `up`.
    pub up_flags: Vec<String>,
    /// Further environment of the daemon.
    pub environment: Vec<(String, String)>,
    /// Number of the agent on its host.
    pub instance: u8,
}

impl UpArgs {
    /// Joins a server with a key.
    pub fn join(login_server: &str, auth_key: &str) -> Self {
        Self { login_server: login_server.to_owned(), auth_key: auth_key.to_owned(), ..Self::default() }
    }

    /// Trusts this CA.
    #[must_use]
    pub fn trusting(self, ca_file: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(ca_file.into()), ..self }
    }

    /// As this instance.
    #[must_use]
    pub fn instance(self, instance: u8) -> Self {
        Self { instance, ..self }
    }

    /// Adds a flag of `up`.
    #[must_use]
    pub fn flag(mut self, flag: &str) -> Self {
        self.up_flags.push(flag.to_owned());
        self
    }
}

/// A running agent; it ends with this value.
#[derive(Debug)]
pub struct Agent<'a> {
    host: &'a Host,
    binary: PathBuf,
    arguments: UpArgs,
    process: Process,
}

impl Host {
    /// Starts the agent's daemon and, if there is a login server, joins it.
    pub fn agent(&self, arguments: UpArgs) -> Result<Agent<'_>> {
        let binary = agent_binary().context("tsrs-agent is not built")?;
        let process = start(self, &binary, &arguments)?;
        let agent = Agent { host: self, binary, arguments, process };
        if !agent.arguments.login_server.is_empty() {
            agent.up()?;
        }
        Ok(agent)
    }
}

/// The agent's binary: `TSRS_AGENT`, or the one that was built beside the running program.
pub fn agent_binary() -> Option<PathBuf> {
    std::env::var_os(BINARY_VARIABLE).map(PathBuf::from).or_else(|| tools::beside(BINARY))
}

/// What the paths of an instance end in.
fn suffix(instance: u8) -> String {
    if instance == 0 { String::new() } else { format!("-{instance}") }
}

fn socket(instance: u8) -> String {
    format!("/run/tsrs-agent{}/tailscaled.sock", suffix(instance))
}

fn start(host: &Host, binary: &Path, arguments: &UpArgs) -> Result<Process> {
    let mut command = host.command(binary);
    command.arg("daemon").args(&arguments.daemon_flags).env(GATE.0, GATE.1);
    if let Some(ca_file) = &arguments.ca_file {
        command.env("SSL_CERT_FILE", ca_file);
    }
    command.envs(arguments.environment.iter().map(|(name, value)| (name, value)));
    command.arg(format!("--instance={}", arguments.instance));
    let process = host.spawn(&format!("{BINARY}{}", suffix(arguments.instance)), command)?;
    let socket = host.outside(&socket(arguments.instance));
    let open = || std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(());
    wait::until("tsrs-agent opens its socket", START_LIMIT, open).with_context(|| process.log())?;
    Ok(process)
}

impl<'a> Agent<'a> {
    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its host.
    pub fn host(&self) -> &'a Host {
        self.host
    }

    /// Its binary.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The socket of its LocalAPI, as the test reaches it.
    pub fn socket(&self) -> PathBuf {
        self.host.outside(&socket(self.arguments.instance))
    }

    /// Runs a command of the client to its end, whatever it gives.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.host.command(&self.binary);
        command.arg("--socket").arg(socket(self.arguments.instance)).args(arguments).env(GATE.0, GATE.1);
        self.host.output(command)
    }

    /// Runs a command of the client; its standard output, or an error with all that it said.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!(
                "tsrs-agent {}: {}\n{}{}",
                arguments.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command of Tailscale's own client against the agent's LocalAPI.
    pub fn tailscale(&self, arguments: &[&str]) -> Result<String> {
        let program = tools::find("tailscale").context("tailscale not found")?;
        let socket = format!("--socket={}", socket(self.arguments.instance));
        let mut all = vec![socket.as_str()];
        all.extend_from_slice(arguments);
        self.host.run(&program.to_string_lossy(), &all)
    }

    /// `tsrs-agent up` with what it was started with.
    pub fn up(&self) -> Result<()> {
        let server = format!("--login-server={}", self.arguments.login_server);
        let key = format!("--auth-key={}", self.arguments.auth_key);
        let mut arguments = vec!["up", &server];
        if !self.arguments.auth_key.is_empty() {
            arguments.push(&key);
        }
        arguments.extend(self.arguments.up_flags.iter().map(String::as_str));
        self.cli(&arguments).map(drop).with_context(|| self.process.log())
    }

    /// `tsrs-agent status --json`.
    pub fn status(&self) -> Result<Value> {
        serde_json::from_str(&self.cli(&["status", "--json"])?).context("status")
    }

    /// Its own IPv4 address in the tailnet.
    pub fn ipv4(&self) -> Result<Ipv4Addr> {
        self.cli(&["ip", "-4"])?.trim().parse().context("address of the agent")
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
        found.with_context(|| format!("status: {last:#}\n{}", self.process.log()))
    }

    /// Ends the daemon as a crash would and starts it again, without joining anew.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.process.kill();
        self.process = start(self.host, &self.binary, &self.arguments)?;
        Ok(())
    }

    /// Stops the daemon properly and starts it again, without joining anew.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop()?;
        self.process = start(self.host, &self.binary, &self.arguments)?;
        Ok(())
    }
}
