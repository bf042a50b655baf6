//! Why a packet was dropped, for the whole data plane.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $label:literal;)*) => {
        /// Why a packet was dropped. A drop is counted, never an error.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $variant,)*
        }

        impl DropReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that people see when they watch drops live.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The value of the label `reason` of the user metrics `tailscaled_*_dropped_packets_total` (client sheet §2.6).
            pub const fn metric_label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

drop_reasons! {
    // Shape of the IP packet (data-plane sheet §8.1, §8.2).
    /// Shorter than an IPv4 header.
    TooShort => "too-short", "too_short";
    /// Not IPv4: this build carries no other version.
    NotIpv4 => "not-ipv4", "unknown_protocol";
    /// IPv4 that does not parse: lengths that contradict each other, or an incomplete transport header.
    Malformed => "malformed", "unknown_protocol";
    /// A fragment where only whole packets can be handled.
    Fragment => "fragment", "fragment";
    /// Destination is a multicast group.
    Multicast => "multicast", "multicast";
    /// Destination is link-local and not the metadata service.
    LinkLocal => "link-local", "link_local_unicast";
    /// Larger than the tunnel's MTU.
    TooBig => "too-big", "error";
    /// The kernel's offload header contradicts the packet.
    BadOffload => "bad-offload", "error";

    // Filter (data-plane sheet §8.3 to §8.6).
    /// No rule accepts it.
    Acl => "acl", "acl";
    /// Destination is not an address of ours and not in a route that we advertise.
    NotLocal => "not-local", "acl";
    /// The "shields up" preference refuses everything that peers start.
    ShieldsUp => "shields-up", "acl";
    /// The peer is jailed: it may answer, and start nothing.
    Jailed => "jailed", "acl";
    /// No filter is loaded yet.
    NoFilter => "no-filter", "acl";
    /// Our own disco traffic inside the tunnel, which would loop.
    DiscoLoop => "disco-loop", "error";
    /// A TSMP packet that came from the host; only the agent sends these.
    TsmpFromHost => "tsmp-from-host", "unknown_protocol";

    // Routing.
    /// No peer has the destination.
    NoPeer => "no-peer", "error";
    /// The peer's node key is expired.
    PeerExpired => "peer-expired", "error";
    /// The inner source address does not belong to the peer that sent it.
    ForeignSource => "foreign-source", "acl";
    /// No path to the peer: no direct address and no relay.
    NoPath => "no-path", "error";
    /// The service at this address or port does not exist.
    NoService => "no-service", "error";

    // WireGuard (data-plane sheet §1).
    /// Not a WireGuard message: unknown type or wrong length.
    BadMessage => "bad-message", "error";
    /// The receiver index belongs to no session and no handshake.
    UnknownIndex => "unknown-index", "error";
    /// The key is older than it may be, or was withdrawn.
    SessionExpired => "session-expired", "error";
    /// All counters of the key are used up.
    CounterExhausted => "counter-exhausted", "error";
    /// The message does not authenticate.
    Unauthenticated => "unauthenticated", "error";
    /// The counter was used before, or lies behind the replay window.
    Replay => "replay", "error";
    /// The inner length contradicts the decrypted bytes.
    BadInnerLength => "bad-inner-length", "error";
    /// The first MAC of a handshake message is wrong.
    BadMac1 => "bad-mac1", "error";
    /// Under load, and the handshake message proved no ownership of its address; a cookie was sent.
    CookieRequired => "cookie-required", "error";
    /// Under load, and this address sends more handshakes than its share.
    HandshakeRate => "handshake-rate", "error";
    /// Initiations of one peer closer together than allowed.
    HandshakeFlood => "handshake-flood", "error";
    /// The timestamp of the initiation is not newer than the last one.
    HandshakeReplay => "handshake-replay", "error";
    /// An initiation by a key that is no peer's.
    UnknownPeer => "unknown-peer", "error";
    /// A response or cookie that answers nothing of ours.
    UnexpectedReply => "unexpected-reply", "error";
    /// The handshake did not succeed within its time; packets that waited for it are dropped.
    HandshakeTimeout => "handshake-timeout", "error";
    /// The queue of packets that wait for a session is full; the oldest is dropped.
    StagedFull => "staged-full", "error";

    // Queues and the system.
    /// The queue to the slow path is full.
    SlowPathFull => "slow-path-full", "error";
    /// The queue to a relay is full; the oldest is dropped.
    RelayFull => "relay-full", "error";
    /// The kernel refused to send the datagram.
    SendFailed => "send-failed", "error";
    /// The kernel refused the packet on the TUN.
    TunWriteFailed => "tun-write-failed", "error";
}

/// One counter for each reason; workers share it.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl DropCounters {
    /// All zero.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }

    /// Counts `packet_count` drops.
    pub fn add(&self, reason: DropReason, packet_count: u64) {
        self.0[reason as usize].fetch_add(packet_count, Ordering::Relaxed);
    }

    /// Packets dropped so far for this reason.
    pub fn count(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|reason| (*reason, self.count(*reason)))
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_labels_are_those_of_the_dashboards() {
        let labels =
            ["acl", "multicast", "link_local_unicast", "too_short", "fragment", "unknown_protocol", "error"];
        let mut names: Vec<_> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        assert!(DropReason::ALL.iter().all(|reason| labels.contains(&reason.metric_label())));
    }

    #[test]
    fn each_reason_has_its_own_counter() {
        let counters = DropCounters::new();
        counters.add(DropReason::Acl, 2);
        counters.add(DropReason::TunWriteFailed, 3);
        counters.add(DropReason::Acl, 1);
        let counted: Vec<_> = counters.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(DropReason::Acl, 3), (DropReason::TunWriteFailed, 3)]);
    }
}
