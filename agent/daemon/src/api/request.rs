//! A request as endpoints see it: checked, decoded, with the rights of its caller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, ORIGIN, REFERER};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tsrs_agent_core::agent::Snapshot;
use tsrs_agent_localapi::json::{FromClient, from_client};
use tsrs_agent_localapi::Access;

use super::Api;
use super::query::{Query, unescape};
use super::response::Refused;
use super::server::Connection;

/// The only name by which clients call us.
const HOST_NAME: &str = "local-tailscaled.sock";

/// Largest body that is read. The largest useful one is the whole prefs, whose routes take 20 bytes each.
pub(super) const MAX_BODY_LEN: usize = 1 << 20;

/// How long the body of a request may take: it comes from this host.
pub(super) const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A call of an endpoint.
pub(super) struct Call {
    pub(super) api: Arc<Api>,
    /// The agent when the call came.
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) connection: Arc<Connection>,
    pub(super) access: Access,
    pub(super) method: Method,
    /// The decoded path below `/localapi/v0/`.
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) request: Request<Incoming>,
}

impl Call {
    /// A header as text; empty if it is absent or no text.
    pub(super) fn header(&self, name: &str) -> &str {
        header(self.request.headers(), name)
    }

    /// The whole body, sent with a length or in chunks.
    pub(super) async fn body(&mut self) -> Result<Bytes, Refused> {
        let limited = Limited::new(self.request.body_mut(), MAX_BODY_LEN);
        let read = tokio::time::timeout(BODY_LIMIT, limited.collect()).await;
        let read = read.map_err(|_| Refused::text(StatusCode::REQUEST_TIMEOUT, "the body took too long"))?;
        read.map(http_body_util::Collected::to_bytes).map_err(|error| {
            match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => Refused::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long"),
                None => Refused::bad(format!("reading the body: {error}")),
            }
        })
    }

    /// The body as JSON; `None` where it is not what is wanted, with the decoder's words.
    pub(super) async fn json_body<T: FromClient>(&mut self) -> Result<Result<T, String>, Refused> {
        let body = self.body().await?;
        Ok(match body.is_empty() {
            true => Err("EOF".to_owned()),
            false => from_client(&body).map_err(|error| error.to_string()),
        })
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Refuses what a web page or a rebound name could send (client sheet §2.1).
pub(super) fn check_origin<B>(request: &Request<B>) -> Result<(), Refused> {
    let headers = request.headers();
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (request.uri().authority(), hosts.next()) {
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) if request.version() >= Version::HTTP_11 => {
            return Err(Refused::bad("400 Bad Request: missing required Host header"));
        }
        (None, None) => b"",
    };
    if hosts.next().is_some() {
        return Err(Refused::bad("400 Bad Request: too many Host headers"));
    }
    let from_a_page = [ORIGIN, REFERER]
        .into_iter()
        .any(|name| headers.get_all(name).iter().any(|value| !value.is_empty()));
    if from_a_page || !(host.is_empty() || host == HOST_NAME.as_bytes()) {
        return Err(Refused::text(StatusCode::FORBIDDEN, "invalid localapi request"));
    }
    Ok(())
}

/// The decoded path.
pub(super) fn decoded_path<B>(request: &Request<B>) -> Result<String, Refused> {
    unescape(request.uri().path()).ok_or_else(|| Refused::bad("400 Bad Request"))
}
