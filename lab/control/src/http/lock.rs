//! The calls of Tailnet Lock (Tailnet Lock sheet §15): GET with a body, of a node that the machine owns.

use anyhow::{Context as _, Result};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tsrs_base_types::NodePublic;
use tsrs_control_tailcfg::{TkaBootstrapRequest, TkaDisableRequest, TkaDisableResponse};

use super::body::{Answer, collect, json, text};
use super::machine::{Connection, wrong_method};
use super::outer::fault;
use crate::fault::{FaultTarget, LockCall};
use crate::tailnet::check_secret;

/// Who calls; a member of every call.
#[derive(Deserialize)]
struct Caller {
    #[serde(rename = "NodeKey")]
    node_key: NodePublic,
}

impl Connection {
    pub(super) async fn lock(&self, call: LockCall, request: Request<Incoming>) -> Answer {
        if request.method() != Method::GET {
            return wrong_method("GET");
        }
        if let Some(refusal) = fault(&self.shared, FaultTarget::Lock(call)).await {
            return refusal;
        }
        let Some(body) = collect(request.into_body()).await else {
            return text(StatusCode::BAD_REQUEST, "request body cannot be read\n");
        };
        if !self.owns_caller(&body) {
            return text(StatusCode::NOT_FOUND, "node not found\n");
        }
        let (shared, now) = (&self.shared, Timestamp::now());
        match call {
            LockCall::InitBegin => reply(&body, |asked| shared.change(|tailnet| tailnet.begin_lock(&asked))),
            LockCall::InitFinish => {
                reply(&body, |asked| shared.change(|tailnet| tailnet.finish_lock(&asked, now)))
            }
            LockCall::Bootstrap => {
                reply(&body, |_: TkaBootstrapRequest| shared.read(|tailnet| Ok(tailnet.lock.bootstrap())))
            }
            LockCall::SyncOffer => {
                reply(&body, |asked| shared.read(|tailnet| tailnet.lock.sync_offer(&asked)))
            }
            LockCall::SyncSend => {
                reply(&body, |asked| shared.change(|tailnet| tailnet.lock.sync_send(&asked, now)))
            }
            LockCall::Sign => reply(&body, |asked| shared.change(|tailnet| tailnet.submit_signature(&asked))),
            LockCall::AffectedSigs => {
                reply(&body, |asked| shared.read(|tailnet| tailnet.signatures_using_key(&asked)))
            }
            LockCall::Disable => self.disable_lock(body.to_vec()).await,
        }
    }

    fn owns_caller(&self, body: &[u8]) -> bool {
        let Ok(caller) = serde_json::from_slice::<Caller>(body) else { return false };
        self.shared.read(|tailnet| {
            tailnet.node_by_key(&caller.node_key).is_some_and(|node| node.machine == self.machine)
        })
    }

    /// The secret is checked on a thread that nobody else waits for.
    async fn disable_lock(&self, body: Vec<u8>) -> Answer {
        let shared = self.shared.clone();
        let disable = move |asked: TkaDisableRequest| -> Result<TkaDisableResponse> {
            let state = shared.read(|tailnet| tailnet.lock.state_to_end(&asked.head))?;
            check_secret(&state, &asked)?;
            shared.change(|tailnet| tailnet.end_lock(&state, asked.disablement_secret))
        };
        let answer = tokio::task::spawn_blocking(move || reply(&body, disable)).await;
        answer.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }
}

fn reply<Q: DeserializeOwned, A: Serialize>(body: &[u8], handle: impl FnOnce(Q) -> Result<A>) -> Answer {
    match serde_json::from_slice(body).context("request").and_then(handle) {
        Ok(answer) => json(&answer),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error:#}\n")),
    }
}
