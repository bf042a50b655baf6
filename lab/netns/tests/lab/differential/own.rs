//! Our own client beside the official one, both on our socket: exit codes and JSON. Texts are ours.

use super::pair::{Look, Pair};
use super::settings::ALIKE;

/// While it runs.
pub(super) fn running(pair: &Pair<'_>, own: &str, peer: &str) {
    let peer_port = format!("{peer}:22");
    let assertion = format!("--assert={own}");
    for arguments in [
        &["status"][..],
        &["status", "--peers=false"],
        &["status", "extra"],
        &["status", "--no-such-flag"],
        &["ip", "-4", "-6"],
        &["ip", "nobody.lab.test"],
        &["ip", "one", "two"],
        &["ip", &assertion],
        &["ip", "--assert=100.99.99.99"],
        &["ping", "--c=1", "peer"],
        &["ping", "--c=1", "--tsmp", "peer"],
        &["ping", "--c=1", "--icmp", "peer"],
        &["ping", "--c=1", "--peerapi", "peer"],
        &["ping", "--c=1", "--until-direct=false", "peer"],
        &["ping", "--c=1", "100.99.99.99"],
        &["ping", "--c=1", "nobody.lab.test"],
        &["ping", "--c=1", "luna"],
        &["ping", "--c=x", "peer"],
        &["ping"],
        &["whois", peer],
        &["whois", &peer_port],
        &["whois", "100.99.99.99"],
        &["whois", "nonsense"],
        &["whois"],
        &["netcheck"],
        &["netcheck", "--format=nonsense"],
        &["dns", "status"],
        &["dns", "query", "peer.lab.test"],
        &["dns", "query", "nobody.lab.test"],
        &["dns", "query", "peer.lab.test", "NONSENSE"],
        &["dns", "query"],
        &["dns", "nonsense"],
        &["dns"],
        &["metrics"],
        &["metrics", "write", "/run/own.prom"],
        &["metrics", "write", "/no/such/folder"],
        &["metrics", "write"],
        &["metrics", "nonsense"],
        &["wait"],
        &["wait", "--timeout=20s"],
        &["wait", "--timeout=x"],
        &["switch", "--list"],
        &["switch", "nobody"],
        &["switch"],
        &["nc", "peer", "1"],
        &["nc", "peer", "no-port"],
        &["nc", "peer", "99999"],
        &["nc", "peer"],
        &["version"],
        &["version", "extra"],
        &["version", "--daemon"],
        &["bugreport"],
        &["debug", "restun"],
        &["debug", "rebind"],
        &["debug", "metrics"],
        &["debug", "nonsense"],
        &["debug"],
        &["set"],
        &["set", "--netfilter-mode=bad"],
        &["set", "--ssh"],
        &["set", "--accept-routes=maybe"],
        &["set", "--hostname=a", "--hostname=b"],
        &["up"],
        &["up", "extra"],
        &["down", "extra"],
        &["logout", "extra"],
        &["nonsense"],
        &[],
    ] {
        pair.compare_clients(arguments, Look::Code);
    }
    for arguments in
        [&["ip"][..], &["ip", "-4"], &["ip", "-6"], &["ip", "-1"], &["ip", "peer"], &["ip", "-4", "peer"]]
    {
        pair.compare_clients(arguments, Look::Text);
    }
    for arguments in [
        &["status", "--json"][..],
        &["status", "--json", "--peers=false"],
        &["whois", "--json", peer],
        &["netcheck", "--format=json"],
        &["netcheck", "--format=json-line"],
        &["debug", "prefs"],
        &["debug", "netmap"],
        &["debug", "derp-map"],
        &["debug", "watch-ipn", "--initial", "--count=1"],
        &["dns", "status", "--json"],
        &["dns", "query", "--json", "peer.lab.test"],
        &["version", "--json"],
        &["version", "--daemon", "--json"],
        &["switch", "--list", "--json"],
        &["lock", "status", "--json"],
    ] {
        pair.compare_clients(arguments, Look::Shape);
    }
}

/// While it is down.
pub(super) fn down(pair: &Pair<'_>, peer: &str) {
    for arguments in [
        &["status"][..],
        &["ip"],
        &["ip", "peer"],
        &["ping", "--c=1", "peer"],
        &["whois", peer],
        &["wait", "--timeout=300ms"],
        &["nc", "peer", "22"],
        &["dns", "query", "peer.lab.test"],
        &["down"],
    ] {
        pair.compare_clients(arguments, Look::Code);
    }
    pair.compare_clients(&["status", "--json"], Look::Shape);
}

/// Every setting by either client: the same prefs come of it, and `get` shows them.
pub(super) fn set(pair: &Pair<'_>) {
    for flags in ALIKE {
        let arguments = [&["set"], *flags].concat();
        let prefs = |said: &super::pair::Said| (said.code, pair.our_json(&["debug", "prefs"]));
        let own = prefs(&pair.own(&arguments));
        let official = prefs(&pair.at_ours(&arguments));
        if own != official {
            pair.report
                .fail(format!("tsrs-agent {}: own {own:?}, official {official:?}", arguments.join(" ")));
        }
        let (Some(Some((name, value))), Some(0)) = (flags.first().map(|flag| flag.split_once('=')), own.0)
        else {
            continue;
        };
        let shown = pair.own(&["get", name.trim_start_matches('-')]);
        if shown.code != Some(0) || (flags.len() == 1 && shown.out.trim() != value) {
            pair.report.fail(format!("tsrs-agent get after set {}: {shown:?}", flags.join(" ")));
        }
    }
}
