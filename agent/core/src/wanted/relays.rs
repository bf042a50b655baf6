//! Relays and the network around the host, between the wire and the tunnel.

use std::collections::HashMap;
use std::net::SocketAddr;

use tsrs_base_types::RegionId;
use tsrs_control_tailcfg::{DerpMap, DerpNode, EndpointType, NetInfo};
use tsrs_tunnel_derp::{Node, NodeFields, Region};
use tsrs_tunnel_path as path;

/// The regions of a map, and the factors on their latencies.
pub fn relays(map: &DerpMap) -> (Vec<Region>, HashMap<RegionId, f64>) {
    let regions = map.regions().map(|region| Region {
        id: region.region_id,
        code: region.region_code.clone(),
        name: region.region_name.clone(),
        avoid: region.avoid,
        no_measure_no_home: region.no_measure_no_home,
        nodes: region.nodes.iter().filter_map(node).collect(),
    });
    let scores = map.regions().map(|region| (region.region_id, map.home_score(region.region_id)));
    (regions.collect(), scores.collect())
}

fn node(node: &DerpNode) -> Option<Node> {
    Node::new(NodeFields {
        name: &node.name,
        host_name: &node.host_name,
        cert_name: &node.cert_name,
        ipv4: &node.ipv4,
        stun_port: node.stun_port,
        stun_only: node.stun_only,
        derp_port: node.derp_port,
        insecure_for_tests: node.insecure_for_tests,
        stun_test_ip: &node.stun_test_ip,
        can_port_80: node.can_port80,
    })
}

/// What control is told of the network. IPv6 is not used, which is told as "does not work".
pub fn net_info(info: &path::NetInfo) -> NetInfo {
    NetInfo {
        mapping_varies_by_dest_ip: info.mapping_varies_by_dest_ip,
        working_ipv6: Some(false),
        os_has_ipv6: Some(false),
        working_udp: info.working_udp,
        have_port_map: info.have_port_map,
        preferred_derp: info.preferred_derp.unwrap_or_default(),
        derp_latency: info
            .derp_latency_v4
            .iter()
            .map(|(region, latency)| (format!("{region}-v4"), latency.as_secs_f64()))
            .collect(),
        firewall_mode: "nft-forced".to_owned(),
        ..NetInfo::default()
    }
}

/// A candidate address, and where it comes from in the protocol's number.
pub fn endpoint(endpoint: &path::Endpoint) -> (SocketAddr, EndpointType) {
    let kind = match endpoint.kind {
        path::EndpointKind::Local => EndpointType::LOCAL,
        path::EndpointKind::Stun => EndpointType::STUN,
        path::EndpointKind::PortMapped => EndpointType::PORTMAPPED,
        path::EndpointKind::StunLocalPort => EndpointType::STUN4_LOCAL_PORT,
        path::EndpointKind::Explicit => EndpointType::EXPLICIT,
    };
    (SocketAddr::V4(endpoint.address), kind)
}
