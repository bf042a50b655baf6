//! A control server of any kind, as far as tests and the demo use it alike.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tsrs_lab_control::admin::{self, Command};
use tsrs_lab_control::{Grant, KeySpec, LabConfig, LabControl, Policy};

use super::{Headscale, HeadscaleKey};
use crate::net::Net;
use crate::process::Process;
use crate::{tools, wait};

/// Time that the server gets to answer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Socket for the settings of a process, inside the servers' host.
const SOCKET: &str = "/run/lab-control.sock";

/// A running control server.
#[derive(Debug)]
pub struct Server<'a> {
    kind: Kind<'a>,
    url: String,
    ca_file: PathBuf,
}

#[derive(Debug)]
enum Kind<'a> {
    Embedded(Box<LabControl>),
    Process { process: Process, socket: PathBuf },
    Headscale(Box<Headscale<'a>>),
}

impl<'a> Server<'a> {
    /// The lab's server in this process.
    pub fn embedded(net: &'a Net, config: LabConfig) -> Result<Self> {
        let control = net.lab_control(config)?;
        Ok(Self { url: control.url(), ca_file: net.ca_file(), kind: Kind::Embedded(Box::new(control)) })
    }

    /// The lab's server as a process of its own, which may outlive this one. `lab-control` must be built.
    pub fn process(net: &'a Net) -> Result<Self> {
        let host = net.servers();
        let binary = tools::beside("lab-control").context("lab-control is not built")?;
        let ca_file = net.ca_file();
        let address = net.server_addresses().first().context("a topology needs a server")?;
        let mut command = host.command(binary);
        command.arg("serve").arg("--socket").arg(SOCKET).arg("--ca").arg(&ca_file);
        command.arg("--address").arg(address.to_string());
        for address in net.server_addresses() {
            command.arg("--derp").arg(address.to_string());
        }
        let process = host.spawn("lab-control", command)?;
        let socket = host.outside(SOCKET);
        let info =
            wait::until_ok("lab-control answers", START_LIMIT, || admin::call(&socket, &Command::Info))
                .with_context(|| process.log())?;
        let url = info["url"].as_str().context("no URL")?.to_owned();
        Ok(Self { kind: Kind::Process { process, socket }, url, ca_file })
    }

    /// The headscale found on `PATH`.
    pub fn headscale(net: &'a Net) -> Result<Self> {
        let address = net.server_addresses().first().context("a topology needs a server")?;
        let headscale = net.servers().headscale(*address)?;
        Ok(Self {
            url: headscale.url(),
            ca_file: headscale.ca_file(),
            kind: Kind::Headscale(Box::new(headscale)),
        })
    }

    /// The lab's server, if it runs in this process.
    pub fn control(&self) -> Option<&LabControl> {
        match &self.kind {
            Kind::Embedded(control) => Some(control),
            Kind::Process { .. } | Kind::Headscale(_) => None,
        }
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Embedded(_) | Kind::Process { .. } => "embedded control server with DERP and STUN",
            Kind::Headscale(_) => "headscale with embedded DERP and STUN",
        }
    }

    /// URL for `--login-server`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What its clients must trust.
    pub fn ca_file(&self) -> &PathBuf {
        &self.ca_file
    }

    /// A key for any number of nodes.
    pub fn create_key(&self) -> Result<String> {
        match &self.kind {
            Kind::Embedded(control) => Ok(control.create_key(KeySpec::reusable())),
            Kind::Process { socket, .. } => {
                let key = admin::call(socket, &Command::CreateKey(KeySpec::reusable()))?;
                Ok(key.as_str().context("no key")?.to_owned())
            }
            Kind::Headscale(headscale) => {
                headscale.create_key(&HeadscaleKey { reusable: true, ..HeadscaleKey::default() })
            }
        }
    }

    /// Lets everybody reach these ports of everybody, and nothing else; in the form of grants (`tcp:80`, `icmp:*`, `*`).
    pub fn allow_only(&self, ports: &[&str]) -> Result<()> {
        let policy = || Policy::of([Grant::new(&["*"], &["*"], ports)]);
        match &self.kind {
            Kind::Embedded(control) => control.set_policy(policy()),
            Kind::Process { socket, .. } => admin::call(socket, &Command::SetPolicy(policy())).map(drop),
            Kind::Headscale(headscale) => {
                headscale.set_policy(&json!({"grants": [{"src": ["*"], "dst": ["*"], "ip": ports}]}))
            }
        }
    }

    /// Lets everybody reach everything.
    pub fn allow_all(&self) -> Result<()> {
        self.allow_only(&["*"])
    }

    /// How its settings are changed by hand.
    pub fn command(&self) -> String {
        match &self.kind {
            Kind::Embedded(_) => "# the server runs in this process".to_owned(),
            Kind::Process { process, socket } => {
                let (pid, socket) = (process.pid(), socket.display());
                format!("# lab-control, process {pid}\nlab-control admin --socket {socket} '\"nodes\"'")
            }
            Kind::Headscale(headscale) => format!("# headscale, process {}", headscale.process().pid()),
        }
    }
}
