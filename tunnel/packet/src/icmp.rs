//! ICMP messages about packets that are not carried (RFC 792, RFC 1812 §4.3.2), and echo replies.

use std::net::Ipv4Addr;

use crate::checksum::Sum;
use crate::gso::{ip_header_len, put};
use crate::ipv4::{HEADER_LEN, be16, icmp_type, parse, protocol};

/// Why a packet was not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// No route to the network.
    Net,
    /// The host does not answer.
    Host,
    /// Nothing listens on the port.
    Port,
    /// Larger than the link's MTU and not to be fragmented (RFC 1191 §4).
    TooBig {
        /// The largest packet that fits.
        mtu: u16,
    },
    /// Policy forbids the network.
    NetProhibited,
    /// Policy forbids the host.
    HostProhibited,
    /// Policy forbids the traffic (RFC 1812 §5.2.7.1).
    AdminProhibited,
}

/// Most bytes of a message, so that it fits every link (RFC 1812 §4.3.2.3).
pub const MAX_LEN: usize = 576;

const ICMP_HEADER_LEN: usize = 8;
const TTL: u8 = 64;

impl Unreachable {
    const fn code(self) -> u8 {
        match self {
            Self::Net => 0,
            Self::Host => 1,
            Self::Port => 3,
            Self::TooBig { .. } => 4,
            Self::NetProhibited => 9,
            Self::HostProhibited => 10,
            Self::AdminProhibited => 13,
        }
    }
}

/// Writes a "destination unreachable" about `original` from the address `from` to its source, and gives its length.
///
/// `None` where no message may be sent (RFC 1122 §3.2.2): about ICMP errors, later fragments, packets to or from groups or
/// broadcast addresses, and what does not parse. How often messages are sent is the caller's matter.
pub fn unreachable(
    reason: Unreachable,
    from: Ipv4Addr,
    original: &[u8],
    out: &mut [u8; MAX_LEN],
) -> Option<usize> {
    let parsed = parse(original);
    let ip_len = ip_header_len(original)?;
    let later_fragment = be16(original, 6) & 0x1fff != 0;
    if parsed.header_len == 0 || later_fragment || !is_host(parsed.src) || !is_host(parsed.dst) {
        return None;
    }
    if parsed.protocol == protocol::ICMP {
        // An unknown or unreadable ICMP message may be an error.
        let kind = original.get(ip_len)?;
        if !matches!(*kind, icmp_type::ECHO_REQUEST | icmp_type::ECHO_REPLY) {
            return None;
        }
    }
    let quoted = &original[..usize::from(parsed.total_len).min(MAX_LEN - HEADER_LEN - ICMP_HEADER_LEN)];
    let total_len = HEADER_LEN + ICMP_HEADER_LEN + quoted.len();
    let (ip, icmp) = out[..total_len].split_at_mut(HEADER_LEN);
    write_ip_header(ip, total_len, protocol::ICMP, from, parsed.src);
    icmp[..ICMP_HEADER_LEN].copy_from_slice(&[icmp_type::UNREACHABLE, reason.code(), 0, 0, 0, 0, 0, 0]);
    if let Unreachable::TooBig { mtu } = reason {
        put(icmp, 6, mtu);
    }
    icmp[ICMP_HEADER_LEN..].copy_from_slice(quoted);
    let checksum = Sum::new().bytes(icmp).checksum();
    put(icmp, 2, checksum);
    Some(total_len)
}

/// Turns an echo request into its reply in place: swaps the addresses and changes the type. `false`, with the packet left as it
/// is, if it is none.
pub fn reply_to_echo(packet: &mut [u8]) -> bool {
    let parsed = parse(packet);
    if !parsed.is_echo_request() || parsed.more_fragments {
        return false;
    }
    let Some(packet) = packet.get_mut(..usize::from(parsed.total_len)) else {
        return false;
    };
    let (ip, icmp) = packet.split_at_mut(usize::from(parsed.header_len));
    if icmp.len() < ICMP_HEADER_LEN {
        return false;
    }
    ip[12..16].copy_from_slice(&parsed.dst.octets());
    ip[16..20].copy_from_slice(&parsed.src.octets());
    ip[8] = TTL;
    put(ip, 10, 0);
    let ip_checksum = Sum::new().bytes(ip).checksum();
    put(ip, 10, ip_checksum);
    icmp[0] = icmp_type::ECHO_REPLY;
    put(icmp, 2, 0);
    let checksum = Sum::new().bytes(icmp).checksum();
    put(icmp, 2, checksum);
    true
}

/// Writes an IPv4 header without options; `ip` has 20 bytes.
pub(crate) fn write_ip_header(
    ip: &mut [u8],
    total_len: usize,
    ip_protocol: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
) {
    ip.fill(0);
    ip[0] = 0x45;
    put(ip, 2, u16::try_from(total_len).unwrap_or(u16::MAX));
    ip[8] = TTL;
    ip[9] = ip_protocol;
    ip[12..16].copy_from_slice(&src.octets());
    ip[16..20].copy_from_slice(&dst.octets());
    let checksum = Sum::new().bytes(ip).checksum();
    put(ip, 10, checksum);
}

/// An address that one host can have: not a group, not broadcast, not "this network".
const fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_multicast() || address.is_broadcast() || address.is_unspecified())
}

#[cfg(test)]
mod tests;
