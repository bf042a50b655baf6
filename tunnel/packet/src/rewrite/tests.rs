//! Checksums must be right after every change.

use super::*;
use crate::ipv4::tcp_flag::{ACK, SYN};
use crate::test_packets::{DST, Random, SRC, Tcp, ip_packet, is_intact, udp_packet};

const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

#[test]
fn addresses_change_with_all_checksums() {
    for packet in [Tcp::new(1, ACK, b"abc").packet(), udp_packet((1, 2), b"abcd")] {
        let mut changed = packet.clone();
        assert!(set_src(&mut changed, OTHER));
        assert_eq!((parse(&changed).src, parse(&changed).dst), (OTHER, DST));
        assert!(is_intact(&changed));
        assert!(set_dst(&mut changed, SRC));
        assert_eq!((parse(&changed).src, parse(&changed).dst), (OTHER, SRC));
        assert!(is_intact(&changed));
        assert!(set_src(&mut changed, SRC) && set_dst(&mut changed, DST));
        assert_eq!(changed, packet);
    }
}

#[test]
fn other_transports_keep_their_bytes() {
    let packet = ip_packet(protocol::ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0]);
    let mut changed = packet.clone();
    assert!(set_dst(&mut changed, OTHER));
    assert_eq!(changed[20..], packet[20..]);
    assert!(crate::checksum::Sum::new().bytes(&changed[..20]).verifies());
    let mut unsummed = udp_packet((1, 2), b"abcd");
    put(&mut unsummed, 26, 0);
    assert!(set_dst(&mut unsummed, OTHER));
    assert_eq!(be16(&unsummed, 26), 0);
    let mut short = packet[..19].to_vec();
    assert!(!set_src(&mut short, OTHER));
    assert_eq!(short, packet[..19]);
}

#[test]
fn udp_checksum_never_becomes_none() {
    let mut random = Random::new(5);
    for _ in 0..3000 {
        let mut packet = udp_packet((1, 2), &random.bytes(2));
        let address = Ipv4Addr::from_bits(u32::from_le_bytes(random.bytes(4).try_into().unwrap()));
        assert!(set_src(&mut packet, address));
        assert!(is_intact(&packet) && be16(&packet, 26) != 0);
    }
    // The one address half that makes the sum zero.
    let mut packet = udp_packet((1, 2), &[0, 0]);
    let half = be16(&packet, 26).wrapping_add(0);
    let wanted = crate::checksum::Sum::new().word(u16::from_be_bytes([0, 1])).word(half).fold();
    let [high, low] = wanted.to_be_bytes();
    assert!(set_src(&mut packet, Ipv4Addr::new(100, 64, high, low)));
    assert_eq!(be16(&packet, 26), 0xffff);
    assert!(is_intact(&packet));
}

fn syn(flags: u8, options: &[u8]) -> Vec<u8> {
    let mut tcp = Tcp::new(1, flags, &[]);
    tcp.options = options.to_vec();
    tcp.packet()
}

#[test]
fn mss_is_lowered_wherever_it_stands_and_never_raised() {
    let [high, low] = 1460_u16.to_be_bytes();
    for (options, value_at) in [
        (vec![2, 4, high, low], 42),
        (vec![1, 1, 2, 4, high, low, 0, 0], 44),
        (vec![1, 2, 4, high, low, 0, 0, 0], 43),
        (vec![3, 3, 7, 2, 4, high, low, 0], 45),
    ] {
        for flags in [SYN, SYN | ACK] {
            let mut packet = syn(flags, &options);
            assert!(!clamp_mss(&mut packet, 1500));
            assert_eq!(packet, syn(flags, &options));
            assert!(clamp_mss(&mut packet, 1280));
            assert_eq!(be16(&packet, value_at), 1240);
            assert!(is_intact(&packet), "{options:?}");
            assert!(!clamp_mss(&mut packet, 1280));
        }
        let mut data = syn(ACK, &options);
        assert!(!clamp_mss(&mut data, 1280));
    }
}

#[test]
fn broken_options_are_left_alone() {
    for options in [
        vec![],
        vec![0, 2, 4, 9],
        vec![2, 0, 0, 0],
        vec![2, 1, 0, 0],
        vec![2, 3, 9, 9],
        vec![3, 200, 2, 4],
        vec![1, 1, 1, 2],
        vec![1, 1, 2, 4],
        vec![1, 1, 1, 1],
    ] {
        let packet = syn(SYN, &options);
        let mut changed = packet.clone();
        assert!(!clamp_mss(&mut changed, 576), "{options:?}");
        assert_eq!(changed, packet);
    }
    let packet = syn(SYN, &[2, 4, 5, 0xb4]);
    for len in 0..packet.len() {
        assert!(!clamp_mss(&mut packet[..len].to_vec(), 576));
    }
    let mut tiny = packet;
    assert!(clamp_mss(&mut tiny, 0));
    assert_eq!(be16(&tiny, 42), 0);
}
