//! DNS settings of the tailnet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What the map's `DNSConfig` holds beside MagicDNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsSettings {
    /// Whether nodes answer for the tailnet's names (`Proxied`).
    pub magic_dns: bool,
    /// Global resolvers that replace the host's own ("override local DNS").
    pub resolvers: Vec<String>,
    /// Resolvers per suffix; an empty list is answered by the nodes alone.
    pub split: BTreeMap<String, Vec<String>>,
    /// Records beside the nodes' own, as name and address.
    pub extra_records: BTreeMap<String, IpAddr>,
    /// Search domains beside the tailnet's own.
    pub search_domains: Vec<String>,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            magic_dns: true,
            resolvers: Vec::new(),
            split: BTreeMap::new(),
            extra_records: BTreeMap::new(),
            search_domains: Vec::new(),
        }
    }
}
