//! Names that stand for an IPv4 address behind a numbered site (4via6): `A-B-C-D-via-N`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::Name;

/// What a 4via6 name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// This address.
    Address(Ipv6Addr),
    /// The form of such a name, with an IPv6 address in front: it has no address.
    NoAddress,
}

/// Reads a 4via6 name: the first label, alone or below a name that is itself below `ts.net` or `tailscale.net`.
pub(crate) fn parse(name: &Name) -> Option<Via> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    let (label, domain) = text.split_once('.').unwrap_or((text, ""));
    let below = |suffix: &str| {
        domain.strip_suffix(suffix).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    };
    if !(domain.is_empty() || below("ts.net") || below("tailscale.net")) {
        return None;
    }
    let (address, site) = label.split_once("-via-")?;
    let site = go_number(site)?;
    match address.replace('-', ".").parse().ok()? {
        IpAddr::V4(v4) => Some(Via::Address(embed(site, v4))),
        IpAddr::V6(_) => Some(Via::NoAddress),
    }
}

/// fd7a:115c:a1e0:0b1a, the site, the IPv4 address.
fn embed(site: u32, v4: Ipv4Addr) -> Ipv6Addr {
    let prefix: u128 = 0xfd7a_115c_a1e0_0b1a;
    Ipv6Addr::from(prefix << 64 | u128::from(site) << 32 | u128::from(u32::from(v4)))
}

/// An unsigned number as a Go literal writes it: decimal, 0x, 0o, 0b, a leading 0 as octal, `_` between digits.
fn go_number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', b'o' | b'O', ..] => (&text[2..], 8),
        [b'0', b'b' | b'B', ..] => (&text[2..], 2),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let first_may_be_separator = digits.len() < text.len();
    let digits = if first_may_be_separator { digits.strip_prefix('_').unwrap_or(digits) } else { digits };
    if digits.is_empty()
        || digits.starts_with(['_', '+', '-'])
        || digits.ends_with('_')
        || digits.contains("__")
    {
        return None;
    }
    u32::from_str_radix(&digits.replace('_', ""), radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_literals() {
        for (text, value) in [
            ("1", Some(1)),
            ("0", Some(0)),
            ("017", Some(15)),
            ("0o17", Some(15)),
            ("0x1f", Some(31)),
            ("0x_1f", Some(31)),
            ("0b11", Some(3)),
            ("1_0", Some(10)),
            ("4294967296", None),
            ("-1", None),
            ("+1", None),
            ("_1", None),
            ("1_", None),
            ("1__0", None),
            ("", None),
            ("0x", None),
            ("08", None),
        ] {
            assert_eq!(go_number(text), value, "{text}");
        }
    }
}
