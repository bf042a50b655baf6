//! Messages inside the tunnel that the agent itself sends and takes: ICMP to the host, TSMP with peers.

use std::net::Ipv4Addr;
use std::time::Instant;

use tsrs_base_types::{DiscoPublic, NodePublic};
use tsrs_tunnel_packet::ipv4;
use tsrs_tunnel_packet::tsmp::{self, Message, Reject, RejectReason};
use tsrs_tunnel_path as path;

use super::{DataPlane, Event};

impl DataPlane {
    /// Tells a peer that the filter refused its connection (data-plane sheet §8.7).
    pub(super) fn tell_refused(&mut self, peer: &NodePublic, packet: &[u8], now: Instant) {
        let parsed = ipv4::parse(packet);
        if !self.courtesy.take(now) {
            return;
        }
        let message = Message::Reject(Reject {
            protocol: parsed.protocol,
            reason: RejectReason::Acl,
            src_port: parsed.src_port,
            dst_port: parsed.dst_port,
            maybe_broken: false,
        });
        self.send_tsmp(peer, message, (parsed.dst, parsed.src), now);
    }

    /// A message of a peer; it never reaches the host.
    pub(super) fn take_tsmp(
        &mut self,
        peer: NodePublic,
        (from, to): (Ipv4Addr, Ipv4Addr),
        message: Message,
        now: Instant,
    ) {
        match message {
            Message::Ping(data) => {
                let peerapi_port = self.routes.config.peerapi_port;
                self.send_tsmp(&peer, Message::Pong { data, peerapi_port }, (to, from), now);
            }
            Message::Pong { data, peerapi_port } => {
                self.events.push_back(Event::TsmpPong { peer, data, peerapi_port });
            }
            Message::Reject(reject) => self.events.push_back(Event::Rejected { peer, dst: from, reject }),
            Message::DiscoKey(raw) => self.take_disco_key(peer, DiscoPublic::from_bytes(raw), now),
        }
    }

    /// The session is fresh, since the message came through it: it stays (data-plane sheet §2.6).
    fn take_disco_key(&mut self, peer: NodePublic, key: DiscoPublic, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        if key.is_zero() || known.disco_key.is_none() || known.disco_key == Some(key) {
            return;
        }
        known.disco_key = Some(key);
        let patch = path::PeerPatch { disco_key: Some(key), ..path::PeerPatch::default() };
        self.paths.patch_peer(&peer, patch, now);
        self.events.push_back(Event::DiscoKeyLearned { peer, key });
    }

    fn send_tsmp(
        &mut self,
        peer: &NodePublic,
        message: Message,
        (from, to): (Ipv4Addr, Ipv4Addr),
        now: Instant,
    ) {
        let mut packet = [0; tsmp::MAX_LEN];
        let len = message.write(from, to, &mut packet);
        if let Err(reason) = self.device.send(peer, &packet[..len], now) {
            self.shared.outbound.drop_packets(reason, 1);
        }
    }
}
