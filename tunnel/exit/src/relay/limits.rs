//! How long flows may last, and how many relays for UDP there may be.

use std::time::Duration;

/// Limits of the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// How long no byte may go through a TCP flow.
    pub tcp_idle: Duration,
    /// The same once one direction has ended: many peers forget the other one.
    pub tcp_half_closed_idle: Duration,
    /// How long a TCP flow may last at all.
    pub tcp_lifetime: Duration,
    /// How long no datagram may go through an association.
    pub udp_idle: Duration,
    /// Associations in all. Each holds a connection to the proxy.
    pub associations: usize,
    /// Associations of one peer.
    pub associations_per_peer: usize,
    /// How long no proxy is asked for a relay after none had one.
    pub udp_retry: Duration,
}

impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            // RFC 5382 §5 asks NATs for two hours and four minutes.
            tcp_idle: Duration::from_secs(2 * 3600 + 240),
            tcp_half_closed_idle: Duration::from_secs(600),
            tcp_lifetime: Duration::from_secs(24 * 3600),
            // RFC 4787 §4.3 asks NATs for at least two minutes.
            udp_idle: Duration::from_secs(120),
            associations: 1024,
            associations_per_peer: 256,
            udp_retry: Duration::from_secs(30),
        }
    }
}
