//! A client on a stack of its own against the service, joined in memory, on a virtual clock.

use std::time::Duration;

use smoltcp::phy::{Device, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket};

use super::*;

const SERVICE: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);
const CLIENT: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const MTU: usize = 1280;

struct Pair {
    service: ServiceStack,
    client: Interface,
    sockets: SocketSet<'static>,
    device: QueueDevice,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut device = QueueDevice::new(MTU);
        let mut client = Interface::new(Config::new(HardwareAddress::Ip), &mut device, StackInstant::ZERO);
        client.update_ip_addrs(|addresses| addresses.push(IpCidr::new(IpAddress::Ipv4(CLIENT), 32)).unwrap());
        client.routes_mut().add_default_ipv4_route(CLIENT).unwrap();
        let service = ServiceStack::new(SERVICE, MTU, 1, now);
        Self { service, client, sockets: SocketSet::new(Vec::new()), device, now }
    }

    fn connect(&mut self, port: u16, local: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 65536]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.connect(self.client.context(), (IpAddress::Ipv4(SERVICE), port), local).unwrap();
        self.sockets.add(socket)
    }

    /// Moves packets until nothing moves.
    fn settle(&mut self) {
        loop {
            let stack_now = self.service.stack_time(self.now);
            self.client.poll(stack_now, &mut self.device, &mut self.sockets);
            let mut moved = false;
            while let Some(packet) = self.device.pop_to_send() {
                self.service.handle_packet(&packet, self.now);
                moved = true;
            }
            while let Some(packet) = self.service.poll_packet() {
                self.device.push_received(&packet);
                moved = true;
            }
            if !moved {
                return;
            }
        }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

fn datagram(message: &[u8], port: u16) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: CLIENT,
        dst_addr: SERVICE,
        next_header: IpProtocol::Udp,
        payload_len: 8 + message.len(),
        hop_limit: 64,
    };
    let mut packet = vec![0; 28 + message.len()];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut packet[..]), &smoltcp::phy::ChecksumCapabilities::default());
    let mut udp = UdpPacket::new_unchecked(&mut packet[20..]);
    udp.set_src_port(4000);
    udp.set_dst_port(port);
    udp.set_len(u16::try_from(8 + message.len()).unwrap());
    udp.payload_mut().copy_from_slice(message);
    packet
}

#[test]
fn a_datagram_is_asked_and_answered_without_a_checksum_from_the_host() {
    let mut pair = Pair::new();
    pair.service.handle_packet(&datagram(b"question", 53), pair.now);
    let query = pair.service.poll_query().unwrap();
    assert_eq!((query.by_tcp, query.message.as_slice()), (false, &b"question"[..]));
    pair.service.handle_answer(query.id, b"answer", pair.now);
    let packet = pair.service.poll_packet().unwrap();
    let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
    assert!(ip.verify_checksum());
    let udp = UdpPacket::new_checked(ip.payload()).unwrap();
    assert!(udp.verify_checksum(&IpAddress::Ipv4(SERVICE), &IpAddress::Ipv4(CLIENT)));
    assert_eq!((udp.src_port(), udp.dst_port(), udp.payload()), (53, 4000, &b"answer"[..]));
    assert_eq!(pair.service.poll_timeout(pair.now), None);
}

#[test]
fn other_udp_ports_are_answered_unreachable_at_once() {
    let mut pair = Pair::new();
    pair.service.handle_packet(&datagram(b"x", 5353), pair.now);
    let packet = pair.service.poll_packet().unwrap();
    let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
    assert_eq!(ip.next_header(), IpProtocol::Icmp);
    assert_eq!(ip.payload()[..2], [3, 3]);
}

#[test]
fn queries_of_one_connection_are_answered_in_any_order() {
    let mut pair = Pair::new();
    let handle = pair.connect(53, 50000);
    pair.settle();
    let both = [framed(b"first"), framed(b"second")].concat();
    // One byte at a time: framing must not depend on segments.
    for byte in both {
        pair.socket(handle).send_slice(&[byte]).unwrap();
        pair.settle();
    }
    let first = pair.service.poll_query().unwrap();
    let second = pair.service.poll_query().unwrap();
    assert!(first.by_tcp && second.by_tcp);
    assert_eq!((first.message.as_slice(), second.message.as_slice()), (&b"first"[..], &b"second"[..]));
    pair.service.handle_answer(second.id, b"answer 2", pair.now);
    pair.service.handle_answer(first.id, b"answer 1", pair.now);
    pair.settle();
    let mut got = vec![0; 100];
    let len = pair.socket(handle).recv_slice(&mut got).unwrap();
    assert_eq!(got[..len], [framed(b"answer 2"), framed(b"answer 1")].concat());
}

#[test]
fn a_client_that_closed_its_side_still_gets_its_answer() {
    let mut pair = Pair::new();
    let handle = pair.connect(53, 50000);
    pair.settle();
    pair.socket(handle).send_slice(&framed(b"question")).unwrap();
    pair.socket(handle).close();
    pair.settle();
    let query = pair.service.poll_query().unwrap();
    pair.service.handle_answer(query.id, &[7; 4000], pair.now);
    pair.settle();
    let mut got = vec![0; 5000];
    let len = pair.socket(handle).recv_slice(&mut got).unwrap();
    assert_eq!(len, 4002);
    pair.settle();
    assert!(!pair.socket(handle).may_recv());
}

#[test]
fn an_impossible_length_ends_the_connection() {
    let mut pair = Pair::new();
    let handle = pair.connect(53, 50000);
    pair.settle();
    pair.socket(handle).send_slice(&[0xff, 0xff, 1, 2, 3]).unwrap();
    pair.settle();
    assert!(!pair.socket(handle).is_open());
    assert_eq!(pair.service.poll_query(), None);
}

#[test]
fn other_tcp_ports_are_refused_and_connections_are_bounded() {
    let mut pair = Pair::new();
    let closed = pair.connect(80, 40000);
    pair.settle();
    assert!(!pair.socket(closed).is_open());
    let handles: Vec<_> = (0..60).map(|index| pair.connect(53, 50000 + index)).collect();
    // A SYN that finds no listening socket is refused; there are always some for the next batch until the limit.
    pair.settle();
    let open =
        handles.iter().filter(|handle| pair.sockets.get::<tcp::Socket<'_>>(**handle).may_send()).count();
    assert!((4..=32).contains(&open), "{open}");
}

#[test]
fn an_idle_connection_is_closed_and_leaves_no_timer() {
    let mut pair = Pair::new();
    let handle = pair.connect(53, 50000);
    pair.settle();
    assert!(pair.socket(handle).may_send());
    pair.now += Duration::from_secs(46);
    pair.service.handle_timeout(pair.now);
    pair.settle();
    assert!(!pair.socket(handle).may_send());
    pair.now += Duration::from_secs(46);
    pair.service.handle_timeout(pair.now);
    pair.settle();
    assert_eq!(pair.service.poll_timeout(pair.now), None);
}

#[test]
fn unanswered_datagrams_are_forgotten_beyond_the_limit() {
    let mut pair = Pair::new();
    let mut first = None;
    for _ in 0..MAX_OPEN_DATAGRAM_QUERIES + 1 {
        pair.service.handle_packet(&datagram(b"question", 53), pair.now);
        let id = pair.service.poll_query().unwrap().id;
        first.get_or_insert(id);
    }
    assert_eq!(pair.service.datagram_clients.len(), MAX_OPEN_DATAGRAM_QUERIES);
    pair.service.handle_answer(first.unwrap(), b"late", pair.now);
    assert_eq!(pair.service.poll_packet(), None);
}

#[test]
fn damaged_packets_are_ignored() {
    let mut pair = Pair::new();
    let packet = datagram(b"question", 53);
    for len in 0..packet.len() {
        pair.service.handle_packet(&packet[..len], pair.now);
        let mut damaged = packet.clone();
        damaged[len] ^= 0xff;
        pair.service.handle_packet(&damaged, pair.now);
    }
    let device = &mut pair.device;
    device.push_received(&packet);
    let (received, sender) = device.receive(StackInstant::ZERO).unwrap();
    assert_eq!(received.consume(<[u8]>::len), packet.len());
    sender.consume(1, |bytes| bytes[0] = 1);
    assert_eq!(device.pop_to_send(), Some(vec![1]));
}
