//! A client with its own TCP, the link, and the stack.

use std::collections::HashMap;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as ClientInstant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};
use tsrs_lab_vectors::SeededRng;
use tsrs_tunnel_packet::gso::SuperPacket;

use super::*;

pub(super) const NODE: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 9);
pub(super) const MTU: u16 = 1280;
const TICK: Duration = Duration::from_millis(1);

/// What the link does to packets, in percent, and how long they take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) reorder: u64,
    pub(super) delay_ms: u32,
}

impl Link {
    pub(super) const CLEAN: Self = Self { loss: 0, repeat: 0, reorder: 0, delay_ms: 5 };
}

#[derive(Default)]
struct Wire {
    under_way: Vec<(Instant, u64, Vec<u8>)>,
    count: u64,
}

impl Wire {
    fn send(&mut self, packet: Vec<u8>, link: Link, random: &mut SeededRng, now: Instant) {
        let mut chance = |percent: u64| random.next_u64() % 100 < percent;
        if chance(link.loss) {
            return;
        }
        let copies = 1 + usize::from(chance(link.repeat));
        for _ in 0..copies {
            let late = if chance(link.reorder) { link.delay_ms } else { 0 };
            let delay = Duration::from_millis(u64::from(link.delay_ms + late));
            self.count += 1;
            self.under_way.push((now + delay, self.count, packet.clone()));
        }
    }

    fn arrived(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut due: Vec<_> = Vec::new();
        self.under_way.retain_mut(|(at, count, packet)| {
            let is_due = *at <= now;
            if is_due {
                due.push((*at, *count, std::mem::take(packet)));
            }
            !is_due
        });
        due.sort_by_key(|(at, count, _)| (*at, *count));
        due.into_iter().map(|(_, _, packet)| packet).collect()
    }
}

#[derive(Default)]
struct Queue {
    received: VecDeque<Vec<u8>>,
    sent: Vec<Vec<u8>>,
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Received {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
        f(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<T, F: FnOnce(&mut [u8]) -> T>(self, len: usize, f: F) -> T {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push(packet);
        result
    }
}

impl Device for Queue {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: ClientInstant) -> Option<(Received, Sent<'_>)> {
        Some((Received(self.received.pop_front()?), Sent(&mut self.sent)))
    }

    fn transmit(&mut self, _: ClientInstant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = usize::from(MTU);
        capabilities
    }
}

/// What the stack's side of a flow does.
#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) to_send: VecDeque<u8>,
    pub(super) received: Vec<u8>,
    pub(super) peer_ended: bool,
    /// Ends its direction when everything is given.
    pub(super) closes: bool,
    /// Does not take what the client sends.
    pub(super) stalls: bool,
    pub(super) closed: Option<CloseReason>,
}

pub(super) struct Pair {
    pub(super) stack: FlowStack<SeededRng>,
    pub(super) now: Instant,
    start: Instant,
    interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    queue: Queue,
    to_stack: Wire,
    to_client: Wire,
    pub(super) link: Link,
    random: SeededRng,
    pub(super) opened: Vec<(FlowId, SocketAddrV4)>,
    pub(super) servers: HashMap<FlowId, Server>,
    /// Packets of the stack that reached the link.
    pub(super) sent: Vec<Vec<u8>>,
    pub(super) max_payload: usize,
    next_port: u16,
}

impl Pair {
    pub(super) fn new(link: Link, limits: FlowLimits, seed: u64) -> Self {
        let now = Instant::now();
        let mut queue = Queue::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut queue, ClientInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(CLIENT), 32)).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(CLIENT).unwrap();
        Self {
            stack: FlowStack::new(NODE, MTU, limits, SeededRng(seed), now),
            now,
            start: now,
            interface,
            sockets: SocketSet::new(Vec::new()),
            queue,
            to_stack: Wire::default(),
            to_client: Wire::default(),
            link,
            random: SeededRng(seed ^ 0x5555),
            opened: Vec::new(),
            servers: HashMap::new(),
            sent: Vec::new(),
            max_payload: 16 * 1024,
            next_port: 40_000,
        }
    }

    /// The client connects to 11.1.2.3.
    pub(super) fn connect(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 200_000]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        let remote = IpEndpoint::new(IpAddress::v4(11, 1, 2, 3), 80);
        self.next_port += 1;
        socket.connect(self.interface.context(), remote, self.next_port).unwrap();
        self.sockets.add(socket)
    }

    /// Connects, and answers as soon as the stack asks.
    pub(super) fn connected(&mut self, server: Server) -> (SocketHandle, FlowId) {
        let handle = self.connect();
        let count = self.opened.len();
        self.run_until("a SYN arrives", |pair| pair.opened.len() > count);
        let (flow, _) = self.opened[count];
        self.servers.insert(flow, server);
        let now = self.now;
        self.stack.accept(flow, now);
        self.run_until("the client is connected", |pair| pair.client(handle).may_send());
        (handle, flow)
    }

    pub(super) fn client(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    pub(super) fn run_until(&mut self, what: &str, mut is_true: impl FnMut(&mut Self) -> bool) {
        for _ in 0..600_000 {
            if is_true(self) {
                return;
            }
            self.tick();
        }
        panic!("waited for ten minutes: {what}");
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        let client_now =
            ClientInstant::from_micros(i64::try_from((self.now - self.start).as_micros()).unwrap());
        self.interface.poll(client_now, &mut self.queue, &mut self.sockets);
        for packet in std::mem::take(&mut self.queue.sent) {
            self.to_stack.send(packet, self.link, &mut self.random, self.now);
        }
        let arrived = self.to_stack.arrived(self.now);
        for packet in &arrived {
            self.stack.handle_packet(packet, false, self.now);
        }
        if self.stack.poll_timeout().is_some_and(|at| at <= self.now) {
            self.stack.handle_timeout(self.now);
        }
        self.serve();
        self.drain();
        for packet in self.to_client.arrived(self.now) {
            self.queue.received.push_back(packet);
        }
    }

    /// Takes the stack's packets, cut as the engine cuts them.
    pub(super) fn drain(&mut self) {
        let mut out = Vec::new();
        while let Some(header) = self.stack.poll_transmit(self.max_payload, &mut out) {
            let run = SuperPacket::new(&header, &out).unwrap();
            for index in 0..run.count() {
                let mut packet = vec![0; run.len_of(index)];
                run.write(index, &mut packet).unwrap();
                assert!(packet.len() <= usize::from(MTU));
                self.sent.push(packet.clone());
                self.to_client.send(packet, self.link, &mut self.random, self.now);
            }
        }
    }

    fn serve(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Opening { flow, destination, .. } => self.opened.push((flow, destination)),
                Event::Changed(flow) => self.serve_flow(flow),
                Event::Closed(flow, reason) => {
                    if let Some(server) = self.servers.get_mut(&flow) {
                        server.closed = Some(reason);
                    }
                }
            }
        }
    }

    pub(super) fn serve_flow(&mut self, flow: FlowId) {
        let Some(server) = self.servers.get_mut(&flow) else { return };
        while !server.stalls {
            let piece = self.stack.peek(flow, 0).to_vec();
            if piece.is_empty() {
                break;
            }
            self.stack.consume(flow, piece.len(), self.now);
            server.received.extend(piece);
        }
        server.peer_ended |= self.stack.peer_ended(flow);
        while !server.to_send.is_empty() {
            let len = self.stack.capacity(flow).min(server.to_send.len());
            let piece: Vec<u8> = server.to_send.iter().take(len).copied().collect();
            let taken = self.stack.push(flow, &piece, self.now);
            if taken == 0 {
                break;
            }
            server.to_send.drain(..taken);
        }
        if server.closes && server.to_send.is_empty() {
            self.stack.close(flow, self.now);
        }
    }

    /// Tries to move the client's bytes: sends from `to_send`, appends to `received`.
    pub(super) fn move_client(
        &mut self,
        handle: SocketHandle,
        to_send: &mut VecDeque<u8>,
        received: &mut Vec<u8>,
    ) {
        let socket = self.client(handle);
        if socket.can_send() && !to_send.is_empty() {
            let taken = socket.send_slice(to_send.make_contiguous()).unwrap();
            to_send.drain(..taken);
        }
        if socket.can_recv() {
            socket
                .recv(|bytes| {
                    received.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
    }
}

/// Bytes that tell their place.
pub(super) fn pattern(len: usize, salt: u64) -> Vec<u8> {
    let mut random = SeededRng(salt);
    let mut bytes = vec![0; len];
    random.fill_bytes(&mut bytes);
    bytes
}
