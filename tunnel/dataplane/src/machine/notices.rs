//! What workers could not finish.

use std::net::SocketAddr;
use std::time::Instant;

use tsrs_tunnel_packet::DropReason;
use tsrs_tunnel_path::{Datagram, Source, classify};
use tsrs_tunnel_wireguard as wireguard;

use super::{DataPlane, Event};
use crate::notice::{Handshake, Notice};

/// Notices that are taken in one go, so that timers and relays have their turn under a flood.
pub const MAX_NOTICES_PER_CALL: usize = 256;

/// Handshake messages that are taken in one go. One may cost four Diffie-Hellman steps, so that these take some 5 ms at
/// most; pings that arrive meanwhile wait no longer.
pub const MAX_HANDSHAKES_PER_CALL: usize = 16;

impl DataPlane {
    pub(super) fn take_notices(&mut self, now: Instant) -> bool {
        let shared = std::sync::Arc::clone(&self.shared);
        let notices = &shared.notices;
        let mut count = 0;
        while count < MAX_NOTICES_PER_CALL
            && let Some(notice) = notices.pop()
        {
            self.take_notice(notice, now);
            count += 1;
        }
        self.device.note_backlog(notices.handshake_count(), now);
        let mut handshake_count = 0;
        while handshake_count < MAX_HANDSHAKES_PER_CALL
            && let Some(Handshake { source, message }) = notices.pop_handshake()
        {
            self.take_datagram(source, &message, now);
            handshake_count += 1;
        }
        self.look_at_all_sessions_if_one_was_missed(now);
        count == MAX_NOTICES_PER_CALL || handshake_count == MAX_HANDSHAKES_PER_CALL
    }

    fn take_notice(&mut self, notice: Notice, now: Instant) {
        match notice {
            Notice::Datagram { source, datagram } => self.take_datagram(source, &datagram, now),
            Notice::Staged { peer, packets } => {
                let key = *peer.key();
                self.paths.note_sent(&key, now, now);
                for packet in packets {
                    self.send_packet(&key, &packet, now);
                }
            }
            Notice::Active(peer) => {
                self.paths.note_sent(peer.key(), peer.last_sent().unwrap_or(now), now);
            }
            Notice::SessionUsed(session) => self.device.handle_notice(session.local_index(), now),
            Notice::ToHost(packet) => self.to_host.push_back(packet),
            Notice::Service(packet) => self.take_service(packet),
            Notice::Tsmp { peer, from, to, message } => self.take_tsmp(*peer.key(), (from, to), message, now),
            Notice::Refused { peer, packet } => self.tell_refused(peer.key(), &packet, now),
            Notice::SendFailed { to, error } => self.paths.handle_send_error(to, error, now),
        }
    }

    /// Sorts by first bytes; nothing is believed before it is authenticated.
    pub(super) fn take_datagram(&mut self, source: Source, datagram: &[u8], now: Instant) {
        let source_for_wireguard = match source {
            Source::Udp(addr) => wireguard::Source::Udp(SocketAddr::V4(addr)),
            Source::Derp { region, node } => {
                if !self.peers.contains_key(&node) {
                    return self.shared.inbound.drop_packets(DropReason::UnknownPeer, 1);
                }
                self.paths.note_derp_heard(&node, region, now);
                wireguard::Source::Relay { region, node }
            }
        };
        match classify(datagram) {
            Datagram::Stun | Datagram::Disco => self.paths.handle_datagram(source, datagram, now),
            // Peer relays are not offered, so nobody sends such datagrams.
            Datagram::Geneve(_) => self.shared.inbound.drop_packets(DropReason::BadMessage, 1),
            Datagram::WireGuard => {
                let nobody_else = &mut |_: &_| false;
                let taken = self.device.handle_handshake(datagram, source_for_wireguard, nobody_else, now);
                if let Err(reason) = taken {
                    self.shared.inbound.drop_packets(reason, 1);
                }
            }
        }
    }

    /// By the peer's session, or kept until there is one.
    pub(super) fn send_packet(&mut self, peer: &tsrs_base_types::NodePublic, packet: &[u8], now: Instant) {
        let result = match self.peers.get(peer) {
            None => Err(DropReason::NoPeer),
            Some(known) if known.slot.is_expired() => Err(DropReason::PeerExpired),
            Some(_) => self.device.send(peer, packet, now),
        };
        if let Err(reason) = result {
            self.shared.outbound.drop_packets(reason, 1);
        }
    }

    /// A notice about a session did not fit the queue: any of them may want something.
    fn look_at_all_sessions_if_one_was_missed(&mut self, now: Instant) {
        if self.shared.notices.take_missed_session() {
            for (index, _) in self.receivers.clone().iter() {
                self.device.handle_notice(*index, now);
            }
        }
    }

    fn take_service(&mut self, mut packet: Box<[u8]>) {
        if tsrs_tunnel_packet::icmp::reply_to_echo(&mut packet) {
            self.to_host.push_back(packet);
        } else {
            self.events.push_back(Event::Service(packet));
        }
    }
}
