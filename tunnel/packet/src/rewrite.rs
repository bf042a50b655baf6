//! Changing single fields of a packet, with its checksums kept right (RFC 1624).

use std::net::Ipv4Addr;

use crate::checksum::update;
use crate::gso::{put, tcp_header_len};
use crate::ipv4::{Class, HEADER_LEN, TCP_HEADER_LEN, be16, parse, protocol, tcp_flag};

/// TCP option "maximum segment size" (RFC 9293 §3.7.1): kind, length, value of two bytes.
const TCP_OPTION_MSS: u8 = 2;
const TCP_OPTION_END: u8 = 0;
const TCP_OPTION_NOP: u8 = 1;

/// Sets the source address. `false` if the packet does not parse.
pub fn set_src(packet: &mut [u8], address: Ipv4Addr) -> bool {
    set_address(packet, 12, address)
}

/// Sets the destination address. `false` if the packet does not parse.
pub fn set_dst(packet: &mut [u8], address: Ipv4Addr) -> bool {
    set_address(packet, 16, address)
}

fn set_address(packet: &mut [u8], offset: usize, address: Ipv4Addr) -> bool {
    let parsed = parse(packet);
    if parsed.header_len == 0 {
        return false;
    }
    let new = address.octets();
    let words = [
        (be16(packet, offset), u16::from_be_bytes([new[0], new[1]])),
        (be16(packet, offset + 2), u16::from_be_bytes([new[2], new[3]])),
    ];
    packet[offset..offset + 4].copy_from_slice(&new);
    update_field(packet, 10, &words);
    // The pseudo-header holds the addresses. A later fragment has no transport header.
    let transport = usize::from(parsed.header_len);
    match parsed.class {
        Class::Tcp => update_field(packet, transport + 16, &words),
        Class::Udp if be16(packet, transport + 6) != 0 => {
            update_field(packet, transport + 6, &words);
            if be16(packet, transport + 6) == 0 {
                put(packet, transport + 6, 0xffff);
            }
        }
        Class::Udp
        | Class::Sctp
        | Class::Icmp
        | Class::Igmp
        | Class::Tsmp
        | Class::Other
        | Class::LaterFragment
        | Class::Unknown => {}
    }
    true
}

fn update_field(packet: &mut [u8], field: usize, words: &[(u16, u16)]) {
    let checksum = words.iter().fold(be16(packet, field), |sum, (old, new)| update(sum, *old, *new));
    put(packet, field, checksum);
}

/// Lowers the maximum segment size that a SYN announces to what fits `mtu`; never raises it. Whether it was changed.
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    let parsed = parse(packet);
    let largest = usize::from(mtu).saturating_sub(HEADER_LEN + TCP_HEADER_LEN);
    let Ok(largest) = u16::try_from(largest) else {
        return false;
    };
    if parsed.class != Class::Tcp || parsed.tcp_flags & tcp_flag::SYN == 0 || parsed.protocol != protocol::TCP
    {
        return false;
    }
    let start = usize::from(parsed.header_len);
    let Some(header_len) = tcp_header_len(&packet[start..]) else {
        return false;
    };
    let options = start + TCP_HEADER_LEN..start + header_len;
    let Some(field) = find_mss(&packet[options.clone()]).map(|at| options.start + at) else {
        return false;
    };
    let old = be16(packet, field);
    if old <= largest {
        return false;
    }
    put(packet, field, largest);
    // The checksum sums 16-bit words; a value at an odd offset lies across two of them, each byte swapped.
    let word = |value: u16| if (field - start) % 2 == 0 { value } else { value.swap_bytes() };
    update_field(packet, start + 16, &[(word(old), word(largest))]);
    true
}

/// Where the value of the MSS option lies.
fn find_mss(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            TCP_OPTION_END => return None,
            TCP_OPTION_NOP => at += 1,
            kind => {
                let len = usize::from(*options.get(at + 1)?);
                if len < 2 || at + len > options.len() {
                    return None;
                }
                if kind == TCP_OPTION_MSS && len == 4 {
                    return Some(at + 2);
                }
                at += len;
            }
        }
    }
}

#[cfg(test)]
mod tests;
