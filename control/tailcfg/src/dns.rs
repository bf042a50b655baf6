//! DNS configuration (sheet §16).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

use crate::wire::BoundedList;

wire! {
    /// What the client should do about DNS.
    struct DnsConfig {
        /// Global resolvers. Empty: the system's own stay in charge.
        list "Resolvers" resolvers: Vec<Resolver>,
        /// Resolvers by suffix. An empty list: we answer alone.
        omit "Routes" routes: DnsRoutes,
        /// Resolvers of last resort.
        list "FallbackResolvers" fallback_resolvers: Vec<Resolver>,
        /// Search domains, without trailing dot.
        omit "Domains" domains: Vec<String>,
        /// MagicDNS is on.
        omit "Proxied" proxied: bool,
        /// Names that we may get certificates for.
        omit "CertDomains" cert_domains: Vec<String>,
        /// More records for MagicDNS.
        list "ExtraRecords" extra_records: Vec<DnsRecord>,
        /// Names that an exit node must not resolve for its users; a leading dot means a suffix.
        omit "ExitNodeFilteredSet" exit_node_filtered_set: Vec<String>,
    }

    /// An address record for MagicDNS.
    struct DnsRecord {
        /// Full name; the trailing dot is optional.
        keep "Name" name: String,
        /// Empty, `A` or `AAAA`; records of another type are ignored.
        omit "Type" kind: String,
        /// The IP address.
        keep "Value" value: String,
    }

    /// A DNS resolver.
    struct Resolver {
        /// IP, IP:port, `https://…` (DoH) or `http://node:port/path` (DoH through the tunnel).
        omit "Addr" addr: String,
        /// Addresses of a DoH server whose name is in `addr`.
        addrs "BootstrapResolution" bootstrap_resolution: Vec<IpAddr>,
        /// Stays in use while an exit node is selected.
        omit "UseWithExitNode" use_with_exit_node: bool,
    }
}

/// Resolvers by suffix. A suffix with `null` or an empty list is answered by us alone.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
#[serde(transparent)]
pub struct DnsRoutes(pub BTreeMap<String, Vec<Resolver>>);

impl<'de> Deserialize<'de> for DnsRoutes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let routes = BTreeMap::<String, Option<BoundedList<Resolver>>>::deserialize(deserializer)?;
        let filled = |list: Option<BoundedList<Resolver>>| list.map_or_else(Vec::new, |list| list.0);
        Ok(Self(routes.into_iter().map(|(suffix, list)| (suffix, filled(list))).collect()))
    }
}

impl std::ops::Deref for DnsRoutes {
    type Target = BTreeMap<String, Vec<Resolver>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
