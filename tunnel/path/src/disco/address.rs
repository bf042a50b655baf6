//! The 18-byte form of an address and port: 16 bytes of address (IPv4 as `::ffff:a.b.c.d`), port big-endian.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Length on the wire in bytes.
pub const ADDRESS_LEN: usize = 18;

/// Appends the wire form.
pub(crate) fn put_address(out: &mut Vec<u8>, address: SocketAddr) {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&address.port().to_be_bytes());
}

/// Reads the wire form; a v4-mapped address becomes IPv4.
pub(crate) fn parse_address(bytes: &[u8; ADDRESS_LEN]) -> SocketAddr {
    let mut ip = [0; 16];
    ip.copy_from_slice(&bytes[..16]);
    SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), u16::from_be_bytes([bytes[16], bytes[17]]))
}

/// Reads a list that fills `bytes` exactly; anything left over makes it `None`.
pub(crate) fn parse_addresses(bytes: &[u8]) -> Option<Vec<SocketAddr>> {
    let (chunks, rest) = bytes.as_chunks::<ADDRESS_LEN>();
    rest.is_empty().then(|| chunks.iter().map(parse_address).collect())
}
