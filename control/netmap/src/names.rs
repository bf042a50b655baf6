//! Names of nodes for people (control protocol sheet §12.1).

use tsrs_control_tailcfg::Node;

/// Longest DNS label, RFC 1035 §2.3.4.
const MAX_LABEL_LEN: usize = 63;

/// Suffixes of local networks that say nothing about a host.
const LOCAL_SUFFIXES: [&str; 3] = [".local", ".localdomain", ".lan"];

/// The MagicDNS suffix: everything after the first label of our own name, without dots at its ends.
pub(crate) fn magic_dns_suffix(self_name: &str) -> &str {
    self_name.trim_matches('.').split_once('.').map_or("", |(_, suffix)| suffix)
}

/// Fills in the computed names of a node.
pub(crate) fn compute_names(node: &mut Node, suffix: &str) {
    let base = trim_suffix(&node.name, suffix);
    let host = node.hostinfo.as_ref().map_or_else(String::new, |info| sanitize_hostname(&info.hostname));
    let (name, host) = match (base, host) {
        ("", host) if host.is_empty() => (node.key.to_string(), host),
        ("", host) => (host, String::new()),
        (base, host) if base.eq_ignore_ascii_case(&host) => (base.to_owned(), String::new()),
        (base, host) => (base.to_owned(), host),
    };
    node.computed_name_with_host = if host.is_empty() { name.clone() } else { format!("{name} ({host})") };
    node.computed_name = name;
}

/// A name without its trailing dot, and without the suffix where it ends in whole labels of it.
fn trim_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let name = name.strip_suffix('.').unwrap_or(name);
    if suffix.is_empty() {
        return name;
    }
    name.strip_suffix(suffix).and_then(|base| base.strip_suffix('.')).unwrap_or(name)
}

/// A host name as a DNS label: lower case, separators as hyphens, anything else left out.
pub(crate) fn sanitize_hostname(host: &str) -> String {
    let mut host = host;
    for suffix in LOCAL_SUFFIXES {
        host = host.strip_suffix(suffix).unwrap_or(host);
    }
    let bytes = &host.as_bytes()[..host.len().min(MAX_LABEL_LEN)];
    let Some(first) = bytes.iter().position(u8::is_ascii_alphanumeric) else { return String::new() };
    let last = bytes.iter().rposition(u8::is_ascii_alphanumeric).unwrap_or(first);
    let label = bytes[first..=last].iter().filter_map(|&byte| match byte {
        b' ' | b'.' | b'@' | b'_' | b'-' => Some('-'),
        _ if byte.is_ascii_alphanumeric() => Some(char::from(byte.to_ascii_lowercase())),
        _ => None,
    });
    label.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffix_is_what_follows_the_first_label() {
        assert_eq!(magic_dns_suffix("host.tail1234.ts.net."), "tail1234.ts.net");
        assert_eq!(magic_dns_suffix("host"), "");
        assert_eq!(magic_dns_suffix(""), "");
    }

    #[test]
    fn only_whole_labels_of_the_suffix_are_cut() {
        assert_eq!(trim_suffix("a.example.", "example"), "a");
        assert_eq!(trim_suffix("a.b.example", "example"), "a.b");
        assert_eq!(trim_suffix("myexample.", "example"), "myexample");
        assert_eq!(trim_suffix("example.", "example"), "example");
        assert_eq!(trim_suffix("a.other.net.", "example"), "a.other.net");
    }

    #[test]
    fn host_names_become_labels() {
        for (host, label) in [
            ("Alice's MacBook Pro.local", "alices-macbook-pro"),
            ("web_01.example", "web-01-example"),
            ("-x-", "x"),
            ("--", ""),
            ("", ""),
            ("ünïcode", "ncode"),
        ] {
            assert_eq!(sanitize_hostname(host), label, "{host}");
        }
        assert_eq!(sanitize_hostname(&"a".repeat(100)).len(), 63);
    }
}
