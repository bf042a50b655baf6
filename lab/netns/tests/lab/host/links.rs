//! The uplink changes under a running agent, and traffic goes on.

use std::process::Command;

use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Nat, Topology};

use super::{joined, shell, wait_silent};
use crate::{SOON, turn_with_agent};

#[test]
fn traffic_goes_on_when_the_uplink_changes() {
    let Some(_turn) = turn_with_agent("traffic_goes_on_when_the_uplink_changes") else { return };
    let topology = Topology::empty("links").behind("ra", Nat::Easy, &["a"]).behind("rb", Nat::Easy, &["b"]);
    let net = topology.behind("rc", Nat::Easy, &[]).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let (host, peer) = (net.host("a"), net.host("b"));
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    let (address_a, address_b) = (a.ipv4().unwrap(), b.ipv4().unwrap());
    let both = |when: &str| {
        host.wait_ping(address_b, SOON).unwrap_or_else(|error| panic!("{when}: {error:#}"));
        peer.wait_ping(address_a, SOON).unwrap_or_else(|error| panic!("{when}: {error:#}"));
        control.wait_online("a", SOON).unwrap_or_else(|error| panic!("{when}: {error:#}"));
        // Not only by the relay: the path becomes direct again.
        let said = a.cli(&["ping", "--until-direct=true", "--c=40", "--timeout=1s", &address_b.to_string()]);
        assert!(said.as_ref().is_ok_and(|said| said.contains("via 203.0.113.12:")), "{when}: {said:?}");
    };
    both("at first");

    // Another address of the same link, as after a new lease.
    shell(host, "ip addr del 192.168.1.10/24 dev eth0 && ip addr add 192.168.1.20/24 dev eth0");
    shell(host, "ip route replace default via 192.168.1.1");
    both("with another address");

    // The cable is pulled, and put back.
    shell(host, "ip link set eth0 down");
    wait_silent(host, address_b);
    shell(host, "ip link set eth0 up && ip route add default via 192.168.1.1");
    both("with the cable back");

    // Another uplink takes over, as from Ethernet to Wi-Fi.
    let router = net.router("rc").space().namespace();
    for (namespace, line) in [
        (router, format!("link add p-a2 type veth peer name eth1 netns {}", host.space().namespace())),
        (router, "link set p-a2 master lan up".to_owned()),
        (host.space().namespace(), "addr add 192.168.3.30/24 dev eth1".to_owned()),
        (host.space().namespace(), "link set eth1 up".to_owned()),
    ] {
        let arguments: Vec<&str> = ["-n", namespace].into_iter().chain(line.split(' ')).collect();
        assert!(Command::new("ip").args(&arguments).status().unwrap().success(), "{line}");
    }
    shell(host, "ip route replace default via 192.168.3.1 dev eth1 && ip link set eth0 down");
    both("on another uplink");
    let said =
        b.cli(&["ping", "--until-direct=true", "--c=40", "--timeout=1s", &address_a.to_string()]).unwrap();
    assert!(said.contains("via 203.0.113.13:"), "{said}");
}
