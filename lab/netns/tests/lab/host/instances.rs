//! Two tailnets on one host, and an agent beside the official one.

use std::net::IpAddr;
use std::path::PathBuf;

use tsrs_base_types::RegionId;
use tsrs_lab_control::{KeySpec, LabConfig, LabControl, RegionConfig};
use tsrs_lab_netns::{Agent, Host, Nat, Net, Topology, UpArgs, agent_binary, wait};

use super::{assert_names, daemon, joined, shell, wait_state};
use crate::{SOON, TAILSCALE, options, turn_with, turn_with_agent};

/// A second tailnet, on a host of the internet, with addresses that the first does not use.
fn second_tailnet(net: &Net, on: &Host) -> (LabControl, PathBuf) {
    let address = IpAddr::V4(on.address());
    let region = RegionConfig {
        id: RegionId(910),
        address,
        derp_port: 443,
        stun_port: Some(3478),
        ..RegionConfig::default()
    };
    let config = LabConfig {
        address,
        https_port: 443,
        http_port: Some(80),
        regions: vec![region],
        base_domain: "second.test".to_owned(),
        ..LabConfig::default()
    };
    let control = on.lab_control(config).unwrap();
    // Numbers, and with them addresses, are not given out again.
    control.add_paper_nodes(20, &Default::default());
    for node in control.nodes() {
        control.delete(node.id).unwrap();
    }
    let ca = net.folder().join("second-ca.pem");
    control.write_ca(&ca).unwrap();
    (control, ca)
}

fn rules(host: &Host) -> Vec<String> {
    shell(host, "ip rule").lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn two_tailnets_are_up_on_one_host_at_once() {
    let Some(_turn) = turn_with_agent("two_tailnets_are_up_on_one_host") else { return };
    let topology = Topology::empty("two").behind("ra", Nat::Easy, &["a"]).behind("rb", Nat::Easy, &["b"]);
    let net = topology.behind("rc", Nat::Easy, &["c"]).on_internet("s").build().unwrap();
    let first = net.lab_control(LabConfig::default()).unwrap();
    let (second, second_ca) = second_tailnet(&net, net.host("s"));
    let (key, second_key) = (first.create_key(KeySpec::reusable()), second.create_key(KeySpec::reusable()));
    let join_second = || UpArgs::join(&second.url(), &second_key).trusting(second_ca.clone());
    let host = net.host("a");
    let before = rules(host);

    let zero = joined(&net, "a", &first.url(), &key);
    let one = host.agent(join_second().instance(1)).unwrap();
    let b = joined(&net, "b", &first.url(), &key);
    let c = net.host("c").agent(join_second()).unwrap();
    let (to_b, to_c) = (b.ipv4().unwrap(), c.ipv4().unwrap());
    let both = |when: &str| {
        for (address, peer) in [(to_b, &b), (to_c, &c)] {
            host.wait_ping(address, SOON).unwrap_or_else(|error| panic!("{when}: {error:#}"));
            let own = if peer.ipv4().unwrap() == to_b { zero.ipv4() } else { one.ipv4() };
            peer.host().wait_ping(own.unwrap(), SOON).unwrap();
        }
    };
    both("at first");
    for (address, port) in [(to_b, 7000), (to_c, 7001)] {
        let at = if address == to_b { net.host("b") } else { net.host("c") };
        let server = at.tcp_server((address, port).into()).unwrap();
        host.tcp_transfer(server.address(), 1 << 20, SOON).unwrap();
    }

    // Each has what its number says, and nothing of the other's.
    let all = rules(host);
    for rule in [
        "5210: from all fwmark 0x80000/0xff0000 lookup main",
        "5250: from all fwmark 0x80000/0xff0000 unreachable",
        "5270: from all lookup 52",
        "5110: from all fwmark 0x90000/0xff0000 lookup main",
        "5150: from all fwmark 0x90000/0xff0000 unreachable",
        "5170: from all lookup 53",
    ] {
        assert!(all.iter().any(|line| line.starts_with(rule)), "{rule}: {all:#?}");
    }
    assert_names(&shell(host, "ip route show table 52"), &[&format!("{to_b} dev tailscale0")]);
    assert_names(&shell(host, "ip route show table 53"), &[&format!("{to_c} dev tailscale1")]);
    assert!(!shell(host, "ip route show table 52").contains(&to_c.to_string()));
    let tables = shell(host, "nft list tables");
    assert_names(&tables, &["table ip tsrs-0", "table ip tsrs-1"]);
    assert_names(&shell(host, "nft list table ip tsrs-1"), &["0x00050000"]);
    assert!(host.outside("/var/lib/tsrs-agent-1/tsrs-agent.state").exists());

    // One leaves, the other stays whole.
    assert!(zero.process().stop().unwrap().success());
    host.wait_ping(to_c, SOON).unwrap();
    assert!(!rules(host).iter().any(|line| line.starts_with("52")));
    one.cli(&["down"]).unwrap();
    assert_eq!(rules(host), before);
}

/// A daemon that must refuse; what it said.
fn refusal(host: &Host) -> String {
    let mut command = host.command(agent_binary().unwrap());
    command.args(["daemon"]).env("TS_RS_EXPERIMENT", "this_is_unstable_software");
    let process = host.spawn("refused", command).unwrap();
    let status = wait::until("the daemon refuses", SOON, || process.exit_status()).unwrap();
    assert_eq!(status.code(), Some(1), "{}", process.log());
    process.log()
}

#[test]
fn a_running_tailscaled_is_recognised_and_its_login_taken_over() {
    let Some(_turn) = turn_with("a_running_tailscaled_is_recognised", &TAILSCALE) else { return };
    if agent_binary().is_none() {
        return tsrs_lab_netns::tools::skip("a_running_tailscaled_is_recognised", "tsrs-agent is not built");
    }
    let topology = Topology::empty("beside").behind("ra", Nat::Easy, &["a"]).behind("rb", Nat::Easy, &["b"]);
    let net = topology.on_internet("s").build().unwrap();
    let first = net.lab_control(LabConfig::default()).unwrap();
    let (second, second_ca) = second_tailnet(&net, net.host("s"));
    let key = first.create_key(KeySpec::reusable());
    let host = net.host("a");
    let official = host.tailscaled(&options(&net)).unwrap();
    official.up(&first.url(), &key, &["--accept-routes", "--hostname=kept"]).unwrap();
    let address = official.ipv4().unwrap();
    let b = joined(&net, "b", &first.url(), &key);
    host.wait_ping(b.ipv4().unwrap(), SOON).unwrap();

    // In the way of instance 0, and not of instance 1.
    assert_names(
        &refusal(host),
        &["tailscaled", "--instance 1", "--import /var/lib/tailscale/tailscaled.state"],
    );
    let second_key = second.create_key(KeySpec::reusable());
    let beside =
        host.agent(UpArgs::join(&second.url(), &second_key).trusting(second_ca).instance(1)).unwrap();
    wait_state(&beside, "Running");
    host.wait_ping(b.ipv4().unwrap(), SOON).unwrap();
    assert!(beside.process().stop().unwrap().success());
    host.wait_ping(b.ipv4().unwrap(), SOON).unwrap();

    // Stopped, its login is offered and taken over: the same node, the same address, the same settings.
    official.process().stop().unwrap();
    let state = "/var/lib/tailscale/tailscaled.state";
    let before = host.read(state).unwrap();
    let fresh = daemon(&net, "a", &[]);
    let server = format!("--login-server={}", first.url());
    let said = output_of(&fresh, &["up", &server, "--timeout=1s"]);
    assert_names(&said, &["--import", state]);
    drop(fresh);
    std::fs::remove_dir_all(host.outside("/var/lib/tsrs-agent")).unwrap();
    let agent = daemon(&net, "a", &["--import", state]);
    wait_state(&agent, "Running");
    assert_eq!(agent.ipv4().unwrap(), address);
    host.wait_ping(b.ipv4().unwrap(), SOON).unwrap();
    assert_eq!(net_names(&first), ["b", "kept"]);
    assert_eq!(agent.cli(&["get", "accept-routes"]).unwrap().trim(), "true");
    assert_eq!(host.read(state).unwrap(), before);
}

fn net_names(control: &LabControl) -> Vec<String> {
    let mut names: Vec<String> = control.nodes().into_iter().map(|node| node.name).collect();
    names.sort();
    names
}

/// All that a command of the client says, whatever its end.
fn output_of(agent: &Agent<'_>, arguments: &[&str]) -> String {
    let output = agent.output(arguments).unwrap();
    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
}
