//! The TUN device as the engine receives it.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use crate::router::DEFAULT_MTU;

/// What is asked for when the device is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Name of the interface. Creation is refused if it exists.
    pub name: String,
    /// First address; `None` leaves the device without one until [`crate::Router::apply`] brings it.
    pub address: Option<Ipv4Addr>,
    /// MTU in bytes.
    pub mtu: u16,
    /// Whether segmentation offload is tried. Off for hosts whose kernel is known to be broken.
    pub offload: bool,
}

impl TunConfig {
    /// A device with the usual MTU and offload.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), address: None, mtu: DEFAULT_MTU, offload: true }
    }
}

/// An open TUN device. Its interface lives as long as the descriptor.
#[derive(Debug)]
pub struct TunDevice {
    /// The descriptor, non-blocking. One IP packet per read or write, behind a `virtio_net_hdr` when
    /// [`TunOffload::vnet_hdr`] is set.
    pub fd: OwnedFd,
    /// Name of the interface.
    pub name: String,
    /// Number that the kernel gave it.
    pub index: u32,
    /// What the kernel agreed to.
    pub offload: TunOffload,
}

/// Segmentation offload of a TUN device, as the kernel agreed to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunOffload {
    /// Every packet has a 10-byte `virtio_net_hdr` in front.
    pub vnet_hdr: bool,
    /// Packets may come without a finished checksum, and TCP over IPv4 in pieces of up to 64 KiB.
    pub tso4: bool,
    /// UDP over IPv4 may come in pieces of up to 64 KiB (Linux ≥ 6.2).
    pub uso4: bool,
}
