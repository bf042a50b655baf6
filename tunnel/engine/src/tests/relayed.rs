//! Two engines that find each other over a real relay with TLS, and go direct when they can.

use std::net::Ipv4Addr;

use tsrs_base_types::RegionId;
use tsrs_lab_control::{DerpTrust, LabConfig, LabControl, RegionConfig};
use tsrs_tunnel_derp::{Node, NodeFields, Region};
use tsrs_tunnel_packet::DropReason;

use super::host::{Host, eventually, host, udp};
use crate::offload::Disabled;
use crate::{DerpMap, EngineEvent};

const REGION: RegionId = RegionId(900);
const OTHER_REGION: RegionId = RegionId(901);

fn lab(regions: &[RegionId]) -> LabControl {
    let region = |&id| RegionConfig { id, trust: DerpTrust::Insecure, ..RegionConfig::default() };
    let regions = regions.iter().map(region).collect();
    LabControl::start(LabConfig { regions, ..LabConfig::default() }).unwrap()
}

fn region(lab: &LabControl, id: RegionId) -> Region {
    let node = Node::new(NodeFields {
        name: "a",
        host_name: "localhost",
        ipv4: "127.0.0.1",
        derp_port: lab.derp_address(id).unwrap().port().into(),
        stun_port: lab.stun_address(id).unwrap().port().into(),
        insecure_for_tests: true,
        ..NodeFields::default()
    });
    Region { id, code: "lab".to_owned(), nodes: vec![node.unwrap()], ..Region::default() }
}

fn map(lab: &LabControl) -> DerpMap {
    DerpMap { regions: vec![region(lab, REGION)], ..DerpMap::default() }
}

async fn pair(lab: &LabControl, udp_allowed: bool) -> [Host; 2] {
    let mut hosts = [host(1, Disabled::default()), host(2, Disabled::default())];
    for host in &mut hosts {
        let handle = host.engine.handle();
        handle.with_paths(move |paths, now| paths.set_udp_allowed(udp_allowed, now)).await.unwrap();
        handle.set_derp_map(map(lab)).await.unwrap();
        handle.set_local_addresses(vec![Ipv4Addr::LOCALHOST]).await.unwrap();
        host.wait_for(|event| *event == EngineEvent::RelayConnected(REGION)).await;
    }
    hosts[0].add(hosts[1].as_relayed_peer(REGION)).await;
    hosts[1].add(hosts[0].as_relayed_peer(REGION)).await;
    hosts
}

fn ping_pong([a, b]: &[Host; 2]) {
    for (from, to) in [(a, b), (b, a)] {
        let packet = udp(from.tailnet, to.tailnet, b"over the relay or not");
        from.send(&packet);
        assert_eq!(to.receive(), packet);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_packet_goes_over_the_relay_and_later_ones_go_direct() {
    let lab = lab(&[REGION]);
    let hosts = pair(&lab, true).await;
    ping_pong(&hosts);
    assert!(lab.derp_stats(REGION).unwrap().packets > 0);
    eventually(async || {
        ping_pong(&hosts);
        let status = hosts[0].engine.handle().peer_status(hosts[1].key).await.unwrap().unwrap();
        status.path.path.direct.filter(|_| !status.path.path.also_derp)
    })
    .await;
    let before = hosts[0].engine.handle().metrics().outbound.derp_packets;
    ping_pong(&hosts);
    assert_eq!(hosts[0].engine.handle().metrics().outbound.derp_packets, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_cross_a_relay_in_order_while_udp_is_forbidden() {
    let lab = lab(&[REGION]);
    let [a, b] = pair(&lab, false).await;
    let burst: Vec<_> = (0..100_u8).map(|number| udp(a.tailnet, b.tailnet, &[number; 900])).collect();
    a.send(&burst[0]);
    assert_eq!(b.receive(), burst[0]);
    for packets in burst.chunks(25) {
        packets.iter().for_each(|packet| a.send(packet));
        packets.iter().for_each(|packet| assert_eq!(b.receive(), *packet));
    }
    assert_eq!(a.engine.handle().metrics().outbound.direct_packets, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_relay_connection_is_made_again() {
    let lab = lab(&[REGION]);
    let mut hosts = pair(&lab, false).await;
    ping_pong(&hosts);
    lab.cut_derp(REGION);
    for host in &mut hosts {
        host.wait_for(|event| *event == EngineEvent::RelayLost(REGION)).await;
        host.wait_for(|event| *event == EngineEvent::RelayConnected(REGION)).await;
    }
    ping_pong(&hosts);
    for host in &mut hosts {
        host.engine.handle().break_relays().await.unwrap();
        host.wait_for(|event| *event == EngineEvent::RelayConnected(REGION)).await;
    }
    ping_pong(&hosts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn problem_that_a_relay_reports_is_told() {
    let lab = lab(&[REGION]);
    let mut hosts = pair(&lab, false).await;
    lab.derp_health(REGION, "too many connections");
    let wanted = EngineEvent::RelayHealth { region: REGION, problem: "too many connections".to_owned() };
    hosts[0].wait_for(|event| *event == wanted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_opens_the_connection_to_a_relay_is_not_lost() {
    let lab = lab(&[REGION, OTHER_REGION]);
    let mut hosts = [host(1, Disabled::default()), host(2, Disabled::default())];
    for (host, home) in hosts.iter_mut().zip([REGION, OTHER_REGION]) {
        let region = |id| Region { no_measure_no_home: id != home, ..region(&lab, id) };
        let regions = [REGION, OTHER_REGION].map(region).into();
        host.engine.handle().set_derp_map(DerpMap { regions, ..DerpMap::default() }).await.unwrap();
        host.engine.handle().set_local_addresses(vec![Ipv4Addr::LOCALHOST]).await.unwrap();
        host.wait_for(|event| *event == EngineEvent::RelayConnected(home)).await;
    }
    hosts[0].add(hosts[1].as_relayed_peer(OTHER_REGION)).await;
    hosts[1].add(hosts[0].as_relayed_peer(REGION)).await;
    ping_pong(&hosts);
    for host in &hosts {
        let drops = host.engine.handle().metrics().outbound.drops;
        assert!(drops.iter().all(|&(reason, _)| reason != DropReason::NoPath), "{drops:?}");
    }
}
