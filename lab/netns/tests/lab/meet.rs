//! Two stock nodes and the embedded server: what a tailnet is for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tsrs_base_types::RegionId;
use tsrs_lab_control::{DerpTrust, DnsSettings, FaultAction, FaultTarget, Grant, KeySpec, LabConfig, Policy};
use tsrs_lab_netns::{Nat, Net, Tailscaled, Topology};

use crate::{SOON, TAILSCALE, options, turn_with};

/// The service address for DNS.
const MAGIC_DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100)), 53);
const MEGABYTE: u64 = 1 << 20;

/// One TCP transfer from `a` to `b`, over the tailnet.
pub(crate) fn transfer(net: &Net, b: Ipv4Addr, port: u16) {
    let server = net.host("b").tcp_server((b, port).into()).unwrap();
    let report = net.host("a").tcp_transfer(server.address(), MEGABYTE, SOON).unwrap();
    assert_eq!(report.bytes, MEGABYTE);
}

/// Waits until `a` can, or cannot, open a TCP connection to `server`.
pub(crate) fn wait_connects(net: &Net, server: SocketAddr, wanted: bool) {
    let what = format!("a {} {server}", if wanted { "reaches" } else { "no longer reaches" });
    let limit = std::time::Duration::from_secs(1);
    tsrs_lab_netns::wait::until(&what, SOON, || {
        (net.host("a").tcp_connects(server, limit) == wanted).then_some(())
    })
    .unwrap();
}

fn has_peer(node: &Tailscaled<'_>, dns_name: &str) -> bool {
    let status = node.status().unwrap();
    let peers = status["Peer"].as_object().cloned().unwrap_or_default();
    peers.values().any(|peer| peer["DNSName"] == dns_name)
}

#[test]
fn two_nodes_meet_directly_resolve_names_and_obey_the_policy() {
    let Some(_turn) = turn_with("two_nodes_meet", &TAILSCALE) else { return };
    let net = Topology::pair(Nat::Easy, Nat::Easy).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    control.set_dns(DnsSettings {
        extra_records: [("extra.lab.test".to_owned(), "192.0.2.9".parse().unwrap())].into(),
        ..DnsSettings::default()
    });
    let key = control.create_key(KeySpec::reusable());
    let a = net.host("a").tailscaled(&options(&net)).unwrap();
    let b = net.host("b").tailscaled(&options(&net)).unwrap();
    a.up(&control.url(), &key, &[]).unwrap();
    b.up(&control.url(), &key, &[]).unwrap();

    // Each sees the other, with the name and address that control gave.
    a.wait_peer("b", SOON).unwrap();
    b.wait_peer("a", SOON).unwrap();
    let (node_a, node_b) = (control.node("a").unwrap(), control.node("b").unwrap());
    assert_eq!((a.ipv4().unwrap(), b.ipv4().unwrap()), (node_a.ipv4, node_b.ipv4));

    // A direct path through two easy NATs, then packets and bytes over it.
    let said = a.ping(&node_b.ipv4.to_string(), true).unwrap();
    assert!(said.contains("via 203.0.113.12:"), "{said}");
    net.host("a").wait_ping(node_b.ipv4, SOON).unwrap();
    net.host("b").wait_ping(node_a.ipv4, SOON).unwrap();
    transfer(&net, node_b.ipv4, 7000);
    let echo = net.host("b").udp_server((node_b.ipv4, 7001).into()).unwrap();
    assert_eq!(net.host("a").udp_echo(echo.address(), 50, 1200, SOON).unwrap(), 50);

    // Names: from the service address, from an extra record, and as programs on the host resolve them.
    let host_a = net.host("a");
    assert_eq!(host_a.dns_query(MAGIC_DNS, "b.lab.test", SOON).unwrap().addresses, [node_b.ipv4]);
    let extra = host_a.dns_query(MAGIC_DNS, "extra.lab.test", SOON).unwrap();
    assert_eq!(extra.addresses, [Ipv4Addr::new(192, 0, 2, 9)]);
    assert_eq!(host_a.dns_query(MAGIC_DNS, "nobody.lab.test", SOON).unwrap().code, 3);
    assert!(host_a.resolv_conf().unwrap().contains("100.100.100.100"));
    assert!(host_a.resolve("b").unwrap().contains(&IpAddr::V4(node_b.ipv4)));

    // Policy: one port and ICMP stay open, the other port closes; then all is open again.
    let open = net.host("b").tcp_server((node_b.ipv4, 7100).into()).unwrap();
    let closed = net.host("b").tcp_server((node_b.ipv4, 7200).into()).unwrap();
    wait_connects(&net, closed.address(), true);
    control.set_policy(Policy::of([Grant::new(&["*"], &["*"], &["tcp:7100", "icmp:*"])])).unwrap();
    wait_connects(&net, closed.address(), false);
    wait_connects(&net, open.address(), true);
    net.host("a").wait_ping(node_b.ipv4, SOON).unwrap();
    control.set_policy(Policy::allow_all()).unwrap();
    wait_connects(&net, closed.address(), true);

    // Deltas: a new name, being away, and being deleted.
    control.rename(node_b.id, "renamed").unwrap();
    a.wait_status("the new name", SOON, |_| has_peer(&a, "renamed.lab.test.").then_some(())).unwrap();
    b.process().stop().unwrap();
    control
        .wait_for("b goes offline", SOON, |nodes| {
            nodes.iter().any(|node| node.id == node_b.id && !node.online()).then_some(())
        })
        .unwrap();
    a.wait_status("b offline", SOON, |status| {
        status["Peer"].as_object()?.values().any(|peer| peer["Online"] == false).then_some(())
    })
    .unwrap();
    control.delete(node_b.id).unwrap();
    a.wait_status("no peer", SOON, |status| {
        status["Peer"].as_object().is_none_or(|peers| peers.is_empty()).then_some(())
    })
    .unwrap();
}

#[test]
fn nodes_without_udp_meet_over_the_relay() {
    let Some(_turn) = turn_with("nodes_without_udp_meet_over_the_relay", &TAILSCALE) else { return };
    let net = Topology::pair(Nat::UdpBlocked, Nat::UdpBlocked).build().unwrap();
    let control = net.lab_control(LabConfig::default()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let a = net.host("a").tailscaled(&options(&net)).unwrap();
    let b = net.host("b").tailscaled(&options(&net)).unwrap();
    a.up(&control.url(), &key, &[]).unwrap();
    b.up(&control.url(), &key, &[]).unwrap();
    a.wait_peer("b", SOON).unwrap();
    let address = b.ipv4().unwrap();
    let said = a.cli(&["ping", "--until-direct=false", "--c=3", &address.to_string()]).unwrap();
    assert!(said.contains("via DERP(lab90"), "{said}");
    net.host("a").wait_ping(address, SOON).unwrap();
    transfer(&net, address, 7000);
    let packets: u64 =
        [900, 901].iter().filter_map(|id| control.derp_stats(RegionId(*id))).map(|stats| stats.packets).sum();
    assert!(packets > MEGABYTE / 1500, "{packets} packets over the relay");
    // UDP opens: the nodes find the direct path on their own.
    net.router("ra").set_nat(Nat::Easy).unwrap();
    net.router("rb").set_nat(Nat::Easy).unwrap();
    for node in [&a, &b] {
        node.cli(&["debug", "restun"]).unwrap();
    }
    let said =
        a.cli(&["ping", "--until-direct=true", "--c=40", "--timeout=1s", &address.to_string()]).unwrap();
    assert!(said.contains("via 203.0.113.12:"), "{said}");
}

#[test]
fn a_relay_with_a_pinned_certificate_is_used_and_started_fast() {
    let Some(_turn) = turn_with("a_relay_with_a_pinned_certificate", &TAILSCALE) else { return };
    let net = Topology::pair(Nat::UdpBlocked, Nat::UdpBlocked).build().unwrap();
    let mut config = net.server_config(LabConfig::default()).unwrap();
    let mut region = config.regions.remove(1);
    region.trust = DerpTrust::Pinned;
    let id = region.id;
    config.regions = vec![region];
    let control = net.servers().lab_control(config).unwrap();
    control.write_ca(&net.ca_file()).unwrap();
    let key = control.create_key(KeySpec::reusable());
    let a = net.host("a").tailscaled(&options(&net)).unwrap();
    let b = net.host("b").tailscaled(&options(&net)).unwrap();
    a.up(&control.url(), &key, &[]).unwrap();
    b.up(&control.url(), &key, &[]).unwrap();
    a.wait_peer("b", SOON).unwrap();
    net.host("a").wait_ping(b.ipv4().unwrap(), SOON).unwrap();
    assert!(control.is_on_derp(id, &control.node("a").unwrap()));
    let starts = || control.derp_stats(id).unwrap().fast_starts;
    let first = starts();
    assert!(first >= 2);

    // The relay drops everybody and refuses once each; the nodes come back to it by themselves.
    let refuse = FaultAction::Status { code: 503, retry_after: None, body: String::new() };
    control.faults().add_times(FaultTarget::Derp(id), refuse, 2);
    control.cut_derp(id);
    let both_back = || (starts() >= first + 2).then_some(());
    tsrs_lab_netns::wait::until("both are back on the relay", SOON, both_back).unwrap();
    net.host("a").wait_ping(b.ipv4().unwrap(), SOON).unwrap();
    // Bytes that are no frame end the connection, and not the client.
    control.inject_derp(id, &control.node("a").unwrap(), &[0xff; 64]);
    net.host("a").wait_ping(b.ipv4().unwrap(), SOON).unwrap();
}
