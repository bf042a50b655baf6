//! The codec and the client against the reference's bytes, and against each other.

mod client;
mod dialer;
mod reference;

use tsrs_base_types::{NodePrivate, NodePublic};
pub(crate) use tsrs_lab_vectors::SeededRng as TestRng;

pub(crate) const UPGRADED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n\r\n";

pub(crate) fn server() -> NodePrivate {
    NodePrivate::from_bytes([0x61; 32])
}

pub(crate) fn client() -> NodePrivate {
    NodePrivate::from_bytes([0x62; 32])
}

pub(crate) fn peer() -> NodePublic {
    NodePrivate::from_bytes([0x63; 32]).public()
}
