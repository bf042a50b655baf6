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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        let disco = [&disco::envelope::MAGIC[..], &[0; 80]].concat();
        let header = geneve::Header { control: false, protocol: geneve::PROTOCOL_DISCO, vni: 5 };
        let relayed = [&header.encode()[..], &disco].concat();
        let answer = stun::response(stun::TxId([1; 12]), "192.0.2.1:1".parse().unwrap());
        assert_eq!(classify(&answer), Datagram::Stun);
        assert_eq!(classify(&relayed), Datagram::Geneve(header));
        assert_eq!(classify(&disco), Datagram::Disco);
        for wireguard in [&[1, 0, 0, 0][..], &[4, 0, 0, 0, 9, 9, 9, 9], &[], &[0; 148]] {
            assert_eq!(classify(wireguard), Datagram::WireGuard);
        }
        // STUN that is no binding message is not ours.
        let mut other = answer;
        other[1] = 0x11;
        assert_eq!(classify(&other), Datagram::WireGuard);
        for len in 0..disco.len().min(62) {
            assert_eq!(classify(&disco[..len]), Datagram::WireGuard, "cut to {len}");
        }
    }
}
