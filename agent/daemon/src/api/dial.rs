//! `dial`: a TCP connection into the tailnet for `nc` and `ssh` (client sheet §2.2).
//!
//! Only addresses that the tunnel's routes lead to are dialled, on a socket bound to the tunnel. For anything else the
//! caller is told to dial itself, with its own rights and its own way out.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tsrs_agent_core::wanted::own_addresses;
use tsrs_agent_localapi::requests::dial as names;
use tsrs_control_netmap::Netmap;
use tsrs_tunnel_dns::{Name, QueryType};

use super::misc::header_name;
use super::request::Asked;
use super::{Answer, Api, Caller};
use crate::tunnel_net;

/// How long a connection may take to open.
const LIMIT: Duration = Duration::from_secs(10);

impl Api {
    pub(super) async fn dial(&self, asked: Asked, caller: &Caller) -> Answer {
        let Some(wanted) = Wanted::read(asked.headers()) else {
            return Answer::text(400, "bad ts-dial upgrade");
        };
        if wanted.network != "tcp" {
            let text = format!("dial failure: dial {0}: unknown network {0}", wanted.network);
            return Answer::text(502, &text);
        }
        let address = match self.resolve(&wanted.host).await {
            Ok(address) => SocketAddrV4::new(address, wanted.port),
            Err(text) => return Answer::text(502, &format!("resolve failure: {text}")),
        };
        if !self.routes.lead_to(*address.ip()) {
            // Outside the tunnel, an address of tailnets would be looked for at the provider of this host.
            if self.routes.are_missing_for(*address.ip()) {
                return Answer::text(502, &format!("dial failure: dial tcp {address}: not in the tailnet"));
            }
            return dial_yourself(address);
        }
        match tunnel_net::connect(&self.tun_name, address, LIMIT).await {
            Ok(stream) => upgraded(asked, stream, caller),
            Err(error) => Answer::text(502, &format!("dial failure: dial tcp {address}: {}", words(&error))),
        }
    }

    /// The address of a host: a literal, a name of the tailnet in full or in short, or whatever our resolver says.
    async fn resolve(&self, host: &str) -> Result<Ipv4Addr, String> {
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => return Ok(address),
            Ok(IpAddr::V6(address)) => return Err(format!("{address}: IPv6 is not carried")),
            Err(_) => {}
        }
        let netmap = self.backend.snapshot().netmap.clone();
        if let Some(address) = netmap.as_ref().and_then(|netmap| of_the_tailnet(netmap, host)) {
            return Ok(address);
        }
        let unknown = || format!("lookup {host}: no such host");
        let name = Name::parse(host).map_err(|_| unknown())?;
        let dns = self.dns.as_ref().ok_or_else(unknown)?;
        let (message, _) =
            dns.ask(name, QueryType::A).await.map_err(|error| format!("lookup {host}: {error}"))?;
        first_address(&message).ok_or_else(unknown)
    }
}

struct Wanted {
    host: String,
    port: u16,
    network: String,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let upgrade = text(UPGRADE.as_str())?.eq_ignore_ascii_case(names::UPGRADE);
        let connection = text(CONNECTION.as_str())?.to_ascii_lowercase().contains("upgrade");
        if !upgrade || !connection {
            return None;
        }
        let host = text(names::HOST).filter(|host| !host.is_empty())?.to_owned();
        let port = text(names::PORT)?.parse().ok()?;
        let network = text(names::NETWORK).filter(|network| !network.is_empty()).unwrap_or("tcp").to_owned();
        Some(Self { host, port, network })
    }
}

fn of_the_tailnet(netmap: &Netmap, host: &str) -> Option<Ipv4Addr> {
    let host = host.trim_end_matches('.');
    let suffix = netmap.magic_dns_suffix();
    let named = |name: &str| {
        let name = name.trim_end_matches('.');
        let short = name.strip_suffix(suffix).map(|short| short.trim_end_matches('.'));
        name.eq_ignore_ascii_case(host) || short.is_some_and(|short| short.eq_ignore_ascii_case(host))
    };
    let mut nodes = std::iter::once(netmap.self_node()).chain(netmap.peers().iter());
    let node = nodes.find(|node| !node.name.is_empty() && named(&node.name))?;
    own_addresses(node).first().copied()
}

/// The first A record of an answer (RFC 1035 §4.1).
fn first_address(message: &[u8]) -> Option<Ipv4Addr> {
    let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
    let (questions, answers) = (word(4)?, word(6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = skip_name(message, at)? + 4;
    }
    for _ in 0..answers {
        at = skip_name(message, at)?;
        let (kind, len) = (word(at)?, usize::from(word(at + 8)?));
        let data = message.get(at + 10..at + 10 + len)?;
        if kind == QueryType::A.0 {
            return <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        }
        at += 10 + len;
    }
    None
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            len => at += 1 + len,
        }
    }
}

fn dial_yourself(address: SocketAddrV4) -> Answer {
    let mut answer = Answer::empty(StatusCode::OK);
    for (name, value) in [(names::SELF, "true".to_owned()), (names::ADDR, address.to_string())] {
        if let (Some(name), Ok(value)) = (header_name(name), HeaderValue::from_str(&value)) {
            answer = answer.header(name, value);
        }
    }
    answer
}

/// 101, then bytes in both directions until both sides are done.
fn upgraded(asked: Asked, mut stream: TcpStream, caller: &Caller) -> Answer {
    let mut request = asked.into_request();
    let upgrade = hyper::upgrade::on(&mut request);
    caller.set_relay(Box::pin(async move {
        match upgrade.await {
            Ok(upgraded) => {
                // How it ends is between the two sides.
                let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut stream).await;
            }
            Err(error) => tracing::debug!(%error, "a dialled connection was not taken"),
        }
    }));
    Answer::empty(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, HeaderValue::from_static("upgrade"))
        .header(UPGRADE, HeaderValue::from_static(names::UPGRADE))
}

/// A failure in the words that Go uses, which users know from `nc`.
fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let known = [
        (ConnectionRefused, "connect: connection refused"),
        (TimedOut, "i/o timeout"),
        (HostUnreachable, "connect: no route to host"),
        (NetworkUnreachable, "connect: network is unreachable"),
    ];
    let found = known.iter().find(|(kind, _)| error.kind() == *kind);
    found.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned())
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    #[test]
    fn the_first_address_of_an_answer_is_read_and_garbage_gives_none() {
        let captured = BASE64
            .decode(b"AAGFgAABAAEAAAAABGJldGEDbGFiBHRlc3QAAAEAAQRiZXRhA2xhYgR0ZXN0AAABAAEAAAAFAARkQAAB");
        let message = captured.unwrap();
        assert_eq!(first_address(&message), Some(Ipv4Addr::new(100, 64, 0, 1)));
        for len in 0..message.len() {
            assert_eq!(first_address(&message[..len]), None, "{len}");
        }
        assert_eq!(first_address(&[0xff; 64]), None);
    }

    #[test]
    fn only_a_whole_upgrade_is_one() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (header_name(name).unwrap(), HeaderValue::from_static(value)))
                .collect()
        };
        let good =
            [("upgrade", "ts-dial"), ("connection", "upgrade"), ("dial-host", "beta"), ("dial-port", "22")];
        let read = Wanted::read(&headers(&good)).unwrap();
        assert_eq!((read.host.as_str(), read.port, read.network.as_str()), ("beta", 22, "tcp"));
        for missing in 0..good.len() {
            let mut pairs = good.to_vec();
            pairs.remove(missing);
            assert!(Wanted::read(&headers(&pairs)).is_none());
        }
        let mut wrong = good;
        wrong[0].1 = "x";
        assert!(Wanted::read(&headers(&wrong)).is_none());
    }
}
