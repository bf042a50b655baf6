//! What the kernel does with packets: written into TUN devices and read out of them.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tsrs_platform_api::{EventSink, Instance, Router, RouterConfig, TunConfig, TunDevice, contract};

use super::LinuxRouter;
use crate::journal::Journal;
use crate::testing::{isolated, run, sh};
use crate::tun;

const SELF: [u8; 4] = [100, 64, 0, 1];
const PEER: [u8; 4] = [100, 64, 0, 2];
const LAN_SELF: [u8; 4] = [192, 0, 2, 7];
const LAN_HOST: [u8; 4] = [192, 0, 2, 50];
const INTERNET: [u8; 4] = [198, 51, 100, 1];

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A host that forwards between its tunnel and 192.0.2.0/24, with a default route there.
struct Gateway {
    tunnel: TunDevice,
    lan: TunDevice,
    router: LinuxRouter,
    _state: tempfile::TempDir,
}

impl Gateway {
    fn new() -> Self {
        let device = |name: &str| tun::create(&TunConfig { offload: false, ..TunConfig::new(name) }).unwrap();
        let (tunnel, lan) = (device("tailscale0"), device("lan0"));
        sh("ip addr add 192.0.2.7/24 dev lan0");
        sh("ip link set lan0 mtu 1500 up");
        sh("ip route add default via 192.0.2.1 dev lan0");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        for interface in ["all", "default", "tailscale0", "lan0"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "0").unwrap();
        }
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::open(state.path()).unwrap();
        let router =
            LinuxRouter::new(Instance::ZERO, "tailscale0", tunnel.index, journal, EventSink::ignore())
                .unwrap();
        Self { tunnel, lan, router, _state: state }
    }

    fn with(config: &RouterConfig) -> Self {
        let mut gateway = Self::new();
        gateway.router.apply(config).unwrap();
        gateway
    }
}

fn send(device: &TunDevice, packet: &[u8]) {
    nix::unistd::write(&device.fd, packet).unwrap();
}

/// The next packet that the kernel sends out of the device, or `None` if it sends none: packets cross the kernel
/// within the system call that writes them, so a short wait is plenty.
fn receive(device: &TunDevice) -> Option<Vec<u8>> {
    let mut fds = [PollFd::new(device.fd.as_fd(), PollFlags::POLLIN)];
    if poll(&mut fds, PollTimeout::from(100_u8)).unwrap() == 0 {
        return None;
    }
    let mut buffer = vec![0; 2000];
    let len = nix::unistd::read(&device.fd, &mut buffer).unwrap();
    buffer.truncate(len);
    Some(buffer)
}

fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// An IPv4 packet whose transport header has its checksum at this offset.
fn packet(protocol: u8, from: [u8; 4], to: [u8; 4], mut body: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let body_len = u16::try_from(body.len()).unwrap().to_be_bytes();
    let pseudo = [&from[..], &to[..], &[0, protocol], &body_len].concat();
    let pseudo = if protocol == ICMP { &[] } else { pseudo.as_slice() };
    let checksum = sum(&[pseudo, &body]).to_be_bytes();
    body[checksum_at..checksum_at + 2].copy_from_slice(&checksum);
    let total = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let mut header = [0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, protocol, 0, 0].to_vec();
    header.extend(from);
    header.extend(to);
    let checksum = sum(&[&header]).to_be_bytes();
    header[10..12].copy_from_slice(&checksum);
    [header, body].concat()
}

fn udp(from: [u8; 4], to: [u8; 4], port: u16) -> Vec<u8> {
    let port = port.to_be_bytes();
    packet(UDP, from, to, vec![0x30, 0x39, port[0], port[1], 0, 9, 0, 0, b'x'], 6)
}

fn echo_request(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    packet(ICMP, from, to, vec![8, 0, 0, 0, 0, 1, 0, 1], 2)
}

/// A SYN that asks for segments of 1460 bytes.
fn syn(from: [u8; 4], to: [u8; 4]) -> Vec<u8> {
    let header =
        [0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 0x05, 0xb4];
    packet(TCP, from, to, header.to_vec(), 16)
}

fn source(packet: &[u8]) -> [u8; 4] {
    packet[12..16].try_into().unwrap()
}

fn destination(packet: &[u8]) -> [u8; 4] {
    packet[16..20].try_into().unwrap()
}

#[test]
fn advertised_subnets_are_reached_with_our_own_address_and_answers_come_back() {
    isolated(|| {
        let gateway = Gateway::with(&contract::full_router_config());
        send(&gateway.tunnel, &udp(PEER, LAN_HOST, 7));
        let out = receive(&gateway.lan).expect("forwarded");
        assert_eq!((source(&out), destination(&out)), (LAN_SELF, LAN_HOST));
        // The translation may have chosen another port.
        let body = vec![0, 7, out[20], out[21], 0, 9, 0, 0, b'y'];
        let answer = packet(UDP, LAN_HOST, LAN_SELF, body, 6);
        send(&gateway.lan, &answer);
        let back = receive(&gateway.tunnel).expect("answered");
        assert_eq!((source(&back), destination(&back)), (LAN_HOST, PEER));
    });
}

#[test]
fn without_snat_the_peers_address_is_kept() {
    isolated(|| {
        let gateway = Gateway::with(&RouterConfig { snat: false, ..contract::full_router_config() });
        send(&gateway.tunnel, &udp(PEER, LAN_HOST, 7));
        assert_eq!(source(&receive(&gateway.lan).expect("forwarded")), PEER);
    });
}

#[test]
fn nothing_else_is_ever_forwarded_out_of_the_tunnel() {
    isolated(|| {
        let mut gateway = Gateway::with(&contract::full_router_config());
        let targets =
            [INTERNET, [8, 8, 8, 8], [10, 99, 0, 1], [192, 168, 8, 1], [192, 0, 3, 1], [100, 64, 0, 3]];
        for target in targets {
            send(&gateway.tunnel, &udp(PEER, target, 53));
            assert_eq!(receive(&gateway.lan), None, "{target:?}");
            assert_eq!(receive(&gateway.tunnel), None, "{target:?}");
        }
        gateway
            .router
            .apply(&RouterConfig { advertised: [].into(), ..contract::full_router_config() })
            .unwrap();
        send(&gateway.tunnel, &udp(PEER, LAN_HOST, 53));
        assert_eq!(receive(&gateway.lan), None, "no longer advertised");
    });
}

#[test]
fn a_public_subnet_is_not_reached_by_way_of_the_internet() {
    isolated(|| {
        let gateway = Gateway::with(&contract::full_router_config());
        // The interface loses the subnet; its packets would now go to the default gateway.
        sh("ip addr add 10.9.0.7/24 dev lan0");
        sh("ip addr del 192.0.2.7/24 dev lan0");
        sh("ip route replace default via 10.9.0.1 dev lan0");
        assert!(sh("ip route get 192.0.2.50").contains("via 10.9.0.1"));
        send(&gateway.tunnel, &udp(PEER, LAN_HOST, 7));
        assert_eq!(receive(&gateway.lan), None);
    });
}

#[test]
fn a_private_subnet_may_lie_behind_another_router() {
    isolated(|| {
        let gateway = Gateway::with(&contract::full_router_config());
        send(&gateway.tunnel, &udp(PEER, [192, 168, 7, 9], 7));
        assert_eq!(destination(&receive(&gateway.lan).expect("forwarded")), [192, 168, 7, 9]);
    });
}

#[test]
fn a_host_firewall_that_drops_by_policy_does_not_stop_the_tunnel() {
    isolated(|| {
        let rules = "table ip filter { chain INPUT { type filter hook input priority 0; policy drop; }; \
                     chain FORWARD { type filter hook forward priority 0; policy drop; }; }";
        run("nft", [rules]);
        let mut gateway = Gateway::new();
        let config = contract::full_router_config();
        gateway
            .router
            .apply(&RouterConfig { netfilter: tsrs_platform_api::NetfilterMode::NoDivert, ..config.clone() })
            .unwrap();
        send(&gateway.tunnel, &echo_request(PEER, SELF));
        assert_eq!(receive(&gateway.tunnel), None, "the host's firewall has the word");
        send(&gateway.tunnel, &udp(PEER, LAN_HOST, 7));
        assert_eq!(receive(&gateway.lan), None);

        gateway.router.apply(&config).unwrap();
        send(&gateway.tunnel, &echo_request(PEER, SELF));
        assert_eq!(source(&receive(&gateway.tunnel).expect("answered")), SELF);
        send(&gateway.tunnel, &udp(PEER, LAN_HOST, 7));
        assert!(receive(&gateway.lan).is_some());
        // A port unreachable shows that the packet reached the host; nobody listens on that port here.
        send(&gateway.lan, &udp(LAN_HOST, LAN_SELF, 41641));
        assert!(receive(&gateway.lan).is_some(), "WireGuard gets in");
        send(&gateway.lan, &udp(LAN_HOST, LAN_SELF, 41642));
        assert_eq!(receive(&gateway.lan), None, "others do not");
        send(&gateway.lan, &echo_request(LAN_HOST, LAN_SELF));
        assert_eq!(receive(&gateway.lan), None);
        send(&gateway.tunnel, &udp(PEER, INTERNET, 7));
        assert_eq!(receive(&gateway.lan), None);
    });
}

#[test]
fn a_peers_address_from_outside_the_tunnel_is_dropped_unless_told_otherwise() {
    isolated(|| {
        let mut gateway = Gateway::with(&contract::full_router_config());
        let answers = |gateway: &Gateway| receive(&gateway.tunnel).is_some();
        send(&gateway.lan, &echo_request(PEER, LAN_SELF));
        assert!(!answers(&gateway), "spoofed");
        // Addresses of the range that are nobody's are left alone: an uplink may use them.
        sh("ip route add 100.100.7.7 dev lan0");
        send(&gateway.lan, &echo_request([100, 100, 7, 7], LAN_SELF));
        assert!(receive(&gateway.lan).is_some(), "a host of the uplink");
        gateway
            .router
            .apply(&RouterConfig { drop_spoofed: false, ..contract::full_router_config() })
            .unwrap();
        send(&gateway.lan, &echo_request(PEER, LAN_SELF));
        assert!(answers(&gateway), "the check is off");
    });
}

#[test]
fn hosts_behind_us_reach_peers_unless_filtering_is_stateful() {
    isolated(|| {
        let mut gateway = Gateway::with(&contract::full_router_config());
        send(&gateway.lan, &udp(LAN_HOST, PEER, 7));
        assert_eq!(source(&receive(&gateway.tunnel).expect("into the tunnel")), LAN_HOST);
        gateway.router.apply(&RouterConfig { stateful: true, ..contract::full_router_config() }).unwrap();
        send(&gateway.lan, &udp(LAN_HOST, PEER, 9));
        assert_eq!(receive(&gateway.tunnel), None);
    });
}

#[test]
fn tcp_segments_are_clamped_in_both_directions() {
    isolated(|| {
        let gateway = Gateway::with(&contract::full_router_config());
        let segment = |packet: &[u8]| u16::from_be_bytes([packet[42], packet[43]]);
        send(&gateway.tunnel, &syn(PEER, LAN_HOST));
        assert_eq!(segment(&receive(&gateway.lan).unwrap()), 1240);
        send(&gateway.lan, &syn(LAN_HOST, PEER));
        assert_eq!(segment(&receive(&gateway.tunnel).unwrap()), 1240);
    });
}

#[test]
fn the_addresses_of_the_tests_are_those_of_the_contract() {
    let config = contract::full_router_config();
    assert_eq!(config.addresses, [Ipv4Addr::from(SELF)]);
    assert!(config.routes.contains(&Ipv4Addr::from(PEER).into()));
}
