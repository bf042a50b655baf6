//! Small answers about features, many of them "there is none": nothing here pretends to work.

use http::header::{ETAG, HeaderValue, IF_MATCH};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tsrs_agent_core::status::is_running;
use tsrs_agent_localapi::requests::{ExitNodeSuggestion, UseSoMark, Warning};

use super::request::Call;
use super::response::{self, Outcome, Refused};
use crate::ask::Ask;

/// The serve config that we have: none.
const SERVE_CONFIG: &str = "null";

/// Its entity tag: SHA-256 of the text, bare (client sheet §2.2).
const SERVE_CONFIG_TAG: HeaderValue =
    HeaderValue::from_static("74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b");

/// An endpoint of a feature that does not exist yet.
pub(super) fn not_built(path: &str) -> Outcome {
    let feature = match path.split('/').next().unwrap_or_default() {
        "cert" => "certificates are",
        "files" | "file-put" => "Taildrop is",
        "tka" => "Tailnet Lock is",
        _ => "this is",
    };
    Err(Refused::text(StatusCode::NOT_IMPLEMENTED, format!("{feature} not supported by this agent yet")))
}

pub(super) fn file_targets(call: &Call) -> Outcome {
    if is_running(&call.snapshot) {
        return response::json(&json!([]));
    }
    Err(Refused::json(StatusCode::INTERNAL_SERVER_ERROR, "error", "not connected to the tailnet"))
}

/// There is no serve config, and none can be set; that there is none may be confirmed.
pub(super) async fn serve_config(mut call: Call) -> Outcome {
    if call.method == Method::GET {
        let mut answer = response::with_body(StatusCode::OK, response::JSON, SERVE_CONFIG);
        answer.headers_mut().insert(ETAG, SERVE_CONFIG_TAG);
        return Ok(answer);
    }
    let known = call.request.headers().get(IF_MATCH).is_none_or(|tag| tag.is_empty() || *tag == SERVE_CONFIG_TAG);
    if !known {
        return Err(Refused::text(StatusCode::PRECONDITION_FAILED, "etag mismatch"));
    }
    let config: Value = serde_json::from_slice(&call.body().await?).map_err(|error| {
        let text = format!("decoding config: {error}");
        Refused::json(StatusCode::INTERNAL_SERVER_ERROR, "error", &text)
    })?;
    let empty = match &config {
        Value::Null => true,
        Value::Object(members) => members.values().all(|value| value.is_null() || *value == json!({})),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    };
    match empty {
        true => Ok(response::empty(StatusCode::OK)),
        false => Err(Refused::text(
            StatusCode::NOT_IMPLEMENTED,
            "serve and funnel are not supported by this agent yet",
        )),
    }
}

pub(super) async fn query_feature(call: Call) -> Outcome {
    let feature = match call.query.value("feature") {
        "" => return Err(Refused::text(StatusCode::BAD_REQUEST, "missing feature")),
        feature => feature.to_owned(),
    };
    response::json(&call.api.asks.ask(|reply| Ask::QueryFeature(feature, reply)).await?)
}

pub(super) async fn id_token(call: Call) -> Outcome {
    let audience = match call.query.value("aud") {
        "" => return Err(Refused::bad("no audience requested")),
        audience => audience.to_owned(),
    };
    response::json(&call.api.asks.ask(|reply| Ask::IdToken(audience, reply)).await?)
}

/// None is ever suggested, since none can be used yet.
pub(super) fn suggest_exit_node(call: &Call) -> Outcome {
    if call.snapshot.netmap.is_none() {
        let text = "no preferred DERP, try again later";
        return Err(Refused::json(StatusCode::INTERNAL_SERVER_ERROR, "error", text));
    }
    response::json(&ExitNodeSuggestion::default())
}

pub(super) fn use_exit_node(call: &Call) -> Outcome {
    if !["true", "false"].contains(&call.query.value("enabled")) {
        return Err(Refused::bad("invalid 'enabled' parameter"));
    }
    Err(Refused::text(StatusCode::NOT_IMPLEMENTED, "exit nodes are not supported by this agent yet"))
}

pub(super) async fn check_forwarding(call: Call) -> Outcome {
    let problem = call.api.asks.ask(Ask::ForwardingProblem).await?;
    response::json(&Warning { warning: problem.unwrap_or_default() })
}

/// Forwarded UDP is not bundled by us, so no interface is set up badly for it.
pub(super) fn check_udp_gro() -> Outcome {
    response::json(&Warning::default())
}

pub(super) fn so_mark() -> Outcome {
    response::json(&UseSoMark { use_so_mark: true })
}

/// Counters of clients; nothing is collected.
pub(super) async fn discard_client_metrics(mut call: Call) -> Outcome {
    call.body().await?;
    response::json(&json!({}))
}

pub(super) fn lock_log() -> Outcome {
    Err(Refused::text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "reading log failed: tailnet-lock is not active",
    ))
}
