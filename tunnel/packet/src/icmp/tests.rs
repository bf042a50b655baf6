//! Messages as RFC 792 lays them out, and when none is sent.

use super::*;
use crate::ipv4::{Class, tcp_flag};
use crate::test_packets::{DST, SRC, Tcp, ip_packet, udp_packet};

const OWN: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 99);

fn echo(kind: u8) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g', b'!'];
    let checksum = Sum::new().bytes(&icmp).checksum();
    put(&mut icmp, 2, checksum);
    ip_packet(protocol::ICMP, &icmp)
}

fn message(reason: Unreachable, original: &[u8]) -> Option<Vec<u8>> {
    let mut out = [0xaa; MAX_LEN];
    unreachable(reason, OWN, original, &mut out).map(|len| out[..len].to_vec())
}

#[test]
fn unreachable_quotes_the_packet_and_goes_to_its_source() {
    let original = udp_packet((1, 2), b"some payload");
    for (reason, code) in [
        (Unreachable::Net, 0),
        (Unreachable::Host, 1),
        (Unreachable::Port, 3),
        (Unreachable::TooBig { mtu: 1280 }, 4),
        (Unreachable::NetProhibited, 9),
        (Unreachable::HostProhibited, 10),
        (Unreachable::AdminProhibited, 13),
    ] {
        let message = message(reason, &original).unwrap();
        let parsed = parse(&message);
        assert_eq!((parsed.class, parsed.src, parsed.dst), (Class::Icmp, OWN, SRC));
        assert_eq!((parsed.icmp_type, parsed.icmp_code), (3, code));
        assert!(parsed.is_icmp_error());
        assert_eq!(usize::from(parsed.total_len), message.len());
        assert!(Sum::new().bytes(&message[..20]).verifies());
        assert!(Sum::new().bytes(&message[20..]).verifies());
        assert_eq!(message[28..], original);
        let mtu = if code == 4 { 1280 } else { 0 };
        assert_eq!(be16(&message, 26), mtu);
    }
}

#[test]
fn long_packets_are_quoted_in_part_and_trailing_bytes_never() {
    let mut original = Tcp::new(1, tcp_flag::ACK, &[9; 1200]).packet();
    let long = message(Unreachable::Host, &original).unwrap();
    assert_eq!(long.len(), MAX_LEN);
    assert_eq!(long[28..], original[..MAX_LEN - 28]);
    original = udp_packet((1, 2), b"x");
    let without = message(Unreachable::Host, &original);
    original.extend_from_slice(b"behind the packet");
    assert_eq!(message(Unreachable::Host, &original), without);
}

#[test]
fn no_message_about_errors_fragments_and_groups() {
    let about = |packet: &[u8]| message(Unreachable::Host, packet).is_some();
    assert!(about(&echo(icmp_type::ECHO_REQUEST)));
    assert!(about(&echo(icmp_type::ECHO_REPLY)));
    for kind in [3, 4, 5, 11, 12, 200] {
        assert!(!about(&echo(kind)), "{kind}");
    }
    let original = udp_packet((1, 2), b"x");
    assert!(about(&original));
    let with = |offset: usize, value: u8| {
        let mut packet = original.clone();
        packet[offset] = value;
        packet
    };
    assert!(!about(&with(7, 1)), "fragment too near");
    assert!(!about(&with(7, 20)), "later fragment");
    assert!(!about(&with(16, 224)), "to a group");
    assert!(!about(&with(12, 239)), "from a group");
    let mut broadcast = original.clone();
    broadcast[16..20].fill(255);
    assert!(!about(&broadcast));
    let mut unspecified = original.clone();
    unspecified[12..16].fill(0);
    assert!(!about(&unspecified));
    for len in 0..original.len() {
        assert!(!about(&original[..len]), "{len}");
    }
    let bare = ip_packet(protocol::ICMP, &[]);
    assert!(!about(&bare));
}

#[test]
fn an_echo_request_becomes_its_reply() {
    let mut packet = echo(icmp_type::ECHO_REQUEST);
    let request = packet.clone();
    assert!(reply_to_echo(&mut packet));
    let parsed = parse(&packet);
    assert!(parsed.is_echo_reply());
    assert_eq!((parsed.src, parsed.dst), (DST, SRC));
    assert!(Sum::new().bytes(&packet[..20]).verifies());
    assert!(Sum::new().bytes(&packet[20..]).verifies());
    assert_eq!(packet[24..], request[24..]);
}

#[test]
fn what_is_no_echo_request_stays_as_it_is() {
    let request = echo(icmp_type::ECHO_REQUEST);
    let mut others = vec![echo(icmp_type::ECHO_REPLY), udp_packet((1, 2), b"12345678")];
    others.extend((0..request.len()).map(|len| request[..len].to_vec()));
    let mut fragment = request.clone();
    fragment[6] = 0x20;
    others.push(fragment);
    // The ICMP header lies in the buffer, but not in the packet.
    let mut short = request;
    short[3] = 24;
    others.push(short);
    for other in others {
        let mut packet = other.clone();
        assert!(!reply_to_echo(&mut packet));
        assert_eq!(packet, other);
    }
}
