//! Control and relays that go away and come back, and starts without control.

use std::time::Duration;

use tsrs_base_types::RegionId;
use tsrs_lab_control::{FaultAction, FaultTarget, KeySpec, LabConfig, LabControl};
use tsrs_lab_netns::{Agent, Nat, Topology, wait};

use super::{assert_names, at_once, joined, wait_health, wait_state};
use crate::{SOON, turn_with_agent};

const MEGABYTE: u64 = 1 << 20;

#[test]
fn outages_end_by_themselves_and_traffic_goes_on() {
    let Some(_turn) = turn_with_agent("outages_end_by_themselves") else { return };
    at_once(&[&control_gone, &relay_gone, &start_without_control]);
}

fn out_of_order() -> FaultAction {
    FaultAction::Status { code: 503, retry_after: None, body: "out of order".to_owned() }
}

fn peer_named(agent: &Agent<'_>, name: &str) -> bool {
    let status = agent.status().unwrap();
    status["Peer"].as_object().is_some_and(|peers| peers.values().any(|peer| peer["DNSName"] == name))
}

/// Waits until an agent says of itself that it is connected to control, or is not.
fn wait_online(agent: &Agent<'_>, online: bool) {
    let what = format!("online {online}");
    agent.wait_status(&what, SOON, |status| (status["Self"]["Online"] == online).then_some(())).unwrap();
}

/// Lets control answer nobody, or everybody again; relays go on.
fn shut(control: &LabControl, shut: bool) {
    control.faults().clear();
    if shut {
        for target in [FaultTarget::Key, FaultTarget::Upgrade] {
            control.faults().add(target, out_of_order());
        }
    }
}

fn control_gone() {
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let mut control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    control.wait_online("b", SOON).unwrap();
    let address = b.ipv4().unwrap();
    let said = a.cli(&["ping", "--until-direct", "--c=20", "--timeout=1s", &address.to_string()]).unwrap();
    assert!(said.contains("via 203.0.113.12:"), "{said}");

    // Everything is gone: control, relays, STUN. The direct path carries on.
    control.stop();
    wait_online(&a, false);
    net.host("a").wait_ping(address, SOON).unwrap();
    let server = net.host("b").tcp_server((address, 7000).into()).unwrap();
    net.host("a").tcp_transfer(server.address(), MEGABYTE, SOON).unwrap();
    wait_state(&a, "Running");

    control.resume().unwrap();
    control.wait_online("a", SOON).unwrap();
    control.wait_online("b", SOON).unwrap();
    wait_online(&a, true);
    control.rename(control.node("b").unwrap().id, "renamed").unwrap();
    wait::until("the news", SOON, || peer_named(&a, "renamed.lab.test.").then_some(())).unwrap();
    // The log alone tells how it went.
    let log = a.process().log();
    assert_names(&log, &["state=Running", "home region", "connected to the control server"]);

    // The stream is refused in every way, then answered with nonsense: each costs a try.
    for code in [401, 429, 500, 503] {
        let refuse = FaultAction::Status { code, retry_after: Some(1), body: "out of order".to_owned() };
        control.faults().add_times(FaultTarget::MapStream, refuse, 1);
    }
    control.faults().add_times(FaultTarget::MapStream, FaultAction::Garbage(vec![0xff; 300]), 1);
    control.cut_connections();
    wait_online(&a, false);
    wait_online(&a, true);
    control.faults().clear();
    wait_state(&a, "Running");
    net.host("a").wait_ping(address, SOON).unwrap();

    // Bytes that are no map message end the stream, not the agent.
    let id = control.node("a").unwrap().id;
    control.inject_raw(id, vec![0xff; 64]);
    control.inject(id, serde_json::json!({"Peers": 7}));
    control.rename(control.node("renamed").unwrap().id, "again").unwrap();
    wait::until("news after garbage", SOON, || peer_named(&a, "again.lab.test.").then_some(())).unwrap();
    net.host("a").wait_ping(address, SOON).unwrap();
}

fn relay_gone() {
    let net = Topology::pair(Nat::UdpBlocked, Nat::UdpBlocked).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    let regions = [RegionId(900), RegionId(901)];
    let address = b.ipv4().unwrap();
    net.host("a").wait_ping(address, SOON).unwrap();
    let packets =
        || regions.iter().filter_map(|id| control.derp_stats(*id)).map(|stats| stats.packets).sum::<u64>();

    // Cut in the middle of a transfer, which goes on over new connections.
    let server = net.host("b").tcp_server((address, 7000).into()).unwrap();
    let before = packets();
    std::thread::scope(|scope| {
        let transfer =
            scope.spawn(|| net.host("a").tcp_transfer(server.address(), 8 * MEGABYTE, SOON).unwrap());
        wait::until("the transfer runs", SOON, || (packets() > before + 500).then_some(())).unwrap();
        regions.iter().for_each(|id| control.cut_derp(*id));
        assert_eq!(transfer.join().unwrap().bytes, 8 * MEGABYTE);
    });

    // Gone for longer: it is said, and ends by itself.
    for id in regions {
        control.faults().add(FaultTarget::Derp(id), out_of_order());
        control.cut_derp(id);
    }
    assert_eq!(net.host("a").ping(address, 1, Duration::from_secs(1)).unwrap().received, 0);
    wait_health(&a, "relay server", true);
    wait_state(&a, "Running");
    control.faults().clear();
    net.host("a").wait_ping(address, SOON).unwrap();
    wait_health(&a, "relay server", false);

    // Bytes that are no frame end a connection, not the agent.
    for id in regions {
        control.inject_derp(id, &control.node("a").unwrap(), &[0xff; 64]);
    }
    net.host("a").wait_ping(address, SOON).unwrap();
}

fn start_without_control() {
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let mut control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let mut a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    let (own, peer) = (a.ipv4().unwrap(), b.ipv4().unwrap());
    let host = net.host("a");
    wait::until("a knows b", SOON, || peer_named(&a, "b.lab.test.").then_some(())).unwrap();

    // News are on the disk soon, not at once: a burst is written in one piece.
    let cached = ["-c", "grep -qF '\"b.lab.test.\"' /var/lib/tsrs-agent/netmap-*.json"];
    wait::until("the cache", SOON, || host.run("sh", &cached).is_ok().then_some(())).unwrap();

    // Killed, so that no orderly end prepares the start. Control answers nobody; the relays are up.
    shut(&control, true);
    control.cut_connections();
    a.crash_and_restart().unwrap();
    wait_state(&a, "Running");
    assert_eq!(a.ipv4().unwrap(), own);
    assert!(peer_named(&a, "b.lab.test."), "{:#}\n{}", a.status().unwrap(), a.process().log());
    assert!(host.run("ip", &["-4", "addr", "show", "dev", "tailscale0"]).unwrap().contains(&own.to_string()));
    let route = host.run("ip", &["route", "get", &peer.to_string()]).unwrap();
    assert!(route.contains("dev tailscale0"), "{route}");
    host.wait_ping(peer, SOON).unwrap();
    net.host("b").wait_ping(own, SOON).unwrap();
    assert!(host.resolve("b").unwrap().contains(&peer.into()));
    assert!(!control.node("a").unwrap().online());

    // Not even the server's host is there: the address and routes are, all the same.
    control.stop();
    a.restart().unwrap();
    wait_state(&a, "Running");
    assert_eq!(a.ipv4().unwrap(), own);
    shut(&control, false);
    control.resume().unwrap();
    control.wait_online("a", SOON).unwrap();
    host.wait_ping(peer, SOON).unwrap();
}
