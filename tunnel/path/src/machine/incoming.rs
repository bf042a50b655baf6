//! Received datagrams: whom to listen to and what to answer (data-plane sheet §2.3, §2.4, §3.4).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Instant;

use rand_core::CryptoRngCore;
use tsrs_base_types::{DiscoPublic, NodePublic, RegionId};

use super::PathMachine;
use super::api::Source;
use super::limits::CALL_FLOOR;
use super::paths::{PingTo, Received};
use super::peers::PeerId;
use crate::disco::{Message, TxId, envelope};
use crate::stun;

/// The address that stands for "by DERP" in a pong; the port is the region.
const DERP_MAGIC: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

impl<R: CryptoRngCore> PathMachine<R> {
    /// A STUN or disco datagram.
    pub fn handle_datagram(&mut self, source: Source, datagram: &[u8], now: Instant) {
        if matches!(source, Source::Udp(_)) && stun::is_binding(datagram) {
            let accepted = self.netcheck.handle_stun(datagram, now);
            *(if accepted { &mut self.counters.stun_accepted } else { &mut self.counters.stun_ignored }) += 1;
            self.drain_netcheck(now);
            return;
        }
        let Some((sender, sealed)) = envelope::split(datagram) else {
            self.counters.not_ours += 1;
            return;
        };
        let Some(cache) = self.peers.box_cache(&sender) else {
            self.counters.disco_unknown_sender += 1;
            return;
        };
        let Some(plain) = cache.open(&self.config.disco_key, &sender, sealed) else {
            self.counters.disco_bad_box += 1;
            return;
        };
        let Ok(message) = Message::parse(&plain) else {
            self.counters.disco_malformed += 1;
            return;
        };
        if let Source::Derp { region, node } = source {
            self.note_derp_heard(&node, region, now);
        }
        let acted = match message {
            Message::Ping { tx_id, node_key, .. } => self.on_ping(source, sender, tx_id, node_key, now),
            Message::Pong { tx_id, .. } => self.on_pong(source, sender, tx_id, now),
            Message::CallMeMaybe { endpoints } => self.on_call(source, sender, &endpoints, now),
            // Peer relays are not built: nothing of theirs was asked for, so nothing is owed.
            Message::BindRelay(_)
            | Message::BindRelayChallenge(_)
            | Message::BindRelayAnswer(_)
            | Message::CallMeMaybeVia(_)
            | Message::AllocateRelayRequest(_)
            | Message::AllocateRelayResponse(_) => false,
        };
        *(if acted { &mut self.counters.disco_accepted } else { &mut self.counters.disco_ignored }) += 1;
    }

    /// A packet of this peer (also one that is not disco) came by DERP. Cheap; call it once per batch.
    pub fn note_derp_heard(&mut self, peer: &NodePublic, region: RegionId, now: Instant) {
        self.relays.note_received(region, now);
        self.netcheck.note_heard(region, now);
        let Some(id) = self.peers.id(peer) else { return };
        let is_home = self.peers.get(id).is_some_and(|peer| peer.home == Some(region));
        if !is_home && self.relays.note_heard(id, region) {
            self.settle(id, now);
        }
    }

    /// Answers on the way on which the ping came, and remembers its source as a candidate.
    fn on_ping(
        &mut self,
        source: Source,
        sender: DiscoPublic,
        tx_id: TxId,
        node_key: Option<NodePublic>,
        now: Instant,
    ) -> bool {
        let seen_as = match source {
            Source::Derp { region, node } => {
                if self.peers.id(&node).is_none() {
                    return false;
                }
                derp_address(region)
            }
            Source::Udp(from) => {
                if let Some(id) = self.sole_sender(&sender, node_key)
                    && !self.note_ping_from(id, from, tx_id, now)
                {
                    return false;
                }
                from
            }
        };
        let pong = Message::Pong { tx_id, source: SocketAddr::V4(seen_as) };
        let Some(bytes) = self.seal(&sender, &pong) else { return false };
        match source {
            Source::Udp(from) => self.send_udp(from, bytes),
            Source::Derp { region, node } => self.send_derp(region, node, bytes, now),
        }
        true
    }

    /// The node that sent a ping over UDP: the one it names, if that has the disco key; else the only one with the key.
    fn sole_sender(&self, sender: &DiscoPublic, named: Option<NodePublic>) -> Option<PeerId> {
        let named = named.and_then(|key| self.peers.id(&key));
        let mut owners = self.peers.with_disco_key(sender);
        if let Some(named) = named
            && self.peers.with_disco_key(sender).any(|owner| owner == named)
        {
            return Some(named);
        }
        owners.next().filter(|_| owners.next().is_none())
    }

    /// Returns false for a ping that was seen before.
    fn note_ping_from(&mut self, id: PeerId, from: SocketAddrV4, tx_id: TxId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(id) else { return true };
        let paths = peer.paths_mut();
        match paths.note_ping_received(from, tx_id, now) {
            Received::Duplicate => return false,
            // An address that we learn while we look for a path is tried at once: its NAT is open to us now.
            Received::New if self.active.contains(&id) && !paths.is_trusted(now) => {
                self.send_ping(id, PingTo::Udp(from), None, 0, now);
                self.settle(id, now);
            }
            Received::New | Received::Known | Received::NoRoom => {}
        }
        true
    }

    /// A pong proves the path on which its ping was sent. One that comes by DERP, or answers a ping by DERP, proves
    /// nothing for data.
    fn on_pong(&mut self, source: Source, sender: DiscoPublic, tx_id: TxId, now: Instant) -> bool {
        let owners: Vec<PeerId> = self.peers.with_disco_key(&sender).collect();
        for id in owners {
            let Some(paths) = self.paths_mut(id) else { continue };
            let Some(ping) = paths.take_ping(tx_id) else { continue };
            let latency = now.saturating_duration_since(ping.sent_at);
            if let (PingTo::Udp(address), Source::Udp(_)) = (ping.to, source) {
                paths.note_pong(address, latency, now);
            }
            self.note_user_ping_answered(id, &ping, latency);
            self.settle(id, now);
            return true;
        }
        false
    }

    /// The peer has pinged us on all ways that it knows and asks us to do the same.
    fn on_call(
        &mut self,
        source: Source,
        sender: DiscoPublic,
        endpoints: &[SocketAddr],
        now: Instant,
    ) -> bool {
        let Source::Derp { node, .. } = source else { return false };
        let Some(id) = self.peers.id(&node) else { return false };
        let Some(peer) = self.peers.get_mut(id) else { return false };
        if peer.disco_key != Some(sender) || peer.expired {
            return false;
        }
        let endpoints: Vec<SocketAddrV4> = endpoints.iter().filter_map(ipv4).collect();
        let paths = peer.paths_mut();
        paths.set_call(&endpoints);
        if paths.last_call.is_none_or(|at| now.saturating_duration_since(at) >= CALL_FLOOR) {
            paths.last_call = Some(now);
            paths.candidates.iter_mut().for_each(|candidate| candidate.last_pinged = None);
        }
        self.discover(id, false, now);
        self.settle(id, now);
        true
    }
}

fn ipv4(address: &SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Some(*address),
        SocketAddr::V6(_) => None,
    }
}

/// How a pong names a ping that came by DERP. Regions above 16 bits have no such address; peers only show it.
fn derp_address(region: RegionId) -> SocketAddrV4 {
    SocketAddrV4::new(DERP_MAGIC, u16::try_from(region.0).unwrap_or(0))
}
