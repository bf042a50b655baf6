//! A host whose own firewall drops what it does not know, and a TUN without IPv6.

use tsrs_lab_control::{KeySpec, LabConfig};
use tsrs_lab_netns::{Host, Nat, Topology, tools};

use super::{answers, assert_names, joined, shell, wait_silent};
use crate::{SOON, turn_with_agent};

/// What hosts in the field have, in the words of nftables.
const NFT: &str = "nft -f - <<E
table inet guard {
    chain input { type filter hook input priority filter; policy drop; iif lo accept; ct state established,related accept; }
    chain forward { type filter hook forward priority filter; policy drop; }
}
E";
/// The same by iptables.
const IPTABLES: &str = "iptables-nft -P INPUT DROP && iptables-nft -P FORWARD DROP \
    && iptables-nft -A INPUT -i lo -j ACCEPT \
    && iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT";

#[test]
fn peers_come_in_through_a_firewall_that_drops_by_policy() {
    let Some(_turn) = turn_with_agent("peers_come_in_through_a_firewall") else { return };
    let net = Topology::empty("guard")
        .behind("ra", Nat::Easy, &["a"])
        .behind("rb", Nat::Easy, &["b", "printer"])
        .build()
        .unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let (host_a, host_b) = (net.host("a"), net.host("b"));
    let a = joined(&net, "a", &control.url(), &key);
    a.cli(&["set", "--accept-routes"]).unwrap();
    shell(host_b, "echo 1 > /proc/sys/net/ipv4/ip_forward");
    let mut setups = vec![(NFT, "nft delete table inet guard")];
    if tools::find_all("iptables_nft_firewall", &["iptables-nft"]).is_some() {
        setups.push((IPTABLES, "nft flush ruleset"));
    }
    for (make, remove) in setups {
        shell(host_b, make);
        let before = ruleset(host_b);
        // Without the agent's rule the firewall does what it says.
        assert!(!answers(net.host("printer"), host_b.address()));
        let b = joined(&net, "b", &control.url(), &key);
        let address = b.ipv4().unwrap();
        host_a.wait_ping(address, SOON).unwrap();
        let server = host_b.tcp_server((address, 7000).into()).unwrap();
        host_a.tcp_transfer(server.address(), 1 << 20, SOON).unwrap();
        // Everybody else stays outside.
        assert!(!answers(net.host("printer"), host_b.address()));

        // Forwarding, whose policy is drop too.
        let subnet = "192.168.2.0/24".parse().unwrap();
        b.cli(&["set", "--advertise-routes=192.168.2.0/24"]).unwrap();
        control.approve_routes(control.node("b").unwrap().id, &[subnet]).unwrap();
        let printer = net.host("printer").address();
        host_a.wait_ping(printer, SOON).unwrap();

        // The host's own chains are left alone when asked, and then they drop again.
        b.cli(&["set", "--netfilter-mode=nodivert"]).unwrap();
        wait_silent(host_a, printer);
        b.cli(&["set", "--netfilter-mode=on"]).unwrap();
        host_a.wait_ping(printer, SOON).unwrap();

        // Somebody reloads the firewall under a running agent.
        shell(host_b, remove);
        shell(host_b, make);
        host_a.wait_ping(printer, SOON).unwrap();
        let again = host_b.tcp_server((address, 7001).into()).unwrap();
        host_a.tcp_transfer(again.address(), 1 << 20, SOON).unwrap();

        b.cli(&["logout"]).unwrap();
        assert!(b.process().stop().unwrap().success());
        assert_eq!(ruleset(host_b), before);
        shell(host_b, remove);
    }
}

/// The host's firewall without counts and handles.
fn ruleset(host: &Host) -> String {
    shell(host, "nft -s list ruleset")
}

#[test]
fn a_tun_has_a_small_mtu_and_never_an_ipv6_packet() {
    let Some(_turn) = turn_with_agent("a_tun_has_a_small_mtu") else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let host = net.host("a");
    // From before the interface is there.
    let capture = host.capture("tun").unwrap();
    let a = joined(&net, "a", &control.url(), &key);
    let b = joined(&net, "b", &control.url(), &key);
    host.wait_ping(b.ipv4().unwrap(), SOON).unwrap();
    assert_names(&shell(host, "ip link show dev tailscale0"), &["mtu 1280"]);
    assert_eq!(shell(host, "ip -6 addr show dev tailscale0"), "");
    // A program that wants IPv6 gets none.
    assert!(host.run("ip", &["-6", "route", "get", "2001:db8::1"]).is_err());
    let index: usize = shell(host, "cat /sys/class/net/tailscale0/ifindex").trim().parse().unwrap();
    a.cli(&["down"]).unwrap();
    a.cli(&["up", &format!("--login-server={}", control.url())]).unwrap();
    host.wait_ping(b.ipv4().unwrap(), SOON).unwrap();
    let seen: Vec<u16> =
        capture.finish().iter().filter(|seen| seen.interface == index).map(|seen| seen.ether_type).collect();
    assert!(seen.len() >= 4, "{seen:x?}");
    assert!(seen.iter().all(|kind| *kind == 0x0800), "{seen:x?}");
}
