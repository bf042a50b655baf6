//! Why a call to the control server failed, with the next step for the user.

use std::time::Duration;

use tsrs_platform_net::NetError;

use crate::noise::HandshakeError;

/// Longest text of a server that goes into an error.
const MAX_SERVER_TEXT_LEN: usize = 200;

/// What kind of failure it was; callers choose a health warning or an exit code by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The server cannot be reached: name, network, proxy, time-out.
    Unreachable,
    /// The server's certificate is not trusted, or is for another name.
    Certificate,
    /// The certificate is not valid at this host's time: usually the clock is wrong.
    Clock,
    /// What answers at the URL is no control server.
    NotControl,
    /// Client and server have no protocol version in common.
    Version,
    /// The server does not prove its key.
    ServerKey,
    /// The server refuses the login: bad or used-up auth key, a user that may not.
    Refused,
    /// The server does not know this node (any more): it was deleted.
    NodeUnknown,
    /// The server wants us to slow down.
    RateLimited,
    /// The server reports a failure of its own (5xx).
    Server,
    /// The server answers with something that cannot be understood.
    Garbage,
    /// The connection broke, or was silent for too long.
    Broken,
    /// The server does not have this function.
    NotOffered,
    /// The tailnet wants something that this program cannot do.
    Unsupported,
    /// The caller's own settings or request are wrong.
    Configuration,
    /// The host does not let us work, such as by refusing the bypass mark.
    Host,
}

/// Why a call to the control server failed. The text says the cause and the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server cannot be reached.
    #[error(transparent)]
    Net(#[from] NetError),
    /// Every way to the server failed.
    #[error("cannot reach the control server: {}", join(.0))]
    Attempts(Vec<Self>),
    /// What answers is no control server.
    #[error("{url} is no Tailscale control server ({answer}); check the URL of --login-server")]
    NotControl {
        /// What was fetched.
        url: String,
        /// What came back.
        answer: String,
    },
    /// The server has no key for us.
    #[error(
        "{url} gives no key for protocol version {version}: the server is too old; update it, or use an older client"
    )]
    NoKey {
        /// What was fetched.
        url: String,
        /// Our protocol version.
        version: u16,
    },
    /// The upgrade to Noise was answered otherwise.
    #[error(
        "{target}: POST /ts2021 was answered with status {status}; a reverse proxy in front of the server must pass \
         on the upgrade (also for POST)"
    )]
    Upgrade {
        /// Host and port.
        target: String,
        /// The status code.
        status: u16,
    },
    /// The upgrade was answered with something else than HTTP.
    #[error("{target}: {reason}")]
    UpgradeAnswer {
        /// Host and port.
        target: String,
        /// What was wrong.
        reason: String,
    },
    /// The handshake failed.
    #[error(
        "{error}; it may not support protocol version {version} (server too old or too new), or its key has changed"
    )]
    Handshake {
        /// Why.
        error: HandshakeError,
        /// Our protocol version.
        version: u16,
    },
    /// The connection broke.
    #[error("the connection to the control server broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("{what}: no answer from the control server within {} s", .after.as_secs())]
    Timeout {
        /// The call.
        what: &'static str,
        /// The time limit.
        after: Duration,
    },
    /// The server answered with an error status.
    #[error("{what}: the control server answered with status {status}{}", with_text(.text))]
    Status {
        /// The call.
        what: &'static str,
        /// The status code.
        status: u16,
        /// The begin of the body.
        text: String,
    },
    /// The server refuses our protocol version.
    #[error(
        "the control server refuses this client's protocol version: {0}; update the server or this program"
    )]
    Version(String),
    /// The server does not know the node.
    #[error("the control server does not know this node: it was deleted there; log in again")]
    NodeUnknown,
    /// The server wants us to wait.
    #[error("the control server is asked too often (status 429); try again in {} s", .0.as_secs())]
    RateLimited(Duration),
    /// The server refuses the registration; the text is its own.
    #[error("the control server refuses the login: {0}")]
    Refused(String),
    /// The server refuses a registration with an auth key; the text is its own.
    #[error(
        "the control server refuses the login: {0}; check the key of --auth-key (keys expire, and some are good for one \
         login), or leave it out to log in with a browser"
    )]
    RefusedWithKey(String),
    /// The server does not have this call.
    #[error("{what} is not offered by this control server")]
    NotOffered {
        /// The call.
        what: &'static str,
    },
    /// The answer cannot be understood.
    #[error("{what}: the control server's answer cannot be understood: {reason}")]
    Garbage {
        /// The call.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The URL that the user should visit is not one that may be shown.
    #[error("the control server sent a login URL that is not safe to open ({0}); ask its administrator")]
    AuthUrl(&'static str),
    /// The server calls a fresh key expired.
    #[error(
        "the control server calls a new node key expired; check the clocks of this host and of the server"
    )]
    FreshKeyExpired,
    /// The server does not take the renewed signature.
    #[error(
        "the control server wants the node key signed again and does not take the signature that this node made; sign the \
         node from another one"
    )]
    TailnetLock,
    /// The auth key is an OAuth secret.
    #[error("this is an OAuth client secret and no auth key; make an auth key with it and use that")]
    OauthSecret,
    /// The caller's own request is wrong.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Net(error) => net_kind(error),
            // The last attempt is the one over TLS, which says most.
            Self::Attempts(errors) => errors.last().map_or(ErrorKind::Unreachable, Self::kind),
            Self::NotControl { .. } | Self::Upgrade { .. } | Self::UpgradeAnswer { .. } => {
                ErrorKind::NotControl
            }
            Self::NoKey { .. } | Self::Version(_) => ErrorKind::Version,
            Self::Handshake { error: HandshakeError::Closed | HandshakeError::Refused(_), .. } => {
                ErrorKind::Version
            }
            Self::Handshake { error: HandshakeError::Io(_), .. } => ErrorKind::Broken,
            Self::Handshake {
                error: HandshakeError::Malformed { .. } | HandshakeError::Noise(_), ..
            } => ErrorKind::ServerKey,
            Self::Broken(_) | Self::Timeout { .. } => ErrorKind::Broken,
            Self::Status { status: 500.., .. } => ErrorKind::Server,
            Self::Status { .. } | Self::Refused(_) | Self::RefusedWithKey(_) => ErrorKind::Refused,
            Self::NodeUnknown => ErrorKind::NodeUnknown,
            Self::RateLimited(_) => ErrorKind::RateLimited,
            Self::NotOffered { .. } => ErrorKind::NotOffered,
            Self::Garbage { .. } | Self::AuthUrl(_) | Self::FreshKeyExpired => ErrorKind::Garbage,
            Self::TailnetLock => ErrorKind::Unsupported,
            Self::OauthSecret | Self::Request(_) => ErrorKind::Configuration,
        }
    }

    /// How long the server wants us to wait.
    #[expect(clippy::wildcard_enum_match_arm, reason = "one error has a time, whatever others come")]
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(after) => Some(*after),
            _ => None,
        }
    }
}

fn net_kind(error: &NetError) -> ErrorKind {
    use tsrs_platform_net::ErrorKind as Kind;
    match error.kind() {
        Kind::Configuration => ErrorKind::Configuration,
        Kind::UnknownName | Kind::Dns | Kind::Unreachable | Kind::Timeout | Kind::Proxy => {
            ErrorKind::Unreachable
        }
        Kind::Mark => ErrorKind::Host,
        Kind::UntrustedCertificate | Kind::WrongName => ErrorKind::Certificate,
        Kind::CertificateTime => ErrorKind::Clock,
        Kind::Protocol => ErrorKind::NotControl,
    }
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}

fn with_text(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// The begin of a text from the server, on one line.
pub(crate) fn server_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SERVER_TEXT_LEN)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_server_stay_short_and_on_one_line() {
        assert_eq!(server_text(b" node not\nfound\x1b[31m \n"), "node not found [31m");
        assert_eq!(server_text(&[b'a'; 10_000]).len(), MAX_SERVER_TEXT_LEN);
        assert_eq!(server_text(b"\xff"), "\u{fffd}");
    }
}
