//! Answers in the forms that clients know (client sheet §2.1).

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;
use tsrs_control_tailcfg::CapabilityVersion;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// One answer.
#[derive(Debug)]
pub(crate) struct Answer(Box<Response<Body>>);

impl Answer {
    /// 200 with JSON and, as Go writes it, a line break.
    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::json_status(StatusCode::OK, value)
    }

    /// JSON under another status.
    pub(crate) fn json_status(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(mut body) => {
                body.push(b'\n');
                Self::with_body(status, JSON, body)
            }
            Err(error) => Self::text(500, &error.to_string()),
        }
    }

    /// One line of text with any status.
    pub(crate) fn text(status: u16, line: &str) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::with_body(status, TEXT, format!("{line}\n").into_bytes())
    }

    /// The one line that debug actions are answered with.
    pub(crate) fn done() -> Self {
        Self::with_body(StatusCode::OK, HeaderValue::from_static("text/plain"), b"done\n".to_vec())
    }

    /// A page.
    pub(crate) fn html(page: &'static str) -> Self {
        let content_type = HeaderValue::from_static("text/html; charset=utf-8");
        Self::with_body(StatusCode::OK, content_type, page.as_bytes().to_vec())
    }

    /// 404 in Go's words.
    pub(crate) fn not_found() -> Self {
        Self::text(404, "404 page not found")
    }

    /// An error that the official daemon writes as JSON.
    pub(crate) fn error(status: StatusCode, text: &str) -> Self {
        Self::json_status(status, &serde_json::json!({ "error": text }))
    }

    /// No body at all.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self(with_status(status, Empty::new().boxed_unsync()))
    }

    /// A body that goes on, with JSON lines.
    pub(crate) fn json_lines(body: Body) -> Self {
        Self(with_status(StatusCode::OK, body)).header(CONTENT_TYPE, JSON)
    }

    /// A body of a given type.
    pub(crate) fn with_body(status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Self {
        Self(with_status(status, Full::new(Bytes::from(body)).boxed_unsync()))
            .header(CONTENT_TYPE, content_type)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// The response, with the headers that every answer has. The version header of the official daemon is not among
    /// them: its clients would compare it with their own.
    pub(crate) fn into_response(mut self) -> Response<Body> {
        let headers = self.0.headers_mut();
        headers.insert("tailscale-cap", HeaderValue::from(CapabilityVersion::CURRENT_NUMBER));
        headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
        headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
        headers.insert(
            "content-security-policy",
            HeaderValue::from_static(
                "default-src 'none'; frame-ancestors 'none'; script-src 'none'; script-src-elem 'none'; \
                 script-src-attr 'none'",
            ),
        );
        *self.0
    }
}

fn with_status(status: StatusCode, body: Body) -> Box<Response<Body>> {
    let mut response = Box::new(Response::new(body));
    *response.status_mut() = status;
    response
}
