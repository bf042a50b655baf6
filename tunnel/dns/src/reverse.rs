//! Addresses in the names of reverse lookups (RFC 1035 §3.5, RFC 3596 §2.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::Name;

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for, if it is complete and well-formed.
pub(crate) fn address(name: &Name) -> Option<IpAddr> {
    let text = std::str::from_utf8(name.as_bytes()).ok()?;
    if let Some(reversed) = text.strip_suffix(".in-addr.arpa") {
        let mut octets = reversed.split('.').map(octet);
        let mut next = || octets.next().flatten();
        let (d, c, b, a) = (next()?, next()?, next()?, next()?);
        return octets.next().is_none().then_some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)));
    }
    let reversed = text.strip_suffix(".ip6.arpa")?;
    let mut value: u128 = 0;
    let mut count = 0;
    for (index, digit) in reversed.split('.').enumerate() {
        let [digit] = digit.as_bytes() else { return None };
        if index >= 32 {
            return None;
        }
        value |= u128::from(char::from(*digit).to_digit(16)?) << (4 * index);
        count += 1;
    }
    (count == 32).then_some(IpAddr::V6(Ipv6Addr::from(value)))
}

/// A decimal octet without leading zeros.
fn octet(text: &str) -> Option<u8> {
    let plain = text == "0" || !(text.is_empty() || text.starts_with(['0', '+']));
    plain.then(|| text.parse().ok()).flatten()
}

/// The IPv4 address that a tailnet IPv6 address was made from, where it was: `fd7a:115c:a1e0:ab12:4843:cd96:62xx:xxxx`.
pub(crate) fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let octets = v6.octets();
    let made =
        octets.starts_with(&[0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0xab, 0x12, 0x48, 0x43, 0xcd, 0x96, 0x62]);
    made.then(|| Ipv4Addr::new(100, octets[13], octets[14], octets[15]))
}
