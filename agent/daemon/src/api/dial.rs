//! `dial`: a TCP connection into the tailnet for a client, such as `nc` (client sheet §2.2).
//!
//! Only addresses of the tailnet are dialled, and by a socket without a mark, so that it goes by the host's routes into the
//! tunnel as any program's would. For everything else the caller is told to dial itself, with its own rights.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tsrs_agent_core::agent::Snapshot;
use tsrs_agent_core::status::is_running;
use tsrs_agent_localapi::requests::dial as names;
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::Node;
use tsrs_tunnel_dns::Name;

use super::request::Call;
use super::response::{self, Answer, Outcome, Refused};

/// How long a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn dial(mut call: Call) -> Outcome {
    let upgrades = call.header(CONNECTION.as_str()).split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade"));
    if !upgrades || !call.header(UPGRADE.as_str()).eq_ignore_ascii_case(names::UPGRADE) {
        return Err(Refused::bad("bad ts-dial upgrade"));
    }
    let (host, port) = (call.header(names::HOST).to_owned(), call.header(names::PORT).to_owned());
    if host.is_empty() || port.is_empty() {
        return Err(Refused::bad("missing Dial-Host or Dial-Port header"));
    }
    let network = match call.header(names::NETWORK) {
        "" | "tcp" | "tcp4" => "tcp",
        network => return Err(failure(&format!("dial {network}: unknown network {network}"))),
    };
    let port: u16 = port.parse().map_err(|_| failure(&format!("dial {network}: invalid port {port}")))?;
    let to = match target(&call.snapshot, &host) {
        Target::Tailnet(ip) => SocketAddrV4::new(ip, port),
        Target::Elsewhere => return Ok(dial_self(&host, port)),
        Target::Unreachable(why) => return Err(failure(&format!("dial {network} {host}:{port}: {why}"))),
    };
    let opened = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(to)).await;
    let mut far = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| {
        tracing::debug!(%error, "a connection into the tailnet failed");
        failure(&format!("dial {network} {to}: {}", words(&error)))
    })?;
    let upgrade = hyper::upgrade::on(&mut call.request);
    call.connection.set_relay(Box::pin(async move {
        match upgrade.await {
            Ok(near) => {
                if let Err(error) = copy_bidirectional(&mut TokioIo::new(near), &mut far).await {
                    tracing::debug!(%error, "a connection into the tailnet broke");
                }
            }
            Err(error) => tracing::debug!(%error, "a client left before its connection was open"),
        }
    }));
    let mut answer: Answer = Response::new(Default::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(UPGRADE, HeaderValue::from_static(names::UPGRADE));
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    Ok(answer)
}

fn failure(why: &str) -> Refused {
    Refused::text(StatusCode::BAD_GATEWAY, format!("dial failure: {why}"))
}

/// What scripts know from the official daemon.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    }
}

fn dial_self(host: &str, port: u16) -> Answer {
    let mut answer = response::empty(StatusCode::OK);
    let at = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    if let Ok(at) = HeaderValue::from_str(&at) {
        answer.headers_mut().insert(HeaderName::from_static("dial-self"), HeaderValue::from_static("true"));
        answer.headers_mut().insert(HeaderName::from_static("dial-addr"), at);
    }
    answer
}

/// Where a connection would go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// To this address, through the tunnel.
    Tailnet(Ipv4Addr),
    /// Not through the tunnel.
    Elsewhere,
    /// Into the tailnet, but it cannot.
    Unreachable(&'static str),
}

fn target(snapshot: &Snapshot, host: &str) -> Target {
    let Some(netmap) = &snapshot.netmap else { return Target::Elsewhere };
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let node = match literal {
        Ok(ip) => peer_for(netmap, ip, snapshot.prefs.route_all),
        Err(_) => peer_named(netmap, host),
    };
    let Some(node) = node else { return Target::Elsewhere };
    if !is_running(snapshot) {
        return Target::Unreachable("not connected to the tailnet");
    }
    match literal {
        Ok(IpAddr::V4(ip)) => Target::Tailnet(ip),
        // Only IPv4 is carried; a peer has both, a host in a subnet is not ours to translate.
        Ok(IpAddr::V6(ip)) if !node.addresses.iter().any(|net| net.addr() == ip) => {
            Target::Unreachable("only IPv4 is carried")
        }
        Ok(IpAddr::V6(_)) | Err(_) => v4_address(node).map_or(Target::Unreachable("the peer has no IPv4 address"), Target::Tailnet),
    }
}

/// The peer with this address, or where subnet routes are accepted the peer with the longest route to it. A default route
/// is no route into the tailnet. Our own addresses belong to no peer.
pub(super) fn peer_for(netmap: &Netmap, ip: IpAddr, accept_routes: bool) -> Option<&Node> {
    if let Some(node) = netmap.node_by_addr(ip) {
        return (node.id != netmap.self_node().id).then_some(node.as_ref());
    }
    let routes = netmap.peers().iter().filter(|_| accept_routes).flat_map(|node| {
        let covering = node.routes().iter().filter(move |net| net.prefix_len() > 0 && net.contains(&ip));
        covering.map(move |net| (net.prefix_len(), node.as_ref()))
    });
    routes.max_by_key(|(len, _)| *len).map(|(_, node)| node)
}

/// The peer with this MagicDNS name, with or without the tailnet's suffix.
fn peer_named<'a>(netmap: &'a Netmap, host: &str) -> Option<&'a Node> {
    let host = Name::parse(host).ok().filter(|name| !name.is_root())?;
    let suffix = netmap.magic_dns_suffix();
    let whole = Name::parse(&format!("{}.{suffix}", String::from_utf8_lossy(host.as_bytes()))).ok();
    let single = host.labels().count() == 1;
    netmap
        .peers()
        .iter()
        .find(|node| {
            Name::parse(&node.name).is_ok_and(|name| name == host || (single && whole.as_ref() == Some(&name)))
        })
        .map(AsRef::as_ref)
}

/// The peer's own IPv4 address.
pub(super) fn v4_address(node: &Node) -> Option<Ipv4Addr> {
    node.addresses.iter().find_map(|net| match net.addr() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    })
}
