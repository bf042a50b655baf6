//! The control server of the demo: the embedded one as a process of its own, or headscale.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tsrs_lab_control::admin::{self, Command};
use tsrs_lab_control::{Grant, KeySpec, Policy};
use tsrs_lab_netns::{Headscale, HeadscaleKey, Net, Process, tools, wait};

/// Time that the server gets to answer.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Socket for its settings, inside the servers' host.
const SOCKET: &str = "/run/lab-control.sock";

/// A running control server.
pub(crate) enum Control<'a> {
    Lab { process: Process, socket: PathBuf, url: String, ca_file: PathBuf },
    Headscale(Box<Headscale<'a>>),
}

impl<'a> Control<'a> {
    /// Starts `lab-control` in the servers' host, with a DERP region on each of its addresses.
    pub(crate) fn lab(net: &'a Net) -> Result<Self> {
        let host = net.servers();
        let binary = tools::beside("lab-control").context("lab-control is not built")?;
        let ca_file = net.ca_file();
        let mut command = host.command(binary);
        command.arg("serve").arg("--socket").arg(SOCKET).arg("--ca").arg(&ca_file);
        for address in net.server_addresses() {
            command.arg("--derp").arg(address.to_string());
        }
        let address = net.server_addresses().first().context("a topology needs a server")?;
        command.arg("--address").arg(address.to_string());
        let process = host.spawn("lab-control", command)?;
        let socket = host.outside(SOCKET);
        let info =
            wait::until_ok("lab-control answers", START_LIMIT, || admin::call(&socket, &Command::Info))
                .with_context(|| process.log())?;
        let url = info["url"].as_str().context("no URL")?.to_owned();
        Ok(Self::Lab { process, socket, url, ca_file })
    }

    /// Starts headscale in the servers' host.
    pub(crate) fn headscale(net: &'a Net) -> Result<Self> {
        let address = net.server_addresses().first().context("a topology needs a server")?;
        Ok(Self::Headscale(Box::new(net.servers().headscale(*address)?)))
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Lab { .. } => "embedded control server with DERP and STUN",
            Self::Headscale(_) => "headscale with embedded DERP and STUN",
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Lab { url, .. } => url.clone(),
            Self::Headscale(headscale) => headscale.url(),
        }
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        match self {
            Self::Lab { ca_file, .. } => ca_file.clone(),
            Self::Headscale(headscale) => headscale.ca_file(),
        }
    }

    pub(crate) fn create_key(&self) -> Result<String> {
        match self {
            Self::Lab { socket, .. } => {
                let key = admin::call(socket, &Command::CreateKey(KeySpec::reusable()))?;
                Ok(key.as_str().context("no key")?.to_owned())
            }
            Self::Headscale(headscale) => {
                headscale.create_key(&HeadscaleKey { reusable: true, ..HeadscaleKey::default() })
            }
        }
    }

    /// Lets everybody reach these ports, and ICMP, of everybody; nothing else.
    pub(crate) fn allow_only(&self, ports: &[&str]) -> Result<()> {
        let mut ip = ports.to_vec();
        ip.push("icmp:*");
        match self {
            Self::Lab { socket, .. } => {
                let policy = Policy::of([Grant::new(&["*"], &["*"], &ip)]);
                admin::call(socket, &Command::SetPolicy(policy)).map(drop)
            }
            Self::Headscale(headscale) => {
                headscale.set_policy(&json!({"grants": [{"src": ["*"], "dst": ["*"], "ip": ip}]}))
            }
        }
    }

    /// Lets everybody reach everything.
    pub(crate) fn allow_all(&self) -> Result<()> {
        self.allow_only(&["*"])
    }

    /// How its settings are changed by hand.
    pub(crate) fn command(&self) -> String {
        match self {
            Self::Lab { process, socket, .. } => {
                format!(
                    "# lab-control, process {}\nlab-control admin --socket {} '\"nodes\"'",
                    process.pid(),
                    socket.display()
                )
            }
            Self::Headscale(headscale) => format!("# headscale, process {}", headscale.process().pid()),
        }
    }
}
