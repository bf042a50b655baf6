//! The lab's control server as a process of its own, for a namespace or for play. **Test and demo only.**
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use tsrs_base_types::RegionId;
use tsrs_lab_control::{LabConfig, LabControl, Policy, RegionConfig, admin};

/// Number of the first DERP region: those from 900 on are for users.
const FIRST_REGION: i64 = 900;

#[derive(Parser)]
#[command(about = "Control server, DERP and STUN for tests and demonstrations; not for production")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Serves until SIGINT or SIGTERM.
    Serve(Serve),
    /// Sends one JSON command to a running server, for example '"nodes"' or '{"create-key": {"reusable": true}}'.
    Admin {
        /// Socket of the server.
        #[arg(long)]
        socket: PathBuf,
        /// The command.
        command: String,
    },
}

#[derive(Args)]
struct Serve {
    /// Address of control.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port of control over TLS.
    #[arg(long, default_value_t = 443)]
    https_port: u16,
    /// Port of control over plain HTTP.
    #[arg(long, default_value_t = 80)]
    http_port: u16,
    /// Address of a DERP region with STUN; may be given several times. The first may be that of control.
    #[arg(long = "derp")]
    derp: Vec<IpAddr>,
    /// Port of DERP.
    #[arg(long, default_value_t = 443)]
    derp_port: u16,
    /// Port of STUN.
    #[arg(long, default_value_t = 3478)]
    stun_port: u16,
    /// Suffix of MagicDNS names.
    #[arg(long, default_value = "lab.test")]
    base_domain: String,
    /// File with a JSON policy; without one everybody may reach everything.
    #[arg(long)]
    policy: Option<PathBuf>,
    /// File that keeps nodes over a restart.
    #[arg(long)]
    state: Option<PathBuf>,
    /// File that the CA is written to, for SSL_CERT_FILE of the clients.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Socket for `lab-control admin`.
    #[arg(long)]
    socket: PathBuf,
}

fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TSRS_LOG").unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match Arguments::parse().action {
        Action::Serve(arguments) => serve(arguments),
        Action::Admin { socket, command } => {
            let command = serde_json::from_str(&command).context("command")?;
            say(&format!("{:#}", admin::call(&socket, &command)?));
            Ok(())
        }
    }
}

fn serve(arguments: Serve) -> Result<()> {
    let socket = arguments.socket.clone();
    let ca = arguments.ca.clone();
    let control = LabControl::start(arguments.config()?)?;
    if let Some(ca) = ca {
        control.write_ca(&ca)?;
    }
    tracing::info!(
        url = control.url(),
        "test and demo server; it lets everybody in who visits its login page"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = admin::serve(&socket, control) => result,
            _ = terminate.recv() => Ok(()),
            result = tokio::signal::ctrl_c() => Ok(result?),
        }
    })
}

impl Serve {
    fn config(self) -> Result<LabConfig> {
        let policy = match &self.policy {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                serde_json::from_str(&text).context("policy")?
            }
            None => Policy::allow_all(),
        };
        let region = |(id, address): (i64, &IpAddr)| RegionConfig {
            id: RegionId(id),
            code: format!("lab{id}"),
            address: *address,
            derp_port: self.derp_port,
            stun_port: Some(self.stun_port),
            ..RegionConfig::default()
        };
        let addresses = if self.derp.is_empty() { vec![self.address] } else { self.derp.clone() };
        Ok(LabConfig {
            address: self.address,
            https_port: self.https_port,
            http_port: Some(self.http_port),
            regions: (FIRST_REGION..).zip(&addresses).map(region).collect(),
            base_domain: self.base_domain,
            policy,
            state_file: self.state,
            ..LabConfig::default()
        })
    }
}

#[expect(clippy::print_stdout, reason = "the answer to a command")]
fn say(line: &str) {
    println!("{line}");
}
