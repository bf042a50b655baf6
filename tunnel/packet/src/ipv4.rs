//! What the filter and the router need to know of an IPv4 packet (data-plane sheet §8.1).

use std::net::Ipv4Addr;

/// Bytes of an IPv4 header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of a TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;
/// Bytes of a UDP header.
pub const UDP_HEADER_LEN: usize = 8;

/// IP protocol numbers that the data plane tells apart.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Tailscale's own messages inside the tunnel (data-plane sheet §8.7).
    pub const TSMP: u8 = 99;
}

/// Bits of the TCP flags byte.
pub mod tcp_flag {
    /// Sender is finished.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Resets a connection.
    pub const RST: u8 = 0x04;
    /// Hand the data to the application.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// How far a packet could be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not IPv4, or its lengths contradict each other, or its transport header is incomplete. Dropped everywhere.
    #[default]
    Unknown,
    /// A later fragment: no ports, and too far back to overwrite the first fragment's header.
    LaterFragment,
    /// TCP, ports and flags known.
    Tcp,
    /// UDP, ports known.
    Udp,
    /// SCTP, ports known.
    Sctp,
    /// ICMP, type and code known.
    Icmp,
    /// IGMP.
    Igmp,
    /// Protocol 99.
    Tsmp,
    /// Any other protocol.
    Other,
}

/// One parsed packet. Fields that the class does not have are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// How far the packet was understood.
    pub class: Class,
    /// 4 or 6; 0 for anything else and for packets shorter than that version's header.
    pub version: u8,
    /// IP protocol number as it stands in the packet.
    pub protocol: u8,
    /// Bytes of the IP header, options included.
    pub header_len: u8,
    /// Bytes of the packet by its own header; bytes behind it are not part of it.
    pub total_len: u16,
    /// Source address.
    pub src: Ipv4Addr,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Source port of TCP, UDP and SCTP.
    pub src_port: u16,
    /// Destination port of TCP, UDP and SCTP.
    pub dst_port: u16,
    /// Bits of [`tcp_flag`].
    pub tcp_flags: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// Whether the ICMP header is complete (8 bytes); echo and error messages count as such only then.
    pub icmp_complete: bool,
    /// The sender forbids fragmentation.
    pub dont_fragment: bool,
    /// A first fragment, of which more follow.
    pub more_fragments: bool,
}

impl Default for Parsed {
    fn default() -> Self {
        Self {
            class: Class::Unknown,
            version: 0,
            protocol: 0,
            header_len: 0,
            total_len: 0,
            src: Ipv4Addr::UNSPECIFIED,
            dst: Ipv4Addr::UNSPECIFIED,
            src_port: 0,
            dst_port: 0,
            tcp_flags: 0,
            icmp_type: 0,
            icmp_code: 0,
            icmp_complete: false,
            dont_fragment: false,
            more_fragments: false,
        }
    }
}

impl Parsed {
    /// Opens a TCP connection: SYN without ACK; the other flags do not matter.
    pub const fn is_tcp_syn(&self) -> bool {
        matches!(self.class, Class::Tcp) && self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }

    /// An ICMP echo request.
    pub const fn is_echo_request(&self) -> bool {
        self.icmp_complete && self.icmp_type == icmp_type::ECHO_REQUEST && self.icmp_code == 0
    }

    /// An ICMP echo reply.
    pub const fn is_echo_reply(&self) -> bool {
        self.icmp_complete && self.icmp_type == icmp_type::ECHO_REPLY && self.icmp_code == 0
    }

    /// An ICMP message about another packet: unreachable, time exceeded or parameter problem (RFC 792).
    pub const fn is_icmp_error(&self) -> bool {
        self.icmp_complete
            && matches!(
                self.icmp_type,
                icmp_type::UNREACHABLE | icmp_type::TIME_EXCEEDED | icmp_type::PARAMETER_PROBLEM
            )
    }
}

/// ICMP types that the data plane tells apart (RFC 792).
pub mod icmp_type {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Echo request.
    pub const ECHO_REQUEST: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
}

/// Offset in 8-byte units below which a later fragment could overwrite the transport header of the first one: an IPv4
/// header of at most 60 bytes and a TCP header of 20.
const MIN_FRAGMENT_UNITS: u16 = 10;

/// Reads the headers. Never fails: what is not understood has class [`Class::Unknown`].
///
/// A complete transport header is asked of the buffer and not of the IP total length, as the reference does.
pub fn parse(packet: &[u8]) -> Parsed {
    let mut parsed = Parsed::default();
    let Some((header, _)) = packet.split_first_chunk::<HEADER_LEN>() else {
        return parsed;
    };
    match header[0] >> 4 {
        4 => parsed.version = 4,
        6 if packet.len() >= 40 => parsed.version = 6,
        _ => {}
    }
    if parsed.version != 4 {
        return parsed;
    }
    let header_len = (header[0] & 0x0f) * 4;
    let total_len = be16(header, 2);
    if usize::from(header_len) < HEADER_LEN
        || u16::from(header_len) > total_len
        || usize::from(total_len) > packet.len()
    {
        return parsed;
    }
    parsed.header_len = header_len;
    parsed.total_len = total_len;
    parsed.protocol = header[9];
    parsed.src = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
    parsed.dst = Ipv4Addr::new(header[16], header[17], header[18], header[19]);
    let fragment = be16(header, 6);
    parsed.dont_fragment = fragment & 0x4000 != 0;
    parsed.more_fragments = fragment & 0x2000 != 0;
    let fragment_units = fragment & 0x1fff;
    parsed.class = match fragment_units {
        0 => parse_transport(&mut parsed, &packet[usize::from(header_len)..]),
        units if units < MIN_FRAGMENT_UNITS => Class::Unknown,
        _ => Class::LaterFragment,
    };
    parsed
}

fn parse_transport(parsed: &mut Parsed, transport: &[u8]) -> Class {
    let (class, min_len) = match parsed.protocol {
        protocol::TCP => (Class::Tcp, TCP_HEADER_LEN),
        protocol::UDP => (Class::Udp, UDP_HEADER_LEN),
        protocol::SCTP => (Class::Sctp, 12),
        protocol::ICMP => (Class::Icmp, 4),
        protocol::IGMP => (Class::Igmp, 8),
        // A message of a fragment would be read without its end.
        protocol::TSMP if parsed.more_fragments => return Class::Unknown,
        protocol::TSMP => (Class::Tsmp, crate::tsmp::MIN_BODY_LEN),
        // The reference uses these two numbers for its own "unknown" and "fragment".
        0 | 255 => return Class::Unknown,
        _ => return Class::Other,
    };
    if transport.len() < min_len {
        return Class::Unknown;
    }
    match class {
        Class::Tcp | Class::Udp | Class::Sctp => {
            parsed.src_port = be16(transport, 0);
            parsed.dst_port = be16(transport, 2);
            if class == Class::Tcp {
                parsed.tcp_flags = transport[13];
            }
        }
        Class::Icmp => {
            parsed.icmp_type = transport[0];
            parsed.icmp_code = transport[1];
            parsed.icmp_complete = transport.len() >= 8;
        }
        Class::Igmp | Class::Tsmp | Class::Other | Class::Unknown | Class::LaterFragment => {}
    }
    class
}

/// The big-endian number at `offset`, which the caller knows to be inside.
pub(crate) fn be16(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

#[cfg(test)]
mod tests;
