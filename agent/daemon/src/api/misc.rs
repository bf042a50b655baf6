//! Small endpoints, and the answers of those that are not built.

use http::header::{ETAG, HeaderName, HeaderValue, IF_MATCH};
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use tsrs_agent_localapi::requests::{Reloaded, UseSoMark, Warning};

use super::request::Asked;
use super::settings::{ended_answer, refused};
use super::{Answer, Api};
use crate::backend::Input;

/// SHA-256 of `null`, the empty serve configuration, as clients compare it.
const EMPTY_SERVE_CONFIG: &str = "74234e98afe7498fb5daf1f36ac2d78acc339464f950703b8c019892f982b90b";

impl Api {
    pub(super) async fn check_ip_forwarding(&self) -> Answer {
        Answer::json(&Warning { warning: self.host.forwarding_problem().await.unwrap_or_default() })
    }

    pub(super) async fn set_expiry_sooner(&self, asked: &Asked) -> Answer {
        let expiry = asked.param("expiry").parse().ok().and_then(|secs| Timestamp::from_second(secs).ok());
        let Some(expiry) = expiry else { return Answer::text(400, "invalid 'expiry' parameter") };
        let asking = self.backend.call(move |backend, _| backend.set_expiry_sooner(expiry)).await;
        match asking {
            Ok((Some(asking), _)) => match asking.await {
                Ok(()) => Answer::done(),
                Err(reason) => Answer::text(400, &reason),
            },
            Ok((None, _)) => Answer::text(400, "not connected to the control server"),
            Err(ended) => ended_answer(ended),
        }
    }

    pub(super) async fn reload_config(&self) -> Answer {
        let Some(path) = self.config_file.clone() else { return Answer::json(&Reloaded::default()) };
        let err = crate::config_file::apply(&path, self).await.err().unwrap_or_default();
        Answer::json(&Reloaded { reloaded: err.is_empty(), err })
    }

    pub(super) async fn shutdown(&self) -> Answer {
        match self.backend.send(Input::Shutdown).await {
            Ok(()) => Answer::empty(StatusCode::NO_CONTENT),
            Err(ended) => ended_answer(ended),
        }
    }
}

pub(super) fn no_warning() -> Answer {
    Answer::json(&Warning::default())
}

/// Own sockets bypass the tunnel by a mark; one that cannot be marked is not used.
pub(super) fn so_mark() -> Answer {
    Answer::json(&UseSoMark { use_so_mark: true })
}

pub(super) fn use_exit_node(asked: &Asked) -> Answer {
    match asked.param("enabled") {
        "true" | "false" | "1" | "0" | "t" | "f" => {
            refused("exit-node: using an exit node is not supported yet")
        }
        _ => Answer::text(400, "invalid 'enabled' parameter"),
    }
}

/// Nothing is served yet, which is what an empty configuration says; only that can be written.
pub(super) async fn serve_config(asked: Asked) -> Answer {
    if asked.is(&Method::GET) {
        let content_type = HeaderValue::from_static("application/json");
        return Answer::with_body(StatusCode::OK, content_type, b"null".to_vec())
            .header(ETAG, HeaderValue::from_static(EMPTY_SERVE_CONFIG));
    }
    if asked.headers().get(IF_MATCH).is_some_and(|tag| tag.as_bytes() != EMPTY_SERVE_CONFIG.as_bytes()) {
        return Answer::text(412, "etag mismatch");
    }
    let body = match asked.body().await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Null) => Answer::empty(StatusCode::OK),
        Ok(Value::Object(members)) if members.values().all(is_nothing) => Answer::empty(StatusCode::OK),
        Ok(_) => Answer::text(501, "serve and funnel are not supported yet"),
        Err(error) => Answer::error(StatusCode::INTERNAL_SERVER_ERROR, &format!("decoding config: {error}")),
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
    }
}

/// Counters of client programs are taken and thrown away.
pub(super) async fn client_metrics(asked: Asked) -> Answer {
    match asked.body().await {
        Ok(_) => Answer::json(&serde_json::json!({})),
        Err(answer) => answer,
    }
}

/// Endpoints of features that are not there: what is asked is refused with the reason.
pub(super) fn not_built(path: &str) -> Answer {
    match path {
        "cert/*" => Answer::text(500, "certificates are not supported by this agent yet"),
        "files/" | "files/*" | "file-put/*" => {
            Answer::text(501, "Taildrop is not supported by this agent yet")
        }
        "query-feature" | "id-token" => Answer::text(501, "not supported by this agent"),
        _ => Answer::not_found(),
    }
}

/// Header names of `dial`, which are not in the standard list.
pub(super) fn header_name(name: &'static str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}
