//! The one place where the agent's own connections are made.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tsrs_platform_api::SocketBinder;

use crate::connect::connect_tcp;
use crate::dns::resolv_conf::DnsServers;
use crate::error::NetError;
use crate::proxy::env::{Proxies, Proxy, ProxyError, ProxyProtocol};
use crate::proxy::tunnel::{http_connect, socks5_connect};
use crate::resolver::Resolver;
use crate::stream::Stream;
use crate::tls::roots::Roots;
use crate::tls::verify::Verify;
use crate::tls::{self, TlsConnection};
use crate::url::Scheme;

/// How long a connection may take where the caller says nothing else: name, TCP and proxy together.
const DEFAULT_LIMIT: Duration = Duration::from_secs(15);
/// How long a TLS handshake may take.
const TLS_LIMIT: Duration = Duration::from_secs(10);

/// What [`Net`] is made of.
pub struct NetConfig {
    /// Keeps the agent's sockets out of its tunnel.
    pub binder: Arc<dyn SocketBinder>,
    /// Proxies between the agent and its servers.
    pub proxies: Proxies,
    /// Certificates to trust besides the system's, in PEM form.
    pub ca_files: Vec<PathBuf>,
    /// The host's name servers as they were before the agent changed them.
    pub dns: DnsServers,
    /// Names that need no DNS.
    pub hosts_file: PathBuf,
}

impl NetConfig {
    /// The usual host: proxies of the environment, `/etc/hosts`, no extra certificates.
    pub fn new(binder: Arc<dyn SocketBinder>, dns: DnsServers) -> Self {
        let proxies = Proxies::from_env();
        Self { binder, proxies, ca_files: Vec::new(), dns, hosts_file: PathBuf::from("/etc/hosts") }
    }
}

/// Makes connections. Clones are the same.
#[derive(Clone)]
pub struct Net(Arc<Inner>);

struct Inner {
    binder: Arc<dyn SocketBinder>,
    proxies: Proxies,
    resolver: Resolver,
    roots: Arc<Roots>,
}

/// Where to connect to.
#[derive(Clone, Debug)]
pub struct Dial<'a> {
    /// Chooses the proxy variable.
    pub scheme: Scheme,
    /// Name or IPv4 literal.
    pub host: &'a str,
    /// TCP port.
    pub port: u16,
    /// Addresses to use instead of looking up the host. A proxy is given the host all the same.
    pub addresses: &'a [Ipv4Addr],
    /// Whether the proxies of the environment apply.
    pub proxies: bool,
    /// How long all of it may take.
    pub limit: Duration,
}

impl<'a> Dial<'a> {
    /// By name, through the proxies of the environment, with the usual time limit.
    pub const fn new(scheme: Scheme, host: &'a str, port: u16) -> Self {
        Self { scheme, host, port, addresses: &[], proxies: true, limit: DEFAULT_LIMIT }
    }
}

impl Net {
    /// Reads the certificates; an extra one that cannot be used is an error.
    pub fn new(config: NetConfig) -> Result<Self, NetError> {
        let NetConfig { binder, proxies, ca_files, dns, hosts_file } = config;
        let roots = Arc::new(Roots::load(&ca_files)?);
        let resolver = Resolver::new(Arc::clone(&binder), hosts_file, dns);
        Ok(Self(Arc::new(Inner { binder, proxies, resolver, roots })))
    }

    /// The host's name servers are others now.
    pub fn set_dns(&self, dns: DnsServers) {
        self.0.resolver.set_servers(dns);
    }

    /// The network changed: names are looked up again, and old answers serve only when nobody answers.
    pub fn note_link_change(&self) {
        self.0.resolver.expire_cache();
    }

    /// IPv4 addresses of a host, in the order in which they are to be tried.
    pub async fn resolve(&self, host: &str) -> Result<Vec<Ipv4Addr>, NetError> {
        self.0
            .resolver
            .resolve(host)
            .await
            .map_err(|error| NetError::Resolve { host: host.to_owned(), error })
    }

    /// Connects, through a proxy where the environment asks for one.
    pub async fn dial(&self, dial: Dial<'_>) -> Result<Stream, NetError> {
        match self.proxy_for(&dial)? {
            Some(proxy) => self.dial_through(proxy, &dial).await,
            None => self.dial_direct(dial.host, dial.port, dial.addresses, dial.limit).await,
        }
    }

    /// Opens TLS on a stream. `host` is the name sent and, unless `verify` says otherwise, verified.
    pub async fn tls(&self, stream: Stream, host: &str, verify: Verify) -> Result<TlsConnection, NetError> {
        let handshake = tls::connect(Arc::clone(&self.0.roots), stream, host, verify);
        match timeout(TLS_LIMIT, handshake).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(NetError::Tls { host: host.to_owned(), error }),
            Err(_) => Err(NetError::Timeout { what: format!("TLS with {host}"), after: TLS_LIMIT }),
        }
    }

    pub(crate) fn proxy_for(&self, dial: &Dial<'_>) -> Result<Option<&Proxy>, NetError> {
        if !dial.proxies {
            return Ok(None);
        }
        self.0
            .proxies
            .choose(dial.scheme, dial.host, dial.port)
            .map_err(|error| NetError::Proxy { proxy: dial.scheme.as_str().to_owned(), error })
    }

    /// A connection to the proxy itself.
    pub(crate) async fn dial_proxy(&self, proxy: &Proxy, limit: Duration) -> Result<Stream, NetError> {
        let unreachable = |error: NetError| NetError::Proxy {
            proxy: proxy.to_string(),
            error: ProxyError::Unreachable(error.to_string()),
        };
        let stream = self.dial_direct(&proxy.host, proxy.port, &[], limit).await.map_err(unreachable)?;
        match proxy.protocol {
            ProxyProtocol::Http | ProxyProtocol::Socks5 => Ok(stream),
            ProxyProtocol::Https => {
                Ok(Box::new(self.tls(stream, &proxy.host, Verify::Normal).await.map_err(unreachable)?))
            }
        }
    }

    async fn dial_through(&self, proxy: &Proxy, dial: &Dial<'_>) -> Result<Stream, NetError> {
        let connect = async {
            let stream = self.dial_proxy(proxy, dial.limit).await?;
            let credentials = proxy.credentials.as_ref();
            let tunnel = match proxy.protocol {
                ProxyProtocol::Http | ProxyProtocol::Https => {
                    http_connect(stream, dial.host, dial.port, credentials).await
                }
                ProxyProtocol::Socks5 => socks5_connect(stream, dial.host, dial.port, credentials).await,
            };
            tunnel.map_err(|error| NetError::Proxy { proxy: proxy.to_string(), error })
        };
        let what = || format!("connecting to {}:{} through {proxy}", dial.host, dial.port);
        timeout(dial.limit, connect)
            .await
            .unwrap_or_else(|_| Err(NetError::Timeout { what: what(), after: dial.limit }))
    }

    async fn dial_direct(
        &self,
        host: &str,
        port: u16,
        addresses: &[Ipv4Addr],
        limit: Duration,
    ) -> Result<Stream, NetError> {
        let resolved = match addresses {
            [] => self.resolve(host).await?,
            given => given.to_vec(),
        };
        let addresses: Vec<_> =
            resolved.into_iter().map(|address| SocketAddrV4::new(address, port)).collect();
        let target = format!("{host}:{port}");
        Ok(Box::new(connect_tcp(&self.0.binder, &target, &addresses, limit).await?))
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}
