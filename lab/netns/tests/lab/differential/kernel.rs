//! Whether the kernel of our host is as the client says.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde_json::Value;
use tsrs_lab_netns::{Host, wait};

use super::pair::{Pair, addresses};
use crate::SOON;

/// What is there of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kernel {
    /// The interface is up and has this address.
    address: Option<String>,
    /// Policy rules lead into table 52.
    rules: bool,
    /// The routes in table 52.
    routes: BTreeSet<String>,
    /// There is a table of ours in the firewall.
    firewall: bool,
    /// What leaves it for other networks gets the address of this host.
    masquerade: bool,
    /// The host asks us for names.
    names: bool,
}

impl Kernel {
    fn read(host: &Host) -> Self {
        let shell = |line: &str| host.run("sh", &["-c", line]).unwrap();
        let link = shell("ip -o link show dev tailscale0 2>/dev/null || true");
        let up = link.contains(",UP,") || link.contains(",UP>");
        let inet = shell("ip -4 -o addr show dev tailscale0 2>/dev/null || true");
        let address = inet.split_once("inet ").and_then(|(_, rest)| rest.split(' ').next());
        let table = shell("ip route show table 52 2>/dev/null || true");
        let firewall = shell("nft list ruleset");
        Self {
            address: address.filter(|_| up).map(str::to_owned),
            rules: shell("ip rule").contains("lookup 52"),
            routes: table.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect(),
            firewall: firewall.contains("table ip tsrs-0"),
            masquerade: firewall.contains("masquerade"),
            names: host.resolv_conf().unwrap().contains("nameserver 100.100.100.100"),
        }
    }

    /// What follows from the status and the prefs.
    fn of(status: &Value, prefs: &Value) -> Self {
        let running = status["BackendState"] == "Running";
        let own = addresses(status).into_iter().find(|address| address.is_ipv4());
        let peers = status["Peer"].as_object().into_iter().flatten();
        // A peer whose key is over cannot be spoken to.
        let allowed = peers.filter(|(_, peer)| peer["Expired"] != true).flat_map(|(_, peer)| {
            peer["AllowedIPs"].as_array().into_iter().flatten().filter_map(|net| net.as_str()?.parse().ok())
        });
        let wanted = allowed.filter(|net: &IpNet| {
            // The default routes are an offer to be the exit node, which takes a setting of its own.
            let subnet = net.prefix_len() > 0 && prefs["RouteAll"] == true;
            net.addr().is_ipv4() && (net.prefix_len() == 32 || subnet)
        });
        let routes = wanted.map(|net| match net.prefix_len() {
            32 => net.addr().to_string(),
            _ => net.to_string(),
        });
        let routes: BTreeSet<String> = routes.chain(["100.100.100.100".to_owned()]).collect();
        let firewall = running && prefs["NetfilterMode"] != 0;
        let advertises = prefs["AdvertiseRoutes"].as_array().is_some_and(|routes| !routes.is_empty());
        Self {
            address: own.filter(|_| running).map(|address| format!("{address}/32")),
            rules: running,
            routes: if running { routes } else { BTreeSet::new() },
            firewall,
            masquerade: firewall && advertises && prefs["NoSNAT"] == false,
            names: running && prefs["CorpDNS"] == true,
        }
    }
}

/// Waits until what the official client prints of our daemon and what the kernel of our host has are the same.
pub(super) fn agrees(pair: &Pair<'_>, after: &str) {
    let mut last = None;
    let found = wait::until("the kernel agrees", SOON, || {
        let said = Kernel::of(&pair.our_json(&["status", "--json"]), &pair.our_json(&["debug", "prefs"]));
        let is = Kernel::read(pair.ours.host());
        let agrees = said == is;
        last = Some((said, is));
        agrees.then_some(())
    });
    if found.is_err() {
        let (said, is) = last.unwrap();
        pair.report.fail(format!("after {after}: by the client {said:?}\n    in the kernel {is:?}"));
    }
}
