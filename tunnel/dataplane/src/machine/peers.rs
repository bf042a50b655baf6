//! Peers come, change and go.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use ipnet::Ipv4Net;
use tsrs_base_types::{DiscoPublic, NodePublic};
use tsrs_tunnel_path::{self as path, SendPath};

use super::DataPlane;
use super::claims::Claim;
use crate::config::{PeerConfig, PeerPatch};
use crate::tables::PeerSlot;

/// What the machine keeps of a peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) slot: Arc<PeerSlot>,
    /// Sorted and without host bits.
    pub(super) allowed_ips: Box<[Ipv4Net]>,
    pub(super) addresses: Box<[Ipv4Addr]>,
    pub(super) disco_key: Option<DiscoPublic>,
    claim: Claim,
    /// The peer speaks no disco and has no relay: its path is configured.
    static_path: bool,
}

impl DataPlane {
    pub(super) fn upsert_peer(&mut self, config: PeerConfig, now: Instant) {
        let key = config.key;
        if key == self.device.public_key() || self.device.add_peer(key).is_err() {
            return;
        }
        let claim = Claim { key, route_score: config.route_score, node_id: config.node_id };
        let allowed_ips = normalized(&config.allowed_ips);
        let known = self.peers.remove(&key);
        let slot = match &known {
            Some(peer) => Arc::clone(&peer.slot),
            None => Arc::new(PeerSlot::new(key, self.shared.epoch)),
        };
        slot.set_expired(config.expired);
        slot.set_jailed(config.jailed);

        // What is taken away goes first. A prefix that stays is claimed again only if the rank has changed.
        let before = known.as_ref().map(|peer| (&peer.allowed_ips[..], peer.claim));
        let (held, same_rank) = before.map_or((&[][..], true), |(held, old)| (held, old == claim));
        slot.set_sources_unless_equal(&allowed_ips);
        for prefix in held.iter().filter(|prefix| allowed_ips.binary_search(prefix).is_err()) {
            self.release(*prefix, &key);
        }
        let restarted = known.as_ref().is_some_and(|peer| {
            peer.disco_key.is_some() && config.disco_key.is_some() && peer.disco_key != config.disco_key
        });
        if restarted {
            self.device.reset_peer(&key);
        }
        let static_path = static_endpoint(&config);
        if static_path.is_some() && known.as_ref().is_some_and(|peer| !peer.static_path) {
            self.paths.remove_peer(&key);
        }
        let fresh: Vec<_> = allowed_ips
            .iter()
            .filter(|prefix| !same_rank || held.binary_search(prefix).is_err())
            .copied()
            .collect();
        let peer = Peer {
            slot,
            allowed_ips,
            addresses: config.addresses.clone().into_boxed_slice(),
            disco_key: config.disco_key,
            claim,
            static_path: static_path.is_some(),
        };
        match static_path {
            Some(direct) => {
                peer.slot.set_path(SendPath { direct: Some(direct), also_derp: false, derp: None })
            }
            None => self.paths.upsert_peer(
                path::PeerConfig {
                    node_key: key,
                    disco_key: config.disco_key,
                    home: config.home_derp,
                    endpoints: config.endpoints,
                    expired: config.expired,
                },
                now,
            ),
        }
        self.peers.insert(key, peer);
        for prefix in fresh {
            let winner = self.claims.insert(prefix, claim);
            self.give(prefix, &winner);
        }
    }

    pub(super) fn patch_peer(&mut self, key: &NodePublic, patch: PeerPatch, now: Instant) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if let Some(expired) = patch.expired {
            peer.slot.set_expired(expired);
        }
        let restarted =
            patch.disco_key.is_some() && peer.disco_key.is_some() && peer.disco_key != patch.disco_key;
        peer.disco_key = patch.disco_key.or(peer.disco_key);
        if restarted {
            self.device.reset_peer(key);
        }
        let patch = path::PeerPatch {
            disco_key: patch.disco_key,
            home: patch.home_derp,
            endpoints: patch.endpoints,
            expired: patch.expired,
        };
        self.paths.patch_peer(key, patch, now);
    }

    pub(super) fn remove_peer(&mut self, key: &NodePublic) {
        let Some(peer) = self.peers.remove(key) else { return };
        // A worker that still holds the slot finds nothing in it.
        peer.slot.set_sources_unless_equal(&[]);
        peer.slot.set_session(None);
        peer.slot.set_path(SendPath::default());
        for prefix in &peer.allowed_ips {
            self.release(*prefix, key);
        }
        self.device.remove_peer(key);
        self.paths.remove_peer(key);
    }

    /// The peer has the prefix no more; the next in rank takes it over.
    fn release(&mut self, prefix: Ipv4Net, key: &NodePublic) {
        match self.claims.remove(prefix, key) {
            Some(winner) => self.give(prefix, &winner),
            None => {
                self.routes.peers.remove(prefix);
                self.routes_changed = true;
            }
        }
    }

    fn give(&mut self, prefix: Ipv4Net, winner: &NodePublic) {
        let Some(peer) = self.peers.get(winner) else { return };
        if self.routes.peers.get(prefix).is_some_and(|slot| Arc::ptr_eq(slot, &peer.slot)) {
            return;
        }
        self.routes.peers.insert(prefix, Arc::clone(&peer.slot));
        self.routes_changed = true;
    }
}

/// Sorted, without host bits and duplicates.
fn normalized(prefixes: &[Ipv4Net]) -> Box<[Ipv4Net]> {
    let mut all: Vec<_> = prefixes.iter().map(Ipv4Net::trunc).collect();
    all.sort_unstable();
    all.dedup();
    all.into_boxed_slice()
}

/// The address of a peer for which there is nothing to find out.
fn static_endpoint(config: &PeerConfig) -> Option<SocketAddrV4> {
    if config.disco_key.is_some() || config.home_derp.is_some() {
        return None;
    }
    config.endpoints.iter().find_map(|endpoint| match endpoint {
        SocketAddr::V4(addr) => Some(*addr),
        SocketAddr::V6(_) => None,
    })
}
