//! Who is connected to one region, and the queues between them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;
use tsrs_base_types::{NodePrivate, NodePublic, RegionId};
use tsrs_tunnel_derp::frame::{self, GoneReason};
use tsrs_tunnel_path::disco::envelope::is_disco;

use crate::sync::lock;

/// Packets that wait for one client, of each of the two kinds; the oldest is dropped for a new one.
const QUEUE_LEN: usize = 32;
/// Control frames that wait for one client; a client that reads nothing is cut off there.
const MAX_CONTROL_BYTES: usize = 64 * 1024;
/// Packet bytes that one write to a client carries.
const MAX_WRITE_BYTES: usize = 256 * 1024;

/// A packet on its way to a client.
struct Queued {
    source: NodePublic,
    packet: Bytes,
}

#[derive(Default)]
struct Waiting {
    disco: VecDeque<Queued>,
    data: VecDeque<Queued>,
    control: Vec<u8>,
    closed: bool,
}

/// What waits for one connection.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

impl Queue {
    /// Appends a control frame.
    pub(crate) fn push_control(&self, put: impl FnOnce(&mut Vec<u8>)) {
        let mut waiting = lock(&self.waiting);
        put(&mut waiting.control);
        waiting.closed |= waiting.control.len() > MAX_CONTROL_BYTES;
        self.arrived.notify_one();
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        lock(&self.waiting).closed = true;
        self.arrived.notify_one();
    }

    /// Appends a packet; gives whether an older one was dropped for it.
    fn push(&self, source: NodePublic, packet: Bytes) -> bool {
        let mut waiting = lock(&self.waiting);
        let queue = if is_disco(&packet) { &mut waiting.disco } else { &mut waiting.data };
        let dropped = queue.len() >= QUEUE_LEN;
        if dropped {
            queue.pop_front();
        }
        queue.push_back(Queued { source, packet });
        self.arrived.notify_one();
        dropped
    }

    /// Waits for frames and moves them to `out`; `false` when the connection is to end.
    pub(crate) async fn fill(&self, out: &mut Vec<u8>) -> bool {
        loop {
            {
                let mut waiting = lock(&self.waiting);
                if waiting.closed {
                    return false;
                }
                out.append(&mut waiting.control);
                while out.len() < MAX_WRITE_BYTES {
                    let Some(next) = waiting.disco.pop_front().or_else(|| waiting.data.pop_front()) else {
                        break;
                    };
                    frame::put_recv_packet(out, &next.source, &next.packet);
                }
            }
            if !out.is_empty() {
                return true;
            }
            self.arrived.notified().await;
        }
    }
}

/// One connection of a client.
struct Connection {
    number: u64,
    queue: Arc<Queue>,
}

/// All connections of one key; the last is the one that gets packets.
#[derive(Default)]
struct Client {
    connections: Vec<Connection>,
    /// Who has sent it packets, and wants to know when it is gone.
    senders: BTreeSet<NodePublic>,
}

/// Counters of one region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DerpStats {
    /// Clients that are connected.
    pub clients: usize,
    /// Packets passed on.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets dropped: receiver not here, or its queue full.
    pub dropped: u64,
    /// Connections that began without an HTTP response.
    pub fast_starts: u64,
}

/// One region's server.
pub(crate) struct Hub {
    pub(crate) region: RegionId,
    pub(crate) key: NodePrivate,
    clients: Mutex<HashMap<NodePublic, Client>>,
    next_connection: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    fast_starts: AtomicU64,
}

impl Hub {
    pub(crate) fn new(region: RegionId, key: NodePrivate) -> Self {
        Self {
            region,
            key,
            clients: Mutex::default(),
            next_connection: AtomicU64::new(1),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            fast_starts: AtomicU64::new(0),
        }
    }

    pub(crate) fn note_fast_start(&self) {
        self.fast_starts.fetch_add(1, Ordering::Relaxed);
    }

    /// Registers a connection. A key that is connected already is taken over.
    pub(crate) fn join(&self, key: NodePublic, queue: Arc<Queue>) -> u64 {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        lock(&self.clients).entry(key).or_default().connections.push(Connection { number, queue });
        number
    }

    /// Forgets a connection; when it was the key's last, all that sent to it are told.
    pub(crate) fn leave(&self, key: &NodePublic, number: u64) {
        let mut clients = lock(&self.clients);
        let Some(client) = clients.get_mut(key) else { return };
        client.connections.retain(|connection| connection.number != number);
        if !client.connections.is_empty() {
            return;
        }
        let senders = clients.remove(key).map(|client| client.senders).unwrap_or_default();
        for sender in senders {
            if let Some(queue) = active(&clients, &sender) {
                queue.push_control(|out| frame::put_peer_gone(out, key, GoneReason::Disconnected));
            }
        }
    }

    /// A connection has written: of several with the same key it is now the one that gets packets.
    pub(crate) fn note_active(&self, key: &NodePublic, number: u64) {
        let mut clients = lock(&self.clients);
        let Some(client) = clients.get_mut(key) else { return };
        let last = client.connections.len().saturating_sub(1);
        if let Some(index) = client.connections.iter().position(|connection| connection.number == number) {
            client.connections.swap(index, last);
        }
    }

    /// Passes a packet on; `false` if the receiver is not here.
    pub(crate) fn forward(&self, source: &NodePublic, destination: &NodePublic, packet: Bytes) -> bool {
        let queue = {
            let mut clients = lock(&self.clients);
            let client = clients.get_mut(destination);
            client.and_then(|client| {
                client.senders.insert(*source);
                client.connections.last().map(|connection| Arc::clone(&connection.queue))
            })
        };
        let Some(queue) = queue else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        };
        self.packets.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(u64::try_from(packet.len()).unwrap_or(0), Ordering::Relaxed);
        if queue.push(*source, packet) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    /// Sends one client any bytes between two frames; `false` if it is not here.
    pub(crate) fn inject(&self, key: &NodePublic, bytes: &[u8]) -> bool {
        let clients = lock(&self.clients);
        let queue = active(&clients, key);
        queue.inspect(|queue| queue.push_control(|out| out.extend_from_slice(bytes))).is_some()
    }

    /// Sends every client a health text; empty means fine again.
    pub(crate) fn health(&self, problem: &str) {
        for connection in lock(&self.clients).values().flat_map(|client| &client.connections) {
            connection.queue.push_control(|out| frame::put_health(out, problem));
        }
    }

    /// Ends all connections.
    pub(crate) fn disconnect_all(&self) {
        for connection in lock(&self.clients).values().flat_map(|client| &client.connections) {
            connection.queue.close();
        }
    }

    /// Whether a key is connected.
    pub(crate) fn has(&self, key: &NodePublic) -> bool {
        lock(&self.clients).contains_key(key)
    }

    pub(crate) fn stats(&self) -> DerpStats {
        DerpStats {
            clients: lock(&self.clients).len(),
            packets: self.packets.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            fast_starts: self.fast_starts.load(Ordering::Relaxed),
        }
    }
}

fn active<'a>(clients: &'a HashMap<NodePublic, Client>, key: &NodePublic) -> Option<&'a Queue> {
    clients.get(key)?.connections.last().map(|connection| &*connection.queue)
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;
    use tsrs_tunnel_derp::frame::{FrameType, HEADER_LEN, parse_header};

    use super::*;

    fn hub() -> Hub {
        Hub::new(RegionId(1), NodePrivate::generate(&mut OsRng))
    }

    fn key(byte: u8) -> NodePublic {
        NodePublic::from_bytes([byte; 32])
    }

    fn join(hub: &Hub, byte: u8) -> (u64, Arc<Queue>) {
        let queue = Arc::new(Queue::default());
        (hub.join(key(byte), Arc::clone(&queue)), queue)
    }

    async fn frames(queue: &Queue) -> Vec<(FrameType, Vec<u8>)> {
        let mut bytes = Vec::new();
        assert!(queue.fill(&mut bytes).await);
        let mut rest = bytes.as_slice();
        let mut list = Vec::new();
        while let Some((kind, len)) = parse_header(rest) {
            list.push((kind, rest[HEADER_LEN..HEADER_LEN + len].to_vec()));
            rest = &rest[HEADER_LEN + len..];
        }
        list
    }

    #[tokio::test]
    async fn the_oldest_of_too_many_packets_is_dropped() {
        let hub = hub();
        let (_, queue) = join(&hub, 2);
        for number in 0..40u8 {
            assert!(hub.forward(&key(1), &key(2), Bytes::copy_from_slice(&[number])));
        }
        let frames = frames(&queue).await;
        assert_eq!(frames.len(), QUEUE_LEN);
        assert_eq!(frames[0].1[32..], [8]);
        assert_eq!(hub.stats().dropped, 8);
    }

    #[tokio::test]
    async fn senders_are_told_when_the_last_connection_is_gone() {
        let hub = hub();
        let (_, sender) = join(&hub, 1);
        let (first, _) = join(&hub, 2);
        let (second, _) = join(&hub, 2);
        hub.forward(&key(1), &key(2), Bytes::from_static(b"x"));
        hub.leave(&key(2), first);
        assert!(hub.has(&key(2)));
        hub.leave(&key(2), second);
        let frames = frames(&sender).await;
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].0, FrameType::PEER_GONE);
        assert_eq!(frames[0].1[32], 0);
        assert!(!hub.forward(&key(1), &key(2), Bytes::from_static(b"x")));
    }

    #[tokio::test]
    async fn a_second_connection_takes_over_and_the_first_takes_back_by_writing() {
        let hub = hub();
        let (number, old) = join(&hub, 2);
        let (_, new) = join(&hub, 2);
        hub.forward(&key(1), &key(2), Bytes::from_static(b"to new"));
        assert_eq!(frames(&new).await[0].1[32..], *b"to new");
        hub.note_active(&key(2), number);
        hub.forward(&key(1), &key(2), Bytes::from_static(b"to old"));
        assert_eq!(frames(&old).await[0].1[32..], *b"to old");
    }

    #[tokio::test]
    async fn a_client_that_reads_no_control_frames_is_cut_off() {
        let queue = Queue::default();
        for _ in 0..3 {
            queue.push_control(|out| out.extend_from_slice(&[0; MAX_CONTROL_BYTES / 2]));
        }
        assert!(!queue.fill(&mut Vec::new()).await);
    }
}
