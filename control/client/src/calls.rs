//! The calls inside Noise (control protocol sheet §8, §9, §19).

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use rand_core::{OsRng, RngCore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tsrs_base_types::NodePublic;
use tsrs_control_tailcfg::{MapRequest, RegisterRequest, RegisterResponse};
use zeroize::Zeroizing;

use crate::connection::{Connector, broken};
use crate::error::{Error, server_text};

/// Longest answer of a call other than the map stream.
pub(crate) const MAX_ANSWER_LEN: usize = 1 << 20;
/// Longest answer of a call of Tailnet Lock that holds updates: a chain of the greatest length (Tailnet Lock sheet §15).
pub(crate) const MAX_CHAIN_ANSWER_LEN: usize = 10 << 20;
/// Longest begin of an error answer that is read.
const MAX_ERROR_LEN: usize = 4096;
/// Time for a call, connecting included.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Time for a call that waits for the user. The server usually answers sooner, and the call is made again.
const FOLLOWUP_LIMIT: Duration = Duration::from_secs(3600);
/// A `Retry-After` beyond this is not believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Load-balancer hint: the node key.
const LB_HEADER: &str = "Ts-Lb";

/// A request with a body, ready to be sent.
pub(crate) fn request(
    method: Method,
    path: &str,
    keys: &[NodePublic],
    body: Bytes,
) -> Result<Request<Full<Bytes>>, Error> {
    let mut builder = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    for key in keys.iter().filter(|key| !key.is_zero()) {
        builder = builder.header(LB_HEADER, key.to_string());
    }
    builder.body(Full::new(body)).map_err(|error| Error::Request(error.to_string()))
}

/// A body; wiped when it has been sent, since one may hold an auth key.
pub(crate) fn json(value: &impl Serialize) -> Result<Bytes, Error> {
    let failed = |error: serde_json::Error| Error::Request(error.to_string());
    let mut len = Counter(0);
    serde_json::to_writer(&mut len, value).map_err(failed)?;
    // Of the right size from the start: one that grows leaves parts of itself behind.
    let mut body = Zeroizing::new(Vec::with_capacity(len.0));
    serde_json::to_writer(&mut *body, value).map_err(failed)?;
    Ok(Bytes::from_owner(body))
}

/// Counts what is written.
struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Registers, refreshes, follows up, expires or logs out.
pub(crate) async fn register(
    connector: &Connector,
    register: &RegisterRequest,
) -> Result<RegisterResponse, Error> {
    const WHAT: &str = "registering";
    let keys = [register.old_node_key, register.node_key];
    let request = request(Method::POST, "/machine/register", &keys, json(register)?)?;
    let limit = if register.followup.is_empty() { CALL_LIMIT } else { FOLLOWUP_LIMIT };
    let body = within(WHAT, limit, async {
        let response = connector.send(request).await?;
        body_of(WHAT, response, MAX_ANSWER_LEN).await
    })
    .await?;
    serde_json::from_slice(&body).map_err(|error| Error::Garbage { what: WHAT, reason: error.to_string() })
}

/// Tells the server our state; only the status of the answer matters.
pub(crate) async fn update(connector: &Connector, update: &MapRequest) -> Result<(), Error> {
    const WHAT: &str = "telling the server about a change";
    let request = request(Method::POST, "/machine/map", &[update.node_key], json(update)?)?;
    within(WHAT, CALL_LIMIT, async {
        let response = connector.send(request).await?;
        body_of(WHAT, response, MAX_ANSWER_LEN).await
    })
    .await
    .map(|_| ())
    .map_err(node_unknown)
}

/// Opens the map stream: its header is here, its frames follow in the body.
pub(crate) async fn open_map(connector: &Connector, map: &MapRequest) -> Result<Incoming, Error> {
    const WHAT: &str = "opening the map stream";
    let request = request(Method::POST, "/machine/map", &[map.node_key], json(map)?)?;
    let response = connector.send(request).await?;
    if response.status() == StatusCode::OK {
        return Ok(response.into_body());
    }
    Err(node_unknown(refusal(WHAT, response).await))
}

/// A smaller call.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    /// For errors.
    pub(crate) what: &'static str,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    /// Longest answer that is read.
    pub(crate) max_len: usize,
}

/// A smaller call, with JSON both ways.
pub(crate) async fn call<R: DeserializeOwned>(
    connector: &Connector,
    Call { what, method, path, max_len }: Call<'_>,
    key: NodePublic,
    body: &impl Serialize,
) -> Result<R, Error> {
    let request = request(method.clone(), path, &[key], json(body)?)?;
    let body = within(what, CALL_LIMIT, async {
        let response = connector.send(request).await?;
        body_of(what, response, max_len).await
    })
    .await
    .map_err(not_offered)?;
    // Some calls answer 200 with nothing.
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(body).map_err(|error| Error::Garbage { what, reason: error.to_string() })
}

pub(crate) async fn within<T>(
    what: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, call).await.unwrap_or(Err(Error::Timeout { what, after: limit }))
}

/// The whole body of a 200, or the error that the answer is.
async fn body_of(what: &'static str, response: Response<Incoming>, max_len: usize) -> Result<Bytes, Error> {
    if response.status() != StatusCode::OK {
        return Err(refusal(what, response).await);
    }
    read_body(what, response.into_body(), max_len).await
}

pub(crate) async fn read_body(what: &'static str, body: Incoming, max_len: usize) -> Result<Bytes, Error> {
    match Limited::new(body, max_len).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(broken(&error)),
            Err(_) => Err(Error::Garbage { what, reason: format!("it is longer than {max_len} bytes") }),
        },
    }
}

/// The error that an answer other than 200 is.
async fn refusal(what: &'static str, response: Response<Incoming>) -> Error {
    let (parts, mut body) = response.into_parts();
    if parts.status == StatusCode::TOO_MANY_REQUESTS {
        return Error::RateLimited(retry_after(&parts.headers));
    }
    let mut text = Vec::new();
    while text.len() < MAX_ERROR_LEN {
        match body.frame().await {
            Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Some(Err(_)) | None => break,
        }
    }
    let text = server_text(&text);
    if parts.status == StatusCode::BAD_REQUEST && text.contains("unsupported client version") {
        return Error::Version(text);
    }
    Error::Status { what, status: parts.status.as_u16(), text }
}

/// For the map calls a 404 means the node.
fn node_unknown(error: Error) -> Error {
    if matches!(error, Error::Status { status: 404, .. }) { Error::NodeUnknown } else { error }
}

/// For the smaller calls these mean that the server does not have them.
pub(crate) fn not_offered(error: Error) -> Error {
    if let Error::Status { what, status: 404 | 405 | 501, .. } = error {
        return Error::NotOffered { what };
    }
    error
}

/// When to try again: seconds or a date; what cannot be believed becomes 5 to 10 s.
pub(crate) fn retry_after(headers: &HeaderMap) -> Duration {
    let text = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    text.and_then(|text| parse_retry_after(text, Timestamp::now()))
        .unwrap_or_else(|| Duration::from_millis(5000 + u64::from(OsRng.next_u32() % 5001)))
}

fn parse_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp();
            Duration::try_from(date.duration_since(now)).ok()?
        }
    };
    (!wait.is_zero() && wait <= MAX_RETRY_AFTER).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_believed_within_an_hour() {
        let now: Timestamp = "2026-11-25T10:00:00Z".parse().unwrap();
        for (text, secs) in [
            ("30", Some(30)),
            (" 3600 ", Some(3600)),
            ("3601", None),
            ("0", None),
            ("-5", None),
            ("soon", None),
            ("Wed, 25 Nov 2026 10:01:00 GMT", Some(60)),
            ("Wed, 25 Nov 2026 09:59:00 GMT", None),
            ("Wed, 25 Nov 2026 12:00:00 GMT", None),
        ] {
            assert_eq!(parse_retry_after(text, now), secs.map(Duration::from_secs), "{text}");
        }
        let fallback = retry_after(&HeaderMap::new());
        assert!((Duration::from_secs(5)..=Duration::from_secs(10)).contains(&fallback));
    }

    #[test]
    fn a_missing_call_is_not_offered_and_an_unknown_node_is_told_apart() {
        let status = |status| Error::Status { what: "x", status, text: String::new() };
        for code in [404, 405, 501] {
            assert!(matches!(not_offered(status(code)), Error::NotOffered { what: "x" }), "{code}");
        }
        assert!(matches!(not_offered(status(500)), Error::Status { .. }));
        assert!(matches!(node_unknown(status(404)), Error::NodeUnknown));
        assert!(matches!(node_unknown(status(401)), Error::Status { .. }));
    }
}
