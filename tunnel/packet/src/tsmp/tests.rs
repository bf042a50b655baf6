//! Round trips, the short old forms, and truncation.

use super::*;
use crate::ipv4::parse;
use crate::test_packets::{DST, SRC};

const ALL: [Message; 4] = [
    Message::Reject(Reject {
        protocol: protocol::TCP,
        reason: RejectReason::ShieldsUp,
        src_port: 0x0102,
        dst_port: 0x0304,
        maybe_broken: true,
    }),
    Message::Ping([1, 2, 3, 4, 5, 6, 7, 8]),
    Message::Pong { data: [8, 7, 6, 5, 4, 3, 2, 1], peerapi_port: 0xabcd },
    Message::DiscoKey([0x5a; 32]),
];

#[test]
fn messages_come_back_from_their_packets() {
    for message in ALL {
        let mut out = [0; MAX_LEN];
        let len = message.write(SRC, DST, &mut out);
        let packet = &out[..len];
        let parsed = parse(packet);
        assert_eq!((parsed.class, parsed.src, parsed.dst), (Class::Tsmp, SRC, DST));
        assert_eq!(usize::from(parsed.total_len), len);
        assert_eq!(Message::from_packet(&parsed, packet), Some(message));
        // What stands behind the packet is not part of the message.
        let mut longer = packet.to_vec();
        longer.extend_from_slice(&[0xff; 8]);
        assert_eq!(Message::from_packet(&parse(&longer), &longer), Some(message));
    }
}

#[test]
fn layout_of_a_reject() {
    let mut out = [0; MAX_LEN];
    let len = ALL[0].write(SRC, DST, &mut out);
    assert_eq!(out[20..len], [b'!', 6, b'S', 1, 2, 3, 4, 1]);
    for byte in 0..=255 {
        assert_eq!(RejectReason::from_byte(byte).to_byte(), byte);
    }
}

#[test]
fn old_peers_leave_out_flags_and_port() {
    let Some(Message::Reject(reject)) = Message::parse(&[b'!', 17, b'A', 0, 1, 0, 2]) else {
        panic!("no reject");
    };
    assert!(!reject.maybe_broken);
    assert_eq!(
        (reject.protocol, reject.reason, reject.src_port, reject.dst_port),
        (17, RejectReason::Acl, 1, 2)
    );
    let pong = Message::parse(b"o12345678");
    assert_eq!(pong, Some(Message::Pong { data: *b"12345678", peerapi_port: 0 }));
}

#[test]
fn truncated_and_unknown_messages_are_none() {
    for (message, min_body) in ALL.into_iter().zip([7, 9, 9, 33]) {
        let mut body = [0; MAX_LEN - HEADER_LEN];
        let len = message.write_body(&mut body);
        for cut in 0..len {
            assert_eq!(Message::parse(&body[..cut]).is_some(), cut >= min_body, "{message:?} {cut}");
        }
    }
    assert_eq!(Message::parse(b"x12345678"), None);
    let udp = crate::test_packets::udp_packet((1, 2), b"p12345678");
    assert_eq!(Message::from_packet(&parse(&udp), &udp), None);
}
