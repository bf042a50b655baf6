//! The agent's own small DNS client, as far as it needs no socket.

pub(crate) mod hosts;

pub(crate) mod message;
pub(crate) mod resolv_conf;

use crate::error::ErrorKind;

/// Why a name has no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The text cannot be a host name.
    #[error("not a host name (letters, digits, hyphens and dots; other scripts in their xn-- form)")]
    BadName,
    /// There is nobody to ask.
    #[error("no name server is known; check the nameserver lines of /etc/resolv.conf")]
    NoServers,
    /// The servers say that the name does not exist or has no IPv4 address.
    #[error("the name does not exist or has no IPv4 address; check its spelling")]
    NoAddress,
    /// No server gave a usable answer.
    #[error(
        "no name server answered ({last}); check the network and the nameserver lines of /etc/resolv.conf"
    )]
    NoAnswer {
        /// What the last one did.
        last: String,
    },
    /// The bypass mark was refused.
    #[error("cannot mark the DNS socket to bypass the tunnel ({0}); the agent needs CAP_NET_ADMIN")]
    Mark(String),
}

impl ResolveError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::BadName => ErrorKind::Configuration,
            Self::NoAddress => ErrorKind::UnknownName,
            Self::NoServers | Self::NoAnswer { .. } => ErrorKind::Dns,
            Self::Mark(_) => ErrorKind::Mark,
        }
    }
}
