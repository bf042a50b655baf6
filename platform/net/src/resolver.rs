//! The underlay resolver: addresses of the agent's own servers, asked on sockets that bypass the tunnel.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;
use tsrs_platform_api::SocketBinder;

use crate::connect::mark;
use crate::dns::ResolveError;
use crate::dns::hosts::hosts_addresses;
use crate::dns::message::{Answer, answer, is_host_name, query};
use crate::dns::resolv_conf::DnsServers;

/// How long one server may take over UDP. Short, since the next server is asked after it, and each is asked again.
const UDP_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long one server may take over TCP, connect included.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// The largest UDP answer without EDNS is 512 bytes; some servers send more.
const UDP_BUFFER_LEN: usize = 4096;
/// Names kept: a control server, and DERP servers of which the largest public map has about a hundred.
const MAX_CACHED: usize = 256;
/// Bounds on the time that an answer is used without asking again. The lower one spares servers that give 0.
const MIN_TTL: Duration = Duration::from_secs(10);
const MAX_TTL: Duration = Duration::from_secs(3600);
/// A hosts file larger than this is not a hosts file.
const MAX_HOSTS_LEN: u64 = 4 << 20;

pub(crate) struct Resolver {
    binder: Arc<dyn SocketBinder>,
    hosts_file: PathBuf,
    servers: Mutex<DnsServers>,
    cache: Mutex<HashMap<String, Cached>>,
}

struct Cached {
    addresses: Vec<Ipv4Addr>,
    expires: Instant,
}

impl Resolver {
    pub(crate) fn new(binder: Arc<dyn SocketBinder>, hosts_file: PathBuf, servers: DnsServers) -> Self {
        Self { binder, hosts_file, servers: Mutex::new(servers), cache: Mutex::default() }
    }

    pub(crate) fn set_servers(&self, servers: DnsServers) {
        *lock(&self.servers) = servers;
        self.expire_cache();
    }

    /// Makes every cached answer old: it is used again only when nobody answers.
    pub(crate) fn expire_cache(&self) {
        let now = Instant::now();
        for cached in lock(&self.cache).values_mut() {
            cached.expires = now;
        }
    }

    /// The IPv4 addresses of a host: a literal, the hosts file, then DNS. When no server answers, the last addresses
    /// known are given again, since control and DERP servers rarely move and the network may be half up.
    pub(crate) async fn resolve(&self, host: &str) -> Result<Vec<Ipv4Addr>, ResolveError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        if !is_host_name(&name) {
            return Err(ResolveError::BadName);
        }
        let from_hosts = hosts_addresses(&self.hosts().await, &name);
        if !from_hosts.is_empty() {
            return Ok(from_hosts);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(vec![Ipv4Addr::LOCALHOST]);
        }
        if let Some(addresses) = self.cached(&name, Some(Instant::now())) {
            return Ok(addresses);
        }
        match self.ask_all(&name).await {
            Ok((addresses, ttl)) => {
                self.store(name, &addresses, ttl);
                Ok(addresses)
            }
            Err(error @ (ResolveError::BadName | ResolveError::NoAddress | ResolveError::Mark(_))) => {
                Err(error)
            }
            Err(error @ (ResolveError::NoServers | ResolveError::NoAnswer { .. })) => {
                self.cached(&name, None).ok_or(error)
            }
        }
    }

    async fn hosts(&self) -> String {
        let Ok(file) = tokio::fs::File::open(&self.hosts_file).await else { return String::new() };
        let mut text = Vec::new();
        // An unreadable rest is as good as none: DNS is asked instead.
        let _ = file.take(MAX_HOSTS_LEN).read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    fn cached(&self, name: &str, fresh_at: Option<Instant>) -> Option<Vec<Ipv4Addr>> {
        let cache = lock(&self.cache);
        let cached = cache.get(name)?;
        fresh_at.is_none_or(|now| now < cached.expires).then(|| cached.addresses.clone())
    }

    fn store(&self, name: String, addresses: &[Ipv4Addr], ttl: Duration) {
        let now = Instant::now();
        let mut cache = lock(&self.cache);
        if cache.len() >= MAX_CACHED && !cache.contains_key(&name) {
            let oldest = cache.iter().min_by_key(|(_, cached)| cached.expires).map(|(name, _)| name.clone());
            if let Some(oldest) = oldest {
                cache.remove(&oldest);
            }
        }
        let expires = now + ttl.clamp(MIN_TTL, MAX_TTL);
        cache.insert(name, Cached { addresses: addresses.to_vec(), expires });
    }

    /// The name itself; a name without a dot in each search domain first.
    async fn ask_all(&self, name: &str) -> Result<(Vec<Ipv4Addr>, Duration), ResolveError> {
        let servers = lock(&self.servers).clone();
        let mut names = Vec::new();
        if !name.contains('.') {
            names.extend(servers.search().iter().map(|domain| format!("{name}.{domain}")));
        }
        names.push(name.to_owned());
        let mut error = ResolveError::NoAddress;
        for name in names {
            match self.ask_servers(servers.servers(), &name).await {
                Err(ResolveError::NoAddress | ResolveError::BadName) => error = ResolveError::NoAddress,
                outcome => return outcome,
            }
        }
        Err(error)
    }

    async fn ask_servers(
        &self,
        servers: &[SocketAddrV4],
        name: &str,
    ) -> Result<(Vec<Ipv4Addr>, Duration), ResolveError> {
        if servers.is_empty() {
            return Err(ResolveError::NoServers);
        }
        let mut last = String::new();
        for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
            match self.ask(*server, name).await {
                Ok(Answer::Addresses(addresses, ttl)) => return Ok((addresses, ttl)),
                Ok(Answer::None) => return Err(ResolveError::NoAddress),
                Ok(Answer::Truncated) => last = format!("{server} sent only a part"),
                Ok(Answer::Refused(code)) => last = format!("{server} answered with error {code}"),
                Err(AskError::Silent) => last = format!("{server} is silent"),
                Err(AskError::Io(error)) => last = format!("{server}: {error}"),
                Err(AskError::Mark(error)) => return Err(ResolveError::Mark(error.to_string())),
                Err(AskError::BadName) => return Err(ResolveError::BadName),
            }
        }
        Err(ResolveError::NoAnswer { last })
    }

    async fn ask(&self, server: SocketAddrV4, name: &str) -> Result<Answer, AskError> {
        let id = random_id()?;
        let question = query(id, name).ok_or(AskError::BadName)?;
        match timeout(UDP_TIMEOUT, self.ask_udp(server, name, id, &question)).await {
            Ok(Ok(Answer::Truncated)) => {}
            Ok(outcome) => return outcome,
            Err(_) => return Err(AskError::Silent),
        }
        timeout(TCP_TIMEOUT, self.ask_tcp(server, name, id, &question)).await.map_err(|_| AskError::Silent)?
    }

    async fn ask_udp(
        &self,
        server: SocketAddrV4,
        name: &str,
        id: u16,
        question: &[u8],
    ) -> Result<Answer, AskError> {
        // A fresh socket per question: the kernel picks a new port, and takes datagrams of this server only.
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        mark(&*self.binder, socket.as_fd(), server).map_err(AskError::Mark)?;
        socket.connect(&server.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        socket.send(question).await?;
        let mut buffer = vec![0; UDP_BUFFER_LEN];
        loop {
            let len = socket.recv(&mut buffer).await?;
            if let Some(answer) = answer(&buffer[..len], id, name) {
                return Ok(answer);
            }
        }
    }

    async fn ask_tcp(
        &self,
        server: SocketAddrV4,
        name: &str,
        id: u16,
        question: &[u8],
    ) -> Result<Answer, AskError> {
        let socket = TcpSocket::new_v4()?;
        mark(&*self.binder, socket.as_fd(), server).map_err(AskError::Mark)?;
        let mut stream = socket.connect(server.into()).await?;
        let len = u16::try_from(question.len()).map_err(|_| AskError::BadName)?;
        stream.write_all(&[&len.to_be_bytes(), question].concat()).await?;
        let mut message = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut message).await?;
        answer(&message, id, name).ok_or(AskError::Silent)
    }
}

enum AskError {
    /// No usable answer in time.
    Silent,
    Io(std::io::Error),
    Mark(std::io::Error),
    BadName,
}

impl From<std::io::Error> for AskError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A query id that an attacker off the path cannot guess.
fn random_id() -> Result<u16, AskError> {
    use ring::rand::SecureRandom as _;
    let mut id = [0; 2];
    ring::rand::SystemRandom::new()
        .fill(&mut id)
        .map_err(|_| AskError::Io(std::io::Error::other("no random numbers")))?;
    Ok(u16::from_ne_bytes(id))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
