//! TSMP: IP protocol 99, messages between the agents inside the tunnel (data-plane sheet §8.7).
//!
//! ```text
//! reject      '!' | protocol u8 | reason u8 | source port u16 | destination port u16 | flags u8, may be absent
//! ping        'p' | 8 bytes
//! pong        'o' | the same 8 bytes | peerAPI port u16, may be absent
//! disco key   'a' | 32 bytes
//! ```

use std::net::Ipv4Addr;

use crate::icmp::write_ip_header;
use crate::ipv4::{Class, HEADER_LEN, Parsed, be16, protocol};

/// Shortest body that is read as TSMP.
pub const MIN_BODY_LEN: usize = 7;
/// Most bytes of a message with its IP header.
pub const MAX_LEN: usize = HEADER_LEN + 33;

/// Bytes that a pong gives back.
pub type PingData = [u8; 8];

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A packet of ours was refused.
    Reject(Reject),
    /// To be answered with a pong.
    Ping(PingData),
    /// Answer to a ping.
    Pong {
        /// As in the ping.
        data: PingData,
        /// Port of the peer's peerAPI; 0 if it has none or is too old to say.
        peerapi_port: u16,
    },
    /// The sender's disco public key.
    DiscoKey([u8; 32]),
}

/// Why a connection was refused. The message's IP addresses are swapped with respect to the refused packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reject {
    /// IP protocol of the refused packet.
    pub protocol: u8,
    /// Why.
    pub reason: RejectReason,
    /// Source port of the refused packet.
    pub src_port: u16,
    /// Destination port of the refused packet.
    pub dst_port: u16,
    /// Perhaps only for now.
    pub maybe_broken: bool,
}

/// Reason of a reject, as its wire byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// `A`: no rule accepts it.
    Acl,
    /// `S`: shields up.
    ShieldsUp,
    /// `F`: forwarding is off.
    ForwardingOff,
    /// `W`: the host's firewall.
    HostFirewall,
    /// `T`: unknown connector transit address.
    UnknownTransit,
    /// A reason that this version does not know.
    Other(u8),
}

impl RejectReason {
    const fn from_byte(byte: u8) -> Self {
        match byte {
            b'A' => Self::Acl,
            b'S' => Self::ShieldsUp,
            b'F' => Self::ForwardingOff,
            b'W' => Self::HostFirewall,
            b'T' => Self::UnknownTransit,
            other => Self::Other(other),
        }
    }

    const fn to_byte(self) -> u8 {
        match self {
            Self::Acl => b'A',
            Self::ShieldsUp => b'S',
            Self::ForwardingOff => b'F',
            Self::HostFirewall => b'W',
            Self::UnknownTransit => b'T',
            Self::Other(other) => other,
        }
    }
}

impl Message {
    /// Reads the body behind the IP header. `None` for unknown types and for bodies that are too short.
    pub fn parse(body: &[u8]) -> Option<Self> {
        if body.len() < MIN_BODY_LEN {
            return None;
        }
        let (kind, rest) = body.split_first()?;
        match kind {
            b'!' => Some(Self::Reject(Reject {
                protocol: rest[0],
                reason: RejectReason::from_byte(rest[1]),
                src_port: be16(rest, 2),
                dst_port: be16(rest, 4),
                maybe_broken: rest.get(6).is_some_and(|flags| flags & 1 != 0),
            })),
            b'p' => rest.first_chunk().copied().map(Self::Ping),
            b'o' => {
                let (data, rest) = rest.split_first_chunk()?;
                let peerapi_port = rest.first_chunk().copied().map_or(0, u16::from_be_bytes);
                Some(Self::Pong { data: *data, peerapi_port })
            }
            b'a' => rest.first_chunk().copied().map(Self::DiscoKey),
            _ => None,
        }
    }

    /// Reads the message of a whole packet that was parsed as [`Class::Tsmp`].
    pub fn from_packet(parsed: &Parsed, packet: &[u8]) -> Option<Self> {
        if parsed.class != Class::Tsmp {
            return None;
        }
        Self::parse(packet.get(usize::from(parsed.header_len)..usize::from(parsed.total_len))?)
    }

    /// Writes the message as an IPv4 packet and gives its length.
    pub fn write(&self, src: Ipv4Addr, dst: Ipv4Addr, out: &mut [u8; MAX_LEN]) -> usize {
        let (ip, body) = out.split_at_mut(HEADER_LEN);
        let body_len = self.write_body(body);
        write_ip_header(ip, HEADER_LEN + body_len, protocol::TSMP, src, dst);
        HEADER_LEN + body_len
    }

    fn write_body(&self, body: &mut [u8]) -> usize {
        match self {
            Self::Reject(reject) => {
                let [src0, src1] = reject.src_port.to_be_bytes();
                let [dst0, dst1] = reject.dst_port.to_be_bytes();
                let (kind, reason) = (b'!', reject.reason.to_byte());
                let flags = u8::from(reject.maybe_broken);
                body[..8].copy_from_slice(&[kind, reject.protocol, reason, src0, src1, dst0, dst1, flags]);
                8
            }
            Self::Ping(data) => {
                body[0] = b'p';
                body[1..9].copy_from_slice(data);
                9
            }
            Self::Pong { data, peerapi_port } => {
                body[0] = b'o';
                body[1..9].copy_from_slice(data);
                body[9..11].copy_from_slice(&peerapi_port.to_be_bytes());
                11
            }
            Self::DiscoKey(key) => {
                body[0] = b'a';
                body[1..33].copy_from_slice(key);
                33
            }
        }
    }
}

#[cfg(test)]
mod tests;
