//! A tailnet on paper: nodes as a control server describes them, with keys that are real.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Result;
use serde_json::{Value, json};
use tsrs_base_types::{DiscoPrivate, MachinePrivate, NodePrivate};

/// Peers in one frame. A frame may have 64 MiB when decoded; these are about 30.
pub(super) const PEERS_PER_FRAME: usize = 16_000;

/// Regions of the DERP map; the official one has about as many.
pub(super) const REGION_COUNT: u32 = 28;

/// Nodes that one user owns.
const NODES_PER_USER: u32 = 4;

/// The number of our own node; peers count from zero.
pub(super) const OWN: u32 = u32::MAX;

/// What a key is for; keys of one node differ by it.
#[derive(Clone, Copy)]
enum Role {
    Node = 1,
    Disco = 2,
    Machine = 3,
}

/// A node, by its number. Everything about it follows from the number and the versions of what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PaperNode {
    pub(super) number: u32,
    /// Another number gives another address.
    pub(super) address_version: u32,
    /// Another number gives other endpoints and another home region.
    pub(super) path_version: u32,
}

impl PaperNode {
    pub(super) fn new(number: u32) -> Self {
        Self { number, address_version: 0, path_version: 0 }
    }

    pub(super) fn id(self) -> i64 {
        i64::from(self.number) + 1
    }

    pub(super) fn node_key(self) -> NodePrivate {
        NodePrivate::from_bytes(self.secret(Role::Node))
    }

    pub(super) fn disco_key(self) -> DiscoPrivate {
        DiscoPrivate::from_bytes(self.secret(Role::Disco))
    }

    /// Bytes that differ between nodes and roles. They keep nothing secret.
    fn secret(self, role: Role) -> [u8; 32] {
        let mut bytes = [0x5a; 32];
        for (place, chunk) in (1_u32..).zip(bytes.chunks_mut(4)) {
            let word = (self.number ^ (role as u32) << 29).wrapping_add(place).wrapping_mul(0x9e37_79b9);
            chunk.copy_from_slice(&(word ^ word >> 15).to_be_bytes());
        }
        // As RFC 7748 §5 wants a private key.
        bytes[0] &= 248;
        bytes[31] = bytes[31] & 127 | 64;
        bytes
    }

    /// Spread over 100.64.0.0/10 as control spreads them. The factor is odd, so that all addresses differ.
    pub(super) fn address(self) -> Ipv4Addr {
        const HOST_BITS: u32 = 22;
        const VERSION_SHIFT: u32 = 20;
        let place = self.number.wrapping_add(self.address_version << VERSION_SHIFT);
        let host = place.wrapping_mul(0x9e37_79b9) & ((1 << HOST_BITS) - 1);
        Ipv4Addr::from_bits(Ipv4Addr::new(100, 64, 0, 0).to_bits() | host)
    }

    pub(super) fn home_region(self) -> u32 {
        1 + self.number.wrapping_add(self.path_version) % REGION_COUNT
    }

    /// Whether it is connected to control, as [`Self::to_json`] tells.
    pub(super) fn is_online(self) -> bool {
        !self.number.is_multiple_of(3)
    }

    fn endpoints(self) -> Vec<SocketAddrV4> {
        let [_, b, c, d] = self.number.wrapping_add(self.path_version << 24).to_be_bytes();
        let port = u16::from_be_bytes([0x80 | c, d]);
        [
            Ipv4Addr::new(198, 18 + (b & 1), c, d),
            Ipv4Addr::new(192, 168, c, d),
            Ipv4Addr::new(172, 17, 0, 1),
            Ipv4Addr::new(10, b, c, d),
        ]
        .map(|address| SocketAddrV4::new(address, port))
        .to_vec()
    }

    fn user(self) -> i64 {
        i64::from(self.number / NODES_PER_USER) + 1_000_000
    }

    /// The node as control tells it, about 2 KB: with what an agent of today reports of its host.
    pub(super) fn to_json(self) -> Value {
        let number = self.number;
        let name = format!("host-{number:06}");
        let address = self.address();
        let [_, b, c, d] = address.octets();
        let addresses = [format!("{address}/32"), format!("fd7a:115c:a1e0::{b:x}:{c:02x}{d:02x}/128")];
        let [port_low, port_high] = number.to_be_bytes().split_at(2).1.try_into().unwrap_or([0; 2]);
        let peerapi = u16::from_be_bytes([0x80 | port_low, port_high]);
        let host_key = data_encoding::BASE64
            .encode(&[self.secret(Role::Machine), [number.to_be_bytes()[3]; 32]].concat());
        let tags: &[&str] = if number.is_multiple_of(8) { &["tag:server", "tag:production"] } else { &[] };
        let latency =
            |region: u32| (format!("{region}-v4"), json!(f64::from(region * 7 + number % 5) / 1000.0));
        let latencies: serde_json::Map<_, _> = (1..=6).map(latency).collect();
        json!({
            "ID": self.id(),
            "StableID": format!("n{number:08}CNTRL"),
            "Name": format!("{name}.tail1a2b3c.ts.net."),
            "User": self.user(),
            "Key": self.node_key().public(),
            "KeyExpiry": "2099-03-14T15:09:26Z",
            "Machine": MachinePrivate::from_bytes(self.secret(Role::Machine)).public(),
            "DiscoKey": self.disco_key().public(),
            "Addresses": addresses,
            "AllowedIPs": addresses,
            "Endpoints": self.endpoints(),
            "HomeDERP": self.home_region(),
            "Hostinfo": {
                "IPNVersion": "1.96.4-t5e1a2b3c4-g0f1e2d3c4",
                "BackendLogID": data_encoding::HEXLOWER.encode(&self.secret(Role::Disco)),
                "OS": "linux",
                "OSVersion": "6.1.0-28-amd64",
                "Container": false,
                "Distro": "debian",
                "DistroVersion": "12.8",
                "DistroCodeName": "bookworm",
                "Desktop": false,
                "DeviceModel": "Standard PC (Q35 + ICH9, 2009)",
                "Hostname": name,
                "Machine": "x86_64",
                "GoArch": "amd64",
                "GoArchVar": "v1",
                "GoVersion": "go1.26.1",
                "Services": [
                    {"Proto": "peerapi4", "Port": peerapi},
                    {"Proto": "peerapi6", "Port": peerapi},
                    {"Proto": "peerapi-dns-proxy", "Port": 1},
                    {"Proto": "tcp", "Port": 22, "Description": "sshd"},
                    {"Proto": "tcp", "Port": 443, "Description": "nginx"},
                ],
                "NetInfo": {
                    "MappingVariesByDestIP": false,
                    "WorkingIPv6": false,
                    "OSHasIPv6": true,
                    "WorkingUDP": true,
                    "WorkingICMPv4": true,
                    "UPnP": false,
                    "PMP": false,
                    "PCP": false,
                    "PreferredDERP": self.home_region(),
                    "DERPLatency": latencies,
                    "FirewallMode": "nft-default",
                },
                "sshHostKeys": [
                    format!("ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABB{host_key}"),
                    format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA{}", &host_key[..43]),
                ],
                "Cloud": "",
                "Userspace": false,
                "UserspaceRouter": false,
                "AppConnector": false,
            },
            "Created": "2025-11-22T10:11:12.123456789Z",
            "Cap": 133,
            "LastSeen": "2026-11-22T10:11:12.1Z",
            "Online": self.is_online(),
            "MachineAuthorized": true,
            "Tags": tags,
            "CapMap": {
                "https://tailscale.com/cap/file-sharing": null,
                "https://tailscale.com/cap/ssh": null,
                "store-appc-routes": null,
            },
        })
    }
}

/// The frames of a first netmap of `peer_count` peers, so many in each.
pub(super) fn first_frames(peer_count: u32, per_frame: usize) -> impl Iterator<Item = Result<Vec<u8>>> {
    let numbers: Vec<u32> = (0..peer_count).collect();
    let chunks: Vec<Vec<u32>> = numbers.chunks(per_frame).map(<[u32]>::to_vec).collect();
    chunks.into_iter().enumerate().map(|(index, numbers)| {
        let peers: Vec<Value> = numbers.iter().map(|number| PaperNode::new(*number).to_json()).collect();
        let owners = numbers.iter().filter(|number| number.is_multiple_of(NODES_PER_USER));
        let users: Vec<Value> = owners.map(|number| user(PaperNode::new(*number).user())).collect();
        let frame = match index {
            0 => first_frame(&peers, &users),
            _ => json!({"PeersChanged": peers, "UserProfiles": users}),
        };
        Ok(serde_json::to_vec(&frame)?)
    })
}

fn first_frame(peers: &[Value], users: &[Value]) -> Value {
    let mut own = PaperNode::new(OWN).to_json();
    let regions: serde_json::Map<_, _> = (1..=REGION_COUNT).map(region).collect();
    own["Name"] = json!("own.tail1a2b3c.ts.net.");
    json!({
        "MapSessionHandle": "s1",
        "Node": own,
        "DERPMap": {"Regions": regions},
        "Peers": peers,
        "DNSConfig": {
            "Resolvers": [{"Addr": "9.9.9.9"}],
            "Routes": {"corp.example": [{"Addr": "10.0.0.53"}]},
            "Domains": ["tail1a2b3c.ts.net"],
            "Proxied": true,
        },
        "Domain": "example.com",
        "PacketFilters": {"base": [
            {"SrcIPs": ["100.64.0.0/10"], "DstPorts": [{"IP": "*", "Ports": {"First": 22, "Last": 22}}]},
            {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]},
        ]},
        "UserProfiles": users,
        "ControlTime": "2026-11-22T10:11:12.123456789Z",
    })
}

fn user(id: i64) -> Value {
    json!({
        "ID": id,
        "LoginName": format!("user{id}@example.com"),
        "DisplayName": format!("User Number {id}"),
        "ProfilePicURL": format!("https://pictures.example.com/a/ACg8ocL{id}=s96-c"),
    })
}

fn region(id: u32) -> (String, Value) {
    let node = |letter: char| {
        json!({
            "Name": format!("{id}{letter}"),
            "RegionID": id,
            "HostName": format!("derp{id}{letter}.example.com"),
            "IPv4": format!("203.0.113.{id}"),
            "CanPort80": true,
        })
    };
    let nodes = ['a', 'b', 'c'].map(node);
    let region = json!({
        "RegionID": id,
        "RegionCode": format!("r{id}"),
        "RegionName": format!("Region {id}"),
        "Nodes": nodes,
    });
    (id.to_string(), region)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nodes_have_real_size_and_nothing_twice() {
        let (mut keys, mut addresses) = (HashSet::new(), HashSet::new());
        for number in (0..2_000).chain([99_999, 100_000, OWN]) {
            let node = PaperNode::new(number);
            assert!(node.to_json().to_string().len() >= 1_500);
            assert!(keys.insert(node.node_key().public()));
            assert!(addresses.insert(node.address()));
            assert!(addresses.insert(PaperNode { address_version: 1, ..node }.address()));
        }
    }

    #[test]
    fn no_node_has_the_address_of_a_service() {
        let numbers = (0..=100_000).chain([OWN]);
        let versions = numbers.flat_map(|number| (0..2).map(move |version| (number, version)));
        let taken = Ipv4Addr::new(100, 100, 100, 100);
        for (number, address_version) in versions {
            assert_ne!(PaperNode { address_version, ..PaperNode::new(number) }.address(), taken);
        }
    }

    #[test]
    fn a_frame_stays_below_what_a_client_takes() {
        let peers = u32::try_from(PEERS_PER_FRAME).unwrap();
        let longest = PaperNode::new(peers * 10 - 8).to_json().to_string().len();
        // Each brings a part of a user, and the first frame brings the rest of the netmap.
        assert!((longest + 200) * PEERS_PER_FRAME + (1 << 20) < 64 << 20, "{longest}");
    }

    #[test]
    fn peers_beyond_one_frame_come_in_further_ones() {
        let sizes = |peers| first_frames(peers, 100).map(|frame| frame.unwrap()).collect::<Vec<_>>();
        let frames = sizes(250);
        let count = |frame: &[u8], member: &str| {
            serde_json::from_slice::<Value>(frame).unwrap()[member].as_array().map_or(0, Vec::len)
        };
        let counts: Vec<_> =
            frames.iter().map(|frame| (count(frame, "Peers"), count(frame, "PeersChanged"))).collect();
        assert_eq!(counts, [(100, 0), (0, 100), (0, 50)]);
    }
}
