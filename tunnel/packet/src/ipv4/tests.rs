//! The reference's view of single packets, and truncation.

use serde_json::Value;
use tsrs_lab_vectors::{hex, json};

use super::*;
use crate::test_packets::{Tcp, udp_packet};

/// How the reference names what it does not understand, and later fragments.
const UNKNOWN: u64 = 0;
const LATER_FRAGMENT: u64 = 255;

fn class_of(proto: u64) -> Class {
    match u8::try_from(proto).unwrap() {
        protocol::TCP => Class::Tcp,
        protocol::UDP => Class::Udp,
        protocol::SCTP => Class::Sctp,
        protocol::ICMP => Class::Icmp,
        protocol::IGMP => Class::Igmp,
        protocol::TSMP => Class::Tsmp,
        _ => Class::Other,
    }
}

#[test]
fn single_packets_are_understood_as_by_the_reference() {
    let mut compared = 0;
    for case in json("filter/packet-parse.json")["cases"].as_array().unwrap() {
        let bytes = hex(case["bytes"].as_str().unwrap());
        let note = &case["note"];
        let parsed = parse(&bytes);
        assert_eq!(u64::from(parsed.version), case["ip_version"].as_u64().unwrap(), "{note}");
        // Only IPv4 is carried; of a packet of another version nothing else is read.
        // A header of less than 20 bytes is refused, where the reference reads ports at that offset.
        if parsed.version != 4 || bytes[0] & 0x0f < 5 {
            assert_eq!(parsed.class, Class::Unknown, "{note}");
            continue;
        }
        compared += 1;
        match case["proto"].as_u64().unwrap() {
            UNKNOWN => {
                assert_eq!(parsed.class, Class::Unknown, "{note}");
                continue;
            }
            LATER_FRAGMENT => assert_eq!(parsed.class, Class::LaterFragment, "{note}"),
            proto => assert_eq!(parsed.class, class_of(proto), "{note}"),
        }
        compare_fields(case, &parsed);
    }
    assert_eq!(compared, 306);
}

fn compare_fields(case: &Value, parsed: &Parsed) {
    let note = &case["note"];
    let number = |key: &str| case[key].as_u64().unwrap_or(0);
    assert_eq!(parsed.src.to_string(), case["src"].as_str().unwrap(), "{note}");
    assert_eq!(parsed.dst.to_string(), case["dst"].as_str().unwrap(), "{note}");
    assert_eq!(u64::from(parsed.src_port), number("src_port"), "{note}");
    assert_eq!(u64::from(parsed.dst_port), number("dst_port"), "{note}");
    let flag = |key: &str| case[key].as_bool().unwrap();
    assert_eq!(parsed.is_tcp_syn(), flag("tcp_syn"), "{note}");
    assert_eq!(parsed.is_echo_request(), flag("echo_request"), "{note}");
    // ICMPv6 inside IPv4 is any other protocol (data-plane sheet §8.1), where the reference still looks for replies.
    let icmpv6 = parsed.protocol == 58;
    assert_eq!(parsed.is_echo_reply(), flag("echo_response") && !icmpv6, "{note}");
    // The reference takes type 18 for "parameter problem", which is 12.
    match (parsed.class, parsed.icmp_type) {
        (Class::Icmp, 12) => assert_eq!(parsed.is_icmp_error(), parsed.icmp_complete, "{note}"),
        (Class::Icmp, 18) => assert!(!parsed.is_icmp_error(), "{note}"),
        _ => assert_eq!(parsed.is_icmp_error(), flag("icmp_error"), "{note}"),
    }
}

#[test]
fn every_truncation_is_unknown() {
    for packet in [Tcp::new(1, tcp_flag::SYN, b"abc").packet(), udp_packet((1, 2), b"abc")] {
        assert_ne!(parse(&packet).class, Class::Unknown);
        for len in 0..packet.len() {
            assert_eq!(parse(&packet[..len]).class, Class::Unknown, "{len}");
        }
    }
}

#[test]
fn lengths_and_fragment_bits_are_given() {
    let mut packet = udp_packet((5, 6), b"data");
    packet.push(0xee);
    let parsed = parse(&packet);
    assert_eq!((parsed.header_len, parsed.total_len, parsed.class), (20, 32, Class::Udp));
    assert!(parsed.dont_fragment && !parsed.more_fragments);
    packet[6] = 0x20;
    let parsed = parse(&packet);
    assert!(!parsed.dont_fragment && parsed.more_fragments);
    assert_eq!((parsed.src_port, parsed.dst_port), (5, 6));
}
