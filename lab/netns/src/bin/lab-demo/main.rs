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

mod report;
mod steps;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use tsrs_lab_netns::{Node, NodeKind, Server, Topology, agent_binary, keep, tools};

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
    #[arg(value_enum, default_value_t = Which::Lab)]
    server: Which,
    /// Leaves the tailnet up and prints the commands to play with it.
    #[arg(long)]
    keep: bool,
    /// What runs on the three hosts.
    #[arg(long, value_delimiter = ',', value_enum, hide = true)]
    nodes: Vec<Daemon>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The embedded test server.
    Lab,
    /// The headscale found on PATH.
    Headscale,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Daemon {
    Agent,
    Tailscaled,
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
    let server = match arguments.server {
        Which::Lab => Server::process(&net)?,
        Which::Headscale => Server::headscale(&net)?,
    };
    report.show(&format!("{} at {} ({})", server.name(), server.url(), net.servers().space().namespace()));
    let key = server.create_key()?;
    let mut nodes = Vec::new();
    for (name, kind) in ["a", "b", "c"].into_iter().zip(kinds) {
        nodes.push(Node::start(net.host(name), kind, &server)?);
    }
    let outcome = steps::run(&net, &server, &key, &mut nodes, &mut report);
    report.summary();
    if arguments.keep {
        print_commands(&nodes, &server, &mut report);
    }
    outcome
}

/// Two agents and, where one is found, a real `tailscaled`.
fn kinds(arguments: &Arguments) -> Result<Vec<NodeKind>> {
    let kinds = match arguments.nodes.as_slice() {
        [] => {
            let third =
                if tools::find("tailscaled").is_some() { NodeKind::Tailscaled } else { NodeKind::Agent };
            vec![NodeKind::Agent, NodeKind::Agent, third]
        }
        chosen if chosen.len() == 3 => chosen
            .iter()
            .map(|daemon| match daemon {
                Daemon::Agent => NodeKind::Agent,
                Daemon::Tailscaled => NodeKind::Tailscaled,
            })
            .collect(),
        _ => bail!("three hosts need three nodes"),
    };
    if kinds.contains(&NodeKind::Agent) {
        if std::env::var_os(GATE).is_none() {
            bail!("tsrs-agent is unstable software: set {GATE}=this_is_unstable_software to run it");
        }
        if agent_binary().is_none() {
            bail!("tsrs-agent is not built: cargo build --release -p tsrs-agent");
        }
    }
    Ok(kinds)
}

/// How to play with a tailnet that was left up.
fn print_commands(nodes: &[Node<'_>], server: &Server<'_>, report: &mut Report) {
    report.headline("The tailnet stays up. Commands to play with it, as root:");
    for node in nodes {
        let (host, daemon, process) = (node.host().name(), node.name(), node.process());
        report.show(&format!("# host {host}: {daemon}, log {}", process.log_path().display()));
        report.show(&format!("nsenter -t {} -n -m -u {} status", process.pid(), node.client().display()));
    }
    report.show(&server.command());
    let tool =
        tools::beside("lab-tool").map_or_else(|| "lab-tool".to_owned(), |path| path.display().to_string());
    report.show(&format!("# take everything away again\n{tool} remove {}", std::process::id()));
}
