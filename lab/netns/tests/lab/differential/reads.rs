//! Commands that change nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::accepted::Part;
use super::pair::{Look, Pair, THEIRS};
use crate::SOON;

/// While both run.
pub(super) fn running(pair: &Pair<'_>, peer: &str) {
    let peer_port = format!("{peer}:22");
    let reverse = peer.rsplit('.').collect::<Vec<_>>().join(".") + ".in-addr.arpa";
    for (arguments, look) in [
        (&["status"][..], Look::Numbers),
        (&["status", "--peers=false"], Look::Numbers),
        (&["status", "--self=false"], Look::Numbers),
        (&["status", "--active"], Look::Code),
        (&["status", "--header"], Look::Code),
        (&["status", "--json"], Look::Shape),
        (&["status", "--json", "--peers=false"], Look::Shape),
        (&["status", "--json", "--self=false"], Look::Shape),
        (&["status", "--json", "--active"], Look::Code),
        (&["status", "extra"], Look::Text),
        (&["status", "--no-such-flag"], Look::Text),
        (&["ip"], Look::Text),
        (&["ip", "-4"], Look::Text),
        (&["ip", "-6"], Look::Text),
        (&["ip", "-1"], Look::Text),
        (&["ip", "-4", "-6"], Look::Text),
        (&["ip", "peer"], Look::Text),
        (&["ip", "-4", "peer"], Look::Text),
        (&["ip", "-6", "peer"], Look::Text),
        (&["ip", "nobody.lab.test"], Look::Text),
        (&["ip", "--assert=100.99.99.99"], Look::Text),
        (&["whois", peer], Look::Text),
        (&["whois", &peer_port], Look::Text),
        (&["whois", "--json", peer], Look::Shape),
        (&["whois", "--proto=udp", &peer_port], Look::Text),
        (&["whois", "100.99.99.99"], Look::Text),
        (&["whois", "100.100.100.100"], Look::Text),
        (&["whois", "10.9.0.7"], Look::Text),
        (&["whois", "198.51.100.1:80"], Look::Text),
        (&["whois", "nonsense"], Look::Text),
        (&["whois"], Look::Text),
        (&["netcheck"], Look::Numbers),
        (&["netcheck", "--format", "json"], Look::Shape),
        (&["netcheck", "--format", "json-line"], Look::Shape),
        (&["debug", "watch-ipn", "--initial", "--count", "1"], Look::Shape),
        (&["debug", "watch-ipn", "--initial", "--netmap=false", "--count", "1"], Look::Shape),
        (&["debug", "prefs"], Look::Shape),
        (&["debug", "netmap"], Look::Shape),
        (&["debug", "derp-map"], Look::Shape),
        (&["debug", "restun"], Look::Text),
        (&["debug", "rebind"], Look::Text),
        (&["debug", "metrics"], Look::Code),
        (&["debug", "no-such-action"], Look::Text),
        (&["dns", "status"], Look::Text),
        (&["dns", "status", "--all"], Look::Text),
        (&["dns", "status", "--json"], Look::Shape),
        // An address changes with the netmap: its TTL is shorter here.
        (&["dns", "query", "peer.lab.test"], Look::Numbers),
        (&["dns", "query", "peer.lab.test", "AAAA"], Look::Text),
        (&["dns", "query", "PEER.Lab.Test."], Look::Numbers),
        (&["dns", "query", "peer.lab.test", "TXT"], Look::Text),
        (&["dns", "query", "lab.test"], Look::Text),
        (&["dns", "query", &reverse, "PTR"], Look::Numbers),
        (&["dns", "query", "www.example.test"], Look::Text),
        (&["dns", "query", "nobody.lab.test"], Look::Text),
        (&["dns", "query", "nobody.example.test"], Look::Text),
        (&["dns", "query", "peer.lab.test", "NONSENSE"], Look::Text),
        (&["dns", "query", "--json", "peer.lab.test"], Look::Shape),
        (&["dns", "query"], Look::Text),
        (&["version"], Look::Text),
        (&["version", "--json"], Look::Shape),
        (&["version", "--daemon"], Look::Text),
        (&["version", "--daemon", "--json"], Look::Shape),
        (&["wait"], Look::Text),
        (&["wait", "--timeout=20s"], Look::Text),
        (&["switch", "--list", "--json"], Look::Shape),
        (&["bugreport"], Look::Text),
        (&["bugreport", "a note"], Look::Text),
        (&["lock", "status", "--json"], Look::Shape),
        (&["exit-node", "list"], Look::Text),
        (&["serve", "status"], Look::Text),
    ] {
        pair.compare(arguments, look);
    }
    metrics(pair);
    values(pair);
}

/// Members of the status that must be equal, not only alike.
fn values(pair: &Pair<'_>) {
    const STATUS: &[&str] = &[
        "BackendState",
        "TUN",
        "HaveNodeKey",
        "AuthURL",
        "TailscaleIPs",
        "Health",
        "MagicDNSSuffix",
        "CurrentTailnet",
        "CertDomains",
    ];
    const NODE: &[&str] = &[
        "HostName",
        "DNSName",
        "OS",
        "UserID",
        "TailscaleIPs",
        "AllowedIPs",
        "Tags",
        "PrimaryRoutes",
        "PeerRelay",
        "Online",
        "ExitNode",
        "ExitNodeOption",
        "TaildropTarget",
        "NoFileSharingReason",
        "Capabilities",
        "CapMap",
        "InNetworkMap",
        "InMagicSock",
        "Expired",
        "LastSeen",
    ];
    let [ours, theirs] =
        pair.both_neutral(&["status", "--json"]).map(|text| serde_json::from_str::<Value>(&text).unwrap());
    let third = |status: &Value| {
        let peers = status["Peer"].as_object().unwrap();
        peers.values().find(|peer| peer["HostName"] == "peer").unwrap().clone()
    };
    for (what, names, ours, theirs) in [
        ("status", STATUS, ours.clone(), theirs.clone()),
        ("status of this node", NODE, ours["Self"].clone(), theirs["Self"].clone()),
        ("status of a peer", NODE, third(&ours), third(&theirs)),
    ] {
        for name in names.iter().filter(|name| ours[**name] != theirs[**name]) {
            let how = || format!("{} where the other has {}", ours[*name], theirs[*name]);
            pair.report.differ(what, Part::Shape(name), how);
        }
    }
}

/// The names, types, labels and explanations of the metrics, whose values are each one's own.
fn metric_names(pair: &Pair<'_>, arguments: &[&str]) {
    let lines = |text: &str| -> BTreeSet<String> {
        let without_value = |line: &str| match line.rsplit_once(' ') {
            Some((name, _)) if !line.starts_with('#') => name.to_owned(),
            _ => line.to_owned(),
        };
        text.lines().map(without_value).collect()
    };
    let [ours, theirs] = pair.both(arguments).map(|said| lines(&said.out));
    // A reason to drop is listed once something was dropped for it, and nothing is relayed for others here.
    let own = |line: &&String| !line.contains("_dropped_packets_total{") && !line.contains("_peer_relay_");
    let differ: Vec<&String> = ours.symmetric_difference(&theirs).filter(own).collect();
    if !differ.is_empty() {
        pair.report.fail(format!("{}: {differ:?}", arguments.join(" ")));
    }
}

fn metrics(pair: &Pair<'_>) {
    metric_names(pair, &["metrics"]);
    metric_names(pair, &["metrics", "print"]);
    pair.compare(&["metrics", "write", "/run/metrics.prom"], Look::Text);
    let [ours, theirs] =
        [pair.ours.host(), pair.theirs.host()].map(|host| host.read("/run/metrics.prom").unwrap());
    for written in [ours, theirs] {
        if !written.contains("tailscaled_home_derp_region_id 90") {
            pair.report.fail(format!("metrics write: {written}"));
        }
    }
    pair.compare(&["metrics", "write", "/no/such/folder"], Look::Numbers);
}

/// Probes and streams to the third node, once both have a direct path to it.
pub(super) fn traffic(pair: &Pair<'_>, peer: &str, echo_port: u16) {
    // The first probes of a path may go over the relay; which, is chance.
    for said in pair.both(&["ping", "--until-direct=true", "--c=30", "--timeout=2s", "peer"]) {
        assert_eq!(said.code, Some(0), "{said:?}");
    }
    for host in [pair.ours.host(), pair.theirs.host()] {
        host.wait_ping(peer.parse().unwrap(), SOON).unwrap();
    }
    for arguments in [
        &["ping", "--c=1", "peer"][..],
        &["ping", "--c", "1", peer],
        &["ping", "--c=1", "--until-direct=false", "peer"],
        &["ping", "--c=1", "--tsmp", "peer"],
        &["ping", "--c=1", "--icmp", "peer"],
        &["ping", "--c=1", "--peerapi", "peer"],
        &["ping", "--c=1", "--size=1000", "peer"],
        &["ping", "--c=1", "--verbose", "peer"],
        &["ping", "--c=1", "100.99.99.99"],
        &["ping", "--c=1", "--icmp", "100.99.99.99"],
        &["ping", "--c=1", "198.51.100.1"],
        &["ping", "--c=1", "nobody.lab.test"],
        &["ping", "--c=1", "--tsmp", "--icmp", "peer"],
        &["ping"],
    ] {
        pair.compare(arguments, Look::Numbers);
    }
    // Each to itself.
    let [ours, theirs] = ["luna", THEIRS].map(|name| ["ping", "--c=1", name]);
    let (ours, theirs) = (pair.at_ours(&ours), pair.at_theirs(&theirs));
    if ours.code != theirs.code || !ours.out.contains("is local Tailscale IP") {
        pair.report.fail(format!("ping to oneself: {ours:?}, {theirs:?}"));
    }
    streams(pair, peer, echo_port);
}

/// Probes to a node that never answers. What was sent to it counts from now on, for each in its own way.
pub(super) fn away(pair: &Pair<'_>, away: &str) {
    for arguments in [
        &["ping", "--c=2", "--timeout=300ms", away][..],
        &["ping", "--c=1", "--timeout=300ms", "--tsmp", away],
        &["ping", "--c=1", "--timeout=300ms", "--icmp", away],
    ] {
        pair.compare(arguments, Look::Numbers);
    }
}

fn streams(pair: &Pair<'_>, peer: &str, port: u16) {
    let port = port.to_string();
    for host in ["peer", "peer.lab.test", peer] {
        // An empty transfer: its length goes there, both checksums come back.
        for (side, came) in pair.pipe_both(&["nc", host, &port], &0u64.to_be_bytes()) {
            if came.len() != 64 {
                pair.report.fail(format!("nc {host} at {side}: {} bytes came back", came.len()));
            }
        }
    }
    for arguments in [
        &["nc", "peer", "1"][..],
        &["nc", "peer", "no-port"],
        &["nc", "nobody.lab.test", "22"],
        &["nc", "peer"],
    ] {
        pair.compare(arguments, Look::Numbers);
    }
}

/// While neither can reach the tailnet: `down`, or logged out.
pub(super) fn not_running(pair: &Pair<'_>, peer: &str) {
    for (arguments, look) in [
        (&["status"][..], Look::Text),
        (&["status", "--json"], Look::Shape),
        (&["ip"], Look::Text),
        (&["ip", "peer"], Look::Numbers),
        (&["ping", "--c=1", "peer"], Look::Text),
        (&["ping", "--c=1", peer], Look::Text),
        (&["whois", peer], Look::Text),
        (&["dns", "status"], Look::Text),
        (&["dns", "status", "--json"], Look::Shape),
        (&["dns", "query", "peer.lab.test"], Look::Text),
        (&["wait", "--timeout=300ms"], Look::Text),
        (&["nc", "peer", "22"], Look::Text),
        (&["debug", "prefs"], Look::Shape),
        (&["debug", "netmap"], Look::Shape),
        (&["debug", "derp-map"], Look::Shape),
        (&["debug", "restun"], Look::Text),
        (&["debug", "watch-ipn", "--initial", "--count", "1"], Look::Shape),
        (&["switch", "--list", "--json"], Look::Shape),
        (&["version", "--daemon", "--json"], Look::Shape),
        (&["down"], Look::Text),
    ] {
        pair.compare(arguments, look);
    }
    metric_names(pair, &["metrics"]);
}
