//! `ip`: tailnet addresses.

use std::net::IpAddr;

use tsrs_agent_localapi::{PeerStatus, Status};

use crate::client::Client;
use crate::error::{CliError, Result};
use crate::output;

/// Arguments of `ip`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A peer: name or address; this node if left out.
    peer: Option<String>,
    /// Show one address only.
    #[arg(short = '1', conflicts_with_all = ["v4", "v6"])]
    one: bool,
    /// Show IPv4 only.
    #[arg(short = '4', conflicts_with = "v6")]
    v4: bool,
    /// Show IPv6 only.
    #[arg(short = '6')]
    v6: bool,
    /// Succeed only if this address is among this node's.
    #[arg(long)]
    assert: Option<IpAddr>,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    let status = client.status(true).await?;
    let own = status.tailscale_ips.clone().unwrap_or_default();
    if let Some(wanted) = args.assert {
        return if own.contains(&wanted) {
            Ok(())
        } else {
            Err(CliError::new(format!("assertion failed: {wanted} is not an address of this node")))
        };
    }
    let mut addresses = match &args.peer {
        None => own,
        Some(name) => find(&status, name)?.tailscale_ips.clone().unwrap_or_default(),
    };
    addresses.retain(|address| !(args.v4 && address.is_ipv6() || args.v6 && address.is_ipv4()));
    if args.one {
        addresses.truncate(1);
    }
    if addresses.is_empty() {
        let hint = format!("The state is {}; see `tsrs-agent status`.", status.backend_state.word());
        return Err(CliError::new("no current tailnet address of that kind").hint(hint));
    }
    addresses.into_iter().for_each(output::line);
    Ok(())
}

/// A node by name or address, this one included.
pub(crate) fn find<'a>(status: &'a Status, wanted: &str) -> Result<&'a PeerStatus> {
    let nodes = || status.self_node.iter().chain(status.peer.iter().flat_map(|peers| peers.values()));
    if let Ok(address) = wanted.parse::<IpAddr>() {
        let holder = nodes().find(|node| node.tailscale_ips.iter().flatten().any(|own| *own == address));
        return holder
            .ok_or_else(|| CliError::new(format!("no node of the tailnet has the address {address}")));
    }
    let wanted = wanted.trim_end_matches('.');
    let matching = nodes().find(|node| {
        let full = node.dns_name.trim_end_matches('.');
        full.eq_ignore_ascii_case(wanted)
            || full.split('.').next().is_some_and(|label| label.eq_ignore_ascii_case(wanted))
    });
    matching.ok_or_else(|| {
        CliError::new(format!("no node of the tailnet is called {wanted:?}"))
            .hint("`tsrs-agent status` lists the nodes.")
    })
}
