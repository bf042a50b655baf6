//! The text of `resolv.conf` (resolv.conf(5)). Pure.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use tsrs_platform_api::{DnsConfig, Instance, SERVICE_ADDRESS};

/// First words of a file that an agent wrote; the number of the instance follows.
const MARKER: &str = "# Written by tsrs-agent, instance ";

const DNS_PORT: u16 = 53;

/// The parts of the file that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    pub(super) nameservers: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    /// `options` lines, without that word.
    pub(super) options: Vec<String>,
    /// Comment lines without their sign.
    pub(super) comments: Vec<String>,
    /// The instance whose agent wrote the file.
    pub(super) written_by: Option<u8>,
}

impl ResolvConf {
    /// Reads a file; lines that mean nothing are skipped, as the C library does.
    pub(crate) fn parse(text: &str) -> Self {
        let mut parsed = Self::default();
        for line in text.lines() {
            let line = line.trim();
            if let Some(number) = line.strip_prefix(MARKER) {
                parsed.written_by = number.trim_end_matches('.').parse().ok();
            }
            if let Some(comment) = line.strip_prefix(['#', ';']) {
                parsed.comments.push(comment.trim().to_owned());
                continue;
            }
            let (word, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                // A zone (`fe80::1%eth0`) is only meaningful to the C library.
                "nameserver" => {
                    parsed
                        .nameservers
                        .extend(rest.split('%').next().and_then(|ip| ip.parse::<IpAddr>().ok()));
                }
                // The last of these lines counts.
                "search" | "domain" => parsed.search = rest.split_whitespace().map(str::to_owned).collect(),
                "options" => parsed.options.push(rest.to_owned()),
                _ => {}
            }
        }
        parsed
    }

    /// Servers of the host, our own service address left out.
    pub(crate) fn servers(&self) -> Vec<SocketAddr> {
        let foreign = self.nameservers.iter().filter(|server| **server != IpAddr::V4(SERVICE_ADDRESS));
        foreign.map(|server| SocketAddr::new(*server, DNS_PORT)).collect()
    }
}

/// The file that asks for `config` on top of the host's own `base`.
///
/// Such a file cannot tell names apart: its servers get every question, and the resolver behind the service address
/// passes on what is not its own. Without servers of ours the host keeps its own and gets our search domains.
pub(super) fn render(config: &DnsConfig, base: &ResolvConf, instance: Instance) -> String {
    let mut text = format!("{MARKER}{instance}.\n# The former file comes back when the agent ends.\n\n");
    let servers = if config.nameservers.is_empty() { &base.nameservers } else { &config.nameservers };
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    let mut search: Vec<&str> = config.search_domains.iter().map(|domain| domain.as_str()).collect();
    let own =
        base.search.iter().map(String::as_str).filter(|domain| !search.contains(domain)).collect::<Vec<_>>();
    search.extend(own);
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for options in &base.options {
        let _ = writeln!(text, "options {options}");
    }
    text
}

#[cfg(test)]
mod tests {
    use tsrs_platform_api::MatchDomain;

    use super::*;

    const HOST: &str = "# from DHCP\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n\tnameserver  192.0.2.54 \n\
                        domain old.test\nsearch a.test b.test\noptions edns0\nsortlist 1.2.3.4\nnameserver nonsense\n";

    fn config() -> DnsConfig {
        DnsConfig {
            nameservers: vec![IpAddr::V4(SERVICE_ADDRESS)],
            search_domains: ["x.ts.net", "b.test"].iter().filter_map(|name| MatchDomain::new(name)).collect(),
            match_domains: Vec::new(),
            default_route: true,
        }
    }

    #[test]
    fn the_hosts_file_is_read_as_the_c_library_reads_it() {
        let parsed = ResolvConf::parse(HOST);
        let servers: Vec<String> = parsed.nameservers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.53", "fe80::1", "192.0.2.54"]);
        assert_eq!(parsed.search, ["a.test", "b.test"]);
        assert_eq!(parsed.options, ["edns0"]);
        assert_eq!(parsed.comments, ["from DHCP"]);
        assert_eq!(parsed.written_by, None);
    }

    #[test]
    fn our_file_puts_our_domains_before_those_of_the_host() {
        let text = render(&config(), &ResolvConf::parse(HOST), Instance::new(1).unwrap());
        assert_eq!(
            text.lines().skip(3).collect::<Vec<_>>(),
            ["nameserver 100.100.100.100", "search x.ts.net b.test a.test", "options edns0"]
        );
        assert_eq!(ResolvConf::parse(&text).written_by, Some(1));
        assert!(ResolvConf::parse(&text).servers().is_empty());
    }

    #[test]
    fn search_domains_alone_keep_the_hosts_servers() {
        let config = DnsConfig { nameservers: Vec::new(), ..config() };
        let text = render(&config, &ResolvConf::parse(HOST), Instance::ZERO);
        assert!(text.contains("nameserver 192.0.2.53\n") && !text.contains("100.100.100.100"), "{text}");
    }
}
