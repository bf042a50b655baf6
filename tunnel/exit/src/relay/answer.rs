//! What a peer is told when its flow is not connected.

use tsrs_tunnel_packet::icmp::Unreachable;

use crate::dial::DialError;
use crate::flow::Refusal;
use crate::proxy::{ProxyError, Reply};

/// The answer that a peer would get from the destination or from a router on the way; "prohibited" where the proxies are the reason, so that
/// it is not taken for a fault of the destination.
pub(super) const fn answer_to(error: &DialError) -> Refusal {
    match error {
        DialError::Destination { error: ProxyError::Refused(reply), .. } => answer_to_reply(*reply),
        DialError::Destination { error: ProxyError::NoAnswer, .. } => Refusal::Unreachable(Unreachable::Host),
        DialError::Destination { .. }
        | DialError::Closed
        | DialError::Busy
        | DialError::Mark(_)
        | DialError::Proxies(_) => Refusal::Unreachable(Unreachable::AdminProhibited),
    }
}

const fn answer_to_reply(reply: Reply) -> Refusal {
    match reply {
        Reply::NetworkUnreachable => Refusal::Unreachable(Unreachable::Net),
        // Gateway Timeout.
        Reply::HostUnreachable | Reply::TtlExpired | Reply::HttpStatus(504) => {
            Refusal::Unreachable(Unreachable::Host)
        }
        Reply::ConnectionRefused | Reply::HttpStatus(_) => Refusal::Reset,
        Reply::GeneralFailure
        | Reply::NotAllowed
        | Reply::CommandNotSupported
        | Reply::AddressTypeNotSupported
        | Reply::Unassigned(_) => Refusal::Unreachable(Unreachable::AdminProhibited),
    }
}
