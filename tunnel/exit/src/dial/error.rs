//! Why nothing was dialled, or nothing answered.

use std::fmt::Write as _;
use std::time::Duration;

use crate::proxy::{ProxyError, ProxyUrl};

use super::egress::AddressRefusal;

/// Why one proxy is no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyFailure {
    /// Its address cannot be a proxy's.
    #[error("{0}")]
    Address(AddressRefusal),
    /// Its name has no address.
    #[error("{0}")]
    Name(String),
    /// Nobody takes the connection.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// Nobody takes the connection in time.
    #[error("it cannot be reached: no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// TLS with it fails.
    #[error("{0}")]
    Tls(String),
    /// The handshake fails.
    #[error("{0}")]
    Handshake(ProxyError),
}

/// Why a flow was not dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// There is no proxy.
    #[error("no proxy is set, and without one nothing leaves this node")]
    Closed,
    /// Too many dials are under way.
    #[error("too many connections are being made at once")]
    Busy,
    /// The exit mark was refused. No proxy is tried then.
    #[error("the socket cannot be confined to the proxies: {0}")]
    Mark(String),
    /// A proxy says that the destination does not take the connection.
    #[error("{proxy}: {error}")]
    Destination {
        /// The proxy.
        proxy: ProxyUrl,
        /// What it said, or that it had nothing to say.
        error: ProxyError,
    },
    /// No proxy is of any use.
    #[error("no proxy works: {}", listed(.0))]
    Proxies(Vec<(ProxyUrl, ProxyFailure)>),
}

fn listed(failures: &[(ProxyUrl, ProxyFailure)]) -> String {
    let mut text = String::new();
    for (index, (proxy, failure)) in failures.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{proxy}: {failure}");
    }
    text
}
