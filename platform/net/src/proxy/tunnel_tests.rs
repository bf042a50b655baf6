use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tsrs_base_types::Redacted;

use super::*;

fn credentials() -> Credentials {
    Credentials { user: Redacted::new("user".to_owned()), password: Redacted::new("pass".to_owned()) }
}

/// Runs one side against a proxy that expects and answers in turn.
async fn against<F>(script: &[(&[u8], &[u8])], client: impl FnOnce(Stream) -> F) -> Result<Stream, ProxyError>
where
    F: Future<Output = Result<Stream, ProxyError>>,
{
    let (near, mut far) = tokio::io::duplex(1024);
    let proxy = async {
        for (expected, answer) in script {
            let mut got = vec![0; expected.len()];
            if far.read_exact(&mut got).await.is_err() {
                return;
            }
            assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string());
            far.write_all(answer).await.unwrap();
        }
        drop(far);
    };
    tokio::join!(client(Box::new(near)), proxy).0
}

#[tokio::test]
async fn connect_sends_credentials_and_keeps_early_bytes() {
    let request =
        b"CONNECT hs.test:443 HTTP/1.1\r\nHost: hs.test:443\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n";
    let script = [(request.as_slice(), b"HTTP/1.1 200 Connection established\r\n\r\nearly".as_slice())];
    let credentials = credentials();
    let mut stream =
        against(&script, |stream| http_connect(stream, "hs.test", 443, Some(&credentials))).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "early");
}

#[tokio::test]
async fn connect_refusals_are_told_apart() {
    let request = b"CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n".as_slice();
    for (answer, expected) in [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".as_slice(), ProxyError::Credentials),
        (
            b"HTTP/1.1 403 Forbidden\r\n\r\n",
            ProxyError::Refused { target: "h:1".to_owned(), answer: "HTTP status 403".to_owned() },
        ),
        (b"garbage\r\n\r\n", ProxyError::Protocol("it does not speak HTTP/1.1".to_owned())),
        (b"", ProxyError::Protocol("it closed the connection without an answer".to_owned())),
    ] {
        let outcome = against(&[(request, answer)], |stream| http_connect(stream, "h", 1, None)).await;
        assert_eq!(outcome.err(), Some(expected));
    }
}

#[tokio::test]
async fn socks5_lets_the_proxy_resolve_the_name() {
    let script = [
        (b"\x05\x01\x02".as_slice(), b"\x05\x02".as_slice()),
        (b"\x01\x04user\x04pass", b"\x01\0"),
        (b"\x05\x01\0\x03\x07hs.test\x01\xbb", b"\x05\0\0\x03\x01p\0\x50rest"),
    ];
    let credentials = credentials();
    let mut stream =
        against(&script, |stream| socks5_connect(stream, "hs.test", 443, Some(&credentials))).await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "rest");
}

#[tokio::test]
async fn socks5_refusals_are_told_apart() {
    let hello = (b"\x05\x01\0".as_slice(), b"\x05\0".as_slice());
    let connect = b"\x05\x01\0\x01\xc0\0\x02\x01\0\x50".as_slice();
    for (script, expected) in [
        (vec![(hello.0, b"\x05\xff".as_slice())], ProxyError::Credentials),
        (
            vec![hello, (connect, b"\x05\x02\0\x01\0\0\0\0\0\0")],
            ProxyError::Refused { target: "192.0.2.1:80".to_owned(), answer: "SOCKS5 reply 2".to_owned() },
        ),
        (vec![hello, (connect, b"\x04\0\0\x01")], ProxyError::Protocol("not SOCKS5".to_owned())),
        (vec![hello, (connect, b"\x05\0\0\x09")], ProxyError::Protocol("unknown address type".to_owned())),
    ] {
        let outcome = against(&script, |stream| socks5_connect(stream, "192.0.2.1", 80, None)).await;
        assert_eq!(outcome.err(), Some(expected));
    }
}
