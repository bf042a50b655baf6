//! Creation of the TUN device.
//!
//! The order matters: the interface appears down; IPv6 is switched off on it while nothing can leave through it; then
//! come address and MTU, and last it is set up. So no IPv6 address or packet exists on it at any moment, where
//! otherwise the kernel would give it a link-local address and send router solicitations at once.

use std::io;
use std::path::Path;

use tsrs_platform_api::{PlatformError, Result, TunConfig, TunDevice, TunOffload};

use crate::netlink::Socket;
use crate::rtnl::{self, LinkChange};
use crate::sys;

/// Packets that may wait for the agent before the kernel drops. More only adds delay: the agent drains the device in
/// batches (performance notes §7).
const TX_QUEUE_LEN: u32 = 500;

/// Longest name that the kernel takes (`IFNAMSIZ` without the zero).
const NAME_MAX_LEN: usize = 15;

const DEVICE: &str = "/dev/net/tun";

/// Creates the device, without IPv6, and sets it up if an address is given.
pub fn create(config: &TunConfig) -> Result<TunDevice> {
    let what = format!("create TUN device {}", config.name);
    let failed = |cause: io::Error| explain(PlatformError::new(what.clone(), cause));
    check_name(&config.name).map_err(|error| PlatformError::new(what.clone(), error))?;
    if !Path::new(DEVICE).exists() {
        let cause = io::Error::new(io::ErrorKind::NotFound, format!("{DEVICE} does not exist"));
        return Err(PlatformError::new(what, cause).with_next(
            "load the kernel module with `modprobe tun`; in a container, pass the device in: --device /dev/net/tun",
        ));
    }
    let mut socket = Socket::route().map_err(failed)?;
    if rtnl::link_by_name(&mut socket, &config.name).map_err(|error| failed(error.into()))?.is_some() {
        let cause = io::Error::new(io::ErrorKind::AlreadyExists, "an interface with this name exists");
        return Err(PlatformError::new(what, cause)
            .with_next("stop the program that owns it, or choose another name with --tun"));
    }
    let device = open(config).map_err(failed)?;
    set_up(&mut socket, config, device).map_err(failed)
}

fn open(config: &TunConfig) -> io::Result<tun_rs::SyncDevice> {
    tun_rs::DeviceBuilder::new()
        .name(&config.name)
        .offload(config.offload)
        .mtu(config.mtu)
        .tx_queue_len(TX_QUEUE_LEN)
        .enable(false)
        .build_sync()
}

fn set_up(socket: &mut Socket, config: &TunConfig, device: tun_rs::SyncDevice) -> io::Result<TunDevice> {
    let index = device.if_index()?;
    disable_ipv6(socket, &config.name, index)?;
    if let Some(address) = config.address {
        socket.request(rtnl::add_host(index, address))?;
        rtnl::set_link(socket, index, LinkChange { up: Some(true), ..LinkChange::default() })?;
    }
    device.set_nonblocking(true)?;
    let offload = TunOffload { vnet_hdr: device.tcp_gso(), tso4: device.tcp_gso(), uso4: device.udp_gso() };
    Ok(TunDevice { name: config.name.clone(), index, offload, fd: sys::into_owned_fd(device) })
}

/// Switches IPv6 off on an interface that is still down.
///
/// The sysctl is the whole measure. Where it cannot be written (a container with read-only `/proc/sys`) the kernel is
/// at least told to make no addresses, and without one nothing is sent. A kernel without IPv6 has neither.
fn disable_ipv6(socket: &mut Socket, name: &str, index: u32) -> io::Result<()> {
    let sysctl = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return Ok(());
    }
    let no_addresses = LinkChange { no_ipv6_addresses: true, ..LinkChange::default() };
    let told = rtnl::set_link(socket, index, no_addresses);
    match (std::fs::write(sysctl, "1"), told) {
        (Ok(()), _) | (Err(_), Ok(())) => Ok(()),
        (Err(error), Err(_)) => Err(io::Error::new(error.kind(), format!("switch IPv6 off: {error}"))),
    }
}

fn check_name(name: &str) -> io::Result<()> {
    let usable = (1..=NAME_MAX_LEN).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..");
    if usable {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "{name:?} cannot be an interface name: use 1 to {NAME_MAX_LEN} letters, digits, '-', '_' or '.'"
        ),
    ))
}

fn explain(error: PlatformError) -> PlatformError {
    let taken = "stop the program that owns the device, or choose another name with --tun";
    error
        .with_next_if(io::ErrorKind::PermissionDenied, "run as root, or give the agent CAP_NET_ADMIN")
        .with_next_if(io::ErrorKind::ResourceBusy, taken)
        .with_next_if(io::ErrorKind::AlreadyExists, taken)
}

#[cfg(test)]
mod tests;
