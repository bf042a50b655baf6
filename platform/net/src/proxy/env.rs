//! The proxy settings of the environment.

use std::fmt;
use std::net::Ipv4Addr;

use data_encoding::BASE64;
use tsrs_base_types::Redacted;

use crate::error::ErrorKind;
use crate::url::Scheme;

/// Why a proxy did not connect us.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// The environment variable holds no proxy URL that can be used.
    #[error("the setting is not usable; write http://host:port, https://host:port or socks5://host:port")]
    Setting,
    /// The proxy cannot be reached.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The proxy asks for other credentials.
    #[error("refuses our credentials; put user and password into the proxy URL of the environment")]
    Credentials,
    /// The proxy refuses this destination.
    #[error("refuses to connect to {target}: {answer}")]
    Refused {
        /// Host and port.
        target: String,
        /// What it said.
        answer: String,
    },
    /// The proxy does not speak its protocol.
    #[error("does not answer as a proxy should: {0}")]
    Protocol(String),
}

impl ProxyError {
    pub(crate) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Setting => ErrorKind::Configuration,
            Self::Unreachable(_) | Self::Credentials | Self::Refused { .. } | Self::Protocol(_) => {
                ErrorKind::Proxy
            }
        }
    }
}

/// How to talk to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    /// CONNECT over plain TCP.
    Http,
    /// CONNECT over TLS.
    Https,
    /// SOCKS version 5 (RFC 1928); the proxy resolves names.
    Socks5,
}

/// One proxy.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) protocol: ProxyProtocol,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) credentials: Option<Credentials>,
}

/// User name and password for a proxy.
#[derive(Clone, Debug)]
pub(crate) struct Credentials {
    pub(crate) user: Redacted<String>,
    pub(crate) password: Redacted<String>,
}

impl Credentials {
    /// The value of a `Proxy-Authorization` field (RFC 7617).
    pub(crate) fn basic(&self) -> Redacted<String> {
        // Exposed to be sent to the proxy, for which the user wrote them.
        let pair = Redacted::new(format!("{}:{}", self.user.expose(), self.password.expose()));
        Redacted::new(format!("Basic {}", BASE64.encode(pair.expose().as_bytes())))
    }
}

impl Proxy {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (protocol, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (ProxyProtocol::Http, 80),
            "https" => (ProxyProtocol::Https, 443),
            "socks5" | "socks5h" => (ProxyProtocol::Socks5, 1080),
            _ => return None,
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (credentials, host_port) = match authority.rsplit_once('@') {
            Some((user_info, host_port)) => {
                let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
                let [user, password] = [user, password].map(percent_decode);
                (
                    Some(Credentials { user: Redacted::new(user?), password: Redacted::new(password?) }),
                    host_port,
                )
            }
            None => (None, authority),
        };
        let (host, port) = match host_port.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (host_port, default_port),
        };
        let host_is_plain =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        host_is_plain.then(|| Self { protocol, host: host.to_ascii_lowercase(), port, credentials })
    }
}

/// Without the credentials.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyProtocol::Http => "http",
            ProxyProtocol::Https => "https",
            ProxyProtocol::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2)?;
            out.extend(data_encoding::HEXLOWER_PERMISSIVE.decode(digits).ok()?);
            rest = &tail[2..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

/// A proxy setting that was read: usable or not. An unusable one fails the connections it was meant for, since a
/// direct connection is not what the user asked for.
#[derive(Clone, Debug)]
enum Setting {
    Proxy(Proxy),
    Unusable,
}

/// Which proxy the environment wants for which destination.
///
/// `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, in lower case too, as most programs read them; `ALL_PROXY` where the
/// specific variable is missing. Loopback is never proxied.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Setting>,
    https: Option<Setting>,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    Network(Ipv4Addr, u32),
    /// A name and what lies below it, or only what lies below it.
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// Reads the process environment.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Reads the variables through a function, so that a test needs no environment.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| {
            let value = var(name).or_else(|| var(&name.to_ascii_lowercase()))?;
            let value = value.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let setting = |name: &str| {
            let value = Redacted::new(read(name).or_else(|| read("ALL_PROXY"))?);
            // Exposed to be parsed.
            let proxy = Proxy::parse(value.expose());
            if proxy.is_none() {
                tracing::warn!(variable = name, "proxy setting of the environment is not usable");
            }
            Some(proxy.map_or(Setting::Unusable, Setting::Proxy))
        };
        let exceptions =
            read("NO_PROXY").unwrap_or_default().split(',').filter_map(Exception::parse).collect();
        Self { http: setting("HTTP_PROXY"), https: setting("HTTPS_PROXY"), exceptions }
    }

    /// The proxy for a destination, `None` for a direct connection.
    pub(crate) fn choose(&self, scheme: Scheme, host: &str, port: u16) -> Result<Option<&Proxy>, ProxyError> {
        let setting = match scheme {
            Scheme::Http => &self.http,
            Scheme::Https => &self.https,
        };
        let Some(setting) = setting else { return Ok(None) };
        let is_local = host == "localhost" || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback());
        if is_local || self.exceptions.iter().any(|exception| exception.covers(host, port)) {
            return Ok(None);
        }
        match setting {
            Setting::Proxy(proxy) => Ok(Some(proxy)),
            Setting::Unusable => Err(ProxyError::Setting),
        }
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Self::Everything);
        }
        if let Some((address, len)) = text.split_once('/') {
            return Some(Self::Network(address.parse().ok()?, len.parse().ok().filter(|len| *len <= 32)?));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text.as_str(), None),
        };
        let below_only = name.strip_prefix("*.").or_else(|| name.strip_prefix('.'));
        let itself = below_only.is_none();
        Some(Self::Domain { name: below_only.unwrap_or(name).to_owned(), itself, port })
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Network(network, len) => host.parse().is_ok_and(|ip: Ipv4Addr| {
                let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
                (ip.to_bits() ^ network.to_bits()) & mask == 0
            }),
            Self::Domain { name, itself, port: only } => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|head| head.ends_with('.'));
                ((*itself && host == name) || below) && only.is_none_or(|only| only == port)
            }
        }
    }
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
