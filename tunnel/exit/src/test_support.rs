//! What several tests of this crate need.

use std::net::Ipv4Addr;

use crate::policy::{Destination, Policy, PolicyConfig, Verdict};

/// A destination that an empty policy admits.
pub(crate) fn admitted(address: &str) -> Destination {
    let policy = Policy::new(PolicyConfig::default()).unwrap();
    match policy.judge(Ipv4Addr::new(100, 64, 0, 9), address.parse().unwrap()) {
        Verdict::Proxy(destination) => destination,
        other @ (Verdict::Subnet | Verdict::Refused(_)) => panic!("{address}: {other:?}"),
    }
}
