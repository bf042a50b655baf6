//! The DERP map, as relays and path finding need it.

use std::collections::HashMap;

use tsrs_base_types::RegionId;
use tsrs_tunnel_derp::{Node, NodeAddress, Region};
use tsrs_tunnel_path::netcheck::{self, StunHost, StunNode};

/// All regions, and how control weighs them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DerpMap {
    /// The regions.
    pub regions: Vec<Region>,
    /// Factors on measured latencies (`HomeParams.RegionScore`); absent ones are 1.
    pub scores: HashMap<RegionId, f64>,
}

impl DerpMap {
    /// The part that path finding measures.
    pub(crate) fn for_paths(&self) -> Vec<netcheck::Region> {
        let region = |region: &Region| netcheck::Region {
            id: region.id,
            avoid: region.avoid,
            no_measure_no_home: region.no_measure_no_home,
            score: self.scores.get(&region.id).copied().unwrap_or(1.0),
            nodes: region.nodes.iter().map(stun_node).collect(),
        };
        self.regions.iter().map(region).collect()
    }
}

fn stun_node(node: &Node) -> StunNode {
    let host = match (node.stun_test_ip, node.ipv4) {
        (Some(ip), _) | (None, NodeAddress::Literal(ip)) => StunHost::Literal(ip),
        (None, NodeAddress::Dns) => StunHost::Name(node.host_name.clone()),
        (None, NodeAddress::Disabled) => StunHost::Unreachable,
    };
    StunNode { host, stun_port: node.stun_port }
}

#[cfg(test)]
mod tests {
    use tsrs_tunnel_derp::NodeFields;

    use super::*;

    #[test]
    fn stun_servers_follow_from_the_nodes() {
        let node = |fields: NodeFields<'_>| Node::new(fields).unwrap();
        let fields = NodeFields { name: "1a", host_name: "derp.example", ..NodeFields::default() };
        let map = DerpMap {
            regions: vec![Region {
                id: RegionId(7),
                avoid: true,
                nodes: vec![
                    node(fields),
                    node(NodeFields { ipv4: "192.0.2.1", stun_port: 99, ..fields }),
                    node(NodeFields { ipv4: "none", stun_port: -1, ..fields }),
                    node(NodeFields { ipv4: "192.0.2.1", stun_test_ip: "127.0.0.9", ..fields }),
                ],
                ..Region::default()
            }],
            scores: HashMap::from([(RegionId(7), 0.5)]),
        };
        let [region] = &map.for_paths()[..] else { panic!("one region") };
        assert_eq!((region.id, region.avoid, region.score), (RegionId(7), true, 0.5));
        let literal = |text: &str| StunHost::Literal(text.parse().unwrap());
        assert_eq!(
            region.nodes,
            [
                StunNode { host: StunHost::Name("derp.example".to_owned()), stun_port: Some(3478) },
                StunNode { host: literal("192.0.2.1"), stun_port: Some(99) },
                StunNode { host: StunHost::Unreachable, stun_port: None },
                StunNode { host: literal("127.0.0.9"), stun_port: Some(3478) },
            ]
        );
    }
}
