//! A change costs what it changes, however many peers there are.

use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::Ipv4Net;
use tsrs_base_types::{NodeId, NodePublic, RegionId};

use super::pair::node;
use crate::{Change, PeerConfig};

fn peer(number: u32) -> PeerConfig {
    let addr = Ipv4Addr::from_bits(0x6440_0000 + number);
    let mut key = [1; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    PeerConfig {
        node_id: NodeId(number.into()),
        home_derp: Some(RegionId(1)),
        addresses: vec![addr],
        allowed_ips: vec![Ipv4Net::from(addr)],
        ..PeerConfig::new(NodePublic::from_bytes(key))
    }
}

/// Entries of the published route table that one peer more, or one less, has copied.
#[test]
fn one_peer_more_or_less_copies_one_leaf_of_the_routes() {
    for count in [1_000, 10_000, 50_000] {
        let now = Instant::now();
        let mut node = node(1, now);
        let upserts = (10..10 + count).map(|number| Change::Upsert(Box::new(peer(number)))).collect();
        node.plane.apply(upserts, now);
        let shared = std::sync::Arc::clone(node.plane.shared());
        let before = shared.tables.routes().peers.clone();
        assert_eq!(before.len(), usize::try_from(count).unwrap());

        node.upsert(peer(5), now);
        let added = shared.tables.routes().peers.clone();
        let copied = added.entries_not_shared_with(&before);
        assert!((1..=64).contains(&copied), "{copied} of {count} entries copied by an addition");

        node.plane.apply(vec![Change::Remove(peer(5).key)], now);
        let copied = shared.tables.routes().peers.entries_not_shared_with(&added);
        assert!(copied <= 64, "{copied} of {count} entries copied by a removal");
    }
}

/// What changes often rebuilds no table at all.
#[test]
fn change_that_concerns_no_route_publishes_no_table() {
    let now = Instant::now();
    let mut node = node(1, now);
    node.plane.apply((10..20).map(|number| Change::Upsert(Box::new(peer(number)))).collect(), now);
    let shared = std::sync::Arc::clone(node.plane.shared());
    let before = std::sync::Arc::clone(&shared.tables.routes());
    let moved = PeerConfig { home_derp: Some(RegionId(2)), expired: true, ..peer(11) };
    node.upsert(moved, now);
    assert!(std::sync::Arc::ptr_eq(&before, &shared.tables.routes()));
}
