//! A control server that lies about the lock: nobody follows it.

use serde_json::json;
use tsrs_lab_control::{FaultAction, FaultTarget, LockCall, LockLie};
use tsrs_lab_netns::{NodeKind, Topology};

use super::{SOON, Tailnet, name};
use crate::{TAILSCALE, turn_with, turn_with_agent_and};

impl Tailnet<'_> {
    /// Waits until all nodes have taken in all that control said so far, on new connections.
    fn heard(&self, mark: &str) {
        for node in &self.nodes {
            self.control().inject(self.record(name(node)).id, json!({"Health": [mark]}));
        }
        for node in &self.nodes {
            let such = |status: &serde_json::Value| status["Health"].to_string().contains(mark).then_some(());
            node.wait_status(mark, SOON, such).unwrap();
        }
    }
}

fn lies([a, b, c]: [NodeKind; 3]) {
    let hosts = ["a", "b", "c"].into_iter();
    let net = hosts.fold(Topology::empty("lies"), Topology::on_internet).build().unwrap();
    let mut tailnet = Tailnet::start(&net, &[("a", a), ("b", b)]);
    let secrets = tailnet.init("a", &["a", "b"], &[]);
    tailnet.join("c", c);
    tailnet.lock("a", &["add", &tailnet.key("c")]);
    tailnet.agree(&["c"]);

    for lie in [
        LockLie::OtherAuthority,
        LockLie::Behind(1),
        LockLie::Withheld,
        LockLie::Silent,
        LockLie::Ended { secret: Vec::new() },
        LockLie::Ended { secret: vec![7; 32] },
    ] {
        let mark = format!("{lie:?}");
        tailnet.control().lie_about_lock(Some(lie)).unwrap();
        tailnet.heard(&format!("{mark}, while connected"));
        tailnet.control().cut_connections();
        tailnet.heard(&format!("{mark}, on a new connection"));
        tailnet.agree(&["c"]);
    }
    tailnet.control().lie_about_lock(None).unwrap();
    tailnet.sign("b", "c");
    tailnet.agree(&[]);

    // The lock has ended, but whoever asks for the proof gets none: the nodes stay locked until they get it.
    let faults = tailnet.control().faults();
    faults.add(FaultTarget::Lock(LockCall::Bootstrap), FaultAction::Endless);
    let head = tailnet.control().lock_head();
    tailnet.lock("b", &["disable", &secrets[0]]);
    tailnet.heard("no proof");
    for node in &tailnet.nodes {
        assert_eq!(tailnet.status(name(node))["Head"], json!(head));
    }
    faults.clear();
    tailnet.heard("ask again");
    tailnet.agree_without_lock();
}

#[test]
fn no_lie_of_control_moves_a_lock() {
    let Some(_turn) = turn_with("no_lie_of_control_moves_a_lock", &TAILSCALE) else { return };
    lies([NodeKind::Tailscaled; 3]);
}

#[test]
fn no_lie_of_control_moves_a_lock_of_agents() {
    let name = "no_lie_of_control_moves_a_lock_of_agents";
    let Some(_turn) = turn_with_agent_and(name, &TAILSCALE) else { return };
    lies([NodeKind::Agent, NodeKind::Tailscaled, NodeKind::Agent]);
}
