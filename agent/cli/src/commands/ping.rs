//! `ping`: probe the path to a peer.

use std::net::IpAddr;
use std::time::Duration;

use http::Method;
use tsrs_agent_localapi::{BackendState, PingKind, PingResult, Status};

use crate::client::Client;
use crate::commands::{ip, up};
use crate::error::{CliError, Result};
use crate::output;

/// Time between probes.
const INTERVAL: Duration = Duration::from_secs(1);

/// Arguments of `ping`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Name or address of a peer.
    host: String,
    /// Number of probes; 0 = no end.
    #[arg(short, long = "c", default_value_t = 10)]
    count: u32,
    /// Stop once a direct path is found.
    #[arg(long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    until_direct: bool,
    /// How long to wait for one answer.
    #[arg(long, default_value = "5s", value_parser = up::parse_duration)]
    timeout: Duration,
    /// Size of a path probe in bytes; 0 = smallest.
    #[arg(long, default_value_t = 0)]
    size: u32,
    /// Ask the peer's engine, through WireGuard.
    #[arg(long, conflicts_with_all = ["icmp", "peerapi"])]
    tsmp: bool,
    /// Ask the peer's operating system, through WireGuard.
    #[arg(long, conflicts_with = "peerapi")]
    icmp: bool,
    /// Ask the peer's PeerAPI.
    #[arg(long)]
    peerapi: bool,
    /// Say more.
    #[arg(long)]
    verbose: bool,
}

impl Args {
    fn kind(&self) -> PingKind {
        match (self.tsmp, self.icmp, self.peerapi) {
            (true, _, _) => PingKind::Tsmp,
            (_, true, _) => PingKind::Icmp,
            (_, _, true) => PingKind::PeerApi,
            (false, false, false) => PingKind::Disco,
        }
    }
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let status = client.status(true).await?;
    connected(&status)?;
    let node = ip::find(&status, &args.host)?;
    let own = status.self_node.as_ref().is_some_and(|own| own.public_key == node.public_key);
    let wanted = args.host.parse::<IpAddr>().ok();
    let v4 = node.tailscale_ips.iter().flatten().find(|address| address.is_ipv4()).copied();
    let address = wanted.or(v4).ok_or_else(|| CliError::new(format!("{} has no IPv4 address", args.host)))?;
    if own {
        output::line(format_args!("{address} is local Tailscale IP"));
        return Ok(());
    }
    if args.verbose {
        output::line(format_args!("lookup {:?} => {address}", args.host));
    }
    let mut answered = false;
    let mut sent = 0;
    while args.count == 0 || sent < args.count {
        if sent > 0 {
            tokio::time::sleep(INTERVAL).await;
        }
        sent += 1;
        match probe(&args, address, client).await? {
            None => output::line(format_args!("ping {:?} timed out", args.host)),
            Some(result) => {
                answered = true;
                output::line(pong(&result, args.kind()));
                let direct = !result.endpoint.is_empty();
                if args.kind() != PingKind::Disco || (args.until_direct && direct) {
                    return Ok(());
                }
            }
        }
    }
    if !answered {
        return Err(CliError::new("no reply").hint("`tsrs-agent status` shows whether the peer is online."));
    }
    if args.until_direct {
        return Err(CliError::new("direct connection not established"));
    }
    Ok(())
}

/// Refuses to send anything while there is no tunnel for it.
pub(super) fn connected(status: &Status) -> Result {
    if matches!(status.backend_state, BackendState::Running | BackendState::Starting) {
        return Ok(());
    }
    let state = status.backend_state.word();
    Err(CliError::new(format!("the tailnet is not connected (state {state})"))
        .hint("Run `tsrs-agent up` first."))
}

async fn probe(args: &Args, address: IpAddr, client: &Client) -> Result<Option<PingResult>> {
    let path = format!("ping?ip={address}&size={}&type={}", args.size, args.kind().word());
    let Ok(answer) = tokio::time::timeout(args.timeout, client.send(Method::POST, &path, Vec::new())).await
    else {
        return Ok(None);
    };
    let result: PingResult = serde_json::from_slice(&answer?)?;
    if result.err.is_empty() { Ok(Some(result)) } else { Err(CliError::new(result.err)) }
}

/// The lines of the official client: scripts read them.
fn pong(result: &PingResult, kind: PingKind) -> String {
    let (name, ip, latency) = (&result.node_name, &result.node_ip, latency(result.latency_seconds));
    if kind == PingKind::PeerApi {
        return format!("hit peerapi of {ip} ({name}) at {} in {latency}", result.peer_api_url);
    }
    let via = if !result.endpoint.is_empty() {
        result.endpoint.clone()
    } else if !result.peer_relay.is_empty() {
        format!("peer-relay({})", result.peer_relay)
    } else if result.derp_region_id != 0 {
        format!("DERP({})", result.derp_region_code)
    } else {
        kind.word().to_owned()
    };
    let port = if result.peer_api_port == 0 { String::new() } else { format!(", {}", result.peer_api_port) };
    format!("pong from {name} ({ip}{port}) via {via} in {latency}")
}

fn latency(secs: f64) -> String {
    let millis = secs * 1000.0;
    if millis < 1.0 { format!("{millis:.2}ms") } else { format!("{millis:.0}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_printed_as_scripts_know_them() {
        let result = PingResult {
            node_name: "b".to_owned(),
            node_ip: "100.64.0.2".to_owned(),
            latency_seconds: 0.0123,
            ..PingResult::default()
        };
        let disco = PingResult { endpoint: "192.0.2.1:1".to_owned(), ..result.clone() };
        assert_eq!(pong(&disco, PingKind::Disco), "pong from b (100.64.0.2) via 192.0.2.1:1 in 12ms");
        let tsmp = PingResult { peer_api_port: 80, ..result.clone() };
        assert_eq!(pong(&tsmp, PingKind::Tsmp), "pong from b (100.64.0.2, 80) via TSMP in 12ms");
        let peer_api = PingResult { peer_api_url: "http://100.64.0.2:80".to_owned(), ..result };
        assert_eq!(
            pong(&peer_api, PingKind::PeerApi),
            "hit peerapi of 100.64.0.2 (b) at http://100.64.0.2:80 in 12ms"
        );
    }
}
