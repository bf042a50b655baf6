//! `down` and `up`, every setting of `set` and what the kernel and peers then say, `wait`, `nc`, the unit file.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Agent, Nat, Topology, agent_binary, tools, wait};

use super::{answers, assert_names, daemon, joined, refused, shell, wait_shell, wait_silent, wait_state};
use crate::{SOON, turn_with_agent};

fn pref(agent: &Agent<'_>, name: &str) -> Value {
    serde_json::from_str::<Value>(&agent.cli(&["debug", "prefs"]).unwrap()).unwrap()[name].clone()
}

#[test]
fn each_setting_shows_in_the_kernel_and_at_peers() {
    let Some(_turn) = turn_with_agent("each_setting_shows_in_the_kernel") else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let host = net.host("a");
    let state =
        || shell(host, "ip rule; ip route show table all; nft list tables; cat /etc/resolv.conf; ip -4 addr");
    let a = daemon(&net, "a", &[]);
    let idle = state();
    // `wait` waits, and says what is missing.
    assert_names(&refused(&a, &["wait", "--timeout=500ms"]), &["timed out"]);
    let login_server = format!("--login-server={}", control.url());
    a.cli(&["up", &login_server, &format!("--auth-key={key}")]).unwrap();
    a.cli(&["wait", "--timeout=10s"]).unwrap();
    let b = joined(&net, "b", &control.url(), &key);
    let (to_a, to_b) = (a.ipv4().unwrap(), b.ipv4().unwrap());
    host.wait_ping(to_b, SOON).unwrap();

    // Down is down to the letter, and keeps the login; up is all of it again.
    a.cli(&["down"]).unwrap();
    wait::until("the host as before", SOON, || (state() == idle).then_some(()))
        .unwrap_or_else(|error| panic!("{error:#}: {idle}\n---\n{}", state()));
    assert!(!answers(host, to_b));
    assert_eq!(a.status().unwrap()["BackendState"], "Stopped");
    a.cli(&["up", &login_server]).unwrap();
    host.wait_ping(to_b, SOON).unwrap();
    net.host("b").wait_ping(to_a, SOON).unwrap();

    // Shields: out works, in does not.
    a.cli(&["set", "--shields-up"]).unwrap();
    wait_silent(net.host("b"), to_a);
    host.wait_ping(to_b, SOON).unwrap();
    a.cli(&["set", "--shields-up=false"]).unwrap();
    net.host("b").wait_ping(to_a, SOON).unwrap();

    // The name, at control and at peers.
    a.cli(&["set", "--hostname=other"]).unwrap();
    control
        .wait_for("the new name", SOON, |nodes| nodes.iter().any(|node| node.name == "other").then_some(()))
        .unwrap();
    b.wait_status("the new name", SOON, |status| {
        status["Peer"].as_object()?.values().any(|peer| peer["DNSName"] == "other.lab.test.").then_some(())
    })
    .unwrap();
    a.cli(&["set", "--hostname="]).unwrap();
    control
        .wait_for("the system's name", SOON, |nodes| nodes.iter().any(|node| node.name == "a").then_some(()))
        .unwrap();

    // The firewall: a table of our own, or nothing at all.
    let tables = "nft list tables";
    assert_names(&shell(host, tables), &["tsrs-0"]);
    a.cli(&["set", "--netfilter-mode=off"]).unwrap();
    wait_shell(host, tables, |said| !said.contains("tsrs-0"));
    host.wait_ping(to_b, SOON).unwrap();
    a.cli(&["set", "--netfilter-mode=on"]).unwrap();
    wait_shell(host, tables, |said| said.contains("tsrs-0"));

    // The operator: a user who may change settings; others may look.
    let as_nobody = |arguments: &[&str]| {
        let binary = agent_binary().unwrap();
        let mut command = host.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary).args(arguments);
        command.env("TS_RS_EXPERIMENT", "this_is_unstable_software");
        host.output(command).unwrap()
    };
    if as_nobody(&["version"]).status.success() {
        assert!(as_nobody(&["status"]).status.success());
        assert!(!as_nobody(&["set", "--shields-up"]).status.success());
        a.cli(&["set", "--operator=nobody"]).unwrap();
        assert!(as_nobody(&["set", "--shields-up"]).status.success());
        assert_eq!(pref(&a, "ShieldsUp"), true);
        a.cli(&["set", "--operator=", "--shields-up=false"]).unwrap();
        assert!(!as_nobody(&["set", "--shields-up"]).status.success());
    } else {
        tools::skip("operator", "another user cannot run the binary where it lies");
    }

    // A stream through the tunnel for a program that has only its standard input and output.
    let server = net.host("b").tcp_server((to_b, 7000).into()).unwrap();
    let mut command = host.command(agent_binary().unwrap());
    command.args(["nc", "b", "7000"]).env("TS_RS_EXPERIMENT", "this_is_unstable_software");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let output = host
        .space()
        .run(move || {
            let mut child = command.spawn()?;
            // An empty transfer: its length, then both checksums come back.
            child.stdin.take().map(|mut input| input.write_all(&0u64.to_be_bytes())).transpose()?;
            child.wait_with_output()
        })
        .unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 64);
    assert_eq!(server.transfers(), 1);
    wait_state(&a, "Running");
}

#[test]
fn a_configuration_file_sets_everything_and_is_read_again() {
    let Some(_turn) = turn_with_agent("a_configuration_file_sets_everything") else { return };
    let net = Topology::public_pair().build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let host = net.host("a");
    let write = |more: &str| {
        let text = format!(
            "// {{}}\n{{\"Version\": \"alpha0\", \"ServerURL\": \"{}\", \"AuthKey\": \"{key}\", \"Hostname\": \"declared\", {more}}}",
            control.url()
        );
        host.write("/run/agent.hujson", &text).unwrap();
    };
    write("\"acceptRoutes\": true,");
    let a = daemon(&net, "a", &["--config=/run/agent.hujson"]);
    wait_state(&a, "Running");
    control.wait_online("declared", SOON).unwrap();
    assert_eq!(pref(&a, "RouteAll"), true);
    write("\"acceptRoutes\": false, \"ShieldsUp\": true");
    a.cli(&["debug", "reload-config"]).unwrap();
    assert_eq!((pref(&a, "RouteAll"), pref(&a, "ShieldsUp")), (Value::Bool(false), Value::Bool(true)));
}

#[test]
fn the_unit_file_is_understood() {
    let name = "the_unit_file_is_understood";
    let Some(verify) = tools::find_all(name, &["systemd-analyze"]) else { return };
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd/tsrs-agent.service");
    // Where the program will be installed there is none now.
    let text = std::fs::read_to_string(unit).unwrap().replace("/usr/local/bin/tsrs-agent", "/bin/true");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tsrs-agent.service");
    let said = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output =
            std::process::Command::new(&verify[0]).args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            output.status.success(),
            stderr.lines().filter(|line| line.contains("tsrs-agent")).collect::<Vec<_>>().join("\n"),
        )
    };
    assert_eq!(said(&text), (true, String::new()));
    // It does look.
    assert_ne!(said(&text.replace("Restart=", "Restrat=")).1, "");
}
