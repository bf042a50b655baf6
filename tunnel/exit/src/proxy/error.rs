//! Why a proxy did not give what it was asked for.

use std::fmt;

/// Why a handshake with a proxy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It wants credentials that we do not have, or of a kind that we do not have.
    #[error("it wants other credentials than it was given")]
    NoAcceptableMethod,
    /// It refuses our credentials.
    #[error("it refuses our user name or password")]
    Credentials,
    /// It refuses what it was asked for.
    #[error("{0}")]
    Refused(Reply),
    /// It does not speak its protocol.
    #[error("it does not answer as a proxy should: {0}")]
    Garbage(Garbage),
    /// It closed the connection before its answer was complete.
    #[error("it closed the connection before its answer was complete")]
    Closed,
    /// It did not let us in in time.
    #[error("it is silent")]
    Silent,
    /// It let us in, and then had no answer in time: most often the destination is silent.
    #[error("it had no answer in time")]
    NoAnswer,
    /// UDP by an HTTP proxy.
    #[error("it carries no UDP: only a SOCKS5 proxy does")]
    NoUdp,
}

/// What a proxy answered instead of yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reply {
    /// SOCKS5 X'01'.
    GeneralFailure,
    /// SOCKS5 X'02'.
    NotAllowed,
    /// SOCKS5 X'03'.
    NetworkUnreachable,
    /// SOCKS5 X'04'.
    HostUnreachable,
    /// SOCKS5 X'05'.
    ConnectionRefused,
    /// SOCKS5 X'06'.
    TtlExpired,
    /// SOCKS5 X'07'.
    CommandNotSupported,
    /// SOCKS5 X'08'.
    AddressTypeNotSupported,
    /// SOCKS5 X'09' to X'FF'.
    Unassigned(u8),
    /// A status of HTTP that is neither 2xx nor a matter of credentials (401, 407).
    HttpStatus(u16),
}

/// Whose fault a failure is. Only a fault of the proxy is a reason to ask the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// Another proxy might say yes.
    Proxy,
    /// The destination does not take the connection.
    Destination,
}

impl Reply {
    /// The reply of that number, except for 0, which is a yes (RFC 1928 §6).
    pub(super) const fn from_socks5(number: u8) -> Self {
        match number {
            1 => Self::GeneralFailure,
            2 => Self::NotAllowed,
            3 => Self::NetworkUnreachable,
            4 => Self::HostUnreachable,
            5 => Self::ConnectionRefused,
            6 => Self::TtlExpired,
            7 => Self::CommandNotSupported,
            8 => Self::AddressTypeNotSupported,
            other => Self::Unassigned(other),
        }
    }

    const fn blame(self) -> Blame {
        match self {
            Self::NetworkUnreachable | Self::HostUnreachable | Self::ConnectionRefused | Self::TtlExpired => {
                Blame::Destination
            }
            // What HTTP proxies say when the destination does not answer, refuses or does not exist; they all have words of their own.
            Self::HttpStatus(404 | 500 | 502 | 503 | 504) => Blame::Destination,
            Self::GeneralFailure
            | Self::NotAllowed
            | Self::CommandNotSupported
            | Self::AddressTypeNotSupported
            | Self::Unassigned(_)
            | Self::HttpStatus(_) => Blame::Proxy,
        }
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GeneralFailure => "it reports a general failure",
            Self::NotAllowed => "its rules do not allow it",
            Self::NetworkUnreachable => "the network of the destination is unreachable from it",
            Self::HostUnreachable => "the destination is unreachable from it",
            Self::ConnectionRefused => "the destination refuses the connection",
            Self::TtlExpired => "the destination is too many hops away from it",
            Self::CommandNotSupported => "it does not know this command",
            Self::AddressTypeNotSupported => "it does not know this type of address",
            Self::Unassigned(number) => return write!(f, "it answers with the unknown code {number}"),
            Self::HttpStatus(status) => return write!(f, "it answers with HTTP status {status}"),
        })
    }
}

impl ProxyError {
    /// Whose fault it is.
    pub const fn blame(self) -> Blame {
        match self {
            Self::Refused(reply) => reply.blame(),
            Self::NoAnswer => Blame::Destination,
            Self::NoAcceptableMethod
            | Self::Credentials
            | Self::Garbage(_)
            | Self::Closed
            | Self::Silent
            | Self::NoUdp => Blame::Proxy,
        }
    }
}

/// What was wrong with the bytes of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Garbage {
    /// The first byte is not that of SOCKS5 or of its login.
    #[error("the version is another")]
    Version,
    /// It chose a method that was not offered.
    #[error("it chose a way to log in that was not offered")]
    Method,
    /// It spoke before it was asked.
    #[error("it answers before it is asked")]
    Early,
    /// The type of the bound address is none of RFC 1928.
    #[error("an unknown type of address")]
    AddressType,
    /// The relay for UDP is not at the proxy's own address.
    #[error("its relay for UDP is not at its own address")]
    RelayAddress,
    /// The status line is not one of HTTP/1.
    #[error("no status line of HTTP/1")]
    StatusLine,
    /// A line is no field.
    #[error("a header field that is none")]
    Field,
    /// The head is longer than its limit.
    #[error("its header is too long")]
    TooLong,
    /// The head has more fields than its limit.
    #[error("its header has too many fields")]
    TooManyFields,
    /// One interim answer after the other.
    #[error("too many interim answers")]
    TooManyInterim,
}
