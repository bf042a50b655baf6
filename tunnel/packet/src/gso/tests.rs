//! Segments must be what the kernel would have sent itself.

use super::*;
use crate::ipv4::tcp_flag::{ACK, CWR, FIN, PSH};
use crate::test_packets::{Random, Tcp, is_intact, pseudo_sum, udp_packet};
use crate::vnet::{GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};

/// A super-packet as the kernel gives it: the checksum field holds the pseudo-header sum, `hdr_len` is nonsense.
fn offloaded(mut packet: Vec<u8>, gso_type: u8, gso_size: u16) -> (VirtioNetHdr, Vec<u8>) {
    let csum_offset = if packet[9] == protocol::TCP { 16 } else { 6 };
    let pseudo = pseudo_sum(&packet).fold();
    put(&mut packet, HEADER_LEN + usize::from(csum_offset), pseudo);
    let header =
        VirtioNetHdr { flags: NEEDS_CSUM, gso_type, hdr_len: 0xffff, gso_size, csum_start: 20, csum_offset };
    (header, packet)
}

fn segments(header: &VirtioNetHdr, packet: &[u8]) -> Vec<Vec<u8>> {
    let whole = SuperPacket::new(header, packet).unwrap();
    (0..whole.count())
        .map(|index| {
            let mut out = vec![0xaa; whole.len_of(index)];
            assert_eq!(whole.write(index, &mut out), Some(out.len()));
            out
        })
        .collect()
}

#[test]
fn tcp_segments_have_their_own_headers_and_checksums() {
    let mut random = Random::new(10);
    for round in 0..60 {
        let mut tcp = Tcp::new(u32::MAX - 2000, ACK | PSH | FIN, &[]);
        let options_len = 4 * random.below(11);
        tcp.options = random.bytes(options_len);
        let payload_len = 1 + random.below(20_000);
        tcp.payload = random.bytes(payload_len);
        let gso_size = 1 + random.below(1500);
        let (header, packet) = offloaded(tcp.packet(), GSO_TCPV4, u16::try_from(gso_size).unwrap());
        let segments = segments(&header, &packet);
        let header_len = 40 + tcp.options.len();
        assert_eq!(segments.len(), tcp.payload.len().div_ceil(gso_size), "{round}");
        for (index, (segment, payload)) in segments.iter().zip(tcp.payload.chunks(gso_size)).enumerate() {
            assert!(is_intact(segment), "{round} {index}");
            assert_eq!(segment[header_len..], *payload);
            assert_eq!(segment[40..header_len], tcp.options);
            let sequence = tcp.sequence.wrapping_add(u32::try_from(index * gso_size).unwrap());
            assert_eq!(segment[24..28], sequence.to_be_bytes());
            assert_eq!(be16(segment, 4), 0x7000 + u16::try_from(index).unwrap());
            let last = index + 1 == segments.len();
            assert_eq!(segment[33], if last { ACK | PSH | FIN } else { ACK });
        }
    }
}

#[test]
fn congestion_window_reduced_stands_on_the_first_segment_only() {
    let tcp = Tcp::new(1, ACK | CWR, &[7; 3000]);
    let (header, packet) = offloaded(tcp.packet(), GSO_TCPV4 | GSO_ECN, 1000);
    let flags: Vec<_> = segments(&header, &packet).iter().map(|segment| segment[33]).collect();
    assert_eq!(flags, [ACK | CWR, ACK, ACK]);
}

#[test]
fn udp_datagrams_have_their_own_lengths_and_checksums() {
    let payload = Random::new(11).bytes(3001);
    let (header, packet) = offloaded(udp_packet((9, 10), &payload), GSO_UDP_L4, 1000);
    let segments = segments(&header, &packet);
    assert_eq!(segments.iter().map(Vec::len).collect::<Vec<_>>(), [1028, 1028, 1028, 29]);
    for (segment, payload) in segments.iter().zip(payload.chunks(1000)) {
        assert!(is_intact(segment));
        assert_eq!(usize::from(be16(segment, 24)), segment.len() - HEADER_LEN);
        assert_eq!(segment[28..], *payload);
    }
}

#[test]
fn single_packets_are_completed_or_copied() {
    for original in [Tcp::new(5, ACK, b"hello").packet(), udp_packet((1, 2), b"hello!")] {
        let (header, packet) = offloaded(original.clone(), GSO_NONE, 0);
        assert_eq!(segments(&header, &packet), std::slice::from_ref(&original));
        assert_eq!(segments(&VirtioNetHdr::default(), &original), [original]);
    }
    // A datagram whose checksum comes out as zero is sent with its other form.
    let mut payload = vec![0, 0];
    let sum = pseudo_sum(&udp_packet((1, 2), &payload)).bytes(&udp_packet((1, 2), &payload)[20..26]).fold();
    payload.copy_from_slice(&(!sum).to_be_bytes());
    let (header, packet) = offloaded(udp_packet((1, 2), &payload), GSO_NONE, 0);
    assert_eq!(be16(&segments(&header, &packet)[0], 26), 0xffff);
}

#[test]
fn a_run_has_room_for_headers_and_tags() {
    let (header, packet) = offloaded(Tcp::new(0, ACK, &[1; 2500]).packet(), GSO_TCPV4, 1000);
    let whole = SuperPacket::new(&header, &packet).unwrap();
    let expected = segments(&header, &packet);
    let (headroom, stride) = (16, 16 + 1040 + 16);
    let mut out = vec![0xaa; 3 * stride];
    whole.write_run(0..3, &mut out, headroom, stride).unwrap();
    for (place, segment) in out.chunks(stride).zip(&expected) {
        assert_eq!(place[..headroom], [0xaa; 16]);
        assert_eq!(place[headroom..headroom + segment.len()], *segment);
        assert!(place[headroom + segment.len()..].iter().all(|byte| *byte == 0xaa));
    }
    let mut tail = vec![0; stride];
    whole.write_run(2..3, &mut tail, headroom, stride).unwrap();
    assert_eq!(tail[headroom..headroom + expected[2].len()], expected[2]);
    assert_eq!(whole.write_run(0..4, &mut vec![0; 9000], headroom, stride), None);
    assert_eq!(whole.write_run(0..3, &mut out[..2 * stride + headroom + 539], headroom, stride), None);
    assert_eq!(whole.max_len(), 1040);
}

#[test]
fn contradictions_are_refused() {
    let (header, packet) = offloaded(Tcp::new(0, ACK, &[1; 2500]).packet(), GSO_TCPV4, 1000);
    let refused = |header: VirtioNetHdr, packet: &[u8]| {
        assert_eq!(SuperPacket::new(&header, packet).map(|_| ()), Err(DropReason::BadOffload), "{header:?}");
    };
    refused(VirtioNetHdr { gso_size: 0, ..header }, &packet);
    refused(VirtioNetHdr { csum_start: 24, ..header }, &packet);
    refused(VirtioNetHdr { csum_offset: 6, ..header }, &packet);
    refused(VirtioNetHdr { gso_type: GSO_UDP_L4, ..header }, &packet);
    refused(VirtioNetHdr { gso_type: GSO_TCPV6, ..header }, &packet);
    refused(VirtioNetHdr { gso_type: 3, ..header }, &packet);
    for len in 0..=40 {
        refused(header, &packet[..len]);
    }
    for (offset, value) in
        [(0, 0x65), (0, 0x44), (0, 0x4f), (6, 0x20), (7, 1), (9, 17), (32, 0x40), (32, 0xf0)]
    {
        let mut other = packet[..60].to_vec();
        other[offset] = value;
        refused(header, &other);
    }
    let single = VirtioNetHdr { gso_type: GSO_NONE, ..header };
    refused(VirtioNetHdr { csum_start: 0, ..single }, &packet);
    refused(VirtioNetHdr { csum_start: u16::MAX, csum_offset: u16::MAX, ..single }, &packet);
    refused(single, &packet[..37]);
    assert!(SuperPacket::new(&single, &packet[..38]).is_ok());
}
