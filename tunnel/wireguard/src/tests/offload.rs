//! A super-packet is cut into data messages, sealed, opened and joined again, with one copy on the way.

use std::net::Ipv4Addr;

use tsrs_tunnel_packet::checksum::Sum;
use tsrs_tunnel_packet::gro::{Gro, Options};
use tsrs_tunnel_packet::gso::SuperPacket;
use tsrs_tunnel_packet::vnet::{self, VirtioNetHdr};

use super::pair::{A, B, MTU, Pair};
use crate::wire::{DATA_HEADER_LEN, DATA_OVERHEAD, padded_len};
use crate::{Device, Incoming, Outgoing, Session};

const HEADER_LEN: usize = 40;
const GSO_SIZE: u16 = 1240;

/// What a TUN gives for a large write to a TCP socket.
fn super_packet(payload_len: usize) -> (VirtioNetHdr, Vec<u8>) {
    let (src, dst) = (Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 2));
    let total_len = u16::try_from(HEADER_LEN + payload_len).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&total_len.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    let ip_checksum = Sum::new().bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&ip_checksum.to_be_bytes());
    packet.extend_from_slice(&[0x30, 0x39, 0x01, 0xbb, 0, 0, 0, 9, 0, 0, 0, 7, 0x50, 0x18, 1, 0]);
    packet.extend_from_slice(&Sum::pseudo_header(src, dst, 6, total_len - 20).fold().to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend((0..payload_len).map(|at| u8::try_from(at % 253).unwrap()));
    let header = VirtioNetHdr {
        flags: vnet::NEEDS_CSUM,
        gso_type: vnet::GSO_TCPV4,
        hdr_len: 40,
        gso_size: GSO_SIZE,
        csum_start: 20,
        csum_offset: 16,
    };
    (header, packet)
}

#[test]
fn a_super_packet_comes_out_as_it_went_in() {
    let mut pair = Pair::new();
    pair.connect(A);
    let (header, packet) = super_packet(60_001);
    let whole = SuperPacket::new(&header, &packet).unwrap();
    assert_eq!(whole.max_len(), usize::from(MTU));

    // One run of equal datagrams, the last one shorter: what `UDP_SEGMENT` takes.
    let stride = padded_len(whole.max_len(), MTU) + DATA_OVERHEAD;
    let outgoing: Vec<_> =
        (0..whole.count()).map(|at| Outgoing::new(at * stride, whole.len_of(at), MTU)).collect();
    let run_len = outgoing.last().map(|last| last.start + last.datagram_len()).unwrap();
    let mut buffer = vec![0xee; run_len];
    whole.write_run(0..whole.count(), &mut buffer, DATA_HEADER_LEN, stride).unwrap();
    let _ = pair.session(A).seal(&mut buffer, &outgoing, pair.now).unwrap();

    // What `UDP_GRO` gives back: one buffer, cut at the size of the first datagram.
    let mut incoming: Vec<_> =
        (0..run_len).step_by(stride).map(|start| Incoming::new(start, stride.min(run_len - start))).collect();
    let _ = pair.session(B).open(&mut buffer, &mut incoming, pair.now);
    let inner = |at: u32| &buffer[incoming[usize::try_from(at).unwrap()].packet_range().unwrap()];
    let mut gro = Gro::new(Options { tcp: true, udp: true });
    gro.coalesce(u32::try_from(incoming.len()).unwrap(), inner);
    let runs: Vec<_> = gro.runs().collect();
    assert_eq!(runs.len(), 1);
    let mut written = runs[0].head(inner(runs[0].first_packet())).bytes().to_vec();
    for slice in runs[0].slices() {
        written.extend_from_slice(&inner(slice.packet)[usize::from(slice.start)..]);
    }
    assert_eq!(written[..vnet::LEN], header.to_bytes());
    assert!(written[vnet::LEN..] == packet);
}

#[test]
fn device_and_sessions_can_go_to_other_threads() {
    fn movable<T: Send>() {}
    fn shareable<T: Send + Sync>() {}
    movable::<Device>();
    shareable::<Session>();
}
