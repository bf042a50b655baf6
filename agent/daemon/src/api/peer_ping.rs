//! `ping`: four kinds of sign of life (client sheet §1.6).

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use rand_core::{OsRng, RngCore};
use tsrs_agent_core::status::is_running;
use tsrs_agent_localapi::{PingKind, PingResult};
use tsrs_control_netmap::Netmap;
use tsrs_control_tailcfg::{Node, Service};

use super::request::Asked;
use super::{Answer, Api};
use crate::tunnel::{NO_REPLY, Pong, Probe};
use crate::tunnel_net;

/// How long an answer is waited for. Clients give up after five seconds themselves.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a call is held open after a probe got no answer. The official client stops at an answer that holds an error,
/// and sends the next probe when its own time is over.
const HOLD: Duration = Duration::from_secs(20);

impl Api {
    pub(super) async fn ping(&self, asked: &Asked) -> Answer {
        let (ip, kind, size) = match parameters(asked) {
            Ok(parameters) => parameters,
            Err(text) => return Answer::text(400, text),
        };
        let mut result = PingResult { ip: ip.to_string(), ..PingResult::default() };
        let snapshot = self.backend.snapshot();
        // Without the tunnel a probe would leave by another way.
        let Some(netmap) = snapshot.netmap.clone().filter(|_| is_running(&snapshot)) else {
            result.err = "not connected to the tailnet".to_owned();
            return Answer::json(&result);
        };
        if netmap.self_node().addresses.iter().any(|net| net.addr() == ip) {
            result.err = format!("{ip} is local Tailscale IP");
            result.is_local_ip = true;
            return Answer::json(&result);
        }
        let Some(node) = peer_for(&netmap, ip) else {
            result.err = "no matching peer".to_owned();
            return Answer::json(&result);
        };
        result.node_ip = ip.to_string();
        result.node_name.clone_from(&node.computed_name);
        match self.probe(&node, ip, kind, size, &mut result).await {
            Ok(pong) => {
                result.latency_seconds = pong.latency_seconds;
                result.endpoint = pong.endpoint.map(|addr| addr.to_string()).unwrap_or_default();
                result.peer_api_port = pong.peer_api_port;
                if let Some(region) = pong.derp {
                    result.derp_region_id = region.0;
                    let code = netmap.derp_map().region(region).map(|region| region.region_code.clone());
                    result.derp_region_code = code.unwrap_or_default();
                }
            }
            Err(text) if text == NO_REPLY => {
                tokio::time::sleep(HOLD).await;
                return Answer::error(StatusCode::INTERNAL_SERVER_ERROR, text.as_str());
            }
            Err(text) => result.err = text,
        }
        Answer::json(&result)
    }

    async fn probe(
        &self,
        node: &Node,
        ip: IpAddr,
        kind: PingKind,
        size: usize,
        result: &mut PingResult,
    ) -> Result<Pong, String> {
        match kind {
            PingKind::Disco => self.tunnel.ping(node.key, Probe::Disco { size }).await,
            PingKind::Tsmp => self.tunnel.ping(node.key, Probe::Tsmp).await,
            PingKind::Icmp => self.icmp(ipv4(ip)?).await,
            PingKind::PeerApi => {
                let (address, url) = peer_api(node).ok_or("no PeerAPI available for this peer")?;
                result.node_name.clone_from(&node.name);
                result.peer_api_url = url;
                let time = tunnel_net::peer_api_round_trip(&self.tun_name, address, LIMIT).await;
                time.map(|time| Pong { latency_seconds: time.as_secs_f64(), ..Pong::default() })
                    .map_err(words)
            }
        }
    }

    async fn icmp(&self, ip: Ipv4Addr) -> Result<Pong, String> {
        if !self.routes.lead_to(ip) {
            return Err("no matching peer".to_owned());
        }
        let (tun, id) = (self.tun_name.clone(), OsRng.next_u32().to_le_bytes());
        let id = u16::from_le_bytes([id[0], id[1]]);
        let asking = tokio::task::spawn_blocking(move || tunnel_net::icmp_round_trip(&tun, ip, id, LIMIT));
        let time = asking.await.map_err(|error| error.to_string())?;
        time.map(|time| Pong { latency_seconds: time.as_secs_f64(), ..Pong::default() }).map_err(words)
    }
}

fn words(error: std::io::Error) -> String {
    let late = [std::io::ErrorKind::TimedOut, std::io::ErrorKind::WouldBlock].contains(&error.kind());
    if late { NO_REPLY.to_owned() } else { error.to_string() }
}

fn parameters(asked: &Asked) -> Result<(IpAddr, PingKind, usize), &'static str> {
    let ip = match asked.param("ip") {
        "" => return Err("missing 'ip' parameter"),
        text => text.parse().map_err(|_| "invalid IP")?,
    };
    // The official daemon never answers an unknown kind; saying so is better than a request that hangs.
    let kind = match asked.param("type") {
        "" => return Err("missing 'type' parameter"),
        word => word.parse().map_err(|_| "unknown 'type' parameter")?,
    };
    let size: i64 = match asked.param("size") {
        "" => 0,
        text => text.parse().map_err(|_| "invalid 'size' parameter")?,
    };
    if size != 0 && kind != PingKind::Disco {
        return Err("'size' parameter is only supported with disco pings");
    }
    Ok((ip, kind, usize::try_from(size).unwrap_or(0)))
}

fn ipv4(ip: IpAddr) -> Result<Ipv4Addr, String> {
    match ip {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => Err("IPv6 is not carried".to_owned()),
    }
}

/// The peer with this address, or else the one that routes it.
fn peer_for(netmap: &Netmap, ip: IpAddr) -> Option<Arc<Node>> {
    if let Some(node) = netmap.peers().by_addr(ip) {
        return Some(Arc::clone(node));
    }
    let mut best: Option<(u8, &Arc<Node>)> = None;
    for node in netmap.peers().iter() {
        for net in node.routes().iter().filter(|net| net.prefix_len() > 0 && net.contains(&ip)) {
            if best.is_none_or(|(len, _)| net.prefix_len() > len) {
                best = Some((net.prefix_len(), node));
            }
        }
    }
    best.map(|(_, node)| Arc::clone(node))
}

fn peer_api(node: &Node) -> Option<(SocketAddrV4, String)> {
    let services = &node.hostinfo.as_ref()?.services;
    let port = services.iter().find(|service| service.proto == Service::PEER_API4)?.port;
    let address = *tsrs_agent_core::wanted::own_addresses(node).first()?;
    let address = SocketAddrV4::new(address, port);
    Some((address, format!("http://{address}")))
}
