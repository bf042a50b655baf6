//! What control decides: logins by a page, approval, tags, short lives, expiry and deletion.

use std::time::Duration;

use serde_json::Value;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Agent, Topology, UpArgs, agent_binary, wait};

use super::{assert_names, daemon, joined, shell, wait_silent, wait_state};
use crate::{SOON, turn_with_agent};

#[test]
fn a_page_lets_in_a_machine_waits_for_approval_and_an_expired_key_comes_back_with_its_address() {
    let Some(_turn) = turn_with_agent("a_page_lets_in_a_machine_waits") else { return };
    let net = Topology::public_pair().build().unwrap();
    let control = net.lab_control(LabConfig { machine_approval: true, ..LabConfig::default() }).unwrap();
    let host = net.host("a");
    let b_key = control.create_key(KeySpec { preauthorized: true, ..KeySpec::reusable() });
    let b = joined(&net, "b", &control.url(), &b_key);
    let a = daemon(&net, "a", &[]);

    // `up` without a key prints the page and goes on when it was visited.
    let server = format!("--login-server={}", control.url());
    let up = up_in_background(&a, &["up", &server]);
    let pending = control.wait_pending_login(SOON).unwrap();
    let page = format!("{}/register/{}", control.url(), pending.id);
    up.wait_for_log(&page, SOON).unwrap();
    wait_state(&a, "NeedsLogin");
    assert_eq!(a.status().unwrap()["AuthURL"], page.as_str());
    control.approve_login(&pending.id, "alice@lab.test").unwrap();

    // The machine is in, and has to be approved before it sees or is seen.
    wait_state(&a, "NeedsMachineAuth");
    let node = control.node("a").unwrap();
    assert_eq!(node.user, "alice@lab.test");
    assert!(!shell(host, "ip -4 addr").contains(&node.ipv4.to_string()));
    control.approve_machine(node.id, true).unwrap();
    wait_state(&a, "Running");
    wait::until("up ends well", SOON, || up.exit_status()).unwrap();
    assert_eq!(a.ipv4().unwrap(), node.ipv4);
    let to_b = b.ipv4().unwrap();
    host.wait_ping(to_b, SOON).unwrap();

    // Withdrawn and given again.
    control.approve_machine(node.id, false).unwrap();
    wait_state(&a, "NeedsMachineAuth");
    wait_silent(host, to_b);
    control.approve_machine(node.id, true).unwrap();
    wait_state(&a, "Running");
    host.wait_ping(to_b, SOON).unwrap();

    // The key is near its end, then over: said ahead, then a login; the node and its address stay.
    let soon = jiff::Timestamp::now().checked_add(Duration::from_secs(3600)).unwrap();
    control.set_expiry(node.id, Some(soon)).unwrap();
    let warned = |status: &Value| status["Health"].to_string().contains("expire").then_some(());
    a.wait_status("a warning ahead", SOON, warned).unwrap();
    control.expire(node.id).unwrap();
    wait_state(&a, "NeedsLogin");
    wait_silent(host, to_b);
    let old_key = control.node("a").unwrap().key;
    let up = up_in_background(&a, &["up", &server]);
    let pending = control.wait_pending_login(SOON).unwrap();
    control.approve_login(&pending.id, "alice@lab.test").unwrap();
    wait_state(&a, "Running");
    wait::until("up ends well", SOON, || up.exit_status()).unwrap();
    let again = control.node("a").unwrap();
    assert_eq!((again.id, again.ipv4), (node.id, node.ipv4));
    assert_ne!(again.key, old_key);
    host.wait_ping(to_b, SOON).unwrap();

    // A new key by choice.
    let key = control.create_key(KeySpec { preauthorized: true, ..KeySpec::single_use() });
    a.cli(&["up", &server, "--force-reauth", &format!("--auth-key={key}")]).unwrap();
    assert_eq!(a.ipv4().unwrap(), node.ipv4);
    assert_ne!(control.node("a").unwrap().key, again.key);
    host.wait_ping(to_b, SOON).unwrap();
}

/// Starts a command of the client and lets it wait.
fn up_in_background(agent: &Agent<'_>, arguments: &[&str]) -> tsrs_lab_netns::Process {
    let mut command = agent.host().command(agent_binary().unwrap());
    command.args(arguments).env("TS_RS_EXPERIMENT", "this_is_unstable_software");
    agent.host().spawn(&format!("up-{}", arguments.len()), command).unwrap()
}

#[test]
fn nodes_with_tags_with_short_lives_and_deleted_ones() {
    let Some(_turn) = turn_with_agent("nodes_with_tags_with_short_lives") else { return };
    let net = Topology::public_pair().on_internet("c").build().unwrap();
    let config = LabConfig { ephemeral_timeout: Duration::from_secs(1), ..LabConfig::default() };
    let control = net.lab_control(config).unwrap();
    let b = joined(&net, "b", &control.url(), &control.create_key(KeySpec::reusable()));

    // Tags come with the key, and show to the node itself and to its peers.
    let tagged = || control.create_key(KeySpec::single_use().tagged(&["tag:web"]));
    let a = joined(&net, "a", &control.url(), &tagged());
    let tags = |status: &Value| (status["Self"]["Tags"][0] == "tag:web").then_some(());
    a.wait_status("its own tags", SOON, tags).unwrap();
    b.wait_status("tags of a peer", SOON, |status| {
        status["Peer"].as_object()?.values().any(|peer| peer["Tags"][0] == "tag:web").then_some(())
    })
    .unwrap();

    // A node with a short life is gone soon after its daemon; a logout removes it at once.
    let ephemeral = control.create_key(KeySpec::reusable().ephemeral());
    let arguments = UpArgs::join(&control.url(), &ephemeral).trusting(net.ca_file());
    let c = net.host("c").agent(arguments).unwrap();
    let to_c = c.ipv4().unwrap();
    net.host("b").wait_ping(to_c, SOON).unwrap();
    assert!(c.process().stop().unwrap().success());
    let is_gone =
        |nodes: &[tsrs_lab_control::LabNode]| nodes.iter().all(|node| node.name != "c").then_some(());
    control.wait_for("c is deleted", SOON, is_gone).unwrap();
    let without = |status: &Value| (!status["Peer"].to_string().contains(&to_c.to_string())).then_some(());
    b.wait_status("c is no peer", SOON, without).unwrap();
    wait_silent(net.host("b"), to_c);

    // Deleted at control: peers forget it at once, and the node learns it with its next call. (A key that
    // is good for more nodes would let it in again.)
    let to_a = a.ipv4().unwrap();
    net.host("b").wait_ping(to_a, SOON).unwrap();
    control.delete(control.node("a").unwrap().id).unwrap();
    wait_silent(net.host("b"), to_a);
    control.cut_connections();
    wait_state(&a, "NeedsLogin");
    assert!(!shell(net.host("a"), "ip -4 addr").contains(&to_a.to_string()));
    let told = |status: &Value| status["Health"].to_string().contains("authkey already used").then_some(());
    a.wait_status("why control refuses it", SOON, told).unwrap();
    a.cli(&["up", &format!("--login-server={}", control.url()), &format!("--auth-key={}", tagged())])
        .unwrap();
    net.host("b").wait_ping(a.ipv4().unwrap(), SOON).unwrap();
    assert_names(&a.cli(&["status"]).unwrap(), &["b"]);
}
