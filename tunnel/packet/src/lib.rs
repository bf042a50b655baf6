//! Packet views, checksums, segmentation and coalescing, and the reasons for which a packet is dropped.
//!
//! The crate reads and writes IPv4 packets in buffers that its caller owns; it allocates nothing per packet. [`ipv4::parse`]
//! gives the filter what it needs, [`gso`] cuts a super-packet of the kernel into segments, [`gro`] finds segments that can be
//! handed to the kernel as one, and [`icmp`], [`tsmp`] and [`rewrite`] make or change single packets. Rate limits for
//! the ICMP messages are left to the caller. IPv6 is not parsed: such packets are of class [`ipv4::Class::Unknown`].
#![forbid(unsafe_code)]

pub mod checksum;
mod drop_reason;
pub mod gro;
pub mod gso;
pub mod icmp;
pub mod ipv4;
pub mod rewrite;
pub mod tsmp;
pub mod vnet;

pub use drop_reason::{DropCounters, DropReason};

#[cfg(test)]
mod test_packets;
