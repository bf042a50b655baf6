//! Where a proxy is.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Longest name that DNS has (RFC 1035 §2.3.4).
const MAX_NAME_LEN: usize = 253;

/// How to talk to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyScheme {
    /// SOCKS version 5. `socks5h` is the same here: no proxy is ever given a name.
    Socks5,
    /// CONNECT over plain TCP.
    Http,
    /// CONNECT over TLS.
    Https,
}

impl ProxyScheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Socks5 => 1080,
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Whether the connection to the proxy is encrypted, credentials included.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Https)
    }
}

/// The host of a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProxyHost {
    /// A literal.
    Address(Ipv4Addr),
    /// A name in lower case, for the host's own resolver.
    Name(String),
}

impl fmt::Display for ProxyHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Why a text names no proxy. No variant repeats the text: somebody may have written a password into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyUrlError {
    /// There is no scheme that we speak.
    #[error("write socks5://host:port, http://host:port or https://host:port")]
    Scheme,
    /// There is a user name or a password in it.
    #[error(
        "a user name or password in the URL would be seen in the list of processes: put user:password into a file and \
         name that as credentials"
    )]
    Credentials,
    /// The host is missing, or not a name or IPv4 address.
    #[error("the proxy's host must be a name or an IPv4 address")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("the proxy's port must be a number from 1 to 65535")]
    Port,
    /// Something follows the port.
    #[error("a proxy URL ends with the port: it has no path, query or fragment")]
    Path,
}

/// A proxy as the operator writes it: `socks5`, `socks5h`, `http` or `https`, host and port, and no credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxyUrl {
    /// How to talk to it.
    pub scheme: ProxyScheme,
    /// Its host.
    pub host: ProxyHost,
    /// Its TCP port, not 0.
    pub port: u16,
}

impl FromStr for ProxyUrl {
    type Err = ProxyUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or(ProxyUrlError::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "socks5" | "socks5h" => ProxyScheme::Socks5,
            "http" => ProxyScheme::Http,
            "https" => ProxyScheme::Https,
            _ => return Err(ProxyUrlError::Scheme),
        };
        // Before anything else: a password may hold any of the other characters.
        if rest.contains('@') {
            return Err(ProxyUrlError::Credentials);
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(ProxyUrlError::Path);
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, parse_port(port)?),
            None => (authority, scheme.default_port()),
        };
        Ok(Self { scheme, host: parse_host(host)?, port })
    }
}

fn parse_port(text: &str) -> Result<u16, ProxyUrlError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0).ok_or(ProxyUrlError::Port)
}

fn parse_host(text: &str) -> Result<ProxyHost, ProxyUrlError> {
    if let Ok(address) = text.parse() {
        return Ok(ProxyHost::Address(address));
    }
    let label_is_plain = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // A last label of digits only is a mistyped address: some resolvers read 127.1 and 2130706433 as one.
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number =
        last.bytes().all(|byte| byte.is_ascii_digit()) || last.to_ascii_lowercase().starts_with("0x");
    if text.len() > MAX_NAME_LEN || is_number || !text.split('.').all(label_is_plain) {
        return Err(ProxyUrlError::Host);
    }
    Ok(ProxyHost::Name(text.to_ascii_lowercase()))
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_print_back() {
        let name = || ProxyHost::Name("proxy.example.test".to_owned());
        for (text, scheme, host, port, printed) in [
            (
                "socks5://11.0.0.8:1081",
                ProxyScheme::Socks5,
                ProxyHost::Address([11, 0, 0, 8].into()),
                1081,
                "socks5://11.0.0.8:1081",
            ),
            (
                "SOCKS5H://Proxy.Example.test",
                ProxyScheme::Socks5,
                name(),
                1080,
                "socks5://proxy.example.test:1080",
            ),
            ("http://proxy.example.test/", ProxyScheme::Http, name(), 80, "http://proxy.example.test:80"),
            ("https://proxy.example.test", ProxyScheme::Https, name(), 443, "https://proxy.example.test:443"),
        ] {
            let url: ProxyUrl = text.parse().unwrap();
            assert_eq!(url, ProxyUrl { scheme, host, port }, "{text}");
            assert_eq!(url.to_string(), printed);
            assert_eq!(printed.parse::<ProxyUrl>().unwrap(), url);
        }
    }

    #[test]
    fn what_names_no_proxy_is_refused_with_its_reason() {
        for (text, error) in [
            ("", ProxyUrlError::Scheme),
            ("11.0.0.8:1080", ProxyUrlError::Scheme),
            ("socks4://11.0.0.8", ProxyUrlError::Scheme),
            ("direct://11.0.0.8", ProxyUrlError::Scheme),
            ("socks5://user:hunter2@11.0.0.8:1080", ProxyUrlError::Credentials),
            ("socks5://user@11.0.0.8:1080", ProxyUrlError::Credentials),
            ("http://user:a/b?c#d@11.0.0.8", ProxyUrlError::Credentials),
            ("socks5://", ProxyUrlError::Host),
            ("socks5://:1080", ProxyUrlError::Host),
            ("socks5://[::1]:1080", ProxyUrlError::Host),
            ("socks5://127.1:1080", ProxyUrlError::Host),
            ("socks5://2130706433:1080", ProxyUrlError::Host),
            ("socks5://0x7f000001:1080", ProxyUrlError::Host),
            ("socks5://a..b", ProxyUrlError::Host),
            ("socks5://a b", ProxyUrlError::Host),
            ("socks5://host:0", ProxyUrlError::Port),
            ("socks5://host:65536", ProxyUrlError::Port),
            ("socks5://host:+80", ProxyUrlError::Port),
            ("socks5://host:", ProxyUrlError::Port),
            ("socks5://host:1080/path", ProxyUrlError::Path),
            ("http://host?query", ProxyUrlError::Path),
        ] {
            assert_eq!(text.parse::<ProxyUrl>(), Err(error), "{text}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_a_password() {
        let error = "socks5://user:hunter2@11.0.0.8:1080".parse::<ProxyUrl>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
