//! The name servers of the host, as its resolv.conf names them.

use std::net::{IpAddr, SocketAddrV4};

use tsrs_platform_api::SERVICE_ADDRESS;

/// The port of DNS.
pub(crate) const DNS_PORT: u16 = 53;

/// glibc uses three servers and six search domains; a few more do no harm, a list without an end would.
const MAX_SERVERS: usize = 8;
const MAX_SEARCH: usize = 8;

/// Whom to ask for names of the underlay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsServers {
    servers: Vec<SocketAddrV4>,
    search: Vec<String>,
}

impl DnsServers {
    /// Servers in order of preference, and the domains in which names without a dot are looked for. The service
    /// address 100.100.100.100 is left out: asking it for the way to the control server would be a circle.
    pub fn new(
        servers: impl IntoIterator<Item = SocketAddrV4>,
        search: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            servers: servers
                .into_iter()
                .filter(|server| *server.ip() != SERVICE_ADDRESS)
                .take(MAX_SERVERS)
                .collect(),
            search: search.into_iter().filter(|domain| !domain.is_empty()).take(MAX_SEARCH).collect(),
        }
    }

    /// Reads `nameserver`, `search` and `domain` lines (resolv.conf(5)). IPv6 servers are left out, since the underlay
    /// is IPv4; of several `search` or `domain` lines the last counts.
    pub fn from_resolv_conf(text: &str) -> Self {
        let mut servers = Vec::new();
        let mut search = Vec::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    if let Some(Ok(IpAddr::V4(address))) = words.next().map(str::parse) {
                        servers.push(SocketAddrV4::new(address, DNS_PORT));
                    }
                }
                Some("search" | "domain") => {
                    search = words.map(|domain| domain.trim_matches('.').to_owned()).collect();
                }
                Some(_) | None => {}
            }
        }
        Self::new(servers, search)
    }

    /// The servers in order.
    pub fn servers(&self) -> &[SocketAddrV4] {
        &self.servers
    }

    /// The search domains in order.
    pub fn search(&self) -> &[String] {
        &self.search
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_service_address_is_never_asked() {
        let text = "# made by hand\nnameserver 100.100.100.100\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\
                    nameserver ::1\n; nameserver 192.0.2.54\noptions edns0\nsearch old.test\nsearch a.test. b.test\n";
        let dns = DnsServers::from_resolv_conf(text);
        assert_eq!(dns.servers(), ["192.0.2.53:53".parse().unwrap()]);
        assert_eq!(dns.search(), ["a.test", "b.test"]);
    }

    #[test]
    fn lists_are_bounded() {
        let text = "nameserver 192.0.2.1\n".repeat(1000);
        assert_eq!(DnsServers::from_resolv_conf(&text).servers().len(), MAX_SERVERS);
        let text = format!("search {}", "a.test ".repeat(1000));
        assert_eq!(DnsServers::from_resolv_conf(&text).search().len(), MAX_SEARCH);
    }
}
