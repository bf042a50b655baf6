//! States that the control server or a restart brings.

use tsrs_base_types::NodeId;
use tsrs_lab_control::{KeySpec, LabControl};

use super::pair::{Look, OURS, Pair, THEIRS};
use super::{kernel, reads};
use crate::SOON;

fn ids(control: &LabControl) -> [NodeId; 2] {
    [OURS, THEIRS].map(|name| control.node(name).unwrap().id)
}

fn wait_state(pair: &Pair<'_>, state: &str) {
    let is = |status: &serde_json::Value| (status["BackendState"] == state).then_some(());
    pair.ours.wait_status(state, SOON, is).unwrap();
    pair.theirs.wait_status(state, SOON, is).unwrap();
}

/// Both daemons stop and start again.
pub(super) fn restart(pair: &mut Pair<'_>, control: &LabControl) {
    pair.ours.restart().unwrap();
    pair.theirs.restart().unwrap();
    pair.compare(&["wait", "--timeout=20s"], Look::Text);
    for node in [OURS, THEIRS] {
        control.wait_online(node, SOON).unwrap();
    }
    pair.compare(&["ip"], Look::Text);
    pair.compare(&["status", "--json"], Look::Shape);
    kernel::agrees(pair, "a restart");
}

/// An admin takes the approval of both back, and gives it again.
pub(super) fn not_approved(pair: &Pair<'_>, control: &LabControl) {
    for id in ids(control) {
        control.approve_machine(id, false).unwrap();
    }
    wait_state(pair, "NeedsMachineAuth");
    kernel::agrees(pair, "the approval was taken back");
    for (arguments, look) in [
        (&["status"][..], Look::Text),
        (&["status", "--json"], Look::Shape),
        (&["ip"], Look::Text),
        (&["ping", "--c=1", "peer"], Look::Text),
        (&["nc", "peer", "22"], Look::Text),
        (&["wait", "--timeout=300ms"], Look::Text),
        (&["dns", "status", "--json"], Look::Shape),
        (&["switch", "--list", "--json"], Look::Shape),
    ] {
        pair.compare(arguments, look);
    }
    for id in ids(control) {
        control.approve_machine(id, true).unwrap();
    }
    pair.compare(&["wait", "--timeout=20s"], Look::Text);
    kernel::agrees(pair, "the approval was given");
}

/// The keys of both come to their end, and new ones are made.
pub(super) fn expired(pair: &Pair<'_>, control: &LabControl, peer: &str) {
    for id in ids(control) {
        control.expire(id).unwrap();
    }
    wait_state(pair, "NeedsLogin");
    kernel::agrees(pair, "the key expired");
    reads::not_running(pair, peer);
    let server = format!("--login-server={}", control.url());
    let key = format!("--auth-key={}", control.create_key(KeySpec::reusable()));
    pair.compare(&["up", &server, &key, "--timeout=20s"], Look::Text);
    pair.compare(&["wait", "--timeout=20s"], Look::Text);
    kernel::agrees(pair, "up after expiry");
}
