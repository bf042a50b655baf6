//! The service address 100.100.100.100: DNS by UDP and TCP on port 53, and echo, on a small user-space stack.
//!
//! The host sends packets for this address into the TUN device, and they end here instead of at a peer. A stack of its own, and
//! not the host's, answers: the address is on no interface, so no program of the host can take its ports, and no peer can
//! reach it. All other ports are closed with RST or ICMP at once.
//!
//! [`ServiceStack`] is a machine: packets in and out, DNS queries out, answers in. It parses no DNS; the caller joins it to a
//! resolver.
#![forbid(unsafe_code)]

mod device;
mod tcp;

use std::collections::{HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::udp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};

use crate::device::QueueDevice;
use crate::tcp::Connections;

/// Port of DNS.
const DNS_PORT: u16 = 53;
/// Longest datagram in either direction; answers are cut to this by the resolver.
const DATAGRAM_LEN: usize = 4096;
/// Datagrams that wait in each direction. Beyond that they are lost, as datagrams may be; clients ask again.
const DATAGRAM_COUNT: usize = 64;
/// UDP queries that wait for an answer. The resolver has the same limit for what it forwards, and drops the oldest.
const MAX_OPEN_DATAGRAM_QUERIES: usize = 512;

/// Names a query until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueryId(pub u64);

/// A DNS query of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// To be given back with the answer.
    pub id: QueryId,
    /// Whether it came by TCP.
    pub by_tcp: bool,
    /// The DNS message.
    pub message: Vec<u8>,
}

/// See the crate's documentation.
pub struct ServiceStack {
    interface: Interface,
    sockets: SocketSet<'static>,
    device: QueueDevice,
    udp: SocketHandle,
    connections: Connections,
    datagram_clients: HashMap<QueryId, SocketAddrV4>,
    datagram_order: VecDeque<QueryId>,
    queries: VecDeque<Query>,
    next_query: u64,
    start: Instant,
}

impl ServiceStack {
    /// A stack at an address. `seed` makes its sequence numbers unpredictable.
    pub fn new(address: Ipv4Addr, mtu: usize, seed: u64, now: Instant) -> Self {
        let mut device = QueueDevice::new(mtu);
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut device, StackInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // An empty list has room for one.
            let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(address), 32));
        });
        // The table is empty, so there is room for this one; on a point-to-point link its gateway is never asked for.
        let _ = interface.routes_mut().add_default_ipv4_route(address);
        let mut sockets = SocketSet::new(Vec::new());
        let udp = sockets.add(datagram_socket());
        let connections = Connections::new(&mut sockets);
        Self {
            interface,
            sockets,
            device,
            udp,
            connections,
            datagram_clients: HashMap::new(),
            datagram_order: VecDeque::new(),
            queries: VecDeque::new(),
            next_query: 0,
            start: now,
        }
    }

    /// Takes a packet that the host sent to the address. Its transport checksum may be missing.
    pub fn handle_packet(&mut self, packet: &[u8], now: Instant) {
        self.device.push_received(packet);
        self.run(now);
    }

    /// Takes the answer to a query.
    pub fn handle_answer(&mut self, id: QueryId, message: &[u8], now: Instant) {
        if let Some(client) = self.datagram_clients.remove(&id) {
            self.datagram_order.retain(|open| *open != id);
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
            let client = IpEndpoint::new(IpAddress::Ipv4(*client.ip()), client.port());
            if let Err(error) = socket.send_slice(message, client) {
                tracing::debug!(%error, len = message.len(), "answer of the resolver does not go out");
            }
        } else {
            self.connections.answer(id, message, &mut self.sockets);
        }
        self.run(now);
    }

    /// Retransmits, and closes connections that idle.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.run(now);
    }

    /// When [`Self::handle_timeout`] wants to be called; never while no connection is open.
    pub fn poll_timeout(&mut self, now: Instant) -> Option<Instant> {
        let wanted = self.interface.poll_at(self.stack_time(now), &self.sockets)?;
        let since_start = u64::try_from(wanted.total_micros()).unwrap_or(0);
        Some(self.start + std::time::Duration::from_micros(since_start))
    }

    /// The next packet for the host.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.device.pop_to_send()
    }

    /// The next query for the resolver.
    pub fn poll_query(&mut self) -> Option<Query> {
        self.queries.pop_front()
    }

    fn run(&mut self, now: Instant) {
        let stack_now = self.stack_time(now);
        self.interface.poll(stack_now, &mut self.device, &mut self.sockets);
        self.take_datagrams();
        let Self { connections, sockets, queries, next_query, .. } = self;
        connections.take_queries(sockets, |message| {
            let id = QueryId(*next_query);
            *next_query += 1;
            queries.push_back(Query { id, by_tcp: true, message });
            id
        });
        // What the connections just did, such as closing, goes out in the same step.
        self.interface.poll(stack_now, &mut self.device, &mut self.sockets);
    }

    fn take_datagrams(&mut self) {
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
        while let Ok((message, meta)) = socket.recv() {
            let IpAddress::Ipv4(ip) = meta.endpoint.addr;
            let id = QueryId(self.next_query);
            self.next_query += 1;
            self.datagram_clients.insert(id, SocketAddrV4::new(ip, meta.endpoint.port));
            self.datagram_order.push_back(id);
            self.queries.push_back(Query { id, by_tcp: false, message: message.to_vec() });
        }
        while self.datagram_order.len() > MAX_OPEN_DATAGRAM_QUERIES {
            if let Some(oldest) = self.datagram_order.pop_front() {
                self.datagram_clients.remove(&oldest);
            }
        }
    }

    fn stack_time(&self, now: Instant) -> StackInstant {
        let micros = now.saturating_duration_since(self.start).as_micros();
        StackInstant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }
}

fn datagram_socket() -> udp::Socket<'static> {
    let buffer = || {
        udp::PacketBuffer::new(
            vec![udp::PacketMetadata::EMPTY; DATAGRAM_COUNT],
            vec![0; DATAGRAM_COUNT * DATAGRAM_LEN / 8],
        )
    };
    let mut socket = udp::Socket::new(buffer(), buffer());
    // Only a bound socket or port 0 is refused.
    let _ = socket.bind(IpListenEndpoint { addr: None, port: DNS_PORT });
    socket
}

#[cfg(test)]
mod tests;
