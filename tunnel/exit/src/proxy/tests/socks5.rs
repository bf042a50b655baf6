use super::*;

const HELLO: (&[u8], &[u8]) = (b"\x05\x01\0", b"\x05\0");
const LOGIN_HELLO: (&[u8], &[u8]) = (b"\x05\x01\x02", b"\x05\x02");
const LOGIN: (&[u8], &[u8]) = (b"\x01\x04user\x04pass", b"\x01\0");
const CONNECT: &[u8] = b"\x05\x01\0\x01\x0b\x01\x02\x03\x01\xbb";
const ASSOCIATE_REQUEST: &[u8] = b"\x05\x03\0\x01\0\0\0\0\0\0";

#[test]
fn a_stream_is_asked_for_by_address_and_early_bytes_are_the_destinations() {
    for (reply, rest) in [
        (b"\x05\0\0\x01\0\0\0\0\0\0".as_slice(), 0),
        (b"\x05\0\0\x01\x0b\0\0\x08\x12\x34hello", 5),
        (b"\x05\0\0\x03\x05proxy\0\x50ab", 2),
        (b"\x05\0\0\x03\0\0\x50", 0),
        (b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x50x", 1),
    ] {
        let ends = Ok(Some((Outcome::Connected, rest)));
        let script = [HELLO, (CONNECT, reply)];
        assert_eq!(play(&socks5(), connect(), None, &script, usize::MAX), ends);
        let script = [LOGIN_HELLO, LOGIN, (CONNECT, reply)];
        assert_eq!(play(&socks5(), connect(), Some(&login()), &script, usize::MAX), ends);
    }
}

#[test]
fn the_size_of_pieces_does_not_matter() {
    let script = [LOGIN_HELLO, LOGIN, (CONNECT, b"\x05\0\0\x03\x05proxy\0\x50".as_slice())];
    let ends = play_all(&socks5(), connect(), Some(&login()), &script);
    assert_eq!(ends, Ok(Some((Outcome::Connected, 0))));
}

#[test]
fn every_reply_code_is_told_apart() {
    for number in 1..=u8::MAX {
        let reply = match number {
            1 => Reply::GeneralFailure,
            2 => Reply::NotAllowed,
            3 => Reply::NetworkUnreachable,
            4 => Reply::HostUnreachable,
            5 => Reply::ConnectionRefused,
            6 => Reply::TtlExpired,
            7 => Reply::CommandNotSupported,
            8 => Reply::AddressTypeNotSupported,
            other => Reply::Unassigned(other),
        };
        let answer = [5, number, 0, 1, 0, 0, 0, 0, 0, 0];
        for len in 2..=answer.len() {
            let script = [HELLO, (CONNECT, &answer[..len])];
            let error = play_all(&socks5(), connect(), None, &script).unwrap_err();
            assert_eq!(error, ProxyError::Refused(reply));
            let expected = if matches!(number, 3..=6) { Blame::Destination } else { Blame::Proxy };
            assert_eq!(error.blame(), expected, "{number}");
        }
    }
}

#[test]
fn a_method_that_was_not_offered_is_refused() {
    for method in 0..=u8::MAX {
        let answer = [5, method];
        let without = play(&socks5(), connect(), None, &[(HELLO.0, &answer)], 1);
        let with = play(&socks5(), connect(), Some(&login()), &[(LOGIN_HELLO.0, &answer)], 1);
        let refused = match method {
            0xff => ProxyError::NoAcceptableMethod,
            _ => ProxyError::Garbage(Garbage::Method),
        };
        assert_eq!(without, if method == 0 { Ok(None) } else { Err(refused) }, "{method}");
        assert_eq!(with, if method == 2 { Ok(None) } else { Err(refused) }, "{method}");
    }
}

#[test]
fn every_status_of_a_login_but_0_is_a_refusal() {
    for status in 0..=u8::MAX {
        let script = [LOGIN_HELLO, (LOGIN.0, &[1, status])];
        let expected = if status == 0 { Ok(None) } else { Err(ProxyError::Credentials) };
        assert_eq!(play_all(&socks5(), connect(), Some(&login()), &script), expected);
    }
}

#[test]
fn garbage_is_refused_as_early_as_it_shows() {
    let garbage = |what| Err(ProxyError::Garbage(what));
    let play = |script: &[(&[u8], &[u8])]| play_all(&socks5(), connect(), None, script);
    assert_eq!(play(&[(HELLO.0, b"\x04")]), garbage(Garbage::Version));
    assert_eq!(play(&[(HELLO.0, b"HTTP/1.1 400 Bad Request\r\n")]), garbage(Garbage::Version));
    assert_eq!(play(&[HELLO, (CONNECT, b"\x04")]), garbage(Garbage::Version));
    for kind in (0..=u8::MAX).filter(|kind| !matches!(kind, 1 | 3 | 4)) {
        assert_eq!(play(&[HELLO, (CONNECT, &[5, 0, 0, kind, 0])]), garbage(Garbage::AddressType));
    }
    let with_login =
        |script: &[(&[u8], &[u8])]| super::play(&socks5(), connect(), Some(&login()), script, usize::MAX);
    assert_eq!(with_login(&[LOGIN_HELLO, (LOGIN.0, b"\x05\0")]), garbage(Garbage::Version));
}

#[test]
fn a_proxy_that_answers_before_it_is_asked_is_refused() {
    let early = Err(ProxyError::Garbage(Garbage::Early));
    let script: [(&[u8], &[u8]); 1] = [(HELLO.0, b"\x05\0\x05\0\0\x01\0\0\0\0\0\0")];
    assert_eq!(play(&socks5(), connect(), None, &script, usize::MAX), early);
    let script = [LOGIN_HELLO, (LOGIN.0, b"\x01\0\x05".as_slice())];
    assert_eq!(play(&socks5(), connect(), Some(&login()), &script, usize::MAX), early);
}

#[test]
fn a_truncated_reply_is_no_yes() {
    for reply in [
        b"\x05\0\0\x01\0\0\0\0\0\0".as_slice(),
        b"\x05\0\0\x03\x05proxy\0\x50",
        b"\x05\0\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x50",
    ] {
        for len in 0..reply.len() {
            assert_eq!(play_all(&socks5(), connect(), None, &[HELLO, (CONNECT, &reply[..len])]), Ok(None));
        }
    }
}

#[test]
fn health_ends_with_the_login_and_asks_for_nothing() {
    let healthy = Ok(Some((Outcome::Healthy, 0)));
    assert_eq!(play_all(&socks5(), Purpose::Health, None, &[HELLO]), healthy);
    assert_eq!(play_all(&socks5(), Purpose::Health, Some(&login()), &[LOGIN_HELLO, LOGIN]), healthy);
    let refused =
        play_all(&socks5(), Purpose::Health, Some(&login()), &[LOGIN_HELLO, (LOGIN.0, b"\x01\x01")]);
    assert_eq!(refused, Err(ProxyError::Credentials));
    let now = Instant::now();
    let mut handshake = Handshake::new(&socks5(), Purpose::Health, None, now).unwrap();
    handshake.poll_transmit();
    handshake.handle_input(b"\x05\0", now).unwrap();
    assert!(handshake.poll_transmit().is_none());
}

#[test]
fn a_relay_must_be_at_the_address_of_the_proxy() {
    let reply = |bound: &[u8]| {
        let answer = [b"\x05\0\0".as_slice(), bound].concat();
        play_all(&socks5(), ASSOCIATE, None, &[HELLO, (ASSOCIATE_REQUEST, &answer)])
    };
    let relay = Ok(Some((Outcome::Associated(SocketAddrV4::new(PROXY, 0x1234)), 0)));
    assert_eq!(reply(b"\x01\x0b\0\0\x08\x12\x34"), relay);
    assert_eq!(reply(b"\x01\0\0\0\0\x12\x34"), relay);
    for bound in [
        b"\x01\x0b\0\0\x09\x12\x34".as_slice(),
        b"\x01\x7f\0\0\x01\x12\x34",
        b"\x01\xff\xff\xff\xff\x12\x34",
        b"\x01\x0b\0\0\x08\0\0",
        b"\x01\0\0\0\0\0\0",
        b"\x03\x0811.0.0.8\x12\x34",
        b"\x04\0\0\0\0\0\0\0\0\0\0\xff\xff\x0b\0\0\x08\x12\x34",
        b"\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x12\x34",
    ] {
        assert_eq!(reply(bound), Err(ProxyError::Garbage(Garbage::RelayAddress)), "{}", bound.escape_ascii());
    }
}

#[test]
fn datagrams_are_wrapped_and_unwrapped() {
    let header = udp_header(admitted("11.1.2.3:443"));
    assert_eq!(header, *b"\0\0\0\x01\x0b\x01\x02\x03\x01\xbb");
    let datagram = [header.as_slice(), b"data"].concat();
    assert_eq!(split_udp(&datagram), Ok(("11.1.2.3:443".parse().unwrap(), b"data".as_slice())));
    assert_eq!(split_udp(&header).unwrap().1, b"");
    for len in 0..header.len() {
        assert_eq!(split_udp(&header[..len]), Err(UdpHeaderError::TooShort));
    }
    for (at, errors) in
        [(0, UdpHeaderError::Reserved), (1, UdpHeaderError::Reserved), (2, UdpHeaderError::Fragment)]
    {
        for value in 1..=u8::MAX {
            let mut damaged = header;
            damaged[at] = value;
            assert_eq!(split_udp(&damaged), Err(errors));
        }
    }
    for kind in (0..=u8::MAX).filter(|kind| *kind != 1) {
        let mut damaged = header;
        damaged[3] = kind;
        assert_eq!(split_udp(&damaged), Err(UdpHeaderError::AddressType));
    }
}
