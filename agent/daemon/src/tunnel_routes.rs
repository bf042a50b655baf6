//! Which addresses are reached through the tunnel, for those who make connections.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::Ipv4Net;
use tsrs_platform_api::{RouterConfig, SERVICE_ADDRESS};

/// Where the addresses of tailnets lie (RFC 6598).
const CGNAT: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// The routes that were last asked of the host. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct TunnelRoutes(Arc<RwLock<Routes>>);

#[derive(Debug, Default)]
struct Routes {
    up: bool,
    own: Vec<Ipv4Addr>,
    routes: BTreeSet<Ipv4Net>,
}

impl TunnelRoutes {
    /// These are the routes from now on.
    pub(crate) fn set(&self, config: &RouterConfig) {
        let routes = Routes {
            up: !config.addresses.is_empty(),
            own: config.addresses.clone(),
            routes: config.routes.clone(),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = routes;
    }

    /// Whether packets to this address go into the tunnel.
    pub(crate) fn lead_to(&self, address: Ipv4Addr) -> bool {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let covers = |len| Ipv4Net::new(address, len).is_ok_and(|net| routes.routes.contains(&net.trunc()));
        routes.up && !routes.own.contains(&address) && (0..=32).any(covers)
    }

    /// Whether this is an address of tailnets to which no route leads: that of a node while the tunnel is down, or of
    /// nobody.
    pub(crate) fn are_missing_for(&self, address: Ipv4Addr) -> bool {
        let routes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let here = routes.up && (routes.own.contains(&address) || address == SERVICE_ADDRESS);
        drop(routes);
        CGNAT.contains(&address) && !here && !self.lead_to(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routes_of_a_tunnel_that_is_up_count() {
        let routes = TunnelRoutes::default();
        assert!(!routes.lead_to(Ipv4Addr::new(100, 64, 0, 2)));
        let config = RouterConfig {
            addresses: vec![Ipv4Addr::new(100, 64, 0, 1)],
            routes: ["100.64.0.2/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()].into(),
            ..RouterConfig::default()
        };
        routes.set(&config);
        for (address, inside) in [
            ([100, 64, 0, 2], true),
            ([100, 64, 0, 3], false),
            ([100, 64, 0, 1], false),
            ([10, 1, 2, 3], true),
            ([192, 0, 2, 1], false),
        ] {
            assert_eq!(routes.lead_to(Ipv4Addr::from(address)), inside, "{address:?}");
        }
        let missing = |address: [u8; 4]| routes.are_missing_for(Ipv4Addr::from(address));
        for here in [[100, 64, 0, 1], [100, 64, 0, 2], [100, 100, 100, 100], [192, 0, 2, 1]] {
            assert!(!missing(here), "{here:?}");
        }
        assert!(missing([100, 64, 0, 3]));
        routes.set(&RouterConfig::default());
        assert!(!routes.lead_to(Ipv4Addr::new(10, 1, 2, 3)));
        assert!(missing([100, 64, 0, 1]) && missing([100, 64, 0, 2]) && missing([100, 100, 100, 100]));
        assert!(!missing([10, 1, 2, 3]));
    }
}
