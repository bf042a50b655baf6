//! Packets and repeatable randomness for the tests of this crate.

use std::net::Ipv4Addr;

use crate::checksum::Sum;
use crate::gso::{non_zero_for_udp, put};
use crate::ipv4::{HEADER_LEN, be16, protocol};

pub(crate) const SRC: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(crate) const DST: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 10);

/// SplitMix64: a small generator with a seed, so that a failing case can be run again.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

/// A TCP segment and all that the tests vary in it.
#[derive(Clone)]
pub(crate) struct Tcp {
    pub(crate) ports: (u16, u16),
    pub(crate) sequence: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    pub(crate) fn new(sequence: u32, flags: u8, payload: &[u8]) -> Self {
        Self { ports: (1000, 443), sequence, ack: 77, flags, options: Vec::new(), payload: payload.to_vec() }
    }

    pub(crate) fn packet(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend_from_slice(&self.ports.0.to_be_bytes());
        transport.extend_from_slice(&self.ports.1.to_be_bytes());
        transport.extend_from_slice(&self.sequence.to_be_bytes());
        transport.extend_from_slice(&self.ack.to_be_bytes());
        transport.push(u8::try_from((20 + self.options.len()) / 4).unwrap() << 4);
        transport.extend_from_slice(&[self.flags, 0x12, 0x34, 0, 0, 0, 0]);
        transport.extend_from_slice(&self.options);
        transport.extend_from_slice(&self.payload);
        ip_packet(protocol::TCP, &transport)
    }
}

pub(crate) fn udp_packet(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut transport = Vec::new();
    transport.extend_from_slice(&ports.0.to_be_bytes());
    transport.extend_from_slice(&ports.1.to_be_bytes());
    transport.extend_from_slice(&u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    transport.extend_from_slice(&[0, 0]);
    transport.extend_from_slice(payload);
    ip_packet(protocol::UDP, &transport)
}

/// A packet with right checksums.
pub(crate) fn ip_packet(ip_protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; HEADER_LEN];
    packet[0] = 0x45;
    put(&mut packet, 2, u16::try_from(HEADER_LEN + transport.len()).unwrap());
    put(&mut packet, 4, 0x7000);
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = ip_protocol;
    packet[12..16].copy_from_slice(&SRC.octets());
    packet[16..20].copy_from_slice(&DST.octets());
    packet.extend_from_slice(transport);
    fix_checksums(&mut packet);
    packet
}

/// Makes the checksums right after a change. Only for packets without IP options.
pub(crate) fn fix_checksums(packet: &mut [u8]) {
    put(packet, 10, 0);
    let ip_checksum = Sum::new().bytes(&packet[..HEADER_LEN]).checksum();
    put(packet, 10, ip_checksum);
    let field = HEADER_LEN
        + match packet[9] {
            protocol::TCP => 16,
            protocol::UDP => 6,
            _ => return,
        };
    put(packet, field, 0);
    let sum = pseudo_sum(packet).bytes(&packet[HEADER_LEN..]).checksum();
    put(packet, field, non_zero_for_udp(packet[9], sum));
}

pub(crate) fn pseudo_sum(packet: &[u8]) -> Sum {
    let address = |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let transport_len = u16::try_from(packet.len() - HEADER_LEN).unwrap();
    Sum::pseudo_header(address(12), address(16), packet[9], transport_len)
}

/// Whether lengths and both checksums are right, as a receiver would check them.
pub(crate) fn is_intact(packet: &[u8]) -> bool {
    usize::from(be16(packet, 2)) == packet.len()
        && Sum::new().bytes(&packet[..HEADER_LEN]).verifies()
        && pseudo_sum(packet).bytes(&packet[HEADER_LEN..]).verifies()
}
