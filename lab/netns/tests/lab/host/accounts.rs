//! Accounts: a second login, switching back and forth, forgetting one, logging out.

use serde_json::Value;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Agent, Nat, Topology};

use super::{answers, assert_names, joined, refused, shell, wait_state};
use crate::{SOON, turn_with_agent};

fn accounts(agent: &Agent<'_>) -> Vec<(String, bool)> {
    let list: Value = serde_json::from_str(&agent.cli(&["switch", "--list", "--json"]).unwrap()).unwrap();
    let row = |row: &Value| (row["account"].as_str().unwrap().to_owned(), row["selected"] == true);
    let mut rows: Vec<_> = list.as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn accounts_are_switched_forgotten_and_logged_out() {
    let Some(_turn) = turn_with_agent("accounts_are_switched") else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let users = vec!["alice@lab.test".to_owned(), "bob@lab.test".to_owned()];
    let control = net.lab_control(LabConfig { users, ..LabConfig::default() }).unwrap();
    let (alice, bob) = (
        control.create_key(KeySpec::reusable().of_user("alice@lab.test")),
        control.create_key(KeySpec::reusable().of_user("bob@lab.test")),
    );
    let host = net.host("a");
    let a = joined(&net, "a", &control.url(), &alice);
    let b = joined(&net, "b", &control.url(), &alice);
    let (first, to_b) = (a.ipv4().unwrap(), b.ipv4().unwrap());
    host.wait_ping(to_b, SOON).unwrap();
    a.cli(&["set", "--nickname=work", "--accept-routes"]).unwrap();

    // A second account is another node, with settings of its own.
    let server = format!("--login-server={}", control.url());
    a.cli(&["login", &server, &format!("--auth-key={bob}")]).unwrap();
    let second = a.ipv4().unwrap();
    assert_ne!(first, second);
    assert_eq!(accounts(&a), [("alice@lab.test".to_owned(), false), ("bob@lab.test".to_owned(), true)]);
    host.wait_ping(to_b, SOON).unwrap();
    let own = shell(host, "ip -4 -o addr show dev tailscale0");
    assert!(own.contains(&second.to_string()) && !own.contains(&first.to_string()), "{own}");
    assert_eq!(a.cli(&["get", "accept-routes"]).unwrap().trim(), "false");

    // Back by nickname, with address and settings; again after a restart.
    a.cli(&["switch", "work"]).unwrap();
    wait_state(&a, "Running");
    assert_eq!(a.ipv4().unwrap(), first);
    assert_eq!(a.cli(&["get", "accept-routes"]).unwrap().trim(), "true");
    host.wait_ping(to_b, SOON).unwrap();
    let mut a = a;
    a.restart().unwrap();
    wait_state(&a, "Running");
    assert_eq!(a.ipv4().unwrap(), first);
    assert_eq!(accounts(&a), [("alice@lab.test".to_owned(), true), ("bob@lab.test".to_owned(), false)]);

    // Forgotten: gone from the list, and no other is touched.
    assert_names(&refused(&a, &["switch", "nobody"]), &["nobody"]);
    a.cli(&["switch", "remove", "bob@lab.test"]).unwrap();
    assert_eq!(accounts(&a), [("alice@lab.test".to_owned(), true)]);
    host.wait_ping(to_b, SOON).unwrap();

    // Logged out: control knows that the key is over, the host is clean, and a new login is a login.
    let state =
        || shell(host, "ip rule; nft list tables; cat /etc/resolv.conf; ip -4 addr show dev tailscale0");
    a.cli(&["logout"]).unwrap();
    wait_state(&a, "NeedsLogin");
    assert!(!answers(host, to_b));
    assert!(!state().contains("100."), "{}", state());
    let expired = |nodes: &[tsrs_lab_control::LabNode]| {
        let node = nodes.iter().find(|node| node.ipv4 == first);
        node.is_none_or(|node| node.expired(jiff_now())).then_some(())
    };
    control.wait_for("the key of a is over", SOON, expired).unwrap();
    a.cli(&["up", &server, &format!("--auth-key={alice}")]).unwrap();
    host.wait_ping(to_b, SOON).unwrap();
}

fn jiff_now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
