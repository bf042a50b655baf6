//! The host's name resolution and our own resolver.

use data_encoding::BASE64;
use tsrs_agent_localapi::requests::{DnsOsConfig, DnsQueryAnswer, ResolverAddr};
use tsrs_tunnel_dns::{Name, QueryType, Upstream};

use super::request::Asked;
use super::{Answer, Api};

/// Types by name; what is not here is a 400, as upstream.
const TYPES: &[(&str, u16)] = &[
    ("", 1),
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("OPT", 41),
    ("ALL", 255),
];

impl Api {
    pub(super) async fn dns_os_config(&self) -> Answer {
        let Some(status) = self.host.dns_status().await else {
            return Answer::text(500, "the DNS settings of this host cannot be read");
        };
        Answer::json(&DnsOsConfig {
            nameservers: status.base_nameservers.iter().map(|server| server.ip().to_string()).collect(),
            search_domains: status.base_search.clone(),
            match_domains: Vec::new(),
        })
    }

    pub(super) async fn dns_query(&self, asked: &Asked) -> Answer {
        let word = asked.param("type");
        let Some((_, number)) = TYPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)) else {
            return Answer::text(400, &format!("unknown DNS message type: {word}"));
        };
        let Ok(name) = Name::parse(asked.param("name")) else {
            return Answer::text(400, "invalid 'name' parameter");
        };
        let Some(dns) = &self.dns else { return Answer::text(500, "the resolver is not running") };
        match dns.ask(name, QueryType(*number)).await {
            Ok((message, upstreams)) => Answer::json(&DnsQueryAnswer {
                bytes: BASE64.encode(&message),
                resolvers: upstreams.iter().map(resolver).collect(),
            }),
            Err(error) => Answer::text(500, &error.to_string()),
        }
    }
}

fn resolver(upstream: &Upstream) -> ResolverAddr {
    let addr = match upstream {
        Upstream::Plain(address) if address.port() == 53 => address.ip().to_string(),
        Upstream::Plain(address) => address.to_string(),
        Upstream::Https { url, .. } => url.clone(),
        Upstream::PeerApi { address } => format!("http://{address}/dns-query"),
    };
    ResolverAddr { addr, bootstrap_resolution: Vec::new() }
}
