//! Datagrams between peers and the relays of SOCKS5 proxies.
//!
//! Each socket of a peer has an association of its own, so that a reply finds its way back whatever its sender.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tsrs_tunnel_packet::icmp::Unreachable;

use super::{Inner, Shared};
use crate::dial::{Association, DialError, MAX_DATAGRAM_LEN, Received};
use crate::flow::{Datagram, write_datagram};
use crate::policy::Destination;
use crate::proxy::UDP_HEADER_LEN;

/// Datagrams of a peer that wait for their relay. More are lost, as on any link.
const MAX_WAITING: usize = 64;
/// Datagrams for peers that wait to be taken.
const MAX_OUTPUT: usize = 1024;
/// Hosts that one socket of a peer may talk to; their replies are let in.
const MAX_DESTINATIONS: usize = 256;
/// Largest packet in the tunnel that a reply may become: the smallest MTU of IPv6, which is what tailnets use.
const MAX_REPLY_LEN: usize = 1280;

/// A datagram on its way to the proxy, with the packet that it came in, should it have to be refused.
struct Outgoing {
    destination: Destination,
    payload: Vec<u8>,
    packet: Vec<u8>,
}

#[derive(Default)]
pub(super) struct Associations {
    by_socket: HashMap<SocketAddrV4, mpsc::Sender<Outgoing>>,
    count_of: HashMap<Ipv4Addr, usize>,
    output: VecDeque<Vec<u8>>,
    /// No proxy had a relay: until then none is asked.
    unavailable_until: Option<Instant>,
}

impl Associations {
    /// Takes the next datagram for a peer. `false`: there is none.
    pub(super) fn poll_datagram(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(packet) = self.output.pop_front() else { return false };
        *out = packet;
        true
    }

    fn remove(&mut self, socket: SocketAddrV4) {
        if self.by_socket.remove(&socket).is_some()
            && let Some(count) = self.count_of.get_mut(socket.ip())
        {
            *count -= 1;
            if *count == 0 {
                self.count_of.remove(socket.ip());
            }
        }
    }
}

impl Shared {
    pub(super) fn forward(self: &Arc<Self>, inner: &mut Inner, datagram: Datagram<'_>, packet: &[u8]) {
        let Datagram { peer, destination, payload } = datagram;
        let Some(destination) = inner.judge(peer, destination) else {
            inner.stack.refuse_packet(packet, Unreachable::AdminProhibited);
            return;
        };
        let associations = &mut inner.associations;
        if associations.unavailable_until.is_some_and(|until| Instant::now() < until) {
            inner.stack.refuse_packet(packet, Unreachable::Port);
            return;
        }
        let outgoing = Outgoing { destination, payload: payload.to_vec(), packet: packet.to_vec() };
        if let Some(queue) = associations.by_socket.get(&peer) {
            if queue.try_send(outgoing).is_err() {
                inner.counters.datagrams_dropped += 1;
            }
            return;
        }
        let own = associations.count_of.get(peer.ip()).copied().unwrap_or(0);
        let is_full = associations.by_socket.len() >= self.limits.associations
            || own >= self.limits.associations_per_peer;
        if is_full {
            inner.counters.datagrams_dropped += 1;
            inner.stack.refuse_packet(packet, Unreachable::AdminProhibited);
            return;
        }
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        // The queue is new: there is room for one.
        let _ = queue.try_send(outgoing);
        associations.by_socket.insert(peer, queue);
        *associations.count_of.entry(*peer.ip()).or_default() += 1;
        tokio::spawn(Arc::clone(self).associate(peer, waiting));
    }

    /// The life of an association.
    async fn associate(self: Arc<Self>, peer: SocketAddrV4, mut waiting: mpsc::Receiver<Outgoing>) {
        match self.dialer.associate().await {
            Ok(association) => self.relay(peer, association, &mut waiting).await,
            Err(error) => self.refuse_all(&error, &mut waiting),
        }
        self.lock().associations.remove(peer);
    }

    /// Tells the peer at once that there is no UDP, so that it tries TCP.
    fn refuse_all(self: &Arc<Self>, error: &DialError, waiting: &mut mpsc::Receiver<Outgoing>) {
        tracing::debug!(%error, "no relay for UDP");
        let mut inner = self.lock();
        if matches!(error, DialError::Proxies(_)) {
            inner.associations.unavailable_until = Some(Instant::now() + self.limits.udp_retry);
        }
        waiting.close();
        while let Ok(outgoing) = waiting.try_recv() {
            inner.stack.refuse_packet(&outgoing.packet, Unreachable::Port);
        }
        self.settle(&mut inner);
    }

    async fn relay(
        self: &Arc<Self>,
        peer: SocketAddrV4,
        mut association: Association,
        waiting: &mut mpsc::Receiver<Outgoing>,
    ) {
        let mut destinations = HashSet::new();
        let mut buffer = vec![0; UDP_HEADER_LEN + MAX_REPLY_LEN];
        let mut deadline = Instant::now() + self.limits.udp_idle;
        loop {
            tokio::select! {
                outgoing = waiting.recv() => {
                    let Some(Outgoing { destination, payload, .. }) = outgoing else { return };
                    let address = destination.address();
                    let is_known = destinations.contains(&address);
                    if payload.len() > MAX_DATAGRAM_LEN || (!is_known && destinations.len() >= MAX_DESTINATIONS) {
                        self.lock().counters.datagrams_dropped += 1;
                        continue;
                    }
                    destinations.insert(address);
                    deadline = Instant::now() + self.limits.udp_idle;
                    if let Err(error) = association.send(destination, &payload).await {
                        tracing::debug!(%error, "a relay for UDP failed");
                        return;
                    }
                }
                received = association.recv(&mut buffer) => match received {
                    Ok(Received::Datagram { sender, payload }) if destinations.contains(&sender) => {
                        deadline = Instant::now() + self.limits.udp_idle;
                        self.answer(peer, sender, payload);
                    }
                    Ok(Received::Datagram { .. } | Received::Bad(_)) => {
                        self.lock().counters.datagrams_dropped += 1;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "an association ended");
                        return;
                    }
                },
                () = sleep_until(deadline) => return,
            }
        }
    }

    fn answer(self: &Arc<Self>, peer: SocketAddrV4, sender: SocketAddrV4, payload: &[u8]) {
        let mut packet = Vec::new();
        let fits = write_datagram(sender, peer, payload, &mut packet) && packet.len() <= MAX_REPLY_LEN;
        let mut inner = self.lock();
        if fits && inner.associations.output.len() < MAX_OUTPUT {
            inner.associations.output.push_back(packet);
            self.output.notify_one();
        } else {
            inner.counters.datagrams_dropped += 1;
        }
    }
}
