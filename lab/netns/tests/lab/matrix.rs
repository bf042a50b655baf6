//! The table: our agent × {embedded server, headscale} × {our agent, `tailscaled`} × {direct, relayed}.
//!
//! Each cell is one test: ping, TCP both ways with equal checksums, UDP, MagicDNS, a denied port, a restart. Host `a`
//! runs the agent, host `b` the peer; everything is done in both directions where it has one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tsrs_lab_control::LabConfig;
use tsrs_lab_netns::{Host, Nat, Net, Node, NodeKind, Server, Topology, agent_binary, tools, wait};

use crate::{SOON, Turn};

/// How long TCP runs.
const TCP_TIME: Duration = Duration::from_secs(10);
/// Bytes each way of one of the transfers that fill that time.
const TRANSFER_BYTES: u64 = 8 << 20;
/// The service address for DNS.
const MAGIC_DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)), 53);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Embedded,
    Headscale,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Path {
    Direct,
    Relayed,
}

fn cell(name: &str, control: Control, peer: NodeKind, path: Path) {
    if agent_binary().is_none() {
        return tools::skip(name, "tsrs-agent is not built");
    }
    let mut programs = Vec::new();
    if control == Control::Headscale {
        programs.push("headscale");
    }
    if peer == NodeKind::Tailscaled {
        programs.extend(["tailscaled", "tailscale"]);
    }
    if tools::find_all(name, &programs).is_none() {
        return;
    }
    let _turn = Turn::take();
    let nat = if path == Path::Direct { Nat::Easy } else { Nat::UdpBlocked };
    let net = Topology::pair(nat, nat).build().unwrap();
    let server = match control {
        Control::Embedded => Server::embedded(&net, LabConfig::default()),
        Control::Headscale => Server::headscale(&net),
    };
    let server = server.unwrap();
    let key = server.create_key().unwrap();
    let mut a = Node::start(net.host("a"), NodeKind::Agent, &server).unwrap();
    let mut b = Node::start(net.host("b"), peer, &server).unwrap();
    a.up(&server, &key).unwrap();
    b.up(&server, &key).unwrap();
    a.wait_peers(1, SOON).unwrap();
    b.wait_peers(1, SOON).unwrap();
    let (to_a, to_b) = (a.ipv4().unwrap(), b.ipv4().unwrap());

    is_on(&a, to_b, path);
    is_on(&b, to_a, path);
    net.host("a").wait_ping(to_b, SOON).unwrap();
    net.host("b").wait_ping(to_a, SOON).unwrap();
    tcp(net.host("a"), net.host("b"), to_b, TCP_TIME);
    udp(net.host("a"), net.host("b"), to_b);
    udp(net.host("b"), net.host("a"), to_a);
    names(net.host("a"), "b", to_b);
    names(net.host("b"), "a", to_a);
    denied(&net, &server, ["a", "b"], to_b);
    denied(&net, &server, ["b", "a"], to_a);

    for (node, address, other) in [(&mut a, to_a, to_b), (&mut b, to_b, to_a)] {
        node.restart().unwrap();
        assert_eq!(wait::until_ok("the address is back", SOON, || node.ipv4()).unwrap(), address);
        node.host().wait_ping(other, SOON).unwrap();
    }
    tcp(net.host("a"), net.host("b"), to_b, Duration::ZERO);
}

fn is_on(node: &Node<'_>, target: Ipv4Addr, path: Path) {
    match path {
        Path::Direct => node.ping_direct(target),
        Path::Relayed => node.ping_relayed(target),
    }
    .unwrap();
}

/// Transfers until `time` has passed, at least one. A transfer checks the sums at both ends.
fn tcp(from: &Host, to: &Host, address: Ipv4Addr, time: Duration) {
    let server = to.tcp_server((address, 7000).into()).unwrap();
    let start = Instant::now();
    loop {
        from.tcp_transfer(server.address(), TRANSFER_BYTES, SOON).unwrap();
        if start.elapsed() >= time {
            return;
        }
    }
}

fn udp(from: &Host, to: &Host, address: Ipv4Addr) {
    let echo = to.udp_server((address, 7001).into()).unwrap();
    // The relay may drop from a full queue; a direct path has no reason to.
    let answered = from.udp_echo(echo.address(), 200, 1000, SOON).unwrap();
    assert!(answered >= 190, "{answered} of 200 datagrams came back");
}

fn names(host: &Host, name: &str, address: Ipv4Addr) {
    let answer = host.dns_query(MAGIC_DNS, &format!("{name}.lab.test"), SOON).unwrap();
    assert_eq!(answer.addresses, [address]);
    let resolved = wait::until_ok("the short name", SOON, || host.resolve(name)).unwrap();
    assert!(resolved.contains(&IpAddr::V4(address)), "{resolved:?}");
}

/// The policy closes one port of the second host for the first, and opens it again.
fn denied(net: &Net, server: &Server<'_>, [from, to]: [&str; 2], address: Ipv4Addr) {
    let open = net.host(to).tcp_server((address, 7100).into()).unwrap();
    let closed = net.host(to).tcp_server((address, 7200).into()).unwrap();
    let connects = |server: SocketAddr| net.host(from).tcp_connects(server, Duration::from_secs(1));
    let becomes = |what: &str, wanted: bool| {
        let what = format!("{from} to {to}: {what}");
        wait::until(&what, SOON, || (connects(closed.address()) == wanted).then_some(())).unwrap();
    };
    becomes("open at first", true);
    server.allow_only(&["tcp:7100", "icmp:*"]).unwrap();
    becomes("closed by the policy", false);
    assert!(connects(open.address()));
    net.host(from).wait_ping(address, SOON).unwrap();
    server.allow_all().unwrap();
    becomes("open again", true);
}

macro_rules! cells {
    ($($name:ident: $control:ident, $peer:ident, $path:ident;)*) => {$(
        #[test]
        fn $name() {
            cell(stringify!($name), Control::$control, NodeKind::$peer, Path::$path);
        }
    )*};
}

cells! {
    embedded_agent_direct: Embedded, Agent, Direct;
    embedded_agent_relayed: Embedded, Agent, Relayed;
    embedded_tailscaled_direct: Embedded, Tailscaled, Direct;
    embedded_tailscaled_relayed: Embedded, Tailscaled, Relayed;
    headscale_agent_direct: Headscale, Agent, Direct;
    headscale_agent_relayed: Headscale, Agent, Relayed;
    headscale_tailscaled_direct: Headscale, Tailscaled, Direct;
    headscale_tailscaled_relayed: Headscale, Tailscaled, Relayed;
}
