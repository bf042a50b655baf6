//! Requests that the control server sends to this node (c2n; control protocol sheet §18, client sheet §5.6).
//!
//! They come as raw HTTP/1 in a ping request of the map stream; the answer goes back as raw HTTP/1.1 inside Noise.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Longest request; the known ones are far below.
const MAX_REQUEST_LEN: usize = 256 * 1024;
/// Header fields of one request.
const MAX_FIELDS: usize = 64;

/// A request of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct C2nRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query without the question mark; empty if there is none.
    pub query: String,
    /// The body.
    pub body: Vec<u8>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct C2nResponse {
    /// Status code.
    pub status: u16,
    /// Type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// Answers requests of the server. A request comes from whoever runs the server: answer only what is harmless.
pub trait C2nHandler: Send + Sync {
    /// Answers at once, without waiting for anything.
    fn answer(&self, request: &C2nRequest) -> C2nResponse;
}

/// The answers that need no knowledge of the node: `/echo`, by which the server tests routers, and "there is none of
/// it here" for the rest that is harmless. Everything else is refused: debugging, switching the firewall, heap dumps.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardC2n;

impl C2nHandler for StandardC2n {
    fn answer(&self, request: &C2nRequest) -> C2nResponse {
        match (request.path.as_str(), request.method.as_str()) {
            ("/echo", _) => {
                C2nResponse { status: 200, content_type: "text/plain", body: request.body.clone() }
            }
            ("/update", "GET" | "POST") => C2nResponse::json(
                200,
                &json!({"Err": "not supported", "Enabled": false, "Supported": false, "Started": false}),
            ),
            ("/posture/identity", "GET") => C2nResponse::json(200, &json!({"PostureDisabled": true})),
            ("/vip-services", "GET") => {
                C2nResponse::json(200, &json!({"VIPServices": [], "ServicesHash": ""}))
            }
            ("/appconnector/routes", "GET") => C2nResponse::json(200, &json!({"Domains": {}})),
            ("/tls-cert-status", "GET") => {
                let has_domain = request
                    .query
                    .split('&')
                    .any(|pair| pair.strip_prefix("domain=").is_some_and(|domain| !domain.is_empty()));
                if has_domain {
                    C2nResponse::json(200, &json!({"Missing": true}))
                } else {
                    C2nResponse::text(400, "no 'domain'")
                }
            }
            (
                "/update"
                | "/posture/identity"
                | "/vip-services"
                | "/appconnector/routes"
                | "/tls-cert-status",
                _,
            ) => C2nResponse::text(405, "bad method"),
            _ => C2nResponse::text(400, "unknown c2n path"),
        }
    }
}

impl C2nResponse {
    /// An answer in JSON.
    pub fn json(status: u16, value: &Value) -> Self {
        Self { status, content_type: "application/json", body: value.to_string().into_bytes() }
    }

    /// An answer in words.
    pub fn text(status: u16, text: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: text.as_bytes().to_vec() }
    }

    /// The answer as HTTP/1.1.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let reason =
            http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason.unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = write!(
            head,
            "Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
            self.content_type,
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat()
    }
}

impl C2nRequest {
    /// Reads a whole request; the error says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() > MAX_REQUEST_LEN {
            return Err("the request is too long");
        }
        let end =
            bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or("the request has no end of header")?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "the request's header is no text")?;
        let body = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (Some(method), Some(target), Some("HTTP/1.0" | "HTTP/1.1"), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err("the request line is not HTTP/1");
        };
        let mut content_len = None;
        let mut chunked = false;
        for (count, line) in lines.enumerate() {
            let (name, value) = line.split_once(':').ok_or("a header line has no colon")?;
            if count >= MAX_FIELDS {
                return Err("the request has too many header lines");
            }
            if name.eq_ignore_ascii_case("content-length") {
                content_len =
                    Some(value.trim().parse::<usize>().map_err(|_| "the content length is no number")?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
        }
        let body = match (chunked, content_len) {
            (true, _) => dechunk(body).ok_or("the chunked body is damaged")?,
            (false, Some(len)) => body.get(..len).ok_or("the body is cut off")?.to_vec(),
            (false, None) => Vec::new(),
        };
        // The target is a path, or a whole URL whose host means nothing here.
        let target =
            target.split_once("://").map_or(target, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Self { method: method.to_owned(), path: path.to_owned(), query: query.to_owned(), body })
    }
}

/// The body of a chunked message (RFC 9112 §7.1).
fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_len = bytes.windows(2).position(|w| w == b"\r\n")?;
        let line = std::str::from_utf8(&bytes[..line_len]).ok()?;
        let len = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[line_len + 2..];
        if len == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..len)?);
        bytes = bytes[len..].strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &[u8]) -> C2nResponse {
        StandardC2n.answer(&C2nRequest::parse(request).unwrap())
    }

    #[test]
    fn echo_returns_the_body_in_every_framing() {
        for request in [
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".as_slice(),
            b"GET http://host/echo?a=b HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello and more",
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
        ] {
            let response = answer(request);
            assert_eq!((response.status, response.body.as_slice()), (200, b"hello".as_slice()));
        }
        let bytes = answer(b"GET /echo HTTP/1.1\r\n\r\n").to_bytes();
        assert_eq!(bytes, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn only_harmless_paths_are_answered() {
        for (line, status, body) in [
            (
                "GET /update",
                200,
                r#"{"Enabled":false,"Err":"not supported","Started":false,"Supported":false}"#,
            ),
            (
                "POST /update",
                200,
                r#"{"Enabled":false,"Err":"not supported","Started":false,"Supported":false}"#,
            ),
            ("DELETE /update", 405, "bad method"),
            ("GET /posture/identity", 200, r#"{"PostureDisabled":true}"#),
            ("GET /vip-services", 200, r#"{"ServicesHash":"","VIPServices":[]}"#),
            ("GET /appconnector/routes", 200, r#"{"Domains":{}}"#),
            ("GET /tls-cert-status?domain=a.test", 200, r#"{"Missing":true}"#),
            ("GET /tls-cert-status", 400, "no 'domain'"),
            ("GET /tls-cert-status?domain=", 400, "no 'domain'"),
            ("POST /vip-services", 405, "bad method"),
            ("POST /logtail/flush", 400, "unknown c2n path"),
            ("POST /netfilter-kind", 400, "unknown c2n path"),
            ("POST /wol", 400, "unknown c2n path"),
            ("POST /sockstats", 400, "unknown c2n path"),
            ("GET /debug/goroutines", 400, "unknown c2n path"),
            ("GET /debug/pprof/heap", 400, "unknown c2n path"),
            ("POST /remoteapi/localapi/v0/prefs", 400, "unknown c2n path"),
            ("GET /echo/../debug/prefs", 400, "unknown c2n path"),
            ("GET /", 400, "unknown c2n path"),
        ] {
            let response = answer(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
            assert_eq!(
                (response.status, String::from_utf8(response.body).unwrap().as_str()),
                (status, body),
                "{line}"
            );
        }
    }

    #[test]
    fn damaged_requests_are_refused_at_every_length() {
        for whole in [
            b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".as_slice(),
            b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ] {
            assert!(C2nRequest::parse(whole).is_ok());
            for len in 0..whole.len() {
                assert!(C2nRequest::parse(&whole[..len]).is_err(), "{len}");
            }
        }
        for bad in [
            "GET  /echo HTTP/1.1\r\n\r\n",
            "GET /echo HTTP/2\r\n\r\n",
            "GET /echo\r\n\r\n",
            "GET /echo HTTP/1.1\r\nno colon\r\n\r\n",
            "GET /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        ] {
            assert!(C2nRequest::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let fields = format!("GET /echo HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert!(C2nRequest::parse(fields.as_bytes()).is_err());
        assert!(C2nRequest::parse(&vec![b'a'; MAX_REQUEST_LEN + 1]).is_err());
    }
}
