//! A WireGuard device that speaks to the one under test, so that the fuzzer's bytes arrive sealed.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tsrs_base_types::{NodePrivate, NodePublic};
use tsrs_tunnel_wireguard::wire::DATA_OVERHEAD;
use tsrs_tunnel_wireguard::{Device, Event, Notice, Outgoing, Session, Source};

use crate::input::Seeded;

/// MTU of both TUNs.
pub const MTU: u16 = 1280;
/// Longest inner packet that is sealed.
const MAX_PACKET_LEN: usize = 4096;

/// One side of a tunnel.
pub struct Peer {
    /// The machine.
    pub device: Device,
    /// What receives, newest last.
    pub received_by: Vec<Arc<Session>>,
    /// What sends.
    pub sends_by: Option<Arc<Session>>,
}

impl Peer {
    /// A device with the key of this number.
    pub fn new(number: u8, now: Instant) -> Self {
        let rng = Box::new(Seeded(number.into()));
        let device = Device::new(private_key(number), MTU, rng, Timestamp::UNIX_EPOCH, now);
        Self { device, received_by: Vec::new(), sends_by: None }
    }

    /// What it wants to send now.
    pub fn drain(&mut self) -> Vec<Vec<u8>> {
        while let Some(event) = self.device.poll_event() {
            match event {
                Event::SessionAdded(session) => self.received_by.push(session),
                Event::SendSession { session, .. } => self.sends_by = session,
                Event::SessionRemoved { .. } | Event::HandshakeAbandoned { .. } => {}
            }
        }
        std::iter::from_fn(|| self.device.poll_transmit()).map(|transmit| transmit.payload).collect()
    }

    /// Takes a message, whoever it is from.
    pub fn take(&mut self, message: &[u8], now: Instant) {
        // Data messages, too, come here; they are refused.
        let _ = self.device.handle_handshake(message, source(), &mut |_| true, now);
    }

    /// Any bytes as the inner packet of a data message; `None` before there is a session.
    pub fn seal(&mut self, packet: &[u8], now: Instant) -> Option<Vec<u8>> {
        let session = Arc::clone(self.sends_by.as_ref()?);
        let packet = &packet[..packet.len().min(MAX_PACKET_LEN)];
        let message = Outgoing::new(0, packet.len(), MTU);
        let mut datagram = vec![0; message.datagram_len()];
        let begin = DATA_OVERHEAD - 16;
        datagram[begin..begin + packet.len()].copy_from_slice(packet);
        if session.seal(&mut datagram, &[message], now).ok()? == Notice::Wake {
            self.device.handle_notice(session.local_index(), now);
        }
        Some(datagram)
    }
}

/// The node key of this number.
pub fn private_key(number: u8) -> NodePrivate {
    NodePrivate::from_bytes([number; 32])
}

/// Its public half.
pub fn public_key(number: u8) -> NodePublic {
    private_key(number).public()
}

/// Where messages come from.
pub fn source() -> Source {
    Source::Udp(std::net::SocketAddr::from(([192, 0, 2, 1], 41641)))
}

/// Two devices after a handshake that the second one began: it may send at once.
pub fn pair(now: Instant) -> (Peer, Peer) {
    let (mut a, mut b) = (Peer::new(1, now), Peer::new(2, now));
    // Both are known and different, so neither call can fail.
    let _ = a.device.add_peer(public_key(2));
    let _ = b.device.start_handshake(&public_key(1), now);
    for message in b.drain() {
        a.take(&message, now);
    }
    for message in a.drain() {
        b.take(&message, now);
    }
    b.drain();
    (a, b)
}
