//! Opening a Noise connection: which ways are tried, and the HTTP upgrade on each (control protocol sheet §5).

use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use rand_core::OsRng;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tsrs_base_types::{MachinePrivate, MachinePublic};
use tsrs_control_tailcfg::{ControlDialPlan, ControlIpCandidate};
use tsrs_platform_net::{Dial, Net, Prefixed, Scheme, Stream, Verify, connect_tunnel, read_response_head};

use crate::error::Error;
use crate::noise::{HandshakeError, NoiseStream, initiate};
use crate::server::{Ports, ServerUrl};

/// What the connection is upgraded to.
const PROTOCOL: &str = "tailscale-control-protocol";
/// How long plain HTTP may take before TLS is tried beside it.
const TLS_DELAY: Duration = Duration::from_millis(500);
/// Candidates of a dial plan that are looked at.
const MAX_CANDIDATES: usize = 16;
/// Bounds on the time for everything; without a plan, the whole time.
const MIN_LIMIT: Duration = Duration::from_secs(5);
const MAX_LIMIT: Duration = Duration::from_secs(60);
const LIMIT_WITHOUT_PLAN: Duration = Duration::from_secs(10);
/// Time for a candidate that has none of its own.
const DEFAULT_CANDIDATE_LIMIT: Duration = Duration::from_secs(10);

/// A connection after the handshake.
pub(crate) type Transport = NoiseStream<Prefixed<Stream>>;

/// Opens connections to one server.
pub(crate) struct Dialer<'a> {
    pub(crate) net: &'a Net,
    pub(crate) server: &'a ServerUrl,
    pub(crate) machine_key: &'a MachinePrivate,
    pub(crate) server_key: &'a MachinePublic,
    pub(crate) version: u16,
    pub(crate) ports: Ports,
    /// Plain HTTP is left out where TLS is possible: a box on the way may have broken the last plain connection
    /// after its upgrade.
    pub(crate) skip_plain: bool,
}

impl Dialer<'_> {
    /// Connects by the plan, and by name when there is none or it fails.
    pub(crate) async fn connect(&self, plan: Option<&ControlDialPlan>) -> Result<Transport, Error> {
        let candidates: Vec<_> = plan.map(|plan| usable(&plan.candidates)).unwrap_or_default();
        let limit = whole_limit(&candidates);
        let connect = async {
            if !candidates.is_empty() {
                match self.try_candidates(&candidates).await {
                    Ok(transport) => return Ok(transport),
                    Err(error) => tracing::debug!(%error, "no candidate of the dial plan works"),
                }
            }
            self.race(&[]).await
        };
        let timed_out = |_| Err(Error::Timeout { what: "connecting", after: limit });
        timeout(limit, connect).await.unwrap_or_else(timed_out)
    }

    async fn try_candidates(&self, candidates: &[Candidate]) -> Result<Transport, Error> {
        let mut attempts: FuturesUnordered<_> =
            candidates.iter().map(|candidate| self.try_candidate(candidate)).collect();
        let mut errors = Vec::new();
        while let Some(outcome) = attempts.next().await {
            match outcome {
                Ok(transport) => return Ok(transport),
                Err(error) => errors.push(error),
            }
        }
        Err(Error::Attempts(errors))
    }

    async fn try_candidate(&self, candidate: &Candidate) -> Result<Transport, Error> {
        sleep(candidate.delay).await;
        let attempt = async {
            match &candidate.ace_host {
                Some(ace_host) => self.through_ace(ace_host, candidate.addresses()).await,
                None => self.race(candidate.addresses()).await,
            }
        };
        let timed_out = |_| Err(Error::Timeout { what: "connecting", after: candidate.limit });
        timeout(candidate.limit, attempt).await.unwrap_or_else(timed_out)
    }

    /// Plain HTTP, and TLS when that is slow or fails; the first success wins.
    async fn race(&self, addresses: &[Ipv4Addr]) -> Result<Transport, Error> {
        let Ports { http, https } = self.ports;
        match (http.filter(|_| https.is_none() || !self.skip_plain), https) {
            (Some(http), None) => self.plain(http, addresses).await,
            (None, Some(https)) => self.tls(https, addresses).await,
            (Some(http), Some(https)) => {
                let mut plain = pin!(self.plain(http, addresses));
                match timeout(TLS_DELAY, &mut plain).await {
                    Ok(Ok(transport)) => Ok(transport),
                    Ok(Err(first)) => self.tls(https, addresses).await.map_err(|second| both(first, second)),
                    Err(_) => match select(plain, pin!(self.tls(https, addresses))).await {
                        Either::Left((Ok(transport), _)) | Either::Right((Ok(transport), _)) => Ok(transport),
                        Either::Left((Err(first), tls)) => tls.await.map_err(|second| both(first, second)),
                        Either::Right((Err(second), plain)) => {
                            plain.await.map_err(|first| both(first, second))
                        }
                    },
                }
            }
            (None, None) => Err(Error::Attempts(Vec::new())),
        }
    }

    async fn plain(&self, port: u16, addresses: &[Ipv4Addr]) -> Result<Transport, Error> {
        let dial = Dial { addresses, ..Dial::new(Scheme::Http, self.server.host(), port) };
        let stream = self.net.dial(dial).await?;
        self.upgrade(stream, port).await
    }

    async fn tls(&self, port: u16, addresses: &[Ipv4Addr]) -> Result<Transport, Error> {
        let host = self.server.host();
        let stream = self.net.dial(Dial { addresses, ..Dial::new(Scheme::Https, host, port) }).await?;
        // Noise authenticates the server; TLS only gets us through boxes on the way.
        let stream = self.net.tls(stream, host, Verify::WarnOnly).await?;
        if let Some(warning) = stream.warning() {
            tracing::warn!(%warning, "certificate of the control server; going on, since Noise authenticates it");
        }
        self.upgrade(Box::new(stream), port).await
    }

    /// Through a proxy of the operator. The environment's proxies are not used for it.
    async fn through_ace(&self, ace_host: &str, addresses: &[Ipv4Addr]) -> Result<Transport, Error> {
        let (host, port) = (self.server.host(), self.ports.http.unwrap_or(80));
        let dial = Dial { addresses, proxies: false, ..Dial::new(Scheme::Https, ace_host, 443) };
        let stream = self.net.dial(dial).await?;
        let stream = self.net.tls(stream, ace_host, Verify::Normal).await?;
        let stream = connect_tunnel(Box::new(stream), ace_host, host, port).await?;
        self.upgrade(stream, port).await
    }

    /// Sends the initiation in an HTTP upgrade, and ends the handshake on what the connection becomes.
    async fn upgrade(&self, mut stream: Stream, port: u16) -> Result<Transport, Error> {
        let target = format!("{}:{port}", self.server.host());
        let handshake = |error| Error::Handshake { error, version: self.version };
        let (initiated, initiation) =
            initiate(self.machine_key, self.server_key, self.version, &mut OsRng).map_err(handshake)?;
        let request = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: {target}\r\nConnection: upgrade\r\nUpgrade: {PROTOCOL}\r\n\
             X-Tailscale-Handshake: {}\r\nContent-Length: 0\r\n\r\n",
            BASE64.encode(&initiation)
        );
        let broken = |error| handshake(HandshakeError::Io(error));
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let (head, rest) = read_response_head(&mut stream)
            .await
            .map_err(|reason| Error::UpgradeAnswer { target: target.clone(), reason })?;
        let upgraded = head.header("Upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL));
        if head.status != 101 || !upgraded {
            return Err(Error::Upgrade { target, status: head.status });
        }
        let mut stream = Prefixed::new(rest, stream);
        let split = initiated.finish(&mut stream).await.map_err(handshake)?;
        Ok(NoiseStream::new(stream, &split.initiator_to_responder, &split.responder_to_initiator))
    }
}

/// Both ways failed. The one over TLS comes last, since it says most.
fn both(plain: Error, tls: Error) -> Error {
    Error::Attempts(vec![plain, tls])
}

/// One usable entry of a dial plan.
#[derive(Debug, PartialEq)]
struct Candidate {
    address: Option<Ipv4Addr>,
    ace_host: Option<String>,
    delay: Duration,
    limit: Duration,
}

impl Candidate {
    fn addresses(&self) -> &[Ipv4Addr] {
        self.address.as_slice()
    }
}

/// The entries that can be used: IPv6 addresses cannot, since the underlay is IPv4.
fn usable(candidates: &[ControlIpCandidate]) -> Vec<Candidate> {
    let seconds = |secs: f64| Duration::try_from_secs_f64(secs).ok().filter(|time| *time <= MAX_LIMIT);
    candidates
        .iter()
        .filter_map(|candidate| {
            let address = match candidate.ip {
                Some(IpAddr::V4(address)) => Some(address),
                Some(IpAddr::V6(_)) => return None,
                None => None,
            };
            let ace_host = Some(candidate.ace_host.clone()).filter(|host| !host.is_empty());
            if address.is_none() && ace_host.is_none() {
                return None;
            }
            let limit = seconds(candidate.dial_timeout_sec).filter(|limit| !limit.is_zero());
            Some(Candidate {
                address,
                ace_host,
                delay: seconds(candidate.dial_start_delay_sec).unwrap_or_default(),
                limit: limit.unwrap_or(DEFAULT_CANDIDATE_LIMIT),
            })
        })
        .take(MAX_CANDIDATES)
        .collect()
}

/// The longest candidate and 5 s for trying by name after it, 5 to 60 s in all.
fn whole_limit(candidates: &[Candidate]) -> Duration {
    let longest = candidates.iter().map(|candidate| candidate.delay + candidate.limit).max();
    longest.map_or(LIMIT_WITHOUT_PLAN, |longest| {
        (longest.max(MIN_LIMIT) + MIN_LIMIT).clamp(MIN_LIMIT, MAX_LIMIT)
    })
}

#[cfg(test)]
mod tests;
