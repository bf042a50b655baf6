//! Public resolvers whose DNS over HTTPS is known, so that queries to their plain addresses can go encrypted
//! (data-plane sheet §9.4). IPv4 only, as the underlay is.

use std::net::{IpAddr, Ipv4Addr};

struct Provider {
    url: &'static str,
    addresses: &'static [[u8; 4]],
}

const PROVIDERS: &[Provider] = &[
    Provider { url: "https://cloudflare-dns.com/dns-query", addresses: &[[1, 1, 1, 1], [1, 0, 0, 1]] },
    Provider {
        url: "https://security.cloudflare-dns.com/dns-query",
        addresses: &[[1, 1, 1, 2], [1, 0, 0, 2]],
    },
    Provider { url: "https://family.cloudflare-dns.com/dns-query", addresses: &[[1, 1, 1, 3], [1, 0, 0, 3]] },
    Provider { url: "https://dns.google/dns-query", addresses: &[[8, 8, 8, 8], [8, 8, 4, 4]] },
    Provider { url: "https://dns.quad9.net/dns-query", addresses: &[[9, 9, 9, 9], [149, 112, 112, 112]] },
    Provider { url: "https://dns10.quad9.net/dns-query", addresses: &[[9, 9, 9, 10], [149, 112, 112, 10]] },
    Provider { url: "https://dns11.quad9.net/dns-query", addresses: &[[9, 9, 9, 11], [149, 112, 112, 11]] },
    Provider { url: "https://dns.mullvad.net/dns-query", addresses: &[[194, 242, 2, 2]] },
    Provider { url: "https://adblock.dns.mullvad.net/dns-query", addresses: &[[194, 242, 2, 3]] },
    Provider { url: "https://base.dns.mullvad.net/dns-query", addresses: &[[194, 242, 2, 4]] },
    Provider { url: "https://extended.dns.mullvad.net/dns-query", addresses: &[[194, 242, 2, 5]] },
    Provider { url: "https://family.dns.mullvad.net/dns-query", addresses: &[[194, 242, 2, 6]] },
    Provider { url: "https://all.dns.mullvad.net/dns-query", addresses: &[[194, 242, 2, 9]] },
    Provider { url: "https://wikimedia-dns.org/dns-query", addresses: &[[185, 71, 138, 138]] },
    Provider { url: "https://freedns.controld.com/p0", addresses: &[[76, 76, 2, 0], [76, 76, 10, 0]] },
    Provider { url: "https://freedns.controld.com/p1", addresses: &[[76, 76, 2, 1], [76, 76, 10, 1]] },
    Provider { url: "https://freedns.controld.com/p2", addresses: &[[76, 76, 2, 2], [76, 76, 10, 2]] },
    Provider { url: "https://freedns.controld.com/p3", addresses: &[[76, 76, 2, 3], [76, 76, 10, 3]] },
    Provider { url: "https://freedns.controld.com/family", addresses: &[[76, 76, 2, 4], [76, 76, 10, 4]] },
    Provider {
        url: "https://private.canadianshield.cira.ca/dns-query",
        addresses: &[[149, 112, 121, 10], [149, 112, 122, 10]],
    },
    Provider {
        url: "https://protected.canadianshield.cira.ca/dns-query",
        addresses: &[[149, 112, 121, 20], [149, 112, 122, 20]],
    },
    Provider {
        url: "https://family.canadianshield.cira.ca/dns-query",
        addresses: &[[149, 112, 121, 30], [149, 112, 122, 30]],
    },
];

/// Providers that are named by a URL with the user's profile in it.
const PROFILE_PROVIDERS: &[Provider] = &[
    Provider { url: "https://dns.nextdns.io/", addresses: &[[45, 90, 28, 0], [45, 90, 30, 0]] },
    Provider { url: "https://dns.controld.com/", addresses: &[[76, 76, 2, 22], [76, 76, 10, 22]] },
];

/// The URL of the provider that a plain resolver address belongs to.
pub(crate) fn url_of(address: IpAddr) -> Option<&'static str> {
    let IpAddr::V4(v4) = address else { return None };
    PROVIDERS.iter().find(|provider| provider.addresses.contains(&v4.octets())).map(|provider| provider.url)
}

/// The addresses at which a known provider's URL is dialled.
pub(crate) fn addresses_of(url: &str) -> Option<Vec<IpAddr>> {
    let exact = PROVIDERS.iter().find(|provider| provider.url == url);
    let profile = || PROFILE_PROVIDERS.iter().find(|provider| url.starts_with(provider.url));
    let provider = exact.or_else(profile)?;
    Some(provider.addresses.iter().map(|octets| Ipv4Addr::from(*octets).into()).collect())
}
