//! A lock that is steered with the agent's own command line, and a node that loses the chain's files.

use serde_json::Value;
use tsrs_lab_netns::{NodeKind, Topology};

use super::Tailnet;
use crate::{TAILSCALE, turn_with_agent_and};

/// Where the agent of a host keeps the chains of its accounts.
const CHAINS: &str = "/var/lib/tsrs-agent/tka-profiles";

impl Tailnet<'_> {
    /// `tsrs-agent lock` with these arguments on a node; what it printed.
    fn own_lock(&self, name: &str, arguments: &[&str]) -> String {
        self.node(name).cli(&[&["lock"], arguments].concat()).unwrap()
    }

    fn own_json(&self, name: &str, command: &str) -> Value {
        serde_json::from_str(&self.own_lock(name, &[command, "--json"])).unwrap()
    }

    /// Both command lines show the same of the same daemon, but for the reasons that only ours gives.
    fn both_show_the_same(&self, name: &str) {
        let (mut ours, theirs) = (self.own_json(name, "status"), self.status(name));
        for peer in ours["FilteredPeers"].as_array_mut().into_iter().flatten() {
            assert!(peer.as_object_mut().unwrap().remove("Reason").is_some());
        }
        assert_eq!(ours, theirs);
        let log: Value = serde_json::from_str(&self.lock(name, &["log", "--json"])).unwrap();
        assert_eq!(self.own_json(name, "log"), log);
    }
}

#[test]
fn agents_are_locked_from_their_own_command_line() {
    let name = "agents_are_locked_from_their_own_command_line";
    let Some(_turn) = turn_with_agent_and(name, &TAILSCALE) else { return };
    let hosts = ["a", "b", "c", "d"].into_iter();
    let net = hosts.fold(Topology::empty("lockcli"), Topology::on_internet).build().unwrap();
    let mut tailnet = Tailnet::start(&net, &[("a", NodeKind::Agent), ("b", NodeKind::Agent)]);
    let (a, b) = (tailnet.key("a"), tailnet.key("b"));
    let said = tailnet.own_lock("a", &["init", &a, &format!("{b}?2")]);
    assert!(said.contains("Nothing was done") && said.contains("2 votes"), "{said}");
    tailnet.agree_without_lock();
    let said = tailnet.own_lock("a", &["init", "--confirm", &a, &format!("{b}?2")]);
    let secret = said.split_whitespace().find(|word| word.starts_with("disablement-secret:")).unwrap();
    tailnet.agree(&[]);
    tailnet.both_show_the_same("b");

    // Shut out, told what to do, and signed.
    tailnet.join("c", NodeKind::Agent);
    tailnet.agree(&["c"]);
    tailnet.both_show_the_same("a");
    let (node, own) = (tailnet.record("c").key.to_string(), tailnet.key("c"));
    let status = tailnet.own_lock("c", &["status"]);
    assert!(status.contains("LOCKED OUT") && status.contains(&format!("lock sign {node} {own}")), "{status}");
    let error = tailnet.node("c").cli(&["lock", "sign", &node]).unwrap_err();
    assert!(format!("{error:#}").contains("not trusted"), "{error:#}");
    tailnet.own_lock("b", &["sign", &node, &own]);
    tailnet.agree(&[]);

    // A key that comes, one that goes while another node stands on it, and an auth key that signs.
    tailnet.own_lock("a", &["add", &own]);
    tailnet.own_lock("a", &["remove", &b]);
    tailnet.agree(&[]);
    tailnet.both_show_the_same("c");
    tailnet.auth_key = tailnet.own_lock("c", &["sign", &tailnet.auth_key.clone()]).trim().to_owned();
    tailnet.join("d", NodeKind::Agent);
    tailnet.agree(&[]);

    // The files of the chain are lost: nobody is let in until control gives the same chain again.
    tailnet.node("d").process().stop().unwrap();
    tailnet.node("d").host().run("rm", &["-r", CHAINS]).unwrap();
    tailnet.restart("d");
    tailnet.agree(&[]);
    tailnet.node("d").host().run("ls", &[CHAINS]).unwrap();

    let value = tailnet.own_lock("a", &["disablement-kdf", &secret["disablement-secret:".len()..]]);
    assert!(
        value.starts_with("disablement:")
            && tailnet.own_json("a", "log").to_string().contains(&value.trim()[12..])
    );
    tailnet.own_lock("c", &["disable", secret]);
    tailnet.agree_without_lock();
}
