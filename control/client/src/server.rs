//! The control server's URL and what follows from it.

use std::fmt;
use std::str::FromStr;

use tsrs_platform_net::{Scheme, Url, UrlError};

/// The server of Tailscale itself.
const SAAS_HOST: &str = "controlplane.tailscale.com";
/// Another name that users know it by.
const SAAS_SYNONYM: &str = "login.tailscale.com";
/// Longest URL that is shown to a user or opened.
const MAX_PAGE_URL_LEN: usize = 2048;

/// Where the control server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl(Url);

/// The ports on which a Noise connection may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) http: Option<u16>,
    pub(crate) https: Option<u16>,
}

impl ServerUrl {
    /// Tailscale's own server.
    pub fn tailscale() -> Self {
        Self(Url {
            scheme: Scheme::Https,
            host: SAAS_HOST.to_owned(),
            explicit_port: None,
            path: String::new(),
        })
    }

    /// Whether it is Tailscale's own server.
    pub fn is_tailscale(&self) -> bool {
        self.0.host == SAAS_HOST
    }

    pub(crate) fn host(&self) -> &str {
        &self.0.host
    }

    pub(crate) fn authority(&self) -> String {
        self.0.authority()
    }

    /// Where the Noise key is fetched. A path prefix of the server is kept here, and only here.
    pub(crate) fn key_url(&self, version: u16) -> Url {
        self.0.with_path(&format!("{}/key?v={version}", self.0.path))
    }

    /// The ports to try (control protocol sheet §5.2). An `https` URL with a port means that port alone.
    pub(crate) fn ports(&self) -> Ports {
        let private = self.0.host == "localhost"
            || self.0.ip().is_some_and(|ip| ip.is_private() || ip.is_loopback() || ip.is_link_local());
        match (self.0.scheme, self.0.explicit_port) {
            (Scheme::Https, None) => Ports { http: Some(80), https: Some(443) },
            (Scheme::Https, Some(port)) => Ports { http: None, https: Some(port) },
            (Scheme::Http, port) => {
                Ports { http: Some(port.unwrap_or(80)), https: (!private).then_some(443) }
            }
        }
    }

    /// Whether a page that the server names may be shown to the user (control protocol sheet §8.4).
    pub(crate) fn check_page(&self, page: &str) -> Result<(), &'static str> {
        if page.len() > MAX_PAGE_URL_LEN || page.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("too long, or with blanks");
        }
        let url: Url = page.parse().map_err(|_| "not a plain URL")?;
        if url.scheme == Scheme::Http && self.0.scheme != Scheme::Http {
            return Err("not https");
        }
        let tailscale_page = url.host == "tailscale.com" || url.host.ends_with(".tailscale.com");
        if self.is_tailscale() && !tailscale_page {
            return Err("not a page of tailscale.com");
        }
        Ok(())
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let mut url: Url = text.trim().parse()?;
        if url.host == SAAS_SYNONYM {
            SAAS_HOST.clone_into(&mut url.host);
        }
        if url.path.contains('?') {
            return Err(UrlError::Syntax);
        }
        url.path.truncate(url.path.trim_end_matches('/').len());
        Ok(Self(url))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ServerUrl {
        text.parse().unwrap()
    }

    #[test]
    fn the_key_url_keeps_a_path_prefix() {
        for (text, key_url) in [
            ("https://hs.test", "https://hs.test/key?v=119"),
            ("https://hs.test///", "https://hs.test/key?v=119"),
            (" http://hs.test:8080/a/b/ ", "http://hs.test:8080/a/b/key?v=119"),
            ("https://login.tailscale.com", "https://controlplane.tailscale.com/key?v=119"),
        ] {
            assert_eq!(server(text).key_url(119).to_string(), key_url);
        }
        assert_eq!(ServerUrl::tailscale(), server("https://controlplane.tailscale.com/"));
        assert!("https://hs.test/?a=b".parse::<ServerUrl>().is_err());
    }

    #[test]
    fn ports_follow_scheme_port_and_privacy() {
        for (text, http, https) in [
            ("https://hs.test", Some(80), Some(443)),
            ("https://192.168.0.1", Some(80), Some(443)),
            ("https://hs.test:8443", None, Some(8443)),
            ("http://hs.test", Some(80), Some(443)),
            ("http://hs.test:8080", Some(8080), Some(443)),
            ("http://192.168.0.1", Some(80), None),
            ("http://10.0.0.1:8080", Some(8080), None),
            ("http://127.0.0.1:8080", Some(8080), None),
            ("http://localhost:8080", Some(8080), None),
            ("http://203.0.113.1:8080", Some(8080), Some(443)),
        ] {
            assert_eq!(server(text).ports(), Ports { http, https }, "{text}");
        }
    }

    #[test]
    fn pages_are_checked_before_they_are_shown() {
        let own = server("https://hs.test");
        let plain = server("http://10.0.0.1:8080");
        let saas = ServerUrl::tailscale();
        let long = format!("https://hs.test/{}", "a".repeat(MAX_PAGE_URL_LEN));
        for (page, on_own, on_plain, on_saas) in [
            ("https://hs.test/register/hskey-authreq-ab12", true, true, false),
            ("https://other.test/oidc?x=y", true, true, false),
            ("http://10.0.0.1:8080/register/x", false, true, false),
            ("https://login.tailscale.com/a/123", true, true, true),
            ("https://tailscale.com/a", true, true, true),
            ("https://eviltailscale.com/a", true, true, false),
            ("javascript:alert(1)", false, false, false),
            ("file:///etc/passwd", false, false, false),
            ("https://hs.test/a\nb", false, false, false),
            ("https://user@hs.test/", false, false, false),
            ("", false, false, false),
            (&long, false, false, false),
        ] {
            let outcome = [&own, &plain, &saas].map(|server| server.check_page(page).is_ok());
            assert_eq!(outcome, [on_own, on_plain, on_saas], "{page}");
        }
    }
}
