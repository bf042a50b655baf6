//! Why a connection could not be made, with the next step for the user.

use std::io;
use std::time::Duration;

use crate::dns::ResolveError;
use crate::proxy::env::ProxyError;
use crate::tls::TlsError;
use crate::url::UrlError;

/// What kind of failure it was; callers choose a health warning or an exit code by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The caller's own request cannot be carried out: a bad URL, an unusable proxy setting, an unreadable CA file.
    Configuration,
    /// The name does not exist.
    UnknownName,
    /// Names cannot be looked up.
    Dns,
    /// Nobody answers, or nobody listens there.
    Unreachable,
    /// The other side answered, and then was silent for too long.
    Timeout,
    /// The bypass mark was refused by the operating system.
    Mark,
    /// The proxy of the environment did not connect us.
    Proxy,
    /// The certificate is not from an authority that this host trusts, or not the pinned one.
    UntrustedCertificate,
    /// The certificate is for another name.
    WrongName,
    /// The certificate is not valid at this host's time; often the clock is wrong.
    CertificateTime,
    /// The other side does not speak TLS or HTTP as it should.
    Protocol,
}

/// Why a connection or a request of [`crate::Net`] failed. The text says the cause and the next step.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The URL cannot be opened.
    #[error("{url:?}: {error}")]
    Url {
        /// What was to be opened.
        url: String,
        /// Why it cannot be.
        error: UrlError,
    },
    /// A CA file cannot be used.
    #[error("CA file {path}: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The host name has no address.
    #[error("cannot look up {host:?}: {error}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        error: ResolveError,
    },
    /// The operating system refused the bypass mark.
    #[error("cannot mark the socket to bypass the tunnel: {0}; the agent needs CAP_NET_ADMIN")]
    Mark(io::Error),
    /// No address of the host took the connection.
    #[error("cannot connect to {target}: {error}")]
    Connect {
        /// Host and port.
        target: String,
        /// The last error.
        error: io::Error,
    },
    /// Nothing happened in time.
    #[error("{what}: no answer within {} s", .after.as_secs())]
    Timeout {
        /// What was tried.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The proxy did not connect us.
    #[error("proxy {proxy}: {error}")]
    Proxy {
        /// The proxy, without credentials.
        proxy: String,
        /// Why.
        error: ProxyError,
    },
    /// The TLS handshake failed.
    #[error("TLS with {host}: {error}")]
    Tls {
        /// The host.
        host: String,
        /// Why.
        error: TlsError,
    },
    /// The other side does not speak HTTP as it should.
    #[error("{host} does not answer as an HTTP server should: {reason}")]
    Http {
        /// The host.
        host: String,
        /// What was wrong.
        reason: String,
    },
}

impl NetError {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::CaFile { .. } => ErrorKind::Configuration,
            Self::Resolve { error, .. } => error.kind(),
            Self::Mark(_) => ErrorKind::Mark,
            Self::Connect { .. } => ErrorKind::Unreachable,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Proxy { error, .. } => error.kind(),
            Self::Tls { error, .. } => error.kind(),
            Self::Http { .. } => ErrorKind::Protocol,
        }
    }
}
