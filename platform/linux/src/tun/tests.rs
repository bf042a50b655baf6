use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::testing::{isolated, run, sh};

fn config(name: &str) -> TunConfig {
    TunConfig { address: Some(Ipv4Addr::new(100, 64, 0, 1)), ..TunConfig::new(name) }
}

/// Reads what the kernel sends through the device within a short while.
fn first_packets(device: &TunDevice) -> Vec<Vec<u8>> {
    let header_len = if device.offload.vnet_hdr { 10 } else { 0 };
    let mut packets = Vec::new();
    let mut buffer = vec![0; 70_000];
    let mut fds = [PollFd::new(device.fd.as_fd(), PollFlags::POLLIN)];
    // Router solicitations and multicast reports leave within this time when IPv6 is on.
    while poll(&mut fds, PollTimeout::from(300_u16)).unwrap() > 0 {
        let len = nix::unistd::read(&device.fd, &mut buffer).unwrap();
        packets.push(buffer[header_len..len].to_vec());
    }
    packets
}

#[test]
fn a_new_device_has_its_address_and_no_ipv6_from_the_first_moment() {
    isolated(|| {
        let device = create(&config("tailscale0")).unwrap();
        let addresses = sh("ip -o addr show dev tailscale0");
        assert!(addresses.contains("inet 100.64.0.1/32"), "{addresses}");
        assert!(!addresses.contains("inet6"), "{addresses}");
        let link = sh("ip -d link show dev tailscale0");
        for part in ["mtu 1280", "qlen 500", "state UNKNOWN", "UP"] {
            assert!(link.contains(part), "{part} missing in {link}");
        }
        assert_eq!(first_packets(&device), Vec::<Vec<u8>>::new(), "nothing is sent unasked");
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv6/conf/tailscale0/disable_ipv6").unwrap(),
            "1\n"
        );
        assert_eq!(run("ip", ["-6", "route", "show", "dev", "tailscale0", "table", "all"]), "");
    });
}

#[test]
fn without_an_address_the_device_stays_down() {
    isolated(|| {
        let _device = create(&TunConfig::new("tailscale0")).unwrap();
        assert!(sh("ip link show dev tailscale0").contains("state DOWN"));
    });
}

#[test]
fn offload_is_probed_and_can_be_left_out() {
    isolated(|| {
        let device = create(&config("t0")).unwrap();
        assert!(device.offload.vnet_hdr && device.offload.tso4);
        let plain = create(&TunConfig { offload: false, ..config("t1") }).unwrap();
        assert_eq!(plain.offload, TunOffload::default());
    });
}

#[test]
fn the_interface_goes_with_its_descriptor() {
    isolated(|| {
        let device = create(&config("t0")).unwrap();
        assert_eq!(nix::net::if_::if_nametoindex("t0").unwrap(), device.index);
        drop(device);
        assert!(nix::net::if_::if_nametoindex("t0").is_err());
    });
}

#[test]
fn an_existing_name_is_refused_and_left_alone() {
    isolated(|| {
        sh("ip tuntap add dev tailscale0 mode tun");
        let error = create(&config("tailscale0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("--tun"), "{error}");
        assert!(sh("ip link show dev tailscale0").contains("state DOWN"));
    });
}

#[test]
fn a_missing_device_node_is_named_and_not_made() {
    isolated(|| {
        let none = None::<&Path>;
        nix::mount::mount(Some("tmpfs"), "/dev", Some("tmpfs"), nix::mount::MsFlags::empty(), none).unwrap();
        let error = create(&config("t0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("modprobe tun"), "{error}");
        assert!(!Path::new(DEVICE).exists());
    });
}

#[test]
fn missing_privilege_is_explained() {
    isolated(|| {
        // Only this thread changes: the kernel keeps user ids per thread.
        sys::tests::set_thread_uid(65_534);
        let error = create(&config("t0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
    });
}

#[test]
fn names_that_are_no_interface_names_are_refused() {
    for name in ["", ".", "..", "a/b", "a b", "sixteen-letters-", "ä", "a\n"] {
        assert_eq!(create(&config(name)).unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
}
