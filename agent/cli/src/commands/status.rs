//! `status`: this node and its peers.

use std::process::ExitCode;

use tsrs_agent_localapi::{BackendState, PeerStatus, Status};

use crate::client::Client;
use crate::error::Result;
use crate::output;

/// Flags of `status`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show peers.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    peers: bool,
    /// Show this node.
    #[arg(long = "self", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    this_node: bool,
    /// Show only peers with traffic.
    #[arg(long)]
    active: bool,
    /// Show what the columns are.
    #[arg(long)]
    header: bool,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result<ExitCode> {
    let mut status = client.status(args.peers).await?;
    if args.json {
        if let (true, Some(peers)) = (args.active, &mut status.peer) {
            peers.retain(|_, peer| peer.active);
        }
        output::json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let usable = match status.backend_state {
        BackendState::Running | BackendState::Starting => true,
        BackendState::NeedsLogin => {
            output::line("Logged out.");
            if !status.auth_url.is_empty() {
                output::line(format_args!("Log in at: {}", status.auth_url));
            }
            false
        }
        BackendState::NeedsMachineAuth => {
            output::line("Machine is not yet approved by tailnet admin.");
            false
        }
        BackendState::Stopped => {
            output::line("The tailnet is disconnected.");
            false
        }
        BackendState::NoState | BackendState::InUseOtherUser => {
            output::line(format_args!("unexpected state: {}", status.backend_state.word()));
            false
        }
    };
    if usable {
        table(&status, &args);
    }
    health(&status);
    Ok(if usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(status: &Status, args: &Args) {
    let mut rows = Vec::new();
    if args.header {
        rows.push(["IP", "Hostname", "Owner", "OS", "Status"].map(str::to_owned).to_vec());
    }
    if let (true, Some(node)) = (args.this_node, &status.self_node) {
        rows.push(row(status, node));
    }
    let mut peers: Vec<&PeerStatus> = status.peer.iter().flat_map(|peers| peers.values()).collect();
    peers.retain(|peer| !peer.sharee_node && (peer.active || !args.active));
    peers.sort_by_key(|peer| name(status, peer));
    rows.extend(peers.into_iter().map(|peer| row(status, peer)));
    output::table(&rows);
}

fn row(status: &Status, node: &PeerStatus) -> Vec<String> {
    let address = node.tailscale_ips.iter().flatten().next().map(ToString::to_string).unwrap_or_default();
    let users = status.user.as_ref();
    let owner = match (&node.tags, users.and_then(|users| users.get(&node.user_id))) {
        (Some(tags), _) if !tags.is_empty() => "tagged-devices".to_owned(),
        (_, Some(user)) => {
            user.login_name.split('@').next().map(|name| format!("{name}@")).unwrap_or_default()
        }
        (_, None) => "-".to_owned(),
    };
    vec![address, name(status, node), owner, node.os.clone(), state(node)]
}

/// The name without the tailnet's suffix.
fn name(status: &Status, node: &PeerStatus) -> String {
    let full = node.dns_name.trim_end_matches('.');
    let suffix = format!(".{}", status.magic_dns_suffix);
    match full.strip_suffix(&suffix) {
        Some(short) if !short.is_empty() => short.to_owned(),
        _ if full.is_empty() => node.host_name.clone(),
        _ => full.to_owned(),
    }
}

fn state(node: &PeerStatus) -> String {
    let mut words = Vec::new();
    if node.expired {
        words.push("expired".to_owned());
    }
    if !node.active {
        words.push(match (node.exit_node, node.exit_node_option, node.online) {
            (true, _, _) => "idle; exit node".to_owned(),
            (false, true, _) => "idle; offers exit node".to_owned(),
            (false, false, false) => "offline".to_owned(),
            (false, false, true) if node.tx_bytes + node.rx_bytes > 0 => "idle".to_owned(),
            (false, false, true) => "-".to_owned(),
        });
    } else {
        let mut text = "active; ".to_owned();
        if node.exit_node {
            text.push_str("exit node; ");
        } else if node.exit_node_option {
            text.push_str("offers exit node; ");
        }
        if !node.cur_addr.is_empty() {
            text.push_str(&format!("direct {}", node.cur_addr));
        } else if !node.relay.is_empty() {
            text.push_str(&format!("relay \"{}\"", node.relay));
        }
        words.push(text);
    }
    if node.tx_bytes + node.rx_bytes > 0 {
        words.push(format!("tx {} rx {}", node.tx_bytes, node.rx_bytes));
    }
    words.join(", ")
}

fn health(status: &Status) {
    let Some(texts) = status.health.as_ref().filter(|texts| !texts.is_empty()) else { return };
    output::line("\n# Health check:");
    for text in texts {
        output::line(format_args!("#     - {text}"));
    }
}
