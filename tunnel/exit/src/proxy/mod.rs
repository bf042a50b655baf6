//! Talking to a proxy, without input and output: SOCKS5 (RFC 1928, RFC 1929) and HTTP CONNECT (RFC 9110 §9.3.6).
//!
//! A [`Handshake`] asks for one thing and is told either yes or why not. A proxy may be slow or hostile: bytes, fields and time are
//! bounded by the named limits of this module.

mod credentials;
mod error;
mod handshake;
mod http;
mod socks5;
mod udp;
mod url;

pub use credentials::{
    CredentialError, CredentialSource, Credentials, MAX_CREDENTIAL_FILE_LEN, MAX_CREDENTIAL_LEN,
};
pub use error::{Blame, Garbage, ProxyError, Reply};
pub use handshake::{ANSWER_LIMIT, GREETING_LIMIT, Handshake, Outcome, Purpose, Step};
pub use http::{MAX_FIELD_COUNT, MAX_HEAD_LEN, MAX_INTERIM_COUNT};
pub use udp::{HEADER_LEN as UDP_HEADER_LEN, UdpHeaderError, split_udp, udp_header};
pub use url::{ProxyHost, ProxyScheme, ProxyUrl, ProxyUrlError};

#[cfg(test)]
mod tests;
