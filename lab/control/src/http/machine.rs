//! What is served inside Noise, to one machine.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tsrs_base_types::MachinePublic;
use tsrs_control_tailcfg::{CapabilityVersion, MapRequest, RegisterRequest};

use super::body::{Answer, collect, empty, json, not_found, text};
use super::map_stream;
use super::outer::{fault, query_value};
use crate::fault::{FaultTarget, LockCall};
use crate::shared::Shared;
use crate::tailnet::Outcome;

/// Oldest capability version that is served, as servers in the field have it.
pub(super) const MIN_VERSION: u16 = 113;
/// Path that answers to c2n requests come to, less their number.
pub(crate) const C2N_PATH: &str = "/machine/c2n-response/";

/// Calls that are known and not offered, with their method.
const NOT_OFFERED: [(&str, &str); 8] = [
    ("/machine/set-dns", "POST"),
    ("/machine/id-token", "POST"),
    ("/machine/feature/query", "POST"),
    ("/machine/audit-log", "POST"),
    ("/machine/update-health", "POST"),
    ("/machine/c2n", "POST"),
    ("/machine/set-device-attr", "PATCH"),
    ("/machine/whoami", "GET"),
];

/// One Noise connection.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) machine: MachinePublic,
}

impl Connection {
    pub(super) async fn handle(self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match path.as_str() {
            "/machine/register" | "/machine/map" if request.method() != Method::POST => wrong_method("POST"),
            "/machine/register" => self.register(request).await,
            "/machine/map" => self.map(request).await,
            "/machine/ping-response" => ping_response(&self.shared, request).await,
            path => {
                if let Some(call) = LockCall::of_path(path) {
                    return self.lock(call, request).await;
                }
                if let Some(id) = path.strip_prefix(C2N_PATH) {
                    let id = id.to_owned();
                    return c2n_response(&self.shared, &id, request).await;
                }
                match NOT_OFFERED.iter().find(|(known, _)| *known == path) {
                    Some((_, method)) if request.method().as_str() == *method => {
                        text(StatusCode::NOT_IMPLEMENTED, "Not implemented yet\n")
                    }
                    Some((_, method)) => wrong_method(method),
                    None => not_found(),
                }
            }
        }
    }

    async fn register(&self, request: Request<Incoming>) -> Answer {
        if let Some(refusal) = fault(&self.shared, FaultTarget::Register).await {
            return refusal;
        }
        // A body that cannot be read counts as version 0, as in headscale.
        let request: RegisterRequest = read(request).await.unwrap_or_default();
        if let Some(refusal) = too_old(request.version) {
            return refusal;
        }
        let mut version = self.shared.version.subscribe();
        loop {
            let outcome =
                self.shared.change(|tailnet| tailnet.register(self.machine, &request, Timestamp::now()));
            match outcome {
                Outcome::Answer(response) => return json(&response),
                Outcome::Wait(id) => self.wait_for_login(&id, &mut version).await,
            }
        }
    }

    /// Waits until the login's page was used.
    async fn wait_for_login(&self, id: &str, version: &mut tokio::sync::watch::Receiver<u64>) {
        let waits =
            || self.shared.read(|tailnet| tailnet.pending.get(id).is_some_and(|pending| !pending.refused));
        while waits() {
            // The sender lives as long as `shared`.
            if version.changed().await.is_err() {
                return;
            }
        }
    }

    async fn map(&self, request: Request<Incoming>) -> Answer {
        let Some(request) = read::<MapRequest>(request).await else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error\n");
        };
        if let Some(refusal) = too_old(request.version) {
            return refusal;
        }
        let target = if request.stream { FaultTarget::MapStream } else { FaultTarget::MapUpdate };
        if let Some(refusal) = fault(&self.shared, target).await {
            return refusal;
        }
        let node = self.shared.read(|tailnet| {
            let node = tailnet.node_by_key(&request.node_key)?;
            (node.machine == self.machine).then_some(node.id)
        });
        let Some(id) = node else { return text(StatusCode::NOT_FOUND, "node not found\n") };
        if request.stream {
            return map_stream::start(&self.shared, id, &request);
        }
        // A streaming request is read-only; what a node says about itself comes this way (control sheet §9).
        self.shared.change_if(|tailnet| tailnet.update(id, &request));
        if request.omit_peers { empty(StatusCode::OK) } else { map_stream::one(&self.shared, id, &request) }
    }
}

/// The answer to a ping: HEAD, or POST with a PingResponse.
pub(super) async fn ping_response(shared: &Shared, request: Request<Incoming>) -> Answer {
    let id = request.uri().query().and_then(|query| query_value(query, "id")).unwrap_or_default().to_owned();
    let body = collect(request.into_body()).await.unwrap_or_default();
    if shared.answer_ping(&id, body.to_vec()) { empty(StatusCode::OK) } else { not_found() }
}

async fn c2n_response(shared: &Shared, id: &str, request: Request<Incoming>) -> Answer {
    let body = collect(request.into_body()).await.unwrap_or_default();
    if shared.answer_ping(id, body.to_vec()) { empty(StatusCode::OK) } else { not_found() }
}

fn too_old(version: CapabilityVersion) -> Option<Answer> {
    let refusal = || text(StatusCode::BAD_REQUEST, format!("unsupported client version:  ({version})\n"));
    (version.0 < i64::from(MIN_VERSION)).then(refusal)
}

pub(super) fn wrong_method(allowed: &'static str) -> Answer {
    let mut refusal = empty(StatusCode::METHOD_NOT_ALLOWED);
    refusal.headers_mut().insert(http::header::ALLOW, http::HeaderValue::from_static(allowed));
    refusal
}

/// A body as JSON; `None` if it broke off, is too long, or cannot be read.
async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Option<T> {
    serde_json::from_slice(&collect(request.into_body()).await?).ok()
}
