//! Settings whose effect is not built: refused with the reason by every way in, and never stored.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};
use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Agent, Topology};

use super::{STATE_FILE, assert_names, daemon, failure, health, joined, wait_health, wait_state};
use crate::turn_with_agent;

/// One request to the LocalAPI; status and body.
fn request(agent: &Agent<'_>, method: &str, path: &str, body: &Value) -> (u16, String) {
    let mut stream = UnixStream::connect(agent.socket()).unwrap();
    let body = body.to_string();
    let head = format!(
        "{method} /localapi/v0/{path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

#[test]
fn settings_without_effect_are_refused_by_every_way_and_never_stored() {
    let Some(_turn) = turn_with_agent("settings_without_effect_are_refused") else { return };
    let net = Topology::public_pair().build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let agent = joined(&net, "a", &control.url(), &key);
    let peer = joined(&net, "b", &control.url(), &key);
    let host = net.host("a");
    let stored = host.read(STATE_FILE).unwrap();
    let prefs = agent.cli(&["debug", "prefs"]).unwrap();
    let login_server = format!("--login-server={}", control.url());

    let exit_node = format!("--exit-node={}", peer.ipv4().unwrap());
    let flags: [(&[&str], &str); 6] = [
        (&[&exit_node], "exit node"),
        (&["--advertise-exit-node"], "exit node"),
        (&["--ssh"], "ssh"),
        (&["--advertise-connector"], "connector"),
        (&["--report-posture"], "posture"),
        (&["--advertise-routes=8.8.8.0/24"], "8.8.8.0/24"),
    ];
    for (flags, reason) in flags {
        for command in [&["up", "--timeout=20s", &login_server][..], &["set"]] {
            let arguments = [command, flags].concat();
            let (code, said) = failure(&agent.output(&arguments).unwrap());
            assert_eq!(code, 1, "{arguments:?}: {said}");
            assert_names(&said, &[reason]);
        }
    }

    // The API, as other clients speak it: single changes, a whole start, a check.
    let edits = [
        ("RunWebClient", json!(true), "webclient"),
        ("RunSSH", json!(true), "ssh"),
        ("ExitNodeIP", json!("100.64.0.9"), "exit-node"),
        ("AdvertiseRoutes", json!(["0.0.0.0/0", "::/0"]), "exit node"),
        ("AppConnector", json!({"Advertise": true}), "connector"),
        ("PostureChecking", json!(true), "posture"),
        ("RelayServerPort", json!(7777), "relay"),
    ];
    let whole: Value = serde_json::from_str(&prefs).unwrap();
    for (name, value, reason) in edits {
        let (status, said) =
            request(&agent, "PATCH", "prefs", &json!({name: value, format!("{name}Set"): true}));
        assert_eq!(status, 400, "{name}: {said}");
        assert_names(&said, &[reason]);
        let mut update = whole.clone();
        update[name] = value;
        let (status, said) = request(&agent, "POST", "start", &json!({"UpdatePrefs": update}));
        assert!((400..600).contains(&status), "{name}: {status} {said}");
        assert_names(&said, &[reason]);
        let (_, said) = request(&agent, "POST", "check-prefs", &update);
        assert_names(&said, &[reason]);
    }
    assert_eq!(agent.cli(&["debug", "prefs"]).unwrap(), prefs);
    assert_eq!(host.read(STATE_FILE).unwrap(), stored);
    wait_state(&agent, "Running");

    // An old state file that has them: taken out and said; what protected traffic keeps the tunnel down.
    assert!(agent.process().stop().unwrap().success());
    drop(agent);
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut state: Value = serde_json::from_str(&stored).unwrap();
        state["Profiles"]
            .as_object_mut()
            .unwrap()
            .values_mut()
            .for_each(|profile| edit(&mut profile["Prefs"]));
        host.write(STATE_FILE, &state.to_string()).unwrap();
    };
    with(&|prefs| prefs["RunSSH"] = json!(true));
    let agent = daemon(&net, "a", &[]);
    wait_health(&agent, "ssh", true);
    wait_state(&agent, "Running");
    assert_names(&health(&agent), &["taken out"]);
    assert!(agent.process().stop().unwrap().success());
    drop(agent);
    with(&|prefs| prefs["ExitNodeID"] = json!("n1"));
    let agent = daemon(&net, "a", &[]);
    wait_health(&agent, "kept down", true);
    wait_state(&agent, "Stopped");
}
