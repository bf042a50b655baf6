//! `wait`: until the tailnet can be used, for units that need its address.

use std::net::IpAddr;
use std::time::Duration;

use tsrs_agent_localapi::{BackendState, WatchMask};

use crate::client::Client;
use crate::commands::up;
use crate::error::{CliError, Result};

/// How often interfaces are looked at: the address is set before the state is Running, so one look nearly always does.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Flags of `wait`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// How long to wait, such as 30s; 0s waits for ever.
    #[arg(long, default_value = "0s", value_parser = up::parse_duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: Args, client: &Client) -> Result {
    if args.timeout.is_zero() {
        return ready(client).await;
    }
    tokio::time::timeout(args.timeout, ready(client)).await.map_err(|_| {
        CliError::new(format!("timed out after {:?}", args.timeout))
            .hint("See `tsrs-agent status` for what is missing.")
    })?
}

async fn ready(client: &Client) -> Result {
    let mut bus = client.watch(WatchMask::INITIAL_STATE).await?;
    while bus.next().await?.state != Some(BackendState::Running) {}
    let status = client.status(false).await?;
    let Some(address) = status.tailscale_ips.iter().flatten().find(|address| address.is_ipv4()).copied()
    else {
        return Err(CliError::new("connected, but without an IPv4 address"));
    };
    while status.tun && !interface_has(address)? {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn interface_has(address: IpAddr) -> Result<bool> {
    let interfaces = nix::ifaddrs::getifaddrs().map_err(std::io::Error::from)?;
    let mut addresses = interfaces.filter_map(|interface| interface.address);
    Ok(addresses.any(|found| found.as_sockaddr_in().is_some_and(|found| IpAddr::V4(found.ip()) == address)))
}
