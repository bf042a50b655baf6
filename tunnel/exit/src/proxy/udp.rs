//! The header of datagrams between us and a proxy's relay (RFC 1928 §7).
//!
//! ```text
//! 00 00  FRAG  01  ADDR(4)  PORT(2)  DATA
//! ```

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::policy::Destination;

/// Bytes of the header in front of the data.
pub const HEADER_LEN: usize = 10;

const ADDRESS_IPV4: u8 = 1;

/// Why a datagram of a relay is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UdpHeaderError {
    /// Shorter than the header.
    #[error("shorter than the header")]
    TooShort,
    /// The reserved bytes are not zero.
    #[error("the reserved bytes are not zero")]
    Reserved,
    /// A fragment. A client that puts none together must drop them.
    #[error("a fragment")]
    Fragment,
    /// The sender has no IPv4 address.
    #[error("the sender has no IPv4 address")]
    AddressType,
}

/// The header of a datagram to a destination.
pub const fn udp_header(destination: Destination) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = destination.ip().octets();
    let [high, low] = destination.port().to_be_bytes();
    [0, 0, 0, ADDRESS_IPV4, a, b, c, d, high, low]
}

/// Splits a datagram of the relay into its sender and its data.
pub fn split_udp(datagram: &[u8]) -> Result<(SocketAddrV4, &[u8]), UdpHeaderError> {
    let (header, data) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(UdpHeaderError::TooShort)?;
    let [reserved0, reserved1, fragment, kind, a, b, c, d, high, low] = *header;
    if (reserved0, reserved1) != (0, 0) {
        return Err(UdpHeaderError::Reserved);
    }
    if fragment != 0 {
        return Err(UdpHeaderError::Fragment);
    }
    if kind != ADDRESS_IPV4 {
        return Err(UdpHeaderError::AddressType);
    }
    Ok((SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])), data))
}
