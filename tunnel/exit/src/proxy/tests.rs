use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::*;
use crate::test_support::admitted;

mod credentials;
mod http;
mod socks5;
mod time;

const PROXY: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 8);

fn socks5() -> ProxyUrl {
    "socks5://11.0.0.8:1080".parse().unwrap()
}

fn http() -> ProxyUrl {
    "http://11.0.0.8:3128".parse().unwrap()
}

/// 11.1.2.3:443.
fn connect() -> Purpose {
    Purpose::Connect(admitted("11.1.2.3:443"))
}

const ASSOCIATE: Purpose = Purpose::Associate { proxy: PROXY };

fn login() -> Credentials {
    Credentials::parse(b"user:pass").unwrap()
}

/// Plays a proxy that expects and answers in turn, in pieces of `piece_len` bytes. Gives the outcome and how many bytes of the last answer
/// belong to the destination.
fn play(
    proxy: &ProxyUrl,
    purpose: Purpose,
    credentials: Option<&Credentials>,
    script: &[(&[u8], &[u8])],
    piece_len: usize,
) -> Result<Option<(Outcome, usize)>, ProxyError> {
    let now = Instant::now();
    let mut handshake = Handshake::new(proxy, purpose, credentials, now)?;
    for (expected, answer) in script {
        let sent = handshake.poll_transmit().expect("it has something to say");
        assert_eq!(sent.expose().escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert!(handshake.poll_transmit().is_none());
        let mut at = 0;
        for piece in answer.chunks(piece_len) {
            match handshake.handle_input(piece, now)? {
                Step::Pending => at += piece.len(),
                Step::Done { consumed, outcome } => return Ok(Some((outcome, answer.len() - at - consumed))),
            }
        }
    }
    Ok(None)
}

/// The same for every size of pieces; all must come to the same end.
fn play_all(
    proxy: &ProxyUrl,
    purpose: Purpose,
    credentials: Option<&Credentials>,
    script: &[(&[u8], &[u8])],
) -> Result<Option<(Outcome, usize)>, ProxyError> {
    let whole = play(proxy, purpose, credentials, script, usize::MAX);
    let longest = script.iter().map(|(_, answer)| answer.len()).max().unwrap_or(0);
    for piece_len in 1..=longest {
        assert_eq!(play(proxy, purpose, credentials, script, piece_len), whole, "pieces of {piece_len}");
    }
    whole
}
