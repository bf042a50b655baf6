//! Which upstreams are asked for a name (split DNS).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use crate::name::Name;

/// A resolver that queries are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Upstream {
    /// Plain DNS, by UDP and TCP.
    Plain(SocketAddr),
    /// DNS over HTTPS (RFC 8484) at a URL, dialled at these addresses.
    Https {
        /// Where queries are posted.
        url: String,
        /// Addresses of the URL's host.
        addresses: Vec<IpAddr>,
    },
    /// A peer's PeerAPI, through the tunnel: `http://IP:port/dns-query`.
    PeerApi {
        /// The peer's address and port.
        address: SocketAddr,
    },
}

impl Upstream {
    /// From the forms that control sends. `None` for what cannot be asked: `tls://`, unknown DoH providers, names.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Some(Self::Plain(SocketAddr::new(ip, 53)));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(Self::Plain(address));
        }
        if text.starts_with("https://") {
            let addresses = crate::providers::addresses_of(text)?;
            return Some(Self::Https { url: text.to_owned(), addresses });
        }
        let address = text.strip_prefix("http://")?.strip_suffix("/dns-query")?.parse().ok()?;
        Some(Self::PeerApi { address })
    }
}

/// Suffixes with their upstreams. The root is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    by_suffix: HashMap<Name, Vec<Upstream>>,
}

impl Routes {
    /// Sets the upstreams of a suffix; an empty list removes it, since such suffixes are answered by us alone.
    pub fn insert(&mut self, suffix: Name, upstreams: Vec<Upstream>) {
        if upstreams.is_empty() {
            self.by_suffix.remove(&suffix);
        } else {
            self.by_suffix.insert(suffix, upstreams);
        }
    }

    /// The upstreams of the longest suffix that a name lies in.
    pub fn choose(&self, name: &Name) -> &[Upstream] {
        name.ancestors().find_map(|suffix| self.by_suffix.get(&suffix)).map_or(&[], Vec::as_slice)
    }
}

impl FromIterator<(Name, Vec<Upstream>)> for Routes {
    fn from_iter<I: IntoIterator<Item = (Name, Vec<Upstream>)>>(routes: I) -> Self {
        let mut out = Self::default();
        for (suffix, upstreams) in routes {
            out.insert(suffix, upstreams);
        }
        out
    }
}
