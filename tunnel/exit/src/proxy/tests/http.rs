use super::*;

const REQUEST: &[u8] = b"CONNECT 11.1.2.3:443 HTTP/1.1\r\nHost: 11.1.2.3:443\r\n\r\n";

fn answer(bytes: &[u8]) -> Result<Option<(Outcome, usize)>, ProxyError> {
    play_all(&http(), connect(), None, &[(REQUEST, bytes)])
}

#[test]
fn a_stream_is_asked_for_by_address_and_begins_behind_the_head() {
    for (bytes, rest) in [
        (b"HTTP/1.1 200 Connection established\r\n\r\n".as_slice(), 0),
        (b"HTTP/1.0 200 OK\r\nProxy-agent: a/1\r\n\r\n", 0),
        (b"HTTP/1.1 200\r\n\r\n", 0),
        (b"HTTP/1.1 299 \r\nVia:\r\nX: \xe4\r\n\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 0),
    ] {
        assert_eq!(answer(bytes), Ok(Some((Outcome::Connected, rest))), "{}", bytes.escape_ascii());
        let more = [bytes, b"\x16\x03\x01\r\n\r\n"].concat();
        let ends = play(&http(), connect(), None, &[(REQUEST, &more)], usize::MAX);
        assert_eq!(ends, Ok(Some((Outcome::Connected, 7))));
    }
}

#[test]
fn credentials_go_along_by_rfc_7617() {
    let request = b"CONNECT 11.1.2.3:443 HTTP/1.1\r\nHost: 11.1.2.3:443\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n";
    let script: [(&[u8], &[u8]); 1] = [(request, b"HTTP/1.1 200 OK\r\n\r\n")];
    let ends = play_all(&http(), connect(), Some(&login()), &script);
    assert_eq!(ends, Ok(Some((Outcome::Connected, 0))));
}

#[test]
fn every_status_is_told_apart() {
    for status in 100..=599 {
        let bytes = format!("HTTP/1.1 {status} Reason\r\nContent-Length: 0\r\n\r\n").into_bytes();
        let expected = match status {
            101 => Err(ProxyError::Garbage(Garbage::StatusLine)),
            100..=199 => Ok(None),
            200..=299 => Ok(Some((Outcome::Connected, 0))),
            401 | 407 => Err(ProxyError::Credentials),
            other => Err(ProxyError::Refused(Reply::HttpStatus(other))),
        };
        let ends = play(&http(), connect(), None, &[(REQUEST, &bytes)], usize::MAX);
        assert_eq!(ends, expected, "{status}");
        let destination = matches!(status, 404 | 500 | 502 | 503 | 504);
        if let Err(error) = ends {
            assert_eq!(error.blame() == Blame::Destination, destination, "{status}");
        }
    }
}

#[test]
fn what_is_no_http_is_refused() {
    let garbage = |what| Err(ProxyError::Garbage(what));
    for bytes in [
        b"SSH-2.0-OpenSSH\r\n".as_slice(),
        b"\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/2 200 OK\r\n",
        b"HTTP/1.2 200 OK\r\n",
        b"HTTP/1.1  200 OK\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1 2000\r\n",
        b"HTTP/1.1 +20 OK\r\n",
        b"HTTP/1.1 099 OK\r\n",
        b"HTTP/1.1 600 OK\r\n",
        b"HTTP/1.1 200 O\0K\r\n",
        b"HTTP/1.1 200 O\rK\r\n",
        b"http/1.1 200 OK\r\n",
    ] {
        assert_eq!(answer(bytes), garbage(Garbage::StatusLine), "{}", bytes.escape_ascii());
    }
    for field in [
        b"no colon\r\n".as_slice(),
        b": no name\r\n",
        b" folded: x\r\n",
        b"\tfolded\r\n",
        b"blank : x\r\n",
        b"name: a\0b\r\n",
        b"name: a\rb\r\n",
        b"name: bare\n",
        b"\n",
        b"n\xe4me: x\r\n",
    ] {
        let bytes = [b"HTTP/1.1 200 OK\r\n", field].concat();
        assert_eq!(answer(&bytes), garbage(Garbage::Field), "{}", field.escape_ascii());
    }
}

#[test]
fn a_truncated_head_is_no_yes() {
    let whole = b"HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    for len in 0..whole.len() {
        assert_eq!(answer(&whole[..len]), Ok(None), "{len}");
    }
}

#[test]
fn endless_heads_are_cut_off_at_their_limits() {
    let garbage = |what| Err(ProxyError::Garbage(what));
    let play = |bytes: &[u8], piece_len| play(&http(), connect(), None, &[(REQUEST, bytes)], piece_len);
    for piece_len in [1, 100, 5000, usize::MAX] {
        let line = [b"HTTP/1.1 200 ".as_slice(), &[b'a'; MAX_HEAD_LEN]].concat();
        assert_eq!(play(&line, piece_len), garbage(Garbage::TooLong));
        let fields = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"A: b\r\n".repeat(MAX_FIELD_COUNT + 1)].concat();
        assert_eq!(play(&fields, piece_len), garbage(Garbage::TooManyFields));
        let interim = b"HTTP/1.1 100 Go on\r\n\r\n".repeat(MAX_INTERIM_COUNT + 1);
        assert_eq!(play(&interim, piece_len), garbage(Garbage::TooManyInterim));
    }
    let at_the_limits = [
        b"HTTP/1.1 100 Go on\r\n\r\n".repeat(MAX_INTERIM_COUNT),
        b"HTTP/1.1 200 OK\r\n".to_vec(),
        b"A: b\r\n".repeat(MAX_FIELD_COUNT),
        b"\r\n".to_vec(),
    ]
    .concat();
    assert_eq!(play(&at_the_limits, usize::MAX), Ok(Some((Outcome::Connected, 0))));
}

#[test]
fn health_asks_about_the_proxy_itself() {
    let request: &[u8] =
        b"TRACE http://11.0.0.8:3128/ HTTP/1.1\r\nHost: 11.0.0.8:3128\r\nMax-Forwards: 0\r\n\r\n";
    for (bytes, expected) in [
        (b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), Ok(Some((Outcome::Healthy, 0)))),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Ok(Some((Outcome::Healthy, 0)))),
        (b"HTTP/1.1 407 Who are you\r\n\r\n", Err(ProxyError::Credentials)),
        (b"garbage\r\n\r\n", Err(ProxyError::Garbage(Garbage::StatusLine))),
    ] {
        assert_eq!(play_all(&http(), Purpose::Health, None, &[(request, bytes)]), expected);
    }
}

#[test]
fn an_http_proxy_is_never_asked_for_udp() {
    let now = Instant::now();
    assert_eq!(Handshake::new(&http(), ASSOCIATE, None, now).err(), Some(ProxyError::NoUdp));
}
