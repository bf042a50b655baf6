//! A lock from its beginning to its end.

use tsrs_lab_netns::{NodeKind, Topology};

use super::Tailnet;
use crate::{TAILSCALE, turn_with, turn_with_agent_and};

/// A secret of the right form that ends nothing.
const WRONG_SECRET: &str =
    "disablement-secret:0000000000000000000000000000000000000000000000000000000000000000";

fn life([a, b, c, d]: [NodeKind; 4]) {
    let hosts = ["a", "b", "c", "d"].into_iter();
    let net = hosts.fold(Topology::empty("lock"), Topology::on_internet).build().unwrap();
    let mut tailnet = Tailnet::start(&net, &[("a", a), ("b", b), ("c", c)]);
    let secrets = tailnet.init("a", &["a", "b"], &["--gen-disablements=2"]);
    assert_eq!(secrets.len(), 2);
    tailnet.agree(&[]);

    // A node that nobody signed is shut out, until one who is trusted signs it.
    tailnet.join("d", d);
    tailnet.agree(&["d"]);
    let (node_key, own_key) = (tailnet.record("d").key.to_string(), tailnet.key("d"));
    tailnet.refused("c", &["sign", &node_key, &own_key]);
    tailnet.sign("b", "d");
    tailnet.agree(&[]);

    // One more trusted key, while a node is away.
    tailnet.node("d").process().stop().unwrap();
    tailnet.lock("b", &["add", &format!("{}?2", tailnet.key("c"))]);
    tailnet.restart("d");
    tailnet.agree(&[]);
    assert_eq!(tailnet.status("d")["TrustedKeys"][2]["Votes"], 2);

    // New node keys, signed by the node itself; and nothing is forgotten over a restart.
    for _ in 0..2 {
        tailnet.renew_node_key("d");
        tailnet.agree(&[]);
        assert_eq!(tailnet.status("d")["NodeKeySignature"]["SigKind"], "rotation");
    }
    let log = tailnet.log("a");
    assert_eq!(log.len(), 2);
    tailnet.restart("d");
    tailnet.agree(&[]);
    assert_eq!(tailnet.log("d"), log);

    // The key that node d stands on is removed; the one who removes it signs the node anew.
    let leaving = tailnet.key("b");
    tailnet.lock("a", &["remove", &leaving]);
    tailnet.agree(&[]);
    let signature = &tailnet.status("d")["NodeKeySignature"];
    assert_eq!((&signature["SigKind"], &signature["KeyID"]), (&"direct".into(), &tailnet.key("a").into()));
    tailnet.refused("b", &["add", &leaving]);

    // The lock ends with a secret, and not without.
    tailnet.refused("c", &["disable", WRONG_SECRET]);
    tailnet.agree(&[]);
    tailnet.lock("c", &["disable", &secrets[1]]);
    tailnet.agree_without_lock();

    // Another one, that its operator ends.
    tailnet.init("c", &["c"], &["--gen-disablement-for-support"]);
    tailnet.agree(&[]);
    assert_eq!(tailnet.log("d").len(), 1);
    tailnet.control().end_lock_as_support().unwrap();
    tailnet.agree_without_lock();
}

#[test]
fn a_lock_is_made_changed_and_ended() {
    let Some(_turn) = turn_with("a_lock_is_made_changed_and_ended", &TAILSCALE) else { return };
    life([NodeKind::Tailscaled; 4]);
}

#[test]
fn agents_make_change_and_end_a_lock() {
    let name = "agents_make_change_and_end_a_lock";
    let Some(_turn) = turn_with_agent_and(name, &TAILSCALE) else { return };
    life([NodeKind::Agent, NodeKind::Tailscaled, NodeKind::Agent, NodeKind::Agent]);
}
