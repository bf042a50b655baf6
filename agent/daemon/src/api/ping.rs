//! `ping` and `netcheck`: probes to peers and of the network (client sheet §2.2, row `ping`).

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tsrs_agent_core::agent::Snapshot;
use tsrs_agent_core::status::is_running;
use tsrs_agent_localapi::{PingKind, PingResult};
use tsrs_control_tailcfg::{Node, Service};

use super::dial::{peer_for, v4_address};
use super::icmp;
use super::request::Call;
use super::response::{self, Outcome, Refused};
use crate::ask::{Ask, AskSender, Failure, Pong, Probe};

/// Largest padded probe: the payload of the largest UDP datagram over IPv4.
const MAX_SIZE: usize = 65_507;

/// How long a probe outside the engine waits for its answer. The official client gives up after five seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// How long a call is held open after a probe got no answer. Clients that see an answer with an error stop pinging; one
/// that times out by itself sends the next probe.
const HOLD: Duration = Duration::from_secs(20);

/// How much of a PeerAPI's answer is read: the first line says enough.
const MAX_PEER_API_ANSWER: usize = 4096;

/// Why a probe failed.
enum Failed {
    /// The user sees this.
    Told(String),
    /// Nobody answered.
    NoAnswer,
}

pub(super) async fn ping(call: Call) -> Outcome {
    let ip: IpAddr = match call.query.value("ip") {
        "" => return Err(Refused::bad("missing 'ip' parameter")),
        text => text.parse().map_err(|_| Refused::bad("invalid IP"))?,
    };
    let kind: PingKind = match call.query.value("type") {
        "" => return Err(Refused::bad("missing 'type' parameter")),
        word => word.parse().map_err(|_| Refused::bad("unknown ping type"))?,
    };
    let size = match call.query.value("size") {
        "" => 0,
        // A negative one is taken as none.
        text => text.parse::<i64>().map_err(|_| Refused::bad("invalid 'size' parameter"))?.max(0),
    };
    let size = usize::try_from(size).ok().filter(|size| *size <= MAX_SIZE);
    let size = size.ok_or_else(|| Refused::bad("invalid 'size' parameter"))?;
    if size != 0 && kind != PingKind::Disco {
        return Err(Refused::bad("'size' parameter is only supported with disco pings"));
    }
    let blank = PingResult { ip: ip.to_string(), ..PingResult::default() };
    let node = match destination(&call.snapshot, ip) {
        Ok(node) => node,
        Err(refusal) => return response::json(&PingResult { ip: blank.ip, ..refusal }),
    };
    match probe(&call.api.asks, &call.snapshot, node, ip, kind, size).await {
        Ok(found) => response::json(&PingResult { ip: blank.ip, ..found }),
        Err(Failed::Told(err)) => {
            response::json(&PingResult { node_ip: node_ip(node), node_name: short_name(node), err, ..blank })
        }
        Err(Failed::NoAnswer) => {
            tokio::time::sleep(HOLD).await;
            Err(Refused::json(StatusCode::INTERNAL_SERVER_ERROR, "error", "context canceled"))
        }
    }
}

/// The peer behind an address, or the answer that says why there is none.
fn destination(snapshot: &Snapshot, ip: IpAddr) -> Result<&Node, PingResult> {
    let none = |err: String, is_local_ip| PingResult { err, is_local_ip, ..PingResult::default() };
    let netmap = snapshot.netmap.as_ref().filter(|_| is_running(snapshot));
    let netmap = netmap.ok_or_else(|| none("not connected to the tailnet".to_owned(), false))?;
    if netmap.self_node().addresses.iter().any(|net| net.addr() == ip) {
        return Err(none(format!("{ip} is local Tailscale IP"), true));
    }
    peer_for(netmap, ip, snapshot.prefs.route_all).ok_or_else(|| none("no matching peer".to_owned(), false))
}

async fn probe(
    asks: &AskSender,
    snapshot: &Snapshot,
    node: &Node,
    ip: IpAddr,
    kind: PingKind,
    size: usize,
) -> Result<PingResult, Failed> {
    let found = PingResult { node_ip: node_ip(node), node_name: short_name(node), ..PingResult::default() };
    match kind {
        PingKind::Disco | PingKind::Tsmp => {
            let probe = if kind == PingKind::Disco { Probe::Disco { size } } else { Probe::Tsmp };
            let pong = asks.ask(|reply| Ask::Ping(node.key, probe, reply)).await;
            let pong = pong.map_err(|failure| match failure {
                Failure::NoAnswer => Failed::NoAnswer,
                Failure::Refused(_)
                | Failure::NotSaved(_)
                | Failure::Control { .. }
                | Failure::Failed(_)
                | Failure::Ended => Failed::Told(failure.to_string()),
            })?;
            Ok(with_pong(found, pong, snapshot))
        }
        PingKind::Icmp => {
            let to = inner_v4(node, ip).ok_or_else(|| Failed::Told("the peer has no IPv4 address".into()))?;
            let latency_seconds = timed(icmp::echo(to)).await?;
            Ok(PingResult { latency_seconds, ..found })
        }
        PingKind::PeerApi => {
            let port = node.hostinfo.as_ref().and_then(|host| {
                host.services.iter().find(|service| service.proto == Service::PEER_API4).map(|service| service.port)
            });
            let (to, port) = v4_address(node).zip(port).ok_or_else(|| Failed::Told("peer has no PeerAPI".into()))?;
            let at = SocketAddrV4::new(to, port);
            let latency_seconds = timed(ask_peer_api(at)).await?;
            let peer_api_url = format!("http://{at}");
            Ok(PingResult { latency_seconds, peer_api_url, node_name: node.name.clone(), ..found })
        }
    }
}

fn with_pong(found: PingResult, pong: Pong, snapshot: &Snapshot) -> PingResult {
    let region = pong.derp.and_then(|id| {
        snapshot.netmap.as_ref().and_then(|netmap| netmap.derp_map().region(id).map(|region| region.region_code.clone()))
    });
    PingResult {
        latency_seconds: pong.latency_seconds,
        endpoint: pong.endpoint.as_ref().map(SocketAddr::to_string).unwrap_or_default(),
        derp_region_id: pong.derp.map_or(0, |id| i64::from(id.0)),
        derp_region_code: region.unwrap_or_default(),
        peer_api_port: pong.peer_api_port,
        ..found
    }
}

/// The address that was asked for, or the peer's IPv4 address where that is none: only IPv4 is carried.
fn inner_v4(node: &Node, ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => v4_address(node),
    }
}

fn node_ip(node: &Node) -> String {
    node.addresses.first().map(|net| net.addr().to_string()).unwrap_or_default()
}

/// The peer's name without the tailnet's suffix.
fn short_name(node: &Node) -> String {
    node.computed_name.clone()
}

/// Seconds until the probe succeeds.
async fn timed(probe: impl Future<Output = std::io::Result<()>>) -> Result<f64, Failed> {
    let began = Instant::now();
    match tokio::time::timeout(ANSWER_LIMIT, probe).await {
        Ok(Ok(())) => Ok(began.elapsed().as_secs_f64()),
        Ok(Err(error)) => Err(Failed::Told(error.to_string())),
        Err(_) => Err(Failed::NoAnswer),
    }
}

/// Asks for a PeerAPI's front page. The socket has no mark, so that it goes by the host's routes into the tunnel.
async fn ask_peer_api(at: SocketAddrV4) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(at).await?;
    let request = format!("GET / HTTP/1.1\r\nHost: {at}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; MAX_PEER_API_ANSWER];
    let mut len = 0;
    while len < answer.len() && !answer[..len].contains(&b'\n') {
        match stream.read(&mut answer[len..]).await? {
            0 => break,
            more => len += more,
        }
    }
    match answer[..len].starts_with(b"HTTP/1.1 200 ") || answer[..len].starts_with(b"HTTP/1.0 200 ") {
        true => Ok(()),
        false => Err(std::io::Error::other("the PeerAPI gave no good answer")),
    }
}

/// The engine's own report, in the shape of `netcheck --format=json`.
pub(super) async fn netcheck(call: Call) -> Outcome {
    response::json(&call.api.asks.ask(Ask::Netcheck).await?)
}
