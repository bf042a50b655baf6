//! An engine and the host behind it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::TimeVal;
use rand_core::OsRng;
use tsrs_base_types::{DiscoPrivate, NodeId, NodePrivate, NodePublic};
use tsrs_platform_api::{SocketBinder, TunOffload};
use tsrs_platform_net::{DnsServers, Net, NetConfig, Proxies};
use tsrs_tunnel_dataplane::{Change, PeerConfig, Policy, TunnelConfig};

use crate::offload::Disabled;
use crate::{Engine, EngineConfig, EngineEvent, Outputs};

/// Longest wait for anything. Only a failing test takes that long.
pub(super) const LIMIT: Duration = Duration::from_secs(20);

/// Loopback needs no bypass.
pub(super) struct Unmarked;

impl SocketBinder for Unmarked {
    fn mark_bypass(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) outputs: Outputs,
    /// The host's end of the TUN.
    pub(super) tun: OwnedFd,
    pub(super) key: NodePublic,
    disco: DiscoPrivate,
    pub(super) tailnet: Ipv4Addr,
}

pub(super) fn host(number: u8, disabled: Disabled) -> Host {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (tun, engine_end) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    let limit = TimeVal::new(i64::try_from(LIMIT.as_secs()).unwrap(), 0);
    setsockopt(&tun, sockopt::ReceiveTimeout, &limit).unwrap();
    let tailnet = Ipv4Addr::new(100, 64, 0, number);
    let (node_key, disco) = (NodePrivate::generate(&mut OsRng), DiscoPrivate::generate(&mut OsRng));
    let key = node_key.public();
    let mut net = NetConfig::new(Arc::new(Unmarked), DnsServers::default());
    net.proxies = Proxies::default();
    let (engine, outputs) = Engine::start(EngineConfig {
        tun: engine_end,
        tun_offload: TunOffload::default(),
        port: 0,
        port_is_fixed: false,
        binder: Arc::new(Unmarked),
        net: Net::new(net).unwrap(),
        node_key,
        disco_key: disco.clone(),
        tunnel: TunnelConfig {
            addresses: vec![tailnet],
            service_address: Some(Ipv4Addr::new(100, 100, 100, 100)),
            ..TunnelConfig::default()
        },
        policy: Policy::Open,
        disabled,
    })
    .unwrap();
    Host { engine, outputs, tun, key, disco, tailnet }
}

impl Host {
    pub(super) fn as_static_peer(&self) -> PeerConfig {
        let underlay = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.engine.handle().port());
        PeerConfig {
            node_id: NodeId(self.tailnet.octets()[3].into()),
            endpoints: vec![SocketAddr::V4(underlay)],
            addresses: vec![self.tailnet],
            allowed_ips: vec![Ipv4Net::from(self.tailnet)],
            ..PeerConfig::new(self.key)
        }
    }

    pub(super) fn as_relayed_peer(&self, region: tsrs_base_types::RegionId) -> PeerConfig {
        PeerConfig {
            endpoints: Vec::new(),
            disco_key: Some(self.disco.public()),
            home_derp: Some(region),
            ..self.as_static_peer()
        }
    }

    pub(super) async fn add(&self, peer: PeerConfig) {
        self.engine.handle().apply(vec![Change::Upsert(Box::new(peer))]).await.unwrap();
    }

    /// The host sends a packet.
    pub(super) fn send(&self, packet: &[u8]) {
        nix::unistd::write(&self.tun, packet).unwrap();
    }

    /// The next packet that the host gets.
    pub(super) fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let len = nix::unistd::read(self.tun.as_fd(), &mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    }

    /// Waits until an event satisfies the condition.
    pub(super) async fn wait_for(&mut self, condition: impl Fn(&EngineEvent) -> bool) -> EngineEvent {
        let wait = async {
            loop {
                let event = self.outputs.events.recv().await.unwrap();
                if condition(&event) {
                    return event;
                }
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap()
    }
}

/// A UDP packet without checksum.
pub(super) fn udp(src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + payload.len()).unwrap();
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&(20 + udp_len).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet.extend_from_slice(&src.octets());
    packet.extend_from_slice(&dst.octets());
    let checksum = tsrs_tunnel_packet::checksum::Sum::new().bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend_from_slice(&[0x04, 0x00, 0x00, 0x35]);
    packet.extend_from_slice(&udp_len.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    packet
}

/// Repeats `attempt` until it gives something.
pub(super) async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "the condition was not reached");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
