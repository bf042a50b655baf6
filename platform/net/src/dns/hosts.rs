//! The hosts file.

use std::net::Ipv4Addr;

/// The IPv4 addresses that a hosts file gives to a name (hosts(5)). Names compare without regard to case.
pub(crate) fn hosts_addresses(text: &str, name: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<Ipv4Addr>) else { continue };
        if words.any(|word| word.eq_ignore_ascii_case(name)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_are_found_in_order_and_once() {
        let text = "127.0.0.1 localhost\n::1 localhost v6\n# 10.0.0.9 lab\n10.0.0.1\tlab.test Lab # note\n\
                    10.0.0.2 lab\n10.0.0.1 lab\nbad lab\n10.0.0.3\n";
        let one = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(hosts_addresses(text, "LAB"), [one, Ipv4Addr::new(10, 0, 0, 2)]);
        assert_eq!(hosts_addresses(text, "lab.test"), [one]);
        assert!(hosts_addresses(text, "v6").is_empty());
        assert!(hosts_addresses(text, "note").is_empty());
    }
}
