//! [`RealDialer`]: the only way out of this node for the traffic of peers.

mod association;
mod egress;
mod error;
mod socket;
mod stream;

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tsrs_platform_api::ExitBinder;
use tsrs_platform_net::{Net, Prefixed, Verify};

use crate::policy::Destination;
use crate::proxy::{Blame, Handshake, Outcome, ProxyError, ProxyHost, ProxyScheme, ProxyUrl, Purpose};

pub use association::{Association, AssociationError, MAX_DATAGRAM_LEN, Received};
pub use egress::{
    AddressRefusal, Egress, HostFacts, MAX_ADDRESS_COUNT, MAX_PROXY_COUNT, ProxyConfig, ProxyList,
};
pub use error::{DialError, ProxyFailure};
pub use stream::ProxyStream;

use socket::{SocketError, connect_tcp};
use stream::{negotiate, now};

/// How often the health of the proxies is to be looked at.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
/// How long one address of a proxy may take to accept a connection: proxies are near.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// How long a flow may take to be dialled in all, through however many proxies. A client gives up not much later.
pub const DIAL_LIMIT: Duration = Duration::from_secs(20);
/// Dials under way at once. Each holds a descriptor and two small buffers.
pub const MAX_DIAL_COUNT: usize = 1024;

/// A stream to a destination through a proxy. It fails when [`Self::retired`] tells that its proxy is no longer set.
pub struct Dialled {
    /// The stream. What the destination sent with the proxy's answer is read first.
    pub stream: Prefixed<ProxyStream>,
    /// The proxy.
    pub proxy: ProxyUrl,
    /// Turns true when the setting changes. The stream must be closed then.
    pub retired: watch::Receiver<bool>,
}

impl fmt::Debug for Dialled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialled").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// The health of a proxy, as dials and [`RealDialer::check_health`] find it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nobody has asked yet.
    #[default]
    Unknown,
    /// It lets us in.
    Up,
    /// It does not.
    Down(ProxyFailure),
}

/// One proxy as it is shown.
#[derive(Clone, Debug)]
pub struct ProxyStatus {
    /// Where it is.
    pub url: ProxyUrl,
    /// The addresses that are used.
    pub addresses: Vec<Ipv4Addr>,
    /// Whether it works.
    pub health: Health,
    /// Whether an address of it is this host's: it may itself leave with this host's address.
    pub is_local: bool,
    /// Whether its credentials go over the network in plain text.
    pub sends_plain_credentials: bool,
}

/// Dials through the proxies, or not at all.
///
/// It is the only type that opens sockets for flows of peers. It dials addresses of proxies and of their relays, and nothing else; a
/// [`Destination`] is only ever told to a proxy. All sockets are IPv4 and carry the exit mark.
pub struct RealDialer {
    binder: Arc<dyn ExitBinder>,
    net: Net,
    state: ArcSwap<State>,
    /// Held while a setting is being made, so that an older one does not come last.
    setting: tokio::sync::Mutex<()>,
    dials: Semaphore,
}

/// One setting. Replaced as a whole; what was dialled under the old one is told.
struct State {
    proxies: Vec<Proxy>,
    retired: watch::Sender<bool>,
}

struct Proxy {
    config: ProxyConfig,
    addresses: Result<Vec<Ipv4Addr>, ProxyFailure>,
    is_local: bool,
    health: Mutex<Health>,
}

impl Proxy {
    fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, health: Health) {
        let mut current = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != health {
            tracing::debug!(proxy = %self.config.url, ?health, "health of a proxy changed");
            *current = health;
        }
    }

    /// Name servers give the same addresses in another order each time.
    fn address_set(&self) -> HashSet<Ipv4Addr> {
        self.addresses.iter().flatten().copied().collect()
    }

    /// Whether its credentials can be read on the way: plain text, and not within this host.
    fn sends_plain_credentials(&self) -> bool {
        let leaves = |address: &Ipv4Addr| !address.is_loopback();
        self.config.credentials.is_some()
            && !self.config.url.scheme.is_encrypted()
            && self.addresses.as_ref().is_ok_and(|addresses| addresses.iter().any(leaves))
    }
}

/// Why one attempt failed.
enum Attempt {
    /// The mark was refused: nothing more is tried.
    Mark(String),
    Failed(ProxyFailure),
}

impl From<SocketError> for Attempt {
    fn from(error: SocketError) -> Self {
        match error {
            SocketError::Mark(error) => Self::Mark(error.to_string()),
            SocketError::Io(error) => Self::Failed(ProxyFailure::Unreachable(error.to_string())),
        }
    }
}

impl RealDialer {
    /// A dialer that is closed. `net` resolves names of proxies with the host's own name servers, and verifies TLS with its roots; no
    /// proxy of the environment plays a part.
    pub fn new(binder: Arc<dyn ExitBinder>, net: Net) -> Self {
        let state = State { proxies: Vec::new(), retired: watch::Sender::new(false) };
        Self {
            binder,
            net,
            state: ArcSwap::from_pointee(state),
            setting: tokio::sync::Mutex::new(()),
            dials: Semaphore::new(MAX_DIAL_COUNT),
        }
    }

    /// Sets where traffic leaves. Until the names of the new proxies are resolved everything is refused; streams of the old setting
    /// are told to end at once.
    pub async fn set_egress(&self, egress: Egress, facts: &HostFacts) {
        let _setting = self.setting.lock().await;
        self.replace(Vec::new());
        let configs = match egress {
            Egress::Closed => return,
            Egress::Proxies(list) => list.into_inner(),
        };
        let mut proxies = Vec::with_capacity(configs.len());
        for config in configs {
            proxies.push(self.proxy(config, facts, &[]).await);
        }
        self.replace(proxies);
    }

    /// Looks up the names of the proxies again, and holds all addresses against what is known of this host now. To be called when either
    /// may have changed. If an address did, streams are told to end; gives whether that is so.
    pub async fn refresh(&self, facts: &HostFacts) -> bool {
        let _setting = self.setting.lock().await;
        let state = self.state.load_full();
        let mut proxies = Vec::with_capacity(state.proxies.len());
        let mut changed = false;
        for old in &state.proxies {
            let known = old.addresses.as_deref().unwrap_or_default();
            let proxy = self.proxy(old.config.clone(), facts, known).await;
            changed |= proxy.address_set() != old.address_set();
            proxies.push(proxy);
        }
        if changed {
            self.replace(proxies);
        }
        changed
    }

    /// A proxy with its addresses. The known ones serve while its name cannot be looked up.
    async fn proxy(&self, config: ProxyConfig, facts: &HostFacts, known: &[Ipv4Addr]) -> Proxy {
        let found = match &config.url.host {
            ProxyHost::Address(address) => Ok(vec![*address]),
            ProxyHost::Name(name) => match self.net.resolve(name).await {
                Err(error) if known.is_empty() => Err(ProxyFailure::Name(error.to_string())),
                Err(_) => Ok(known.to_vec()),
                Ok(addresses) => Ok(addresses),
            },
        };
        let addresses = found.and_then(|found| admissible(&config, facts, found));
        let is_own = |address: &Ipv4Addr| address.is_loopback() || facts.own_addresses.contains(address);
        let is_local = addresses.as_ref().is_ok_and(|addresses| addresses.iter().any(is_own));
        let health = addresses.as_ref().err().cloned().map_or(Health::Unknown, Health::Down);
        Proxy { config, addresses, is_local, health: Mutex::new(health) }
    }

    fn replace(&self, proxies: Vec<Proxy>) {
        let old = self.state.swap(Arc::new(State { proxies, retired: watch::Sender::new(false) }));
        old.retired.send_replace(true);
    }

    /// All addresses of all proxies, for the policy and the firewall.
    pub fn proxy_addresses(&self) -> HashSet<Ipv4Addr> {
        let state = self.state.load();
        state.proxies.iter().filter_map(|proxy| proxy.addresses.as_ref().ok()).flatten().copied().collect()
    }

    /// The proxies in order of preference.
    pub fn status(&self) -> Vec<ProxyStatus> {
        let status = |proxy: &Proxy| ProxyStatus {
            url: proxy.config.url.clone(),
            addresses: proxy.addresses.clone().unwrap_or_default(),
            health: proxy.health(),
            is_local: proxy.is_local,
            sends_plain_credentials: proxy.sends_plain_credentials(),
        };
        self.state.load().proxies.iter().map(status).collect()
    }

    /// Asks each proxy whether it lets us in; none of them contacts anybody for this.
    pub async fn check_health(&self) {
        let state = self.state.load_full();
        for proxy in &state.proxies {
            let deadline = Instant::now() + DIAL_LIMIT;
            match self.ask(proxy, |_| Purpose::Health, deadline).await {
                Ok(_) => proxy.note(Health::Up),
                Err(Attempt::Failed(failure)) => proxy.note(Health::Down(failure)),
                // Says nothing about the proxy, and the others would end the same way.
                Err(Attempt::Mark(reason)) => {
                    tracing::warn!(reason, "exit sockets cannot be marked: no flow is dialled");
                    return;
                }
            }
        }
    }

    /// Connects to a destination through the first proxy that can.
    pub async fn connect(&self, destination: Destination) -> Result<Dialled, DialError> {
        let asked = self.through_first(|_| Purpose::Connect(destination)).await?;
        Ok(Dialled {
            stream: Prefixed::new(asked.early, asked.stream),
            proxy: asked.proxy,
            retired: asked.retired,
        })
    }

    /// Opens a relay for UDP at the first proxy that has one.
    pub async fn associate(&self) -> Result<Association, DialError> {
        let asked = self.through_first(|proxy| Purpose::Associate { proxy }).await?;
        let Outcome::Associated(relay) = asked.outcome else {
            let failure = ProxyFailure::Handshake(ProxyError::NoUdp);
            return Err(DialError::Proxies(vec![(asked.proxy, failure)]));
        };
        Association::open(&*self.binder, asked.stream, relay, asked.proxy, asked.retired)
    }

    /// Goes through the proxies, those that are not known to be down first. Never around them.
    async fn through_first(&self, purpose: impl Fn(Ipv4Addr) -> Purpose) -> Result<Asked, DialError> {
        let state = self.state.load_full();
        if state.proxies.is_empty() {
            return Err(DialError::Closed);
        }
        let _permit = self.dials.try_acquire().map_err(|_| DialError::Busy)?;
        let deadline = Instant::now() + DIAL_LIMIT;
        let is_down = |proxy: &&Proxy| matches!(proxy.health(), Health::Down(_));
        let (down, others): (Vec<&Proxy>, Vec<&Proxy>) = state.proxies.iter().partition(is_down);
        let mut failures = Vec::new();
        for proxy in others.into_iter().chain(down) {
            let url = proxy.config.url.clone();
            match self.ask(proxy, &purpose, deadline).await {
                Ok((stream, outcome, early)) => {
                    proxy.note(Health::Up);
                    let retired = state.retired.subscribe();
                    // The setting may have changed meanwhile.
                    if *retired.borrow() {
                        return Err(DialError::Closed);
                    }
                    return Ok(Asked { stream, outcome, early, proxy: url, retired });
                }
                Err(Attempt::Mark(reason)) => return Err(DialError::Mark(reason)),
                Err(Attempt::Failed(failure)) => {
                    if let ProxyFailure::Handshake(error) = failure
                        && error.blame() == Blame::Destination
                    {
                        return Err(DialError::Destination { proxy: url, error });
                    }
                    if makes_it_down(&failure) {
                        proxy.note(Health::Down(failure.clone()));
                    }
                    failures.push((url, failure));
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        Err(DialError::Proxies(failures))
    }

    /// Asks one proxy, at each of its addresses until one takes the connection.
    async fn ask(
        &self,
        proxy: &Proxy,
        purpose: impl Fn(Ipv4Addr) -> Purpose,
        deadline: Instant,
    ) -> Result<(ProxyStream, Outcome, Bytes), Attempt> {
        let addresses = proxy.addresses.as_ref().map_err(|failure| Attempt::Failed(failure.clone()))?;
        let mut last = ProxyFailure::Silent(CONNECT_LIMIT);
        for address in addresses {
            let limit = deadline.min(Instant::now() + CONNECT_LIMIT);
            let target = SocketAddrV4::new(*address, proxy.config.url.port);
            match timeout_at(limit, connect_tcp(&*self.binder, target)).await {
                Ok(Ok(stream)) => {
                    let handshake = self.handshake(proxy, stream, purpose(*address));
                    return timeout_at(deadline, handshake)
                        .await
                        .unwrap_or(Err(ProxyFailure::Silent(DIAL_LIMIT)))
                        .map_err(Attempt::Failed);
                }
                Ok(Err(error)) => match Attempt::from(error) {
                    Attempt::Failed(failure) => last = failure,
                    mark @ Attempt::Mark(_) => return Err(mark),
                },
                Err(_) => last = ProxyFailure::Silent(CONNECT_LIMIT),
            }
        }
        Err(Attempt::Failed(last))
    }

    async fn handshake(
        &self,
        proxy: &Proxy,
        stream: tokio::net::TcpStream,
        purpose: Purpose,
    ) -> Result<(ProxyStream, Outcome, Bytes), ProxyFailure> {
        let url = &proxy.config.url;
        let mut stream = match url.scheme {
            ProxyScheme::Socks5 | ProxyScheme::Http => ProxyStream::Tcp(stream),
            ProxyScheme::Https => {
                let tls = self.net.tls(Box::new(stream), &url.host.to_string(), Verify::Normal).await;
                ProxyStream::Tls(Box::new(tls.map_err(|error| ProxyFailure::Tls(error.to_string()))?))
            }
        };
        let credentials = proxy.config.credentials.as_deref();
        let mut handshake =
            Handshake::new(url, purpose, credentials, now()).map_err(ProxyFailure::Handshake)?;
        let (outcome, early) =
            negotiate(&mut stream, &mut handshake).await.map_err(ProxyFailure::Handshake)?;
        Ok((stream, outcome, early))
    }
}

/// Those of the addresses found where a proxy may be; why not, if there is none.
fn admissible(
    config: &ProxyConfig,
    facts: &HostFacts,
    found: Vec<Ipv4Addr>,
) -> Result<Vec<Ipv4Addr>, ProxyFailure> {
    let mut refusal = ProxyFailure::Name("its name has no address".to_owned());
    let mut addresses = Vec::new();
    for address in found.into_iter().take(MAX_ADDRESS_COUNT) {
        match facts.check(address, config.allow_local) {
            Ok(()) => addresses.push(address),
            Err(error) => refusal = ProxyFailure::Address(error),
        }
    }
    if addresses.is_empty() { Err(refusal) } else { Ok(addresses) }
}

struct Asked {
    stream: ProxyStream,
    outcome: Outcome,
    early: Bytes,
    proxy: ProxyUrl,
    retired: watch::Receiver<bool>,
}

/// Whether a failure says something about the proxy, and not only about what it was asked for. The answer to one flow must not make the
/// proxy look dead to all others.
const fn makes_it_down(failure: &ProxyFailure) -> bool {
    match failure {
        ProxyFailure::Handshake(error) => matches!(
            error,
            ProxyError::NoAcceptableMethod
                | ProxyError::Credentials
                | ProxyError::Garbage(_)
                | ProxyError::Silent
        ),
        ProxyFailure::Address(_)
        | ProxyFailure::Name(_)
        | ProxyFailure::Unreachable(_)
        | ProxyFailure::Silent(_)
        | ProxyFailure::Tls(_) => true,
    }
}

#[cfg(test)]
mod tests;
