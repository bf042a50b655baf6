//! Subnet routes: offered with and without the router's own address as source, accepted, and nothing beside them.

use std::net::Ipv4Addr;

use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Host, Nat, Topology, tools, wait};

use super::{IN_VAIN, answers, assert_names, joined, refused, shell, wait_shell, wait_silent};
use crate::{SOON, TAILSCALE, options, turn_with_agent};

const ICMP: u8 = 1;
const TCP: u8 = 6;
/// What a TCP segment may hold in a tunnel of 1280 bytes.
const SEGMENT: u16 = 1240;

/// From which addresses `from` pings `to`, as `to` sees it.
fn sources(from: &Host, to: &Host) -> Vec<Ipv4Addr> {
    let capture = to.capture("sources").unwrap();
    from.wait_ping(to.address(), SOON).unwrap();
    let seen = capture.finish();
    seen.iter()
        .filter(|seen| seen.protocol == ICMP && seen.destination == to.address())
        .map(|seen| seen.source)
        .collect()
}

/// Packets from peers that the filter dropped, by the agent's metrics.
fn filtered(metrics: &str) -> u64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with("tailscaled_inbound_dropped_packets_total{reason=\"acl\"}"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn a_subnet_is_reached_through_its_router_and_nothing_else_is() {
    let Some(_turn) = turn_with_agent("a_subnet_is_reached_through_its_router") else { return };
    let topology = Topology::empty("subnets").behind("ra", Nat::Easy, &["a"]);
    let topology = topology.behind("rb", Nat::Easy, &["b", "printer"]).behind("rc", Nat::Easy, &["c"]);
    // A host of the internet, on the router's way but not in its subnet.
    let net = topology.on_internet("x").build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let (host_a, host_b, printer) = (net.host("a"), net.host("b"), net.host("printer"));
    let b = joined(&net, "b", &control.url(), &key);
    let a = joined(&net, "a", &control.url(), &key);
    let (address_a, address_b) = (a.ipv4().unwrap(), b.ipv4().unwrap());

    // What is not a subnet of one's own is refused with the reason, and nothing of it is told.
    for (routes, reason) in [
        ("0.0.0.0/1", "globally routable"),
        ("11.0.0.0/8", "globally routable"),
        ("192.168.2.0/24,8.8.8.0/24", "globally routable"),
        ("0.0.0.0/0", "exit node"),
        ("100.64.0.0/16", "100.64.0.0/10"),
        ("169.254.0.0/16", "link-local"),
    ] {
        let said = refused(&b, &["set", &format!("--advertise-routes={routes}")]);
        assert_names(&said, &[reason]);
    }
    assert!(control.node("b").unwrap().hostinfo.routable_ips.is_empty());

    // Offered: the host has to forward, which the agent says and does not do by itself.
    let subnet = "192.168.2.0/24".parse().unwrap();
    b.cli(&["set", "--advertise-routes=192.168.2.0/24"]).unwrap();
    let offered = |routes: &[ipnet::IpNet]| {
        let told = |nodes: &[tsrs_lab_control::LabNode]| {
            nodes.iter().any(|node| node.name == "b" && node.hostinfo.routable_ips == routes).then_some(())
        };
        control.wait_for("the offer of b", SOON, told).unwrap();
    };
    offered(&[subnet]);
    let health = |part: &str, there: bool| {
        let such =
            |status: &serde_json::Value| (status["Health"].to_string().contains(part) == there).then_some(());
        b.wait_status(&format!("health {part} {there}"), SOON, such).unwrap();
    };
    health("ip_forward", true);
    assert_eq!(shell(host_b, "cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    shell(host_b, "echo 1 > /proc/sys/net/ipv4/ip_forward");

    // Not approved: nobody routes it. Not accepted: this node does not.
    a.cli(&["set", "--accept-routes"]).unwrap();
    assert!(!answers(host_a, printer.address()));
    let id = control.node("b").unwrap().id;
    control.approve_routes(id, &[subnet]).unwrap();
    host_a.wait_ping(printer.address(), SOON).unwrap();
    assert_names(&shell(host_a, "ip route show table 52"), &["192.168.2.0/24 dev tailscale0"]);
    a.cli(&["set", "--accept-routes=false"]).unwrap();
    wait_shell(host_a, "ip route show table 52", |routes| !routes.contains("192.168.2.0/24"));
    wait_silent(host_a, printer.address());
    a.cli(&["set", "--accept-routes"]).unwrap();
    host_a.wait_ping(printer.address(), SOON).unwrap();

    // The host of the subnet sees its neighbour; a stream goes through in both directions.
    assert_eq!(sources(host_a, printer)[0], host_b.address());
    let server = printer.tcp_server((printer.address(), 7000).into()).unwrap();
    let capture = host_a.capture("segments").unwrap();
    host_a.tcp_transfer(server.address(), 1 << 20, SOON).unwrap();
    // The host of the subnet offers segments for its own link; those that arrive fit the tunnel.
    let segments: Vec<_> = capture
        .finish()
        .iter()
        .filter(|seen| seen.protocol == TCP && seen.source == printer.address())
        .filter_map(|seen| seen.segment)
        .collect();
    assert_eq!(segments, [SEGMENT]);

    // The official client as a peer.
    let c = tools::find_all("c_subnet_peer", &TAILSCALE)
        .map(|_| net.host("c").tailscaled(&options(&net)).unwrap());
    if let Some(c) = &c {
        c.up(&control.url(), &key, &["--accept-routes"]).unwrap();
        net.host("c").wait_ping(printer.address(), SOON).unwrap();
        net.host("c").tcp_transfer(server.address(), 1 << 20, SOON).unwrap();
    }

    // Without translation the host of the subnet sees the peer, and needs a way back.
    shell(printer, "ip route add 100.64.0.0/10 via 192.168.2.10");
    b.cli(&["set", "--snat-subnet-routes=false"]).unwrap();
    let plain = || (sources(host_a, printer)[0] == address_a).then_some(());
    wait::until("the printer sees the peer", SOON, plain).unwrap();
    printer.wait_ping(address_a, SOON).unwrap();
    host_a.tcp_transfer(server.address(), 1 << 20, SOON).unwrap();
    // Stateful: only answers come back in. (Echoes of one process are one flow, so they cannot tell.)
    let back = host_a.tcp_server((address_a, 7100).into()).unwrap();
    assert!(printer.tcp_connects(back.address(), SOON));
    b.cli(&["set", "--stateful-filtering"]).unwrap();
    let shut = || (!printer.tcp_connects(back.address(), IN_VAIN)).then_some(());
    wait::until("no new flow from the subnet", SOON, shut).unwrap();
    host_a.tcp_transfer(server.address(), 1 << 20, SOON).unwrap();
    b.cli(&["set", "--stateful-filtering=false", "--snat-subnet-routes"]).unwrap();
    let translated = || (sources(host_a, printer)[0] == host_b.address()).then_some(());
    wait::until("the printer sees its neighbour", SOON, translated).unwrap();

    // Whatever a peer sends there, nothing else is forwarded: not to the internet, not to another network behind it.
    let out = net.host("x");
    let targets = [out.address(), Ipv4Addr::new(192, 168, 3, 10), Ipv4Addr::new(9, 9, 9, 9)];
    let more: Vec<ipnet::IpNet> = targets.iter().map(|&target| std::net::IpAddr::V4(target).into()).collect();
    // A control server that is wrong, or not honest, about what b offers.
    let lie = |node: &mut tsrs_lab_control::LabNode| {
        node.hostinfo.routable_ips.extend(&more);
        node.approved_routes.extend(&more);
    };
    control.edit(id, lie).unwrap();
    wait_shell(host_a, "ip route show table 52", |routes| {
        targets.iter().all(|target| routes.contains(&target.to_string()))
    });
    let capture = host_b.capture("forwarded").unwrap();
    let dropped = || filtered(&b.cli(&["metrics", "print"]).unwrap());
    let before = dropped();
    for target in targets {
        assert!(!answers(host_a, target), "{target} answers");
    }
    assert!(
        !capture.finish().iter().any(|seen| seen.protocol == ICMP && targets.contains(&seen.destination))
    );
    // They did arrive there.
    assert!(dropped() >= before + 3, "{before} {}", dropped());
    // Behind the packet filter stands the kernel's: what comes out of the TUN goes to the subnet or nowhere.
    let table = shell(host_b, "nft list table ip tsrs-0");
    assert_names(&table, &["chain from-tunnel", "192.168.2.0/24", "never to anywhere else"]);
    assert!(answers(host_a, printer.address()));

    // Withdrawn: gone from peers and from the firewall.
    b.cli(&["set", "--advertise-routes="]).unwrap();
    offered(&[]);
    wait_silent(host_a, printer.address());
    assert!(!shell(host_b, "nft list table ip tsrs-0").contains("192.168.2.0/24"));
    host_a.wait_ping(address_b, SOON).unwrap();
}
