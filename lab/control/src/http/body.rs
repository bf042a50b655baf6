//! Bodies and answers.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Frame;
use serde::Serialize;

/// Longest request body: a map request with a large Hostinfo.
const MAX_REQUEST_LEN: usize = 4 << 20;

pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
pub(crate) type Answer = Response<Body>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// An answer with a body of some type.
pub(crate) fn answer(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(full(bytes));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    answer(status, "text/plain; charset=utf-8", text.into())
}

pub(crate) fn html(page: String) -> Answer {
    answer(StatusCode::OK, "text/html; charset=utf-8", page)
}

pub(crate) fn json(value: &impl Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(StatusCode::OK, "application/json; charset=utf-8", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(crate) fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

pub(crate) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(full(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

/// An answer that never ends.
pub(crate) fn endless() -> Answer {
    const CHUNK: &[u8] = &[b' '; 16 << 10];
    let chunks = futures_util::stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(CHUNK))));
    Response::new(StreamBody::new(chunks).boxed_unsync())
}

/// Reads a request's body to its end; `None` if it broke off or is too long.
pub(crate) async fn collect(body: hyper::body::Incoming) -> Option<Bytes> {
    Some(Limited::new(body, MAX_REQUEST_LEN).collect().await.ok()?.to_bytes())
}
