//! Commands that may cut the branch one sits on: over SSH through the tailnet they ask first.

use std::io::{BufRead, IsTerminal};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;
use tsrs_agent_localapi::Status;

use crate::error::{CliError, Result};
use crate::output;

/// The range that tailnets take their IPv4 addresses from.
const TAILNET_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// Asks before going on when this shell came in through the tailnet, unless the user accepted the risk.
pub(crate) fn ask(status: &Status, accepted: &str, what: &str) -> Result {
    let accepted = accepted.split(',').any(|risk| matches!(risk.trim(), "lose-ssh" | "all"));
    if accepted || !through_tailnet(std::env::var("SSH_CLIENT").ok().as_deref(), status) {
        return Ok(());
    }
    let refused = || {
        CliError::new(format!("{what} would cut this SSH session, which comes through the tailnet"))
            .hint("Give --accept-risk=lose-ssh to do it all the same.")
    };
    if !std::io::stdin().is_terminal() {
        return Err(refused());
    }
    output::note(format_args!(
        "You are connected over SSH through the tailnet; {what} will cut this session."
    ));
    output::note("Continue? [y/N]");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(refused()) }
}

/// Whether the client's address in `SSH_CLIENT` ("address port port") belongs to the tailnet.
fn through_tailnet(ssh_client: Option<&str>, status: &Status) -> bool {
    let address =
        ssh_client.and_then(|text| text.split(' ').next()).and_then(|text| text.parse::<IpAddr>().ok());
    let known = |address: &IpAddr| {
        let peers = status.peer.iter().flat_map(|peers| peers.values());
        peers.filter_map(|peer| peer.tailscale_ips.as_ref()).any(|addresses| addresses.contains(address))
    };
    match address {
        Some(IpAddr::V4(v4)) => TAILNET_RANGE.contains(&v4) || known(&IpAddr::V4(v4)),
        Some(v6 @ IpAddr::V6(_)) => known(&v6),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sessions_through_the_tailnet_are_at_risk() {
        let status = Status::default();
        assert!(through_tailnet(Some("100.64.0.3 51234 22"), &status));
        assert!(!through_tailnet(Some("192.0.2.1 51234 22"), &status));
        assert!(!through_tailnet(Some("garbage"), &status));
        assert!(!through_tailnet(None, &status));
    }
}
