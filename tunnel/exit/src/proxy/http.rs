//! The client of CONNECT (RFC 9110 §9.3.6) over HTTP/1.1 (RFC 9112), with Basic credentials (RFC 7617).

use tsrs_base_types::Redacted;

use super::credentials::Credentials;
use super::error::{Garbage, ProxyError, Reply};
use super::handshake::{Outcome, Purpose, Step};
use super::url::ProxyUrl;

/// Longest head of an answer, interim answers included. Proxies send less than one KiB.
pub const MAX_HEAD_LEN: usize = 8 * 1024;
/// Most fields of a head. Proxies send about ten.
pub const MAX_FIELD_COUNT: usize = 64;
/// Most interim answers (1xx) in front of the final one. RFC 9110 §15.2 allows any number; proxies send none.
pub const MAX_INTERIM_COUNT: usize = 4;

pub(super) struct HttpMachine {
    purpose: Purpose,
    to_send: Option<Redacted<Vec<u8>>>,
    /// The line that is arriving, without its end.
    line: Vec<u8>,
    /// Bytes of all lines so far.
    head_len: usize,
    /// The status, once its line is complete.
    status: Option<u16>,
    field_count: usize,
    interim_count: usize,
}

impl HttpMachine {
    pub(super) fn new(
        proxy: &ProxyUrl,
        purpose: Purpose,
        credentials: Option<&Credentials>,
    ) -> Result<Self, ProxyError> {
        let mut request = match purpose {
            Purpose::Connect(destination) => {
                format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n").into_bytes()
            }
            // Addressed to the proxy itself, which passes it on to nobody (RFC 9110 §7.6.2) and asks for credentials first. Of the
            // questions with this property squid answers OPTIONS without a look at the credentials, and would take GET through itself.
            // The answer repeats the request to us alone, and only its head is read.
            Purpose::Health => {
                let authority = format!("{}:{}", proxy.host, proxy.port);
                format!("TRACE http://{authority}/ HTTP/1.1\r\nHost: {authority}\r\nMax-Forwards: 0\r\n")
                    .into_bytes()
            }
            Purpose::Associate { .. } => return Err(ProxyError::NoUdp),
        };
        if let Some(basic) = credentials.map(Credentials::basic) {
            // Exposed to be sent to the proxy. Room for all of it, so that no copy is left behind.
            let basic = basic.expose().as_bytes();
            request.reserve_exact(basic.len() + 32);
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(basic);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        Ok(Self {
            purpose,
            to_send: Some(Redacted::new(request)),
            line: Vec::new(),
            head_len: 0,
            status: None,
            field_count: 0,
            interim_count: 0,
        })
    }

    pub(super) const fn poll_transmit(&mut self) -> Option<Redacted<Vec<u8>>> {
        self.to_send.take()
    }

    /// A question about the proxy itself needs no more time than a greeting.
    pub(super) const fn is_let_in(&self) -> bool {
        !matches!(self.purpose, Purpose::Health)
    }

    pub(super) fn handle_input(&mut self, bytes: &[u8]) -> Result<Step, ProxyError> {
        let mut consumed = 0;
        while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            let line_end = rest.iter().position(|byte| *byte == b'\n');
            let piece = &rest[..line_end.map_or(rest.len(), |at| at + 1)];
            self.head_len = self.head_len.saturating_add(piece.len());
            if self.head_len > MAX_HEAD_LEN {
                return Err(ProxyError::Garbage(Garbage::TooLong));
            }
            consumed += piece.len();
            self.line.extend_from_slice(piece);
            if line_end.is_none() {
                break;
            }
            let line = std::mem::take(&mut self.line);
            if let Some(outcome) = self.handle_line(&line)? {
                return Ok(Step::Done { consumed, outcome });
            }
        }
        Ok(Step::Pending)
    }

    fn handle_line(&mut self, line: &[u8]) -> Result<Option<Outcome>, ProxyError> {
        let whole = line.strip_suffix(b"\r\n");
        let Some(status) = self.status else {
            let status = whole.and_then(parse_status).ok_or(ProxyError::Garbage(Garbage::StatusLine))?;
            self.status = Some(status);
            return Ok(None);
        };
        let line = whole.ok_or(ProxyError::Garbage(Garbage::Field))?;
        if line.is_empty() {
            return self.handle_head(status);
        }
        self.field_count += 1;
        if self.field_count > MAX_FIELD_COUNT {
            return Err(ProxyError::Garbage(Garbage::TooManyFields));
        }
        if is_field(line) { Ok(None) } else { Err(ProxyError::Garbage(Garbage::Field)) }
    }

    fn handle_head(&mut self, status: u16) -> Result<Option<Outcome>, ProxyError> {
        match (status, self.purpose) {
            // A switch of protocols was not asked for.
            (101, _) => Err(ProxyError::Garbage(Garbage::StatusLine)),
            (100..=199, _) => {
                self.interim_count += 1;
                if self.interim_count > MAX_INTERIM_COUNT {
                    return Err(ProxyError::Garbage(Garbage::TooManyInterim));
                }
                self.status = None;
                self.field_count = 0;
                Ok(None)
            }
            // tinyproxy says 407 to nobody, and 401 to the wrong somebody.
            (401 | 407, _) => Err(ProxyError::Credentials),
            // Many proxies do not answer such a question, but they look at the credentials first.
            (_, Purpose::Health) => Ok(Some(Outcome::Healthy)),
            // Length fields mean nothing here (RFC 9110 §9.3.6): the stream begins behind the head.
            (200..=299, Purpose::Connect(_)) => Ok(Some(Outcome::Connected)),
            (_, Purpose::Connect(_) | Purpose::Associate { .. }) => {
                Err(ProxyError::Refused(Reply::HttpStatus(status)))
            }
        }
    }
}

/// `HTTP/1.x NNN reason` (RFC 9112 §4).
fn parse_status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let ([b'0' | b'1', b' ', hundreds @ b'1'..=b'5', tens, ones], reason) = rest.split_first_chunk()? else {
        return None;
    };
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    let is_right = tens.is_ascii_digit() && ones.is_ascii_digit() && reason.iter().all(is_text);
    let ends = reason.first().is_none_or(|byte| *byte == b' ');
    let digit = |byte: u8| u16::from(byte.wrapping_sub(b'0'));
    (is_right && ends).then(|| digit(*hundreds) * 100 + digit(*tens) * 10 + digit(*ones))
}

/// `name: value` (RFC 9112 §5). No folded lines, no blank in front of the colon, no control characters.
fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return false };
    let (name, value) = line.split_at(colon);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    !name.is_empty() && name.iter().all(is_token) && value.iter().all(is_text)
}
