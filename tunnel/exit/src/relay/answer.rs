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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Garbage;

    #[test]
    fn a_peer_is_told_what_the_destination_or_a_router_would_tell() {
        let destination =
            |error| DialError::Destination { proxy: "socks5://11.0.0.8:1080".parse().unwrap(), error };
        let unreachable = Refusal::Unreachable;
        for (error, answer) in [
            (destination(ProxyError::Refused(Reply::ConnectionRefused)), Refusal::Reset),
            (destination(ProxyError::Refused(Reply::NetworkUnreachable)), unreachable(Unreachable::Net)),
            (destination(ProxyError::Refused(Reply::HostUnreachable)), unreachable(Unreachable::Host)),
            (destination(ProxyError::Refused(Reply::TtlExpired)), unreachable(Unreachable::Host)),
            (destination(ProxyError::Refused(Reply::HttpStatus(504))), unreachable(Unreachable::Host)),
            (destination(ProxyError::Refused(Reply::HttpStatus(503))), Refusal::Reset),
            (destination(ProxyError::NoAnswer), unreachable(Unreachable::Host)),
            (destination(ProxyError::Garbage(Garbage::Version)), unreachable(Unreachable::AdminProhibited)),
            (DialError::Closed, unreachable(Unreachable::AdminProhibited)),
            (DialError::Busy, unreachable(Unreachable::AdminProhibited)),
            (DialError::Mark(String::new()), unreachable(Unreachable::AdminProhibited)),
            (DialError::Proxies(Vec::new()), unreachable(Unreachable::AdminProhibited)),
        ] {
            assert_eq!(answer_to(&error), answer, "{error}");
        }
    }
}
