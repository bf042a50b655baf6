//! What a UDP datagram is, by its first bytes (data-plane sheet §2.3).

use crate::{disco, geneve, stun};

/// The kind of a datagram that arrived on the UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram {
    /// A STUN answer; for [`crate::PathMachine::handle_datagram`].
    Stun,
    /// A disco message; for [`crate::PathMachine::handle_datagram`].
    Disco,
    /// Disco or WireGuard inside a Geneve header, from a peer relay.
    Geneve(geneve::Header),
    /// Everything else is WireGuard's to judge.
    WireGuard,
}

/// Sorts one datagram. The order is part of the protocol: STUN, Geneve, disco, WireGuard.
pub fn classify(datagram: &[u8]) -> Datagram {
    if stun::is_binding(datagram) {
        return Datagram::Stun;
    }
    if let Some(header) = geneve::Header::parse(datagram) {
        return Datagram::Geneve(header);
    }
    if disco::envelope::is_disco(datagram) {
        return Datagram::Disco;
    }
    Datagram::WireGuard
}
