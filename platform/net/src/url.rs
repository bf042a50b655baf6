//! The few URLs that the agent opens itself.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// How a URL is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP in TLS.
    Https,
}

impl Scheme {
    /// The port that a URL without one means.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The scheme as a URL begins with it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Why a text is no URL that can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// The text is no absolute URL.
    #[error("not a URL: it must look like https://host or http://host:port")]
    Syntax,
    /// The scheme is neither http nor https.
    #[error("the URL must begin with https:// or http://")]
    Scheme,
    /// The host is missing or an IPv6 literal.
    #[error("the URL needs a host name or an IPv4 address")]
    Host,
    /// There are credentials in front of the host.
    #[error("a user name or password in the URL is not supported")]
    Credentials,
}

/// An `http` or `https` URL, split once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// How it is fetched.
    pub scheme: Scheme,
    /// Name or IPv4 literal, lower case.
    pub host: String,
    /// The port that the URL names, if it does.
    pub explicit_port: Option<u16>,
    /// Path with query; begins with a slash.
    pub path: String,
}

impl Url {
    /// The port to dial.
    pub fn port(&self) -> u16 {
        self.explicit_port.unwrap_or(self.scheme.default_port())
    }

    /// Host, with the port where the URL names one: the `Host` header.
    pub fn authority(&self) -> String {
        match self.explicit_port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    /// The same server with another path (with query), which begins with a slash.
    pub fn with_path(&self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self.clone() }
    }

    /// The host as an address, if it is a literal.
    pub fn ip(&self) -> Option<Ipv4Addr> {
        self.host.parse().ok()
    }

    /// Resolves a `Location` header against this URL.
    pub(crate) fn join(&self, location: &str) -> Result<Self, UrlError> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Ok(self.with_path(location));
        }
        location.parse()
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let uri: http::Uri = text.parse().map_err(|_| UrlError::Syntax)?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            Some(_) => return Err(UrlError::Scheme),
            None => return Err(UrlError::Syntax),
        };
        let authority = uri.authority().ok_or(UrlError::Host)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Credentials);
        }
        let host = authority.host().to_ascii_lowercase();
        let name_is_plain =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !name_is_plain {
            return Err(UrlError::Host);
        }
        // `http::Uri` takes an empty or oversized port and then reports none.
        let port_text = authority.as_str().rsplit_once(':').map(|(_, port)| port);
        let explicit_port = match port_text {
            Some(port) => Some(port.parse().map_err(|_| UrlError::Syntax)?),
            None => None,
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self { scheme, host, explicit_port, path: if path.is_empty() { "/" } else { path }.to_owned() })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_split_and_print_back() {
        for (text, scheme, host, port, path) in [
            ("https://controlplane.tailscale.com", Scheme::Https, "controlplane.tailscale.com", 443, "/"),
            ("http://127.0.0.1:8080/a?b=c", Scheme::Http, "127.0.0.1", 8080, "/a?b=c"),
            ("https://HS.Example.com:8443/", Scheme::Https, "hs.example.com", 8443, "/"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.scheme, url.host.as_str(), url.port(), url.path.as_str()),
                (scheme, host, port, path)
            );
            assert_eq!(url.to_string().parse::<Url>().unwrap(), url);
        }
    }

    #[test]
    fn what_cannot_be_opened_is_refused_with_its_reason() {
        for (text, error) in [
            ("", UrlError::Syntax),
            ("headscale.example.com", UrlError::Syntax),
            ("/path", UrlError::Syntax),
            ("ftp://host/", UrlError::Scheme),
            ("https://user:secret@host/", UrlError::Credentials),
            ("https://[::1]:443/", UrlError::Host),
            ("https://host:99999/", UrlError::Syntax),
            ("https://host:/", UrlError::Syntax),
            ("https://a b/", UrlError::Syntax),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_location_is_absolute_or_a_path_of_the_same_server() {
        let url: Url = "http://host:8080/key?v=1".parse().unwrap();
        assert_eq!(url.join("/other").unwrap().to_string(), "http://host:8080/other");
        assert_eq!(url.join("https://host/key").unwrap().to_string(), "https://host/key");
        assert!(url.join("//evil/key").is_err());
        assert!(url.join("key").is_err());
    }
}
