//! Users without rights, and the operator.

use super::pair::{Look, Pair};

pub(super) fn nobody(pair: &Pair<'_>, peer: &str) {
    for (arguments, look) in [
        (&["status"][..], Look::Numbers),
        (&["status", "--json"], Look::Shape),
        (&["ip"], Look::Text),
        (&["whois", peer], Look::Text),
        (&["ping", "--c=1", peer], Look::Numbers),
        (&["netcheck", "--format=json"], Look::Shape),
        (&["dns", "status"], Look::Text),
        (&["dns", "query", "peer.lab.test"], Look::Text),
        (&["metrics"], Look::Code),
        (&["version", "--daemon", "--json"], Look::Shape),
        (&["wait", "--timeout=20s"], Look::Text),
        (&["bugreport"], Look::Code),
        (&["debug", "prefs"], Look::Shape),
        (&["debug", "netmap"], Look::Shape),
        (&["debug", "derp-map"], Look::Shape),
        (&["debug", "metrics"], Look::Text),
        (&["debug", "restun"], Look::Text),
        (&["debug", "rebind"], Look::Text),
        (&["nc", "peer", "1"], Look::Text),
        (&["set", "--shields-up"], Look::Text),
        (&["up"], Look::Text),
        (&["up", "--reset"], Look::Text),
        (&["down"], Look::Text),
        (&["login"], Look::Text),
        (&["logout"], Look::Text),
        (&["switch", "--list"], Look::Text),
        (&["switch", "second"], Look::Text),
    ] {
        pair.compare_as_nobody(arguments, look);
    }
    pair.compare_prefs("nothing that nobody may do");
}

/// The user named by `--operator` may change settings.
pub(super) fn operator(pair: &Pair<'_>) {
    pair.compare(&["set", "--operator=nobody"], Look::Text);
    for arguments in [
        &["set", "--shields-up"][..],
        &["set", "--shields-up=false"],
        &["debug", "restun"],
        &["nc", "peer", "1"],
        &["switch", "--list", "--json"],
        &["down"],
        &["up"],
        &["wait", "--timeout=20s"],
    ] {
        let look = if arguments.contains(&"--json") { Look::Shape } else { Look::Numbers };
        let said = pair.compare_as_nobody(arguments, look);
        if said.code != Some(0) && arguments[0] != "nc" {
            pair.report.fail(format!("the operator's {arguments:?}: {said:?}"));
        }
    }
    pair.compare(&["set", "--operator="], Look::Text);
}
