//! IPv4 packets of peers and of the host.

use std::net::Ipv4Addr;

use tsrs_tunnel_packet::gro::{Gro, Options};
use tsrs_tunnel_packet::gso::SuperPacket;
use tsrs_tunnel_packet::icmp::{self, Unreachable};
use tsrs_tunnel_packet::ipv4::{Class, parse};
use tsrs_tunnel_packet::rewrite;
use tsrs_tunnel_packet::tsmp::{MAX_LEN, Message};
use tsrs_tunnel_packet::vnet::VirtioNetHdr;

use crate::input::Input;

const A: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 9);

/// Segments of one super-packet that are looked at.
const MAX_SEGMENT_COUNT: usize = 64;

/// A packet, what is answered to it, and how it is rewritten.
pub fn ipv4(data: &[u8]) {
    let parsed = parse(data);
    if parsed.class != Class::Unknown {
        assert!(
            u16::from(parsed.header_len) <= parsed.total_len && usize::from(parsed.total_len) <= data.len()
        );
    }
    let mut answer = [0; icmp::MAX_LEN];
    for reason in [Unreachable::Host, Unreachable::TooBig { mtu: 1280 }] {
        if let Some(len) = icmp::unreachable(reason, A, data, &mut answer) {
            let answer = parse(&answer[..len]);
            assert!(answer.is_icmp_error() && answer.src == A && answer.dst == parsed.src);
        }
    }
    let mut packet = data.to_vec();
    if icmp::reply_to_echo(&mut packet) {
        let reply = parse(&packet);
        assert!(reply.is_echo_reply() && reply.dst == parsed.src);
    }
    let mut packet = data.to_vec();
    if rewrite::set_src(&mut packet, A) && rewrite::set_dst(&mut packet, B) {
        let changed = parse(&packet);
        assert_eq!((changed.src, changed.dst, changed.class), (A, B, parsed.class));
    }
    rewrite::clamp_mss(&mut packet, 1280);
    assert_eq!(packet.len(), data.len());
}

/// A packet with its offload header, as the TUN gives it.
pub fn gso(data: &[u8]) {
    let Some((header, packet)) = VirtioNetHdr::split(data) else { return };
    let Ok(super_packet) = SuperPacket::new(&header, packet) else { return };
    let mut out = vec![0; super_packet.max_len()];
    let last = super_packet.count().saturating_sub(1);
    for index in (0..super_packet.count().min(MAX_SEGMENT_COUNT)).chain([last]) {
        let len = super_packet.write(index, &mut out);
        assert_eq!(len, Some(super_packet.len_of(index)));
        assert!(out.is_empty() || super_packet.write(index, &mut out[1..]).is_none_or(|len| len < out.len()));
    }
    let stride = super_packet.max_len() + 32;
    let count = super_packet.count().min(MAX_SEGMENT_COUNT);
    let mut run = vec![0; stride * count];
    assert!(super_packet.write_run(0..count, &mut run, 16, stride).is_some());
}

/// A batch of packets that are joined where they can be.
pub fn gro(data: &[u8]) {
    let mut input = Input::new(data);
    let options = input.byte();
    let packets: Vec<&[u8]> = input.records().map(|(_, packet)| packet).collect();
    let packet = |index: u32| usize::try_from(index).ok().and_then(|index| packets.get(index)).copied();
    let mut gro = Gro::new(Options { tcp: options & 1 == 0, udp: options & 2 == 0 });
    gro.coalesce(u32::try_from(packets.len()).unwrap_or(0), |index| packet(index).unwrap_or_default());
    let mut seen = vec![false; packets.len()];
    for run in gro.runs() {
        let first = packet(run.first_packet()).unwrap_or_default();
        let mut written = run.head(first).bytes()[10..].to_vec();
        for slice in run.slices() {
            let index = usize::try_from(slice.packet).unwrap_or(usize::MAX);
            assert!(!std::mem::replace(&mut seen[index], true), "packet {index} is in two runs");
            written.extend_from_slice(&packets[index][usize::from(slice.start)..]);
        }
        if run.packet_count() > 1 {
            let joined = parse(&written);
            assert_eq!(usize::from(joined.total_len), written.len());
        } else {
            assert_eq!(written, first);
        }
    }
    assert!(seen.into_iter().all(|seen| seen), "a packet is in no run");
}

/// A message inside the tunnel.
pub fn tsmp(data: &[u8]) {
    let Some(message) = Message::parse(data) else { return };
    let mut packet = [0; MAX_LEN];
    let len = message.write(A, B, &mut packet);
    assert_eq!(Message::from_packet(&parse(&packet[..len]), &packet[..len]), Some(message));
}
