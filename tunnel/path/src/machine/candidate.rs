//! One address at which a peer may be reached, and which of two is better.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use super::limits::PING_CANDIDATE_LIFE;
use crate::disco::TxId;

/// An address at which a peer may be reached, with where we know it from.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) address: SocketAddrV4,
    /// The netmap lists it.
    pub(super) in_netmap: bool,
    /// The last CallMeMaybe listed it.
    pub(super) in_call: bool,
    /// The last ping that came from it.
    pub(super) last_received: Option<(Instant, TxId)>,
    /// When we last pinged it.
    pub(super) last_pinged: Option<Instant>,
}

impl Candidate {
    pub(super) fn new(address: SocketAddrV4) -> Self {
        Self { address, in_netmap: false, in_call: false, last_received: None, last_pinged: None }
    }

    /// Whether anything still speaks for it (data-plane sheet §3.3).
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        let recently = |(at, _)| now.saturating_duration_since(at) < PING_CANDIDATE_LIFE;
        self.in_netmap || self.in_call || self.last_received.is_some_and(recently)
    }
}

/// Whether packets may be sent there at all.
pub(super) fn is_usable(address: &SocketAddrV4) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
}

/// Where data goes, and how fast it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Best {
    pub(super) address: SocketAddrV4,
    pub(super) latency: Duration,
}

impl Best {
    /// Whether this path should replace `other` (data-plane sheet §3.5): points for less latency and for a nearer
    /// address, and a little steadiness.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        if self.address == other.address {
            return false;
        }
        let mut ours = nearness_points(&self.address);
        let mut theirs = nearness_points(&other.address);
        if self.latency > other.latency {
            theirs += speed_points(other.latency, self.latency);
        } else {
            ours += speed_points(self.latency, other.latency);
        }
        // Less than a hundredth faster and no nearer is not worth a change.
        !(ours <= 1 && theirs == 0) && ours > theirs
    }
}

/// How many hundredths less time the faster one takes.
fn speed_points(faster: Duration, slower: Duration) -> u128 {
    if slower.is_zero() { 0 } else { 100 - faster.as_nanos() * 100 / slower.as_nanos() }
}

fn nearness_points(address: &SocketAddrV4) -> u128 {
    let ip = address.ip();
    if ip.is_loopback() {
        50
    } else if ip.is_link_local() {
        30
    } else if ip.is_private() {
        20
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(address: &str, micros: u64) -> Best {
        Best { address: address.parse().unwrap(), latency: Duration::from_micros(micros) }
    }

    #[test]
    fn points_decide_which_path_is_better() {
        let a = |micros| best("192.0.2.1:1", micros);
        let b = |micros| best("192.0.2.2:1", micros);
        assert!(!a(1).is_better_than(&a(1000)), "the same address is never better");
        assert!(b(900).is_better_than(&a(1000)));
        assert!(!b(1000).is_better_than(&a(900)));
        assert!(!b(1000).is_better_than(&a(1000)));
        assert!(!b(990).is_better_than(&a(1000)), "one hundredth is not enough");
        assert!(b(980).is_better_than(&a(1000)));
        let private = |micros| best("192.168.1.1:1", micros);
        let link_local = |micros| best("169.254.1.1:1", micros);
        let loopback = |micros| best("127.0.0.1:1", micros);
        assert!(private(1200).is_better_than(&a(1000)), "20 points against 17");
        assert!(!private(1300).is_better_than(&a(1000)), "20 points against 24");
        assert!(link_local(1000).is_better_than(&private(1000)));
        assert!(loopback(1000).is_better_than(&link_local(1000)));
        assert!(!a(0).is_better_than(&b(0)), "no latency, no points");
    }

    #[test]
    fn neither_order_ever_prefers_both() {
        let addresses = ["192.0.2.1:1", "10.0.0.1:1", "169.254.0.1:1", "127.0.0.1:1", "192.0.2.9:9"];
        for first in addresses {
            for second in addresses {
                for micros in [0, 1, 99, 100, 101, 5000, u64::MAX / 2] {
                    let (x, y) = (best(first, 100), best(second, micros));
                    assert!(!(x.is_better_than(&y) && y.is_better_than(&x)), "{x:?} {y:?}");
                }
            }
        }
    }

    #[test]
    fn addresses_that_reach_nobody_are_not_used() {
        for bad in ["0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "192.0.2.1:0"] {
            assert!(!is_usable(&bad.parse().unwrap()), "{bad}");
        }
        assert!(is_usable(&"192.0.2.1:1".parse().unwrap()));
    }
}
