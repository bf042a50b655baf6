//! What is served outside Noise.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand_core::{OsRng, RngCore};
use tokio::io::{AsyncRead, AsyncWrite};
use tsrs_base_noise::Secret;
use tsrs_base_types::{ChallengePublic, MachinePublic, NodePrivate};
use tsrs_control_tailcfg::{EarlyNoise, OverTlsPublicKeyResponse};

use super::body::{Answer, answer, collect, empty, endless, html, json, not_found, text};
use super::machine;
use super::{Rewind, read_head};
use crate::derp::{self, Hub};
use crate::fault::{FaultAction, FaultTarget};
use crate::noise::{self, NoiseStream};
use crate::shared::Shared;
use crate::tailnet::LOGIN_PATH;

/// Value of `Upgrade` for Noise.
const NOISE_PROTOCOL: &str = "tailscale-control-protocol";
/// Header with the Noise initiation.
const HANDSHAKE_HEADER: &str = "X-Tailscale-Handshake";
/// What stands in front of the early payload.
const EARLY_MAGIC: [u8; 5] = [0xff, 0xff, 0xff, b'T', b'S'];
/// Time that a connection has for its first request.
const HEAD_LIMIT: Duration = Duration::from_secs(15);

/// What one listener serves.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) shared: Arc<Shared>,
    /// Whether control is here.
    pub(crate) control: bool,
    /// The region whose DERP node is here.
    pub(crate) hub: Option<Arc<Hub>>,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S>(site: Site, mut stream: S) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (bytes, head_end) = tokio::time::timeout(HEAD_LIMIT, read_head(&mut stream)).await??;
    if let Some(hub) = &site.hub
        && let Some(upgrade) = derp::parse_upgrade(&bytes[..head_end])
        && !derp_fault(&site.shared, hub).await
    {
        return derp::serve(Arc::clone(hub), Rewind::new(bytes.slice(head_end..), stream), upgrade).await;
    }
    let service = hyper::service::service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.handle(request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        // A client that has said all it will say still gets its answer.
        .half_close(true)
        .serve_connection(TokioIo::new(Rewind::new(bytes, stream)), service)
        .with_upgrades()
        .await?;
    Ok(())
}

/// Applies a fault to a DERP request; `true` if it is to be answered by plain HTTP, which means refused.
async fn derp_fault(shared: &Shared, hub: &Hub) -> bool {
    match shared.faults.take(FaultTarget::Derp(hub.region)) {
        None => false,
        Some(FaultAction::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            false
        }
        Some(FaultAction::Hang) => std::future::pending().await,
        Some(FaultAction::Status { .. } | FaultAction::Garbage(_) | FaultAction::Endless) => true,
    }
}

/// Applies a fault to a request; an answer if there shall be no other.
pub(super) async fn fault(shared: &Shared, target: FaultTarget) -> Option<Answer> {
    match shared.faults.take(target)? {
        FaultAction::Status { code, retry_after, body } => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut refusal = text(status, body);
            if let Some(seconds) = retry_after {
                refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            Some(refusal)
        }
        FaultAction::Garbage(bytes) => Some(answer(StatusCode::OK, "application/json", bytes)),
        FaultAction::Endless => Some(endless()),
        FaultAction::Hang => std::future::pending().await,
        FaultAction::Delay(delay) => {
            tokio::time::sleep(delay).await;
            None
        }
    }
}

impl Site {
    async fn handle(self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        match (&method, path.as_str()) {
            (&Method::GET, "/generate_204") => return empty(StatusCode::NO_CONTENT),
            (&Method::GET | &Method::HEAD, "/derp/latency-check" | "/derp/probe") if self.hub.is_some() => {
                return empty(StatusCode::OK);
            }
            _ => {}
        }
        if !self.control {
            return not_found();
        }
        match (&method, path.as_str()) {
            (&Method::GET, "/key") => self.key(&request).await,
            (&Method::POST, "/ts2021") => self.upgrade(request).await,
            (&Method::GET, "/health") => json(&serde_json::json!({"status": "pass"})),
            (&Method::GET, "/") => html(front_page(&self.shared)),
            (_, "/machine/ping-response") => machine::ping_response(&self.shared, request).await,
            (_, login) if login.starts_with(LOGIN_PATH) => self.login_page(request).await,
            _ => not_found(),
        }
    }

    async fn key(&self, request: &Request<Incoming>) -> Answer {
        if let Some(refusal) = fault(&self.shared, FaultTarget::Key).await {
            return refusal;
        }
        let version = request.uri().query().and_then(|query| query_value(query, "v")?.parse::<u32>().ok());
        if version.is_none() {
            return text(StatusCode::BAD_REQUEST, "capability version must be set\n");
        }
        json(&OverTlsPublicKeyResponse {
            legacy_public_key: MachinePublic::default(),
            public_key: self.shared.key.public(),
        })
    }

    async fn upgrade(&self, mut request: Request<Incoming>) -> Answer {
        if let Some(refusal) = fault(&self.shared, FaultTarget::Upgrade).await {
            return refusal;
        }
        let headers = request.headers();
        let protocol = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok());
        let initiation = (headers.get(HANDSHAKE_HEADER))
            .and_then(|value| data_encoding::BASE64.decode(value.as_bytes()).ok());
        let (Some(NOISE_PROTOCOL), Some(initiation)) = (protocol, initiation) else {
            return text(StatusCode::BAD_REQUEST, "missing tailscale handshake\n");
        };
        let shared = Arc::clone(&self.shared);
        let mut cut = shared.cut.subscribe();
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let served = async {
                let stream = TokioIo::new(upgraded.await?);
                serve_noise(shared, stream, &initiation).await
            };
            tokio::select! {
                result = served => if let Err(error) = result {
                    tracing::debug!(%error, "Noise connection ended");
                },
                _ = cut.changed() => {}
            }
        });
        let mut switching = Response::new(super::body::full(""));
        *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        switching.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(NOISE_PROTOCOL));
        switching.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        switching
    }

    async fn login_page(&self, request: Request<Incoming>) -> Answer {
        let id = request.uri().path().trim_start_matches(LOGIN_PATH).to_owned();
        let Some(hostname) = self
            .shared
            .read(|tailnet| tailnet.pending.get(&id).map(|pending| pending.hostinfo.hostname.clone()))
        else {
            return text(StatusCode::NOT_FOUND, "no such login\n");
        };
        if request.method() != Method::POST {
            let users = self.shared.read(|tailnet| tailnet.users.clone());
            return html(login_form(&hostname, users.iter().map(|user| user.login.as_str())));
        }
        let form = collect(request.into_body()).await.unwrap_or_default();
        let form = String::from_utf8_lossy(&form).into_owned();
        let user = query_value(&form, "user").map(|user| user.replace("%40", "@").replace('+', " "));
        let refused = query_value(&form, "refuse").is_some();
        let user = if refused { None } else { Some(user.unwrap_or_default()) };
        self.shared.change(|tailnet| tailnet.decide_login(&id, user.as_deref(), jiff::Timestamp::now()));
        html(page("Done", if refused { "<p>The node was refused.</p>" } else { "<p>The node may join.</p>" }))
    }
}

async fn serve_noise<S>(shared: Arc<Shared>, stream: S, initiation: &[u8]) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut ephemeral = Secret::default();
    OsRng.fill_bytes(&mut *ephemeral);
    let accepted = noise::accept(&shared.key, &ephemeral, initiation)?;
    if accepted.version < machine::MIN_VERSION {
        anyhow::bail!("capability version {} is too old", accepted.version);
    }
    let mut stream = NoiseStream::new(stream, accepted.records, accepted.response);
    stream.queue(&early_payload()?)?;
    let connection = machine::Connection { shared, machine: accepted.machine };
    let service = hyper::service::service_fn(move |request| {
        let connection = connection.clone();
        async move { Ok::<_, Infallible>(connection.handle(request).await) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await?;
    Ok(())
}

/// A challenge that nobody answers; sent because servers in the field send it.
fn early_payload() -> Result<Vec<u8>> {
    let challenge = NodePrivate::generate(&mut OsRng).public();
    let early = EarlyNoise { node_key_challenge: ChallengePublic::from_bytes(*challenge.as_bytes()) };
    let body = serde_json::to_vec(&early)?;
    let mut payload = EARLY_MAGIC.to_vec();
    payload.extend_from_slice(&u32::try_from(body.len())?.to_be_bytes());
    payload.extend_from_slice(&body);
    Ok(payload)
}

/// A value of a query or form, not decoded.
pub(super) fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

fn front_page(shared: &Shared) -> String {
    let count = shared.read(|tailnet| tailnet.nodes.len());
    page("Lab control", &format!("<p>{count} nodes.</p>"))
}

fn login_form<'a>(hostname: &str, users: impl Iterator<Item = &'a str>) -> String {
    let options: String = users.map(|user| format!("<option>{}</option>", escape(user))).collect();
    page(
        "Let a node join",
        &format!(
            "<form method=\"post\"><p>The host <b>{}</b> wants to join as a node of <select name=\"user\">{options}\
             </select></p><p><button>Let it join</button> <button name=\"refuse\" value=\"1\">Refuse</button></p></form>",
            escape(hostname)
        ),
    )
}

fn page(title: &str, content: &str) -> String {
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>{title}</title><h1>{title}</h1>\
         <p><em>A test and demo server: whoever sees this page may let nodes in.</em></p>{content}"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
