//! What a request says, and which requests are none (client sheet §2.1).

use std::time::Duration;

use http::header::{HOST, HeaderValue, ORIGIN, REFERER};
use http::{HeaderMap, Method, Request, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tsrs_agent_localapi::{Access, HOST as OWN_HOST, PATH_PREFIX};

use super::Answer;

/// Largest body: whole prefs with every list full take a tenth of it.
pub(super) const MAX_BODY_LEN: usize = 1 << 20;

/// Bytes of a body that are read past although nobody wants them; as many as Go's servers do.
const MAX_DISCARDED_LEN: usize = 256 << 10;

/// How long a body may take; it comes from this host.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A request that passed the checks.
pub(crate) struct Asked {
    request: Request<Incoming>,
    path: String,
    query: Vec<(String, String)>,
    pub(crate) access: Access,
}

impl Asked {
    pub(super) fn new(request: Request<Incoming>, path: String, access: Access) -> Self {
        let query = request.uri().query().map(parse_query).unwrap_or_default();
        Self { request, path, query, access }
    }

    pub(crate) fn method(&self) -> &str {
        self.request.method().as_str()
    }

    pub(crate) fn is(&self, method: &Method) -> bool {
        self.request.method() == method
    }

    /// The path below the prefix of the API, decoded.
    pub(crate) fn path(&self) -> &str {
        self.path.strip_prefix(PATH_PREFIX).unwrap_or_default()
    }

    /// A parameter of the query; empty and absent are the same, as for Go's `FormValue`.
    pub(crate) fn param(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    /// The whole body, whether it came in chunks or with a length.
    pub(crate) async fn body(self) -> Result<Vec<u8>, Answer> {
        let reading = Limited::new(self.request.into_body(), MAX_BODY_LEN).collect();
        let Ok(read) = tokio::time::timeout(BODY_LIMIT, reading).await else {
            return Err(Answer::text(408, "the body took too long"));
        };
        match read {
            Ok(body) => Ok(body.to_bytes().to_vec()),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                Err(Answer::text(413, &format!("the body is larger than {MAX_BODY_LEN} bytes")))
            }
            Err(error) => Err(Answer::text(400, &error.to_string())),
        }
    }

    /// Gives up the request, for an upgrade.
    pub(crate) fn into_request(self) -> Request<Incoming> {
        self.request
    }
}

/// Reads a body to its end, or as far as is fair, and forgets it.
pub(super) async fn discard(body: Incoming) {
    let mut body = Limited::new(body, MAX_DISCARDED_LEN);
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    // However it ends: the answer does not depend on it.
    let _ = tokio::time::timeout(BODY_LIMIT, reading).await;
}

/// Refuses what a browser or a stranger's page may have made.
pub(super) fn check(request: &Request<Incoming>) -> Result<(), Answer> {
    let headers = request.headers();
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Answer::text(400, "400 Bad Request: missing required Host header"));
    }
    // A request line with a whole URL names a host, too.
    let in_line = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    let is_own = |name: &[u8]| name.is_empty() || name == OWN_HOST.as_bytes();
    let filled = |name| headers.get_all(name).iter().any(|value| !value.is_empty());
    let one_host = headers.get_all(HOST).iter().count() <= 1;
    let own = host.is_none_or(is_own) && in_line.is_none_or(is_own);
    if !own || !one_host || filled(REFERER) || filled(ORIGIN) {
        return Err(Answer::text(403, "invalid localapi request"));
    }
    Ok(())
}

/// The path with its percent escapes decoded; `None` if they are none, or decode to no text.
pub(super) fn decoded_path(request: &Request<Incoming>) -> Option<String> {
    percent_decoded(request.uri().path(), false)
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent_decoded(key, true)?, percent_decoded(value, true)?))
        })
        .collect()
}

fn percent_decoded(text: &str, plus_is_space: bool) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                data_encoding::HEXLOWER_PERMISSIVE.decode(&digits).ok()?.first().copied()?
            }
            b'+' if plus_is_space => b' ',
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_bad_ones_refused() {
        assert_eq!(percent_decoded("/localapi/v0/%73tatus", false).as_deref(), Some("/localapi/v0/status"));
        assert_eq!(percent_decoded("a+b", false).as_deref(), Some("a+b"));
        for bad in ["%", "%7", "%zz", "%ff"] {
            assert_eq!(percent_decoded(bad, false), None, "{bad}");
        }
    }

    #[test]
    fn queries_are_read_as_go_reads_them() {
        let pairs = parse_query("note=a+b%26c&&empty=&flag&bad=%zz");
        let wanted = [("note", "a b&c"), ("", ""), ("empty", ""), ("flag", "")];
        assert_eq!(pairs, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
}
