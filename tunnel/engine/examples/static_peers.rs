//! The engine alone, as a WireGuard tunnel with fixed peers: for measurements, and against other implementations.
//!
//! ```text
//! static_peers INTERFACE CONFIG
//! ```
//!
//! CONFIG has the form of `wg setconf`: `[Interface]` with `PrivateKey`, `ListenPort` and, beyond `wg`, `MTU`; then one
//! `[Peer]` each with `PublicKey`, `AllowedIPs` and `Endpoint` (an address and a port). The interface is created; give it
//! its address and set it up when it exists. Runs until SIGINT or SIGTERM, then logs what it counted.
//! `TSRS_DISABLE` switches offloads off.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use rand_core::OsRng;
use tokio::signal::unix::{SignalKind, signal};
use tsrs_base_types::{DiscoPrivate, NodePrivate, NodePublic};
use tsrs_platform_api::{SocketBinder, TunOffload};
use tsrs_platform_net::{DnsServers, Net, NetConfig};
use tsrs_tunnel_dataplane::{Change, PeerConfig, Policy, TunnelConfig};
use tsrs_tunnel_engine::offload::Disabled;
use tsrs_tunnel_engine::{Engine, EngineConfig};

/// The tunnel has routes of its own only, so that nothing has to bypass it.
struct NoBypass;

impl SocketBinder for NoBypass {
    fn mark_bypass(&self, _: BorrowedFd<'_>) -> io::Result<()> {
        Ok(())
    }
}

struct StaticConfig {
    private_key: NodePrivate,
    port: u16,
    mtu: u16,
    peers: Vec<PeerConfig>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let (Some(interface), Some(path)) = (arguments.next(), arguments.next()) else {
        bail!("usage: static_peers INTERFACE CONFIG");
    };
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let config = parse(&text).with_context(|| format!("configuration {path}"))?;
    let tun = tun_rs::DeviceBuilder::new()
        .name(&interface)
        .offload(true)
        .mtu(config.mtu)
        .enable(false)
        .build_sync()
        .with_context(|| format!("create {interface}"))?;
    let tun_offload = TunOffload { vnet_hdr: tun.tcp_gso(), tso4: tun.tcp_gso(), uso4: tun.udp_gso() };
    let (engine, mut outputs) = Engine::start(EngineConfig {
        tun: tun.as_fd().try_clone_to_owned()?,
        tun_offload,
        port: config.port,
        port_is_fixed: true,
        binder: Arc::new(NoBypass),
        net: Net::new(NetConfig::new(Arc::new(NoBypass), DnsServers::default()))?,
        node_key: config.private_key,
        disco_key: DiscoPrivate::generate(&mut OsRng),
        tunnel: TunnelConfig { mtu: config.mtu, ..TunnelConfig::default() },
        policy: Policy::Open,
        disabled: Disabled::from_env()?,
    })?;
    ensure!(outputs.wanted_port_was_free, "UDP port {} is taken", config.port);
    drop(tun);
    let changes = config.peers.into_iter().map(|peer| Change::Upsert(Box::new(peer))).collect();
    engine.handle().apply(changes).await?;
    let (mut interrupted, mut terminated) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    loop {
        tokio::select! {
            _ = interrupted.recv() => break,
            _ = terminated.recv() => break,
            event = outputs.events.recv() => match event {
                Some(event) => tracing::info!(?event),
                None => bail!("the engine has stopped"),
            },
        }
    }
    tracing::info!("{}", engine.handle().metrics());
    Ok(())
}

fn parse(text: &str) -> Result<StaticConfig> {
    let mut config =
        StaticConfig { private_key: NodePrivate::from_bytes([0; 32]), port: 0, mtu: 1420, peers: Vec::new() };
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    for line in lines.filter(|line| !line.is_empty() && *line != "[Interface]") {
        if line == "[Peer]" {
            config.peers.push(PeerConfig::new(NodePublic::default()));
            continue;
        }
        let (name, value) = line.split_once('=').with_context(|| format!("no '=' in {line:?}"))?;
        let value = value.trim();
        set(&mut config, name.trim(), value).with_context(|| name.trim().to_owned())?;
    }
    ensure!(!config.private_key.is_zero(), "no PrivateKey");
    Ok(config)
}

fn set(config: &mut StaticConfig, name: &str, value: &str) -> Result<()> {
    match (name, config.peers.last_mut()) {
        ("PrivateKey", None) => config.private_key = NodePrivate::from_bytes(key(value)?),
        ("ListenPort", None) => config.port = value.parse()?,
        ("MTU", None) => config.mtu = value.parse()?,
        ("PublicKey", Some(peer)) => peer.key = NodePublic::from_bytes(key(value)?),
        ("Endpoint", Some(peer)) => peer.endpoints.push(value.parse()?),
        ("AllowedIPs", Some(peer)) => {
            for prefix in value.split(',') {
                peer.allowed_ips.push(prefix.trim().parse()?);
            }
        }
        _ => bail!("unknown setting"),
    }
    Ok(())
}

fn key(text: &str) -> Result<[u8; 32]> {
    let bytes = BASE64.decode(text.as_bytes())?;
    bytes.try_into().ok().context("a key has 32 bytes")
}
