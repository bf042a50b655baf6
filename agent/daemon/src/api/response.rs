//! Answers in the forms that tailscaled gives them: JSON, one line of text, or nothing (client sheet §2.1).

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;
use tsrs_control_tailcfg::CapabilityVersion;

use crate::ask::Failure;

/// Body of an answer: whole, or a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer.
pub(super) type Answer = Response<Body>;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// What upstream says of the answers of `bugreport`, `debug` and `metrics`.
pub(super) const BARE_TEXT: HeaderValue = HeaderValue::from_static("text/plain");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Nothing on these pages may be loaded, framed or run.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; frame-ancestors 'none'; script-src 'none'; script-src-elem 'none'; script-src-attr 'none'",
);

/// Why a call got no good answer: what to answer instead.
#[derive(Debug)]
pub(super) struct Refused(Answer);

/// What endpoints give.
pub(super) type Outcome = Result<Answer, Refused>;

impl Refused {
    /// One line of text.
    pub(super) fn text(status: StatusCode, text: impl AsRef<str>) -> Self {
        Self(line(status, text.as_ref()))
    }

    /// A wrong parameter or body.
    pub(super) fn bad(text: impl AsRef<str>) -> Self {
        Self::text(StatusCode::BAD_REQUEST, text)
    }

    /// The key `error` or `Error` of a JSON object; clients read either.
    pub(super) fn json(status: StatusCode, key: &str, text: &str) -> Self {
        Self(with_body(status, JSON, format!("{}\n", serde_json::json!({ key: text }))))
    }

    /// The answer.
    pub(super) fn into_answer(self) -> Answer {
        self.0
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        let text = failure.to_string();
        match failure {
            Failure::Refused(_) => Self::json(StatusCode::BAD_REQUEST, "error", &text),
            Failure::Control { status, .. } => {
                let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 400);
                Self::text(status.unwrap_or(StatusCode::BAD_GATEWAY), text)
            }
            Failure::NotSaved(_) | Failure::NoAnswer | Failure::Failed(_) => {
                Self::json(StatusCode::INTERNAL_SERVER_ERROR, "error", &text)
            }
            Failure::Ended => Self::json(StatusCode::SERVICE_UNAVAILABLE, "error", &text),
        }
    }
}

/// A JSON value.
pub(super) fn json(value: &impl Serialize) -> Outcome {
    let mut body = serde_json::to_vec(value).map_err(|error| {
        Refused::json(StatusCode::INTERNAL_SERVER_ERROR, "error", &format!("encoding the answer: {error}"))
    })?;
    body.push(b'\n');
    Ok(with_body(StatusCode::OK, JSON, body))
}

/// Text with a status; a final line end is added where it is missing.
pub(super) fn line(status: StatusCode, text: &str) -> Answer {
    with_body(status, TEXT, format!("{}\n", text.trim_end_matches('\n')))
}

/// A page.
pub(super) fn html(page: &'static str) -> Answer {
    with_body(StatusCode::OK, HTML, page)
}

/// A status alone.
pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Empty::new().boxed_unsync());
    *answer.status_mut() = status;
    answer
}

/// A whole body.
pub(super) fn with_body(status: StatusCode, kind: HeaderValue, body: impl Into<Bytes>) -> Answer {
    typed(status, kind, Full::new(body.into()).boxed_unsync())
}

/// A body of this type.
pub(super) fn typed(status: StatusCode, kind: HeaderValue, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

/// What every answer carries. Our version is not among it: the official client compares it with its own.
pub(super) fn add_common_headers(answer: &mut Answer) {
    let headers = answer.headers_mut();
    headers.insert(
        HeaderName::from_static("tailscale-cap"),
        HeaderValue::from(CapabilityVersion::CURRENT_NUMBER),
    );
    headers.insert(CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}
