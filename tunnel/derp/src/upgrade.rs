//! The HTTP upgrade in front of the frames (data-plane sheet §4.1).

use data_encoding::HEXLOWER;
use tsrs_base_types::NodePublic;

/// What the common name of a server's meta certificate begins with; hex of its key follows.
pub const META_CERTIFICATE_PREFIX: &str = "derpkey";

/// The server's key from the common name of its meta certificate, which comes behind the real chain. Only to be looked
/// at under TLS 1.3, where certificates are not sent in the clear and belong to the session.
pub fn meta_certificate_key(common_name: &str) -> Option<NodePublic> {
    let digits = common_name.strip_prefix(META_CERTIFICATE_PREFIX)?;
    let raw = HEXLOWER.decode(digits.as_bytes()).ok()?;
    raw.try_into().ok().map(NodePublic::from_bytes)
}

/// Largest response head that is read. A server's has a few hundred bytes; a captive portal's page never matters.
pub const MAX_RESPONSE_LEN: usize = 16 << 10;

/// What the request says.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Host name of the node, with the port if it is not 443.
    pub host: &'a str,
    /// Name of the region's first node, when this is another one.
    pub ideal_node: Option<&'a str>,
    /// The server key is known from the meta certificate: the server then sends no HTTP response.
    pub fast_start: bool,
}

impl Request<'_> {
    /// Appends the request. Header values are cut at the first character that a header cannot hold.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut line = |parts: &[&str]| {
            for part in parts {
                out.extend_from_slice(part.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        };
        line(&["GET /derp HTTP/1.1"]);
        line(&["Host: ", header_value(self.host)]);
        line(&["Upgrade: DERP"]);
        line(&["Connection: Upgrade"]);
        if let Some(node) = self.ideal_node {
            line(&["Ideal-Node: ", header_value(node)]);
        }
        if self.fast_start {
            line(&["Derp-Fast-Start: 1"]);
        }
        line(&[]);
    }
}

/// The part of a text from the DERP map that is safe in a header.
fn header_value(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_graphic()).unwrap_or(text.len());
    &text[..end]
}

/// What became of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Response {
    /// The head is not complete yet.
    Incomplete,
    /// 101: frames begin after this many bytes.
    Upgraded {
        /// Length of the head with its empty line.
        head_len: usize,
    },
}

/// Why the response was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Another status than 101.
    #[error("server answered HTTP status {0} instead of an upgrade")]
    Status(u16),
    /// Not HTTP/1.
    #[error("server did not answer in HTTP")]
    NotHttp,
    /// The head is above [`MAX_RESPONSE_LEN`].
    #[error("HTTP response head is too long")]
    TooLong,
}

/// Reads a response head from the bytes received so far. A wrong status is reported before the head is complete.
pub fn parse_response(received: &[u8]) -> Result<Response, ResponseError> {
    const STATUS_LINE: &[u8] = b"HTTP/1.x NNN";
    if !received.iter().zip(b"HTTP/1.").all(|(got, want)| got == want) {
        return Err(ResponseError::NotHttp);
    }
    if received.len() > STATUS_LINE.len() {
        let code = std::str::from_utf8(&received[9..STATUS_LINE.len()]).ok();
        let status = code.and_then(|code| code.parse().ok()).ok_or(ResponseError::NotHttp)?;
        if status != 101 {
            return Err(ResponseError::Status(status));
        }
    }
    let head = &received[..received.len().min(MAX_RESPONSE_LEN)];
    match head.windows(4).position(|window| window == b"\r\n\r\n") {
        Some(at) => Ok(Response::Upgraded { head_len: at + 4 }),
        None if received.len() >= MAX_RESPONSE_LEN => Err(ResponseError::TooLong),
        None => Ok(Response::Incomplete),
    }
}
