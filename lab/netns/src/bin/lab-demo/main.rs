//! A whole tailnet on this machine, step by step: `scripts/demo` runs it.
//!
//! ```text
//!   control, DERP, STUN      203.0.113.1, 203.0.113.2
//!        │
//!   ─────┴──── "internet" ─────────────
//!    router ra    router rb    router rc      each translates addresses
//!       │            │            │
//!    host a       host b       host c
//!   tsrs-agent   tsrs-agent   tailscaled
//! ```
#![forbid(unsafe_code)]

mod control;
mod node;
mod report;
mod steps;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use tsrs_lab_netns::{Topology, agent_binary, keep, tools};

use control::Control;
use node::{Kind, Node};
use report::Report;

/// The variable without which the agent does not run; whoever starts the demo sets it.
const GATE: &str = "TS_RS_EXPERIMENT";

#[derive(Parser)]
#[command(
    name = "demo",
    about = "Runs a complete tailnet in network namespaces of this machine and shows what it does"
)]
struct Arguments {
    /// Which control server.
    #[arg(value_enum, default_value_t = Server::Lab)]
    server: Server,
    /// Leaves the tailnet up and prints the commands to play with it.
    #[arg(long)]
    keep: bool,
    /// What runs on the three hosts.
    #[arg(long, value_delimiter = ',', value_enum, hide = true)]
    nodes: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    /// The embedded test server.
    Lab,
    /// The headscale found on PATH.
    Headscale,
}

fn main() -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TSRS_LOG").unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let kinds = kinds(&arguments)?;
    let mut report = Report::default();

    report.headline("Building three hosts behind three routers, in network namespaces");
    let net = Topology::three_hosts().build()?;
    if arguments.keep {
        // From here on: what is started now shall outlive this program.
        keep();
    }
    let control = match arguments.server {
        Server::Lab => Control::lab(&net)?,
        Server::Headscale => Control::headscale(&net)?,
    };
    report.show(&format!("{} at {} ({})", control.name(), control.url(), net.servers().space().namespace()));
    let key = control.create_key()?;
    let mut nodes = Vec::new();
    for (name, kind) in ["a", "b", "c"].into_iter().zip(kinds) {
        nodes.push(Node::start(net.host(name), kind, &control)?);
    }
    let outcome = steps::run(&net, &control, &key, &mut nodes, &mut report);
    report.summary();
    if arguments.keep {
        node::print_commands(&nodes, &control, &mut report);
    }
    outcome
}

/// Two agents and, where one is found, a real `tailscaled`.
fn kinds(arguments: &Arguments) -> Result<Vec<Kind>> {
    let kinds = match arguments.nodes.as_slice() {
        [] => {
            let third = if tools::find("tailscaled").is_some() { Kind::Tailscaled } else { Kind::Agent };
            vec![Kind::Agent, Kind::Agent, third]
        }
        chosen if chosen.len() == 3 => chosen.to_vec(),
        _ => bail!("three hosts need three nodes"),
    };
    if kinds.contains(&Kind::Agent) {
        if std::env::var_os(GATE).is_none() {
            bail!("tsrs-agent is unstable software: set {GATE}=this_is_unstable_software to run it");
        }
        if agent_binary().is_none() {
            bail!("tsrs-agent is not built: cargo build --release -p tsrs-agent");
        }
    }
    Ok(kinds)
}
