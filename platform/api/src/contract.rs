//! What every implementation of the traits must do; run against the fakes here and against the real ones in their
//! own crates. The functions panic with a reason, as tests do.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

use crate::{DnsConfig, DnsConfigurator, MatchDomain, NetfilterMode, Router, RouterConfig, SERVICE_ADDRESS};

/// How the contract looks at the system behind an implementation: a text that is equal when the system is.
pub trait Observe {
    /// The state now.
    fn snapshot(&self) -> String;
}

impl<F: Fn() -> String> Observe for F {
    fn snapshot(&self) -> String {
        self()
    }
}

/// A configuration with everything in it. The host must have 192.0.2.0/24 on-link.
pub fn full_router_config() -> RouterConfig {
    RouterConfig {
        addresses: vec![Ipv4Addr::new(100, 64, 0, 1)],
        routes: [net([100, 64, 0, 2], 32), net([100, 64, 0, 3], 32), net([10, 20, 0, 0], 16)].into(),
        bypass_routes: [net([10, 20, 30, 0], 24)].into(),
        advertised: [net([192, 168, 7, 0], 24), net([192, 0, 2, 0], 24)].into(),
        netfilter: NetfilterMode::On,
        udp_port: Some(41641),
        ..RouterConfig::default()
    }
}

/// Walks a router through its life: apply, apply again, change, go back, refuse, close, close again.
pub fn router(router: &mut dyn Router, system: &dyn Observe) {
    let untouched = system.snapshot();
    let full = full_router_config();

    done(router.apply(&full));
    let applied = system.snapshot();
    assert_ne!(untouched, applied, "apply changes the system");
    done(router.apply(&full));
    assert_eq!(applied, system.snapshot(), "the same state again changes nothing");

    let mut changed = full.clone();
    changed.routes.remove(&net([100, 64, 0, 3], 32));
    changed.routes.insert(net([100, 64, 0, 4], 32));
    changed.advertised.clear();
    changed.mtu = 1400;
    done(router.apply(&changed));
    assert_ne!(applied, system.snapshot(), "a change is applied");
    done(router.apply(&full));
    assert_eq!(applied, system.snapshot(), "the way back leads to the same state");

    let bad = |routes: &[Ipv4Net], advertised: &[Ipv4Net]| {
        let mut config = full.clone();
        config.routes.extend(routes);
        config.advertised.extend(advertised);
        config
    };
    for refused in [
        bad(&[net([0, 0, 0, 0], 0)], &[]),
        bad(&[], &[net([0, 0, 0, 0], 1)]),
        bad(&[], &[net([8, 8, 8, 0], 24)]),
        bad(&[], &[net([192, 0, 0, 0], 8), net([100, 64, 0, 0], 16)]),
    ] {
        assert!(router.apply(&refused).is_err(), "must be refused: {refused:?}");
        assert_eq!(applied, system.snapshot(), "what is refused changes nothing, the rest stays");
    }

    done(router.close());
    assert_eq!(untouched, system.snapshot(), "close restores what was there");
    done(router.close());
    done(router.apply(&full));
    assert_eq!(applied, system.snapshot(), "it can be used again after close");
    done(router.apply(&RouterConfig::default()));
    assert_eq!(untouched, system.snapshot(), "the empty state is the untouched one");
    done(router.close());
}

/// A configuration for the service address with one domain.
pub fn full_dns_config(default_route: bool) -> DnsConfig {
    let domain: Vec<MatchDomain> = MatchDomain::new("example.ts.net").into_iter().collect();
    DnsConfig {
        nameservers: vec![IpAddr::V4(SERVICE_ADDRESS)],
        match_domains: domain.clone(),
        search_domains: domain,
        default_route,
    }
}

/// Walks a configurator through its life. `default_route` must be true where names cannot be split.
pub fn dns(dns: &mut dyn DnsConfigurator, system: &dyn Observe, default_route: bool) {
    let untouched = system.snapshot();
    let full = full_dns_config(default_route);

    done(dns.apply(&full));
    let applied = system.snapshot();
    assert_ne!(untouched, applied, "apply changes the system");
    assert_eq!(dns.status().applied.as_ref(), Some(&full));
    done(dns.apply(&full));
    assert_eq!(applied, system.snapshot(), "the same state again changes nothing");
    done(dns.flush_caches());

    let more =
        DnsConfig { search_domains: MatchDomain::new("other.test").into_iter().collect(), ..full.clone() };
    done(dns.apply(&more));
    assert_ne!(applied, system.snapshot(), "a change is applied");
    done(dns.apply(&full));
    assert_eq!(applied, system.snapshot(), "the way back leads to the same state");

    done(dns.apply(&DnsConfig::default()));
    assert_eq!(untouched, system.snapshot(), "the empty state is the untouched one");
    done(dns.apply(&full));
    done(dns.close());
    assert_eq!(untouched, system.snapshot(), "close restores what was there");
    assert_eq!(dns.status().applied, None);
    done(dns.close());
}

fn net(address: [u8; 4], len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from(address), len)
}

fn done(result: crate::Result<()>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}
