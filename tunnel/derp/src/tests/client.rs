//! The client machine against a server made of the codec's other half, with a virtual clock.

use std::time::{Duration, Instant};

use tsrs_base_types::NodePublic;

use super::{TestRng, UPGRADED, client, peer, server};
use crate::buffer::{FrameBuffer, READ_CHUNK_BYTES};
use crate::client::*;
use crate::frame::*;
use crate::info::{ClientInfo, ServerInfo};
use crate::upgrade::*;

/// What a test sees of a message.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Ready(ServerInfo),
    Packet(NodePublic, Vec<u8>),
    Gone(GoneReason),
    Pong(Duration),
    Health(String),
    Restarting,
}

/// A client machine and the server's end of its connection.
struct Pair {
    now: Instant,
    machine: ClientMachine<TestRng>,
    rng: TestRng,
}

impl Pair {
    fn new(start: Start, preferred: bool) -> Self {
        let now = Instant::now();
        let config = ClientConfig {
            node_key: client(),
            host: "derp.test:8443",
            ideal_node: Some("1a"),
            start,
            preferred,
        };
        Self { now, machine: ClientMachine::new(config, TestRng(5), now).unwrap(), rng: TestRng(6) }
    }

    /// A pair behind the login, everything drained.
    fn ready(info: &ServerInfo) -> Self {
        let mut pair = Self::new(Start::Normal, false);
        let mut bytes = UPGRADED.to_vec();
        put_server_key(&mut bytes, &server().public());
        info.put(&mut bytes, &mut pair.rng, &server(), &client().public()).unwrap();
        assert_eq!(pair.deliver(&bytes).unwrap(), [Seen::Ready(info.clone())]);
        pair.written();
        pair
    }

    fn deliver(&mut self, mut bytes: &[u8]) -> Result<Vec<Seen>, Error> {
        let mut seen = Vec::new();
        loop {
            let space = self.machine.read_space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.machine.note_read(count, self.now);
            bytes = &bytes[count..];
            while let Some(message) = self.machine.poll_message(self.now)? {
                seen.push(match message {
                    Message::Ready(info) => Seen::Ready(info),
                    Message::Packet { source, packet } => Seen::Packet(source, packet.to_vec()),
                    Message::PeerGone { reason, .. } => Seen::Gone(reason),
                    Message::Pong { latency } => Seen::Pong(latency),
                    Message::Health(text) => Seen::Health(text),
                    Message::Restarting { .. } => Seen::Restarting,
                });
            }
            if bytes.is_empty() {
                return Ok(seen);
            }
        }
    }

    fn written(&mut self) -> Vec<u8> {
        let bytes = self.machine.output().to_vec();
        self.machine.note_written(bytes.len());
        bytes
    }
}

fn kinds(bytes: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    let mut rest = bytes;
    while let Some((kind, body_len)) = parse_header(rest) {
        kinds.push(kind.0);
        rest = &rest[HEADER_LEN + body_len..];
    }
    kinds
}

#[test]
fn normal_start_waits_for_the_response_and_the_servers_key() {
    let mut pair = Pair::new(Start::Normal, true);
    pair.machine.send_packet(&peer(), b"first", pair.now).unwrap();
    let request = String::from_utf8(pair.written()).unwrap();
    assert_eq!(
        request,
        "GET /derp HTTP/1.1\r\nHost: derp.test:8443\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nIdeal-Node: 1a\r\n\r\n"
    );
    assert_eq!(pair.deliver(UPGRADED).unwrap(), []);
    assert_eq!(pair.written(), b"", "nothing before the server's key");
    let mut bytes = Vec::new();
    put_server_key(&mut bytes, &server().public());
    assert_eq!(pair.deliver(&bytes).unwrap(), []);
    let greeting = pair.written();
    assert_eq!(
        kinds(&greeting),
        [FrameType::CLIENT_INFO.0, FrameType::NOTE_PREFERRED.0, FrameType::SEND_PACKET.0]
    );
    assert!(!pair.machine.is_ready());
}

#[test]
fn fast_start_sends_everything_at_once_and_ignores_the_servers_key() {
    let mut pair = Pair::new(Start::Fast(server().public()), false);
    pair.machine.send_packet(&peer(), b"first", pair.now).unwrap();
    let bytes = pair.written();
    let head_len = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    assert!(bytes[..head_len].ends_with(b"\r\nDerp-Fast-Start: 1\r\n\r\n"));
    assert_eq!(kinds(&bytes[head_len..]), [FrameType::CLIENT_INFO.0, FrameType::SEND_PACKET.0]);
    let body = &bytes[head_len + HEADER_LEN..];
    let body = &body[..parse_header(&bytes[head_len..]).unwrap().1];
    assert_eq!(ClientInfo::open(body, &server()).unwrap().0, client().public());

    let mut bytes = Vec::new();
    put_server_key(&mut bytes, &server().public());
    ServerInfo::default().put(&mut bytes, &mut pair.rng, &server(), &client().public()).unwrap();
    assert_eq!(pair.deliver(&bytes).unwrap(), [Seen::Ready(ServerInfo::default())]);
}

#[test]
fn a_stream_cut_anywhere_gives_the_same_messages() {
    let mut stream = UPGRADED.to_vec();
    put_server_key(&mut stream, &server().public());
    let mut rng = TestRng(9);
    ServerInfo::default().put(&mut stream, &mut rng, &server(), &client().public()).unwrap();
    put_recv_packet(&mut stream, &peer(), b"one");
    put_frame(&mut stream, FrameType(0x77), &[b"from the future"]);
    put_keep_alive(&mut stream);
    put_peer_gone(&mut stream, &peer(), GoneReason::NotHere);
    put_health(&mut stream, "trouble");
    put_restarting(&mut stream, Duration::from_secs(1), Duration::from_secs(2));
    put_recv_packet(&mut stream, &peer(), b"two");
    let expected = [
        Seen::Ready(ServerInfo::default()),
        Seen::Packet(peer(), b"one".to_vec()),
        Seen::Gone(GoneReason::NotHere),
        Seen::Health("trouble".to_owned()),
        Seen::Restarting,
        Seen::Packet(peer(), b"two".to_vec()),
    ];
    for cut in 0..=stream.len() {
        let mut pair = Pair::new(Start::Normal, false);
        let mut seen = pair.deliver(&stream[..cut]).unwrap();
        seen.extend(pair.deliver(&stream[cut..]).unwrap());
        assert_eq!(seen, expected, "cut at {cut}");
    }
}

#[test]
fn the_server_is_answered_and_asked() {
    let mut pair = Pair::ready(&ServerInfo::default());
    let mut bytes = Vec::new();
    put_ping(&mut bytes, b"12345678");
    assert_eq!(pair.deliver(&bytes).unwrap(), []);
    let mut pong = Vec::new();
    put_pong(&mut pong, b"12345678");
    assert_eq!(pair.written(), pong);

    pair.machine.set_preferred(true);
    pair.machine.set_preferred(true);
    assert_eq!(kinds(&pair.written()), [FrameType::NOTE_PREFERRED.0]);

    pair.machine.ping(pair.now);
    pair.machine.ping(pair.now);
    let ping = pair.written();
    assert_eq!(kinds(&ping), [FrameType::PING.0], "one ping at a time");
    assert_eq!(pair.machine.poll_timeout(), pair.now + PING_LIMIT);
    let mut wrong = Vec::new();
    put_pong(&mut wrong, b"xxxxxxxx");
    assert_eq!(pair.deliver(&wrong).unwrap(), []);
    pair.now += Duration::from_millis(30);
    let mut right = Vec::new();
    put_pong(&mut right, ping[HEADER_LEN..].first_chunk().unwrap());
    assert_eq!(pair.deliver(&right).unwrap(), [Seen::Pong(Duration::from_millis(30))]);
    assert_eq!(pair.deliver(&right).unwrap(), [], "a pong counts once");
}

#[test]
fn every_limit_of_time_ends_the_connection() {
    let mut pair = Pair::new(Start::Normal, false);
    pair.deliver(UPGRADED).unwrap();
    assert_eq!(pair.machine.handle_timeout(pair.now + LOGIN_LIMIT - Duration::from_millis(1)), Ok(()));
    assert_eq!(pair.machine.poll_timeout(), pair.now + LOGIN_LIMIT);
    assert_eq!(pair.machine.handle_timeout(pair.now + LOGIN_LIMIT), Err(Error::LoginTimeout));

    let mut pair = Pair::ready(&ServerInfo::default());
    pair.now += Duration::from_secs(100);
    let mut bytes = Vec::new();
    put_keep_alive(&mut bytes);
    pair.deliver(&bytes).unwrap();
    assert_eq!(pair.machine.poll_timeout(), pair.now + READ_LIMIT);
    assert_eq!(pair.machine.handle_timeout(pair.now + READ_LIMIT - Duration::from_millis(1)), Ok(()));
    assert_eq!(pair.machine.handle_timeout(pair.now + READ_LIMIT), Err(Error::ReadTimeout));

    let mut pair = Pair::ready(&ServerInfo::default());
    pair.machine.ping(pair.now);
    assert_eq!(pair.machine.handle_timeout(pair.now + PING_LIMIT), Err(Error::PingTimeout));
}

#[test]
fn frames_of_every_type_in_every_state_never_panic_and_only_login_is_strict() {
    let mut bodies: Vec<Vec<u8>> = vec![vec![], vec![0; 7], vec![0; 31], vec![0; 40], vec![0xff; 200]];
    let mut key = Vec::new();
    put_server_key(&mut key, &server().public());
    bodies.push(key[HEADER_LEN..].to_vec());
    for kind in 0..=255 {
        for body in &bodies {
            let mut frame = Vec::new();
            put_frame(&mut frame, FrameType(kind), &[body]);
            // Before the upgrade: not HTTP.
            let refused = Pair::new(Start::Normal, false).deliver(&frame);
            assert_eq!(refused, Err(Error::Upgrade(ResponseError::NotHttp)));
            // In place of the server's key: only that.
            let outcome = Pair::new(Start::Normal, false).deliver(&[UPGRADED, &frame].concat());
            let is_key = kind == FrameType::SERVER_KEY.0 && body.starts_with(&MAGIC);
            assert_eq!(outcome, if is_key { Ok(vec![]) } else { Err(Error::ServerKey) });
            // Afterwards only a bad answer to the greeting is an error.
            for mut pair in
                [Pair::new(Start::Fast(server().public()), false), Pair::ready(&ServerInfo::default())]
            {
                let outcome = pair.deliver(&frame);
                assert_eq!(outcome.is_err(), kind == FrameType::SERVER_INFO.0, "type {kind}");
            }
        }
    }
}

#[test]
fn no_truncation_of_a_frame_or_greeting_panics_or_is_taken_for_more() {
    let mut rng = TestRng(11);
    let mut frames = Vec::new();
    ClientInfo::default().put(&mut frames, &mut rng, &client(), &server().public()).unwrap();
    let info_body = frames[HEADER_LEN..].to_vec();
    assert!(ClientInfo::open(&info_body, &server()).is_ok());
    for len in 0..info_body.len() {
        assert!(ClientInfo::open(&info_body[..len], &server()).is_err());
    }
    frames.clear();
    ServerInfo::default().put(&mut frames, &mut rng, &server(), &client().public()).unwrap();
    let info_body = frames[HEADER_LEN..].to_vec();
    for len in 0..info_body.len() {
        assert!(ServerInfo::open(&info_body[..len], &client(), &server().public()).is_err());
    }
    let least = |kind: FrameType| match kind {
        FrameType::SEND_PACKET | FrameType::RECV_PACKET | FrameType::PEER_GONE => 32,
        FrameType::PING | FrameType::PONG | FrameType::RESTARTING => 8,
        FrameType::NOTE_PREFERRED => 1,
        _ => 0,
    };
    for kind in (0..=0x20).map(FrameType) {
        for len in 0..100 {
            let mut body = vec![1; len];
            assert!(ClientFrame::parse(kind, &body).is_none() || len >= least(kind));
            assert!(ServerFrame::parse(kind, &mut body).is_none() || len >= least(kind));
        }
    }
    let mut greeting = Vec::new();
    put_server_key(&mut greeting, &server().public());
    for len in HEADER_LEN..greeting.len() {
        assert_eq!(parse_server_key(&greeting[HEADER_LEN..len]), None);
    }
    assert_eq!(parse_server_key(&greeting[HEADER_LEN..]), Some(server().public()));
}

#[test]
fn a_meta_certificate_names_the_servers_key() {
    let key = server().public();
    let digits = data_encoding::HEXLOWER.encode(key.as_bytes());
    assert_eq!(meta_certificate_key(&format!("derpkey{digits}")), Some(key));
    for wrong in
        ["derpkey", "derpkeyzz", &digits, &format!("derpkey{digits}00"), &format!("derpkey{}", &digits[2..])]
    {
        assert_eq!(meta_certificate_key(wrong), None);
    }
}

#[test]
fn an_oversized_frame_is_refused_by_its_header() {
    let mut pair = Pair::ready(&ServerInfo::default());
    let error = pair.deliver(&[FrameType::RECV_PACKET.0, 0, 0x10, 0, 1]).unwrap_err();
    assert!(matches!(error, Error::FrameTooLong(_)), "{error}");
}

#[test]
fn the_receive_buffer_grows_with_what_arrives_and_shrinks_again() {
    let mut buffer = FrameBuffer::new();
    let mut frame = Vec::new();
    put_frame(&mut frame, FrameType::HEALTH, &[&vec![7; MAX_FRAME_LEN]]);
    let mut largest = 0;
    for chunk in frame.chunks(1000) {
        buffer.space()[..chunk.len()].copy_from_slice(chunk);
        buffer.note_filled(chunk.len());
        largest = largest.max(buffer.space().len());
        assert!(
            buffer.unread().len() + buffer.space().len() <= HEADER_LEN + MAX_FRAME_LEN + 2 * READ_CHUNK_BYTES
        );
    }
    assert!(largest >= READ_CHUNK_BYTES);
    let (kind, range) = buffer.next_frame(MAX_FRAME_LEN).unwrap().unwrap();
    assert_eq!((kind, range.len()), (FrameType::HEALTH, MAX_FRAME_LEN));
    assert_eq!(buffer.space().len(), READ_CHUNK_BYTES);
}

#[test]
fn a_full_queue_drops_data_but_not_disco_and_recovers() {
    let mut pair = Pair::ready(&ServerInfo::default());
    let packet = [4; 1300];
    let queued =
        (0..1000).take_while(|_| pair.machine.send_packet(&peer(), &packet, pair.now).is_ok()).count();
    assert_eq!(queued, MAX_QUEUED_BYTES / (SEND_OVERHEAD_LEN + packet.len()));
    assert!(pair.machine.send_room() < SEND_OVERHEAD_LEN + packet.len());
    assert_eq!(pair.machine.send_packet(&peer(), &packet, pair.now), Err(Refused::QueueFull));
    let disco = [&[0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac][..], &[0; 118]].concat();
    let disco_queued =
        (0..10_000).take_while(|_| pair.machine.send_packet(&peer(), &disco, pair.now).is_ok()).count();
    assert!((50..1000).contains(&disco_queued), "{disco_queued}");
    // A flood of pings is not answered beyond the reserve.
    let mut pings = Vec::new();
    (0..10_000).for_each(|_| put_ping(&mut pings, b"12345678"));
    pair.deliver(&pings).unwrap();
    assert!(pair.machine.output().len() <= MAX_QUEUED_BYTES + CONTROL_RESERVE_BYTES + 100);
    // Written in odd pieces, the bytes are whole frames in order.
    let mut all = Vec::new();
    while !pair.machine.output().is_empty() {
        let piece = pair.machine.output()[..pair.machine.output().len().min(777)].to_vec();
        pair.machine.note_written(piece.len());
        all.extend(piece);
    }
    assert_eq!(
        kinds(&all).iter().filter(|&&kind| kind == FrameType::SEND_PACKET.0).count(),
        queued + disco_queued
    );
    assert_eq!(pair.machine.send_packet(&peer(), &packet, pair.now), Ok(()));
}

#[test]
fn the_servers_rate_is_kept() {
    let info = ServerInfo { version: 2, bytes_per_sec: 10_000, burst_bytes: 5_000 };
    let mut pair = Pair::ready(&info);
    let packet = [4; 963];
    let sent = (0..100).filter(|_| pair.machine.send_packet(&peer(), &packet, pair.now).is_ok()).count();
    assert_eq!(sent, 5);
    assert_eq!(pair.machine.send_packet(&peer(), &packet, pair.now), Err(Refused::RateLimited));
    pair.now += Duration::from_millis(101);
    assert_eq!(pair.machine.send_packet(&peer(), &packet, pair.now), Ok(()));
}

#[test]
fn responses_are_bounded_and_judged_early() {
    assert_eq!(parse_response(b""), Ok(Response::Incomplete));
    assert_eq!(parse_response(UPGRADED), Ok(Response::Upgraded { head_len: UPGRADED.len() }));
    for len in 0..UPGRADED.len() {
        assert_eq!(parse_response(&UPGRADED[..len]), Ok(Response::Incomplete), "cut to {len}");
    }
    assert_eq!(parse_response(b"HTTP/1.1 403 Forbidden\r\n"), Err(ResponseError::Status(403)));
    assert_eq!(parse_response(b"HTTP/1.1 1x1 Odd\r\n\r\n"), Err(ResponseError::NotHttp));
    assert_eq!(parse_response(b"SSH-2.0-OpenSSH"), Err(ResponseError::NotHttp));
    let long = [&b"HTTP/1.1 101 Switching\r\nX: "[..], &vec![b'x'; MAX_RESPONSE_LEN]].concat();
    assert_eq!(parse_response(&long), Err(ResponseError::TooLong));
}

#[test]
fn texts_of_the_map_cannot_add_headers() {
    let config = ClientConfig {
        node_key: client(),
        host: "derp.test\r\nX-Evil: 1",
        ideal_node: Some("1a\nX-Evil: 1"),
        start: Start::Normal,
        preferred: false,
    };
    let machine = ClientMachine::new(config, TestRng(5), Instant::now()).unwrap();
    assert!(!String::from_utf8_lossy(machine.output()).contains("Evil"));
}

#[test]
fn debug_shows_no_private_key() {
    let pair = Pair::ready(&ServerInfo::default());
    let shown = format!("{:?}", pair.machine);
    assert!(shown.contains("[redacted]"));
    assert!(!shown.contains("98, 98, 98"), "the key's bytes in decimal");
}
