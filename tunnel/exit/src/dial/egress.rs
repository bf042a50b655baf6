//! Where exit traffic leaves, as the operator set it.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::policy::{Class, classify};
use crate::proxy::{Credentials, ProxyUrl};

/// Proxies at most: each is asked for its health again and again.
pub const MAX_PROXY_COUNT: usize = 16;
/// Addresses used of one proxy's name. More come from a broken or hostile name server.
pub const MAX_ADDRESS_COUNT: usize = 8;

/// Where exit traffic leaves. There is no state in which it leaves from this host itself.
#[derive(Clone, Debug, Default)]
pub enum Egress {
    /// Nowhere: every flow is refused.
    #[default]
    Closed,
    /// Through the first of these proxies that works.
    Proxies(ProxyList),
}

/// One to [`MAX_PROXY_COUNT`] proxies, the preferred one first.
#[derive(Clone, Debug)]
pub struct ProxyList(Vec<ProxyConfig>);

impl ProxyList {
    /// A list. `None` if it would be empty or too long.
    pub fn new(proxies: Vec<ProxyConfig>) -> Option<Self> {
        (1..=MAX_PROXY_COUNT).contains(&proxies.len()).then_some(Self(proxies))
    }

    pub(super) fn into_inner(self) -> Vec<ProxyConfig> {
        self.0
    }
}

/// One proxy of the operator.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where it is.
    pub url: ProxyUrl,
    /// What it wants to see.
    pub credentials: Option<Arc<Credentials>>,
    /// Whether it may run on this host. Such a proxy may itself leave with this host's address.
    pub allow_local: bool,
}

/// What is known of this host, to tell which addresses cannot be a proxy's.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// All addresses of this host, of every interface.
    pub own_addresses: HashSet<Ipv4Addr>,
    /// What lies behind the tunnel: the tailnet's ranges besides 100.64.0.0/10, and accepted subnet routes.
    pub tunnelled: Vec<Ipv4Net>,
}

/// Why an address is no proxy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefusal {
    /// It is on this host, and the operator did not allow that.
    #[error(
        "{0} is this host: its traffic may leave with this host's address; allow a local proxy if that is meant"
    )]
    Local(Ipv4Addr),
    /// It is reached through the tunnel: its packets would run in a circle.
    #[error("{0} is reached through the tunnel")]
    Tunnelled(Ipv4Addr),
    /// No host has such an address.
    #[error("{0} is {1}")]
    Class(Ipv4Addr, Class),
}

impl HostFacts {
    /// Whether a proxy may be at this address.
    pub(super) fn check(&self, address: Ipv4Addr, allow_local: bool) -> Result<(), AddressRefusal> {
        let class = classify(address);
        if class == Class::Shared || self.tunnelled.iter().any(|range| range.contains(&address)) {
            return Err(AddressRefusal::Tunnelled(address));
        }
        if class == Class::Loopback || self.own_addresses.contains(&address) {
            return if allow_local { Ok(()) } else { Err(AddressRefusal::Local(address)) };
        }
        if matches!(class, Class::Global | Class::Private) {
            Ok(())
        } else {
            Err(AddressRefusal::Class(address, class))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_on_this_host_need_leave_and_tunnelled_ones_get_none() {
        let facts = HostFacts {
            own_addresses: [Ipv4Addr::new(11, 0, 0, 7), Ipv4Addr::new(100, 64, 0, 1)].into(),
            tunnelled: vec!["192.168.5.0/24".parse().unwrap()],
        };
        for (address, refused, refused_if_allowed) in [
            ("11.0.0.8", false, false),
            ("192.168.4.1", false, false),
            ("11.0.0.7", true, false),
            ("127.0.0.1", true, false),
            ("127.255.255.255", true, false),
            ("100.64.0.1", true, true),
            ("100.100.100.100", true, true),
            ("192.168.5.0", true, true),
            ("192.168.5.255", true, true),
            ("0.0.0.0", true, true),
            ("169.254.169.254", true, true),
            ("224.0.0.1", true, true),
            ("255.255.255.255", true, true),
            ("192.0.2.1", true, true),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(facts.check(address, false).is_err(), refused, "{address}");
            assert_eq!(facts.check(address, true).is_err(), refused_if_allowed, "{address}");
        }
    }
}
