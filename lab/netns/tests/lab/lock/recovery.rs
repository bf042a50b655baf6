//! A stolen key is revoked, keys for machines to come are signed in advance, and one node leaves the lock on its own.

use tsrs_lab_netns::{NodeKind, Topology};

use super::{SOON, Tailnet};
use crate::{TAILSCALE, turn_with, turn_with_agent_and};

/// The signed update that `revoke-keys` prints for the next who signs.
fn update_of(said: &str) -> String {
    let is_update = |word: &&str| word.len() > 200 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    said.split_whitespace().find(is_update).unwrap().to_owned()
}

fn recovery([a, b, c, d, e]: [NodeKind; 5]) {
    let hosts = ["a", "b", "c", "d", "e"].into_iter();
    let net = hosts.fold(Topology::empty("locks"), Topology::on_internet).build().unwrap();
    let mut tailnet = Tailnet::start(&net, &[("a", a), ("b", b), ("c", c)]);
    tailnet.init("a", &["a", "b"], &[]);
    tailnet.agree(&[]);

    // A key that will be stolen signs a node, and makes that node's key a trusted one.
    let stolen = tailnet.key("c");
    tailnet.lock("a", &["add", &stolen]);
    tailnet.agree(&[]);
    tailnet.join("d", d);
    tailnet.agree(&["d"]);
    tailnet.sign("c", "d");
    tailnet.agree(&[]);
    let planted = tailnet.key("d");
    tailnet.lock("c", &["add", &planted]);
    tailnet.agree(&[]);

    // Two who were trusted before it go back to then: what the stolen key did is undone.
    let begun = update_of(&tailnet.lock("a", &["revoke-keys", &stolen, &planted]));
    let signed_twice = update_of(&tailnet.lock("b", &["revoke-keys", "--cosign", &begun]));
    tailnet.lock("b", &["revoke-keys", "--finish", &signed_twice]);
    tailnet.agree(&["d"]);
    assert_eq!(tailnet.control().lock_keys().len(), 2);
    assert_eq!(tailnet.log("d"), tailnet.log("a"));
    tailnet.sign("b", "d");
    tailnet.agree(&[]);

    // A login by page: the new node key is signed by the node itself here too.
    let before = tailnet.record("d").key;
    std::thread::scope(|scope| {
        let node = tailnet.node("d");
        let server = format!("--login-server={}", tailnet.server.url());
        let up =
            scope.spawn(move || node.cli(&["up", "--force-reauth", "--auth-key=", &server, "--timeout=60s"]));
        let pending = tailnet.control().wait_pending_login(SOON).unwrap();
        tailnet.control().approve_login(&pending.id, "").unwrap();
        up.join().unwrap().unwrap();
    });
    assert_ne!(tailnet.record("d").key, before);
    tailnet.agree(&[]);

    // A machine whose auth key was signed needs nobody else, also for a new node key.
    let plain = tailnet.auth_key.clone();
    tailnet.auth_key = tailnet.lock("a", &["sign", &plain]).trim().to_owned();
    tailnet.join("e", e);
    tailnet.agree(&[]);
    tailnet.renew_node_key("e");
    tailnet.agree(&[]);
    // Only that key may sign for it: on its own it is locked out.
    tailnet.auth_key = plain;
    tailnet.renew_node_key("e");
    tailnet.agree(&["e"]);

    // One node no longer asks for signatures: it meets the one that is locked out, and nobody else is touched.
    tailnet.lock("b", &["local-disable"]);
    tailnet.restart("b");
    assert_eq!(tailnet.status("b")["Enabled"], false);
    for (from, to, reaches) in [("b", "e", true), ("e", "b", true), ("a", "e", false), ("b", "a", true)] {
        tailnet.reaches(from, to, reaches);
    }
}

#[test]
fn a_stolen_key_is_revoked_and_auth_keys_are_signed_in_advance() {
    let name = "a_stolen_key_is_revoked_and_auth_keys_are_signed_in_advance";
    let Some(_turn) = turn_with(name, &TAILSCALE) else { return };
    recovery([NodeKind::Tailscaled; 5]);
}

#[test]
fn agents_revoke_a_stolen_key_and_sign_auth_keys_in_advance() {
    let name = "agents_revoke_a_stolen_key_and_sign_auth_keys_in_advance";
    let Some(_turn) = turn_with_agent_and(name, &TAILSCALE) else { return };
    recovery([NodeKind::Agent, NodeKind::Agent, NodeKind::Tailscaled, NodeKind::Agent, NodeKind::Agent]);
}
