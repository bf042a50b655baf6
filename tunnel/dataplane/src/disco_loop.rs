//! Our own path finding must not run inside the tunnel: it would find a path through itself.

use tsrs_base_types::DiscoPublic;
use tsrs_tunnel_packet::ipv4::{self, Parsed};

/// What begins every disco datagram (data-plane sheet §2.1).
const DISCO_MAGIC: [u8; 6] = [0x54, 0x53, 0xf0, 0x9f, 0x92, 0xac];

/// Whether a UDP packet carries a disco datagram from the owner of this key.
pub(crate) fn carries_disco_of(key: &DiscoPublic, packet: &[u8], parsed: &Parsed) -> bool {
    let payload = packet.get(usize::from(parsed.header_len) + ipv4::UDP_HEADER_LEN..).unwrap_or_default();
    payload.strip_prefix(&DISCO_MAGIC).is_some_and(|behind| behind.starts_with(key.as_bytes()))
}
