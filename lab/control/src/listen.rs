//! Opening the ports and serving them.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tsrs_base_types::RegionId;

use crate::config::LabConfig;
use crate::http::{self, Site};
use crate::identities::Identities;
use crate::shared::Shared;
use crate::stun;

/// How often expired keys and ephemeral nodes are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What a TCP port is for.
struct Port {
    listener: TcpListener,
    tls: bool,
    control: bool,
    region: Option<RegionId>,
}

/// All ports, open and not yet served.
pub(crate) struct Listeners {
    tcp: Vec<Port>,
    stun: Vec<(RegionId, UdpSocket)>,
}

impl Listeners {
    /// Opens all ports in the namespace of the present thread, and writes into `config` which they are.
    pub(crate) fn open(config: &mut LabConfig) -> Result<Self> {
        let mut listeners = Self { tcp: Vec::new(), stun: Vec::new() };
        let shared_port =
            |port: u16, address: IpAddr| port != 0 && port == config.https_port && address == config.address;
        let region = config.regions.iter().find(|region| shared_port(region.derp_port, region.address));
        let region = region.map(|region| region.id);
        let address = config.address;
        config.https_port = listeners.add(SocketAddr::new(address, config.https_port), true, true, region)?;
        if let Some(port) = &mut config.http_port {
            *port = listeners.add(SocketAddr::new(address, *port), false, true, None)?;
        }
        for region in &mut config.regions {
            if region.derp_port != config.https_port || region.address != address {
                let derp = SocketAddr::new(region.address, region.derp_port);
                region.derp_port = listeners.add(derp, true, false, Some(region.id))?;
            }
            if let Some(port) = &mut region.stun_port {
                let address = SocketAddr::new(region.address, *port);
                let socket = UdpSocket::bind(address).with_context(|| format!("STUN on {address}"))?;
                socket.set_nonblocking(true)?;
                *port = socket.local_addr()?.port();
                listeners.stun.push((region.id, socket));
            }
        }
        Ok(listeners)
    }

    /// Begins to serve, on the present runtime.
    pub(crate) fn serve(
        self,
        shared: &Arc<Shared>,
        identities: &Identities,
        ephemeral_timeout: Duration,
    ) -> Result<()> {
        for port in self.tcp {
            let site = Site {
                shared: Arc::clone(shared),
                control: port.control,
                hub: port.region.and_then(|region| shared.hubs.get(&region)).map(Arc::clone),
            };
            let tls = port.tls.then(|| identities.server_config(port.region));
            tokio::spawn(accept(tokio::net::TcpListener::from_std(port.listener)?, tls, site));
        }
        for (region, socket) in self.stun {
            let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
            tokio::spawn(stun::serve(Arc::clone(shared), region, socket));
        }
        tokio::spawn(tick(Arc::clone(shared), ephemeral_timeout));
        Ok(())
    }

    fn add(
        &mut self,
        address: SocketAddr,
        tls: bool,
        control: bool,
        region: Option<RegionId>,
    ) -> Result<u16> {
        let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        self.tcp.push(Port { listener, tls, control, region });
        Ok(port)
    }
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<Arc<ServerConfig>>, site: Site) {
    loop {
        // An error belongs to one connection that is already gone.
        let Ok((stream, from)) = listener.accept().await else { continue };
        let (site, tls) = (site.clone(), tls.clone());
        tokio::spawn(async move {
            let mut cut = site.shared.cut.subscribe();
            tokio::select! {
                result = connection(stream, tls, site) => if let Err(error) = result {
                    tracing::debug!(%from, error = format!("{error:#}"), "connection ended");
                },
                _ = cut.changed() => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, site: Site) -> Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        None => http::serve(site, stream).await,
        Some(config) => {
            let stream = TlsAcceptor::from(config).accept(stream).await.map_err(tls_error)?;
            http::serve(site, stream).await
        }
    }
}

/// Says that an error is about TLS: most often a client that does not trust the certificate.
fn tls_error(error: io::Error) -> anyhow::Error {
    anyhow::Error::new(error).context("TLS handshake")
}

/// Does what only time brings about.
async fn tick(shared: Arc<Shared>, ephemeral_timeout: Duration) {
    let mut interval = tokio::time::interval(TICK);
    let mut last = Timestamp::now();
    loop {
        interval.tick().await;
        let now = Timestamp::now();
        shared.change_if(|tailnet| tailnet.pass_time(last, now, ephemeral_timeout));
        last = now;
    }
}
