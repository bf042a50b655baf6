//! Which addresses are reached through the tunnel, for those who make connections.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

use ipnet::Ipv4Net;
use tsrs_platform_api::RouterConfig;

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
        routes.set(&RouterConfig::default());
        assert!(!routes.lead_to(Ipv4Addr::new(10, 1, 2, 3)));
    }
}
