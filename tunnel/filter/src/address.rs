//! Addresses in rules: single, prefix, range or `*` (control sheet §15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The text names no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address, prefix or range of addresses")]
pub struct AddressError;

/// The prefixes that a rule's address text stands for, in order.
///
/// # Errors
/// The text is none of the four forms, or a prefix has bits set behind its length.
pub fn parse_prefixes(text: &str) -> Result<Vec<IpNet>, AddressError> {
    if text == "*" {
        return Ok(vec![
            IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        ]);
    }
    if let Some((address, len)) = text.split_once('/') {
        return prefix(address, len).map(|prefix| vec![prefix]).ok_or(AddressError);
    }
    if let Some((first, last)) = text.split_once('-') {
        return range(first, last).ok_or(AddressError);
    }
    // A zone says on which link an address is; rules have none.
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let address: IpAddr = address.parse().map_err(|_| AddressError)?;
    if zone.is_some_and(|zone| zone.is_empty() || address.is_ipv4()) {
        return Err(AddressError);
    }
    Ok(vec![IpNet::from(address)])
}

fn prefix(address: &str, len: &str) -> Option<IpNet> {
    let leading_zero = len.len() > 1 && len.starts_with('0');
    if leading_zero || !len.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let prefix = IpNet::new(address.parse().ok()?, len.parse().ok()?).ok()?;
    (prefix == prefix.trunc()).then_some(prefix)
}

fn range(first: &str, last: &str) -> Option<Vec<IpNet>> {
    match (first.parse().ok()?, last.parse().ok()?) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => {
            Some(ipnet::Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => {
            Some(ipnet::Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect())
        }
        _ => None,
    }
}
