//! systemd-resolved, asked over D-Bus (org.freedesktop.resolve1(5)).
//!
//! A thread of its own holds the connection, so that a restart of the service is noticed and our link is configured
//! again. The configuration belongs to the link and goes with it: a crash leaves nothing behind.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::stream::{Select, StreamExt, select};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;
use tsrs_platform_api::{DnsConfig, DnsEvent, EventSink, PlatformError, PlatformEvent, Result};
use zbus::message::Type;
use zbus::zvariant::DynamicType;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant};

use crate::dns::resolv_conf::ResolvConf;

const SERVICE: &str = "org.freedesktop.resolve1";
const PATH: &str = "/org/freedesktop/resolve1";
const MANAGER: &str = "org.freedesktop.resolve1.Manager";
const OWNER_CHANGED: &str = "NameOwnerChanged";

/// A call is answered at once by a service that runs; this is for one that systemd has to start first.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// All calls of one configuration together.
const COMMAND_LIMIT: Duration = Duration::from_secs(15);

/// Address families as the service names them: those of the kernel.
const IPV4: i32 = 2;
const IPV6: i32 = 10;

/// The connection to the service.
#[derive(Debug)]
pub(super) struct Resolved {
    commands: Option<Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    Ping(Reply<()>),
    Apply(DnsConfig, Reply<()>),
    Revert(Reply<()>),
    Flush(Reply<()>),
    Base(Reply<ResolvConf>),
}

type Reply<T> = SyncSender<zbus::Result<T>>;

impl Resolved {
    /// Starts the thread; it connects when it is first asked for something.
    pub(super) fn start(tun_index: u32, bus: Option<String>, sink: EventSink) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let index = i32::try_from(tun_index).map_err(io::Error::other)?;
        // One caller, who waits for each answer.
        let (commands, receiver) = channel(1);
        let worker = Worker { index, bus, sink, connection: None, applied: None, base_servers: None };
        let thread = std::thread::Builder::new().name("resolved".into());
        let thread = thread.spawn(move || runtime.block_on(worker.run(receiver)))?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Whether the service answers; systemd starts it for the question.
    pub(super) fn answers(&self) -> bool {
        self.ask(Command::Ping).is_ok()
    }

    pub(super) fn apply(&self, config: &DnsConfig) -> Result<()> {
        self.ask(|reply| Command::Apply(config.clone(), reply))
            .map_err(failed("set DNS of our link in systemd-resolved"))
    }

    pub(super) fn revert(&self) -> Result<()> {
        self.ask(Command::Revert).map_err(failed("revert DNS of our link in systemd-resolved"))
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.ask(Command::Flush).map_err(failed("flush the caches of systemd-resolved"))
    }

    /// Servers and search domains of the other links and of the host.
    pub(super) fn base(&self) -> Result<ResolvConf> {
        self.ask(Command::Base).map_err(failed("ask systemd-resolved for the host's servers"))
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> zbus::Result<T> {
        let (reply, answer) = sync_channel(1);
        let gone = || zbus::Error::Failure("the thread that talks to systemd-resolved is gone".to_owned());
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.try_send(command(reply)).map_err(|error| match error {
            TrySendError::Full(_) => zbus::Error::Failure("systemd-resolved still owes an answer".to_owned()),
            TrySendError::Closed(_) => gone(),
        })?;
        match answer.recv_timeout(COMMAND_LIMIT) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => Err(zbus::Error::Failure("no answer in time".to_owned())),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
        }
    }
}

impl Drop for Resolved {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(zbus::Error) -> PlatformError {
    move |error| {
        PlatformError::new(what, io::Error::other(error))
            .with_next("see `resolvectl status` and the service's log")
    }
}

struct Worker {
    index: i32,
    bus: Option<String>,
    sink: EventSink,
    connection: Option<Bus>,
    applied: Option<DnsConfig>,
    /// The servers that were last told to somebody.
    base_servers: Option<Vec<SocketAddr>>,
}

/// The connection, and the signals about the service.
struct Bus {
    connection: Connection,
    signals: Select<MessageStream, MessageStream>,
}

impl Worker {
    async fn run(mut self, mut commands: Receiver<Command>) {
        loop {
            let signal = async {
                match &mut self.connection {
                    Some(bus) => bus.signals.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                message = signal => match message {
                    Some(Ok(message)) => self.note_signal(&message).await,
                    Some(Err(error)) => tracing::debug!(%error, "message from the system bus"),
                    // The bus ended; the next command connects anew.
                    None => self.connection = None,
                },
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        // The caller may have given up waiting; then nobody wants the answer.
        match command {
            Command::Ping(reply) => _ = reply.send(self.ping().await),
            Command::Apply(config, reply) => {
                let outcome =
                    if self.applied.as_ref() == Some(&config) { Ok(()) } else { self.apply(&config).await };
                // Remembered also after an error: when the service comes back, it shall get it.
                self.applied = Some(config);
                if outcome.is_err() {
                    let _ = self.revert().await;
                }
                let _ = reply.send(outcome);
            }
            Command::Revert(reply) => {
                let outcome = if self.applied.take().is_some() { self.revert().await } else { Ok(()) };
                let _ = reply.send(outcome);
            }
            Command::Flush(reply) => _ = reply.send(self.manager("FlushCaches", &()).await.map(drop)),
            Command::Base(reply) => _ = reply.send(self.base().await),
        }
    }

    async fn note_signal(&mut self, message: &Message) {
        if message.header().member().is_some_and(|member| member == OWNER_CHANGED) {
            self.note_owner_change(message).await;
        } else {
            self.note_properties().await;
        }
    }

    /// Servers of some link may have changed; those of the others than ours are told.
    async fn note_properties(&mut self) {
        let before = self.base_servers.clone();
        match self.base().await {
            Ok(base) if before.as_ref().is_some_and(|before| *before != base.servers()) => {
                let event = DnsEvent::BaseChanged { nameservers: base.servers() };
                self.sink.tell(PlatformEvent::Dns(event));
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "ask systemd-resolved for the host's servers"),
        }
    }

    /// The service has a new owner on the bus: it was started, or restarted without what we had set.
    async fn note_owner_change(&mut self, message: &Message) {
        let body = message.body();
        let Ok((_, _, owner)) = body.deserialize::<(&str, &str, &str)>() else { return };
        if owner.is_empty() {
            return;
        }
        let Some(config) = self.applied.clone() else { return };
        let event = match self.apply(&config).await {
            Ok(()) => DnsEvent::Repaired,
            Err(error) => DnsEvent::RepairFailed { error: error.to_string() },
        };
        tracing::info!(?event, "systemd-resolved was restarted");
        self.sink.tell(PlatformEvent::Dns(event));
    }

    async fn ping(&mut self) -> zbus::Result<()> {
        self.call(PATH, "org.freedesktop.DBus.Peer", "Ping", &()).await.map(drop)
    }

    async fn apply(&mut self, config: &DnsConfig) -> zbus::Result<()> {
        let index = self.index;
        let servers: Vec<(i32, Vec<u8>)> = config.nameservers.iter().map(server).collect();
        let domains = domains(config);
        // Not all versions know all of these, and none is essential.
        self.optional("SetLinkDefaultRoute", &(index, config.default_route)).await?;
        for method in ["SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS"] {
            self.optional(method, &(index, "no")).await?;
        }
        self.manager("SetLinkDNS", &(index, servers)).await?;
        match self.manager("SetLinkDomains", &(index, &domains)).await {
            // Old versions take few domains; the reverse ones are the least missed.
            Err(zbus::Error::MethodError(name, _, _)) if name.as_str() == "System.Error.E2BIG" => {
                let forward: Vec<_> =
                    domains.iter().filter(|(name, _)| !name.ends_with(".in-addr.arpa")).cloned().collect();
                self.manager("SetLinkDomains", &(index, forward)).await?;
            }
            outcome => _ = outcome?,
        }
        self.optional("FlushCaches", &()).await
    }

    async fn revert(&mut self) -> zbus::Result<()> {
        match self.manager("RevertLink", &(self.index,)).await {
            // The link went, and its configuration with it.
            Err(zbus::Error::MethodError(name, _, _))
                if name.as_str() == "org.freedesktop.resolve1.NoSuchLink" => {}
            outcome => _ = outcome?,
        }
        self.optional("FlushCaches", &()).await
    }

    async fn base(&mut self) -> zbus::Result<ResolvConf> {
        let servers: Vec<(i32, i32, Vec<u8>)> = self.property("DNS").await?;
        let mut nameservers = self.foreign(&servers);
        if nameservers.is_empty() {
            let fallback: Vec<(i32, i32, Vec<u8>)> = self.property("FallbackDNS").await?;
            nameservers = self.foreign(&fallback);
        }
        let domains: Vec<(i32, String, bool)> = self.property("Domains").await?;
        let search = domains.into_iter().filter(|(index, _, routing)| *index != self.index && !routing);
        let base = ResolvConf {
            nameservers,
            search: search.map(|(_, domain, _)| domain).collect(),
            ..ResolvConf::default()
        };
        self.base_servers = Some(base.servers());
        Ok(base)
    }

    /// Servers that are not those of our link.
    fn foreign(&self, servers: &[(i32, i32, Vec<u8>)]) -> Vec<IpAddr> {
        let others = servers.iter().filter(|(index, _, _)| *index != self.index);
        others.filter_map(|(_, _, octets)| address(octets)).collect()
    }

    async fn property<T>(&mut self, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant, Error: Into<zbus::Error>>,
    {
        let reply = self.call(PATH, "org.freedesktop.DBus.Properties", "Get", &(MANAGER, name)).await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        T::try_from(value).map_err(Into::into)
    }

    async fn manager<B>(&mut self, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        self.call(PATH, MANAGER, method, body).await
    }

    /// A call that the service may not know.
    async fn optional<B>(&mut self, method: &str, body: &B) -> zbus::Result<()>
    where
        B: serde::Serialize + DynamicType,
    {
        match self.manager(method, body).await {
            Err(error @ (zbus::Error::MethodError(..) | zbus::Error::FDO(_))) => {
                tracing::debug!(method, %error, "systemd-resolved refused an optional call");
                Ok(())
            }
            outcome => outcome.map(drop),
        }
    }

    async fn call<B>(&mut self, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<Message>
    where
        B: serde::Serialize + DynamicType,
    {
        let late = |_| zbus::Error::Failure(format!("{method}: no answer within {} s", CALL_LIMIT.as_secs()));
        let connection = timeout(CALL_LIMIT, self.connect()).await.map_err(late)??;
        let call = connection.call_method(Some(SERVICE), path, Some(interface), method, body);
        timeout(CALL_LIMIT, call).await.map_err(late)?
    }

    async fn connect(&mut self) -> zbus::Result<Connection> {
        if let Some(bus) = &self.connection {
            return Ok(bus.connection.clone());
        }
        let builder = match &self.bus {
            Some(address) => zbus::connection::Builder::address(address.as_str()),
            None => zbus::connection::Builder::system(),
        };
        let connection = builder.build().await?;
        let owner = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender("org.freedesktop.DBus")
            .interface("org.freedesktop.DBus")
            .member(OWNER_CHANGED)
            .arg(0, SERVICE)
            .build()?;
        let properties = MatchRule::builder()
            .msg_type(Type::Signal)
            .sender(SERVICE)
            .interface("org.freedesktop.DBus.Properties")
            .member("PropertiesChanged")
            .path(PATH)
            .build()?;
        let owner = MessageStream::for_match_rule(owner, &connection, None).await?;
        let properties = MessageStream::for_match_rule(properties, &connection, None).await?;
        self.connection = Some(Bus { connection: connection.clone(), signals: select(owner, properties) });
        Ok(connection)
    }
}

fn server(address: &IpAddr) -> (i32, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (IPV4, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, address.octets().to_vec()),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    match octets.len() {
        4 => octets.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        16 => octets.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

/// Domains of our link; the flag says "for routing only". A search domain routes too.
fn domains(config: &DnsConfig) -> Vec<(String, bool)> {
    let search = config.search_domains.iter().map(|domain| (domain.as_str().to_owned(), false));
    let routing = config
        .match_domains
        .iter()
        .filter(|domain| !config.search_domains.contains(domain))
        .map(|domain| (domain.as_str().to_owned(), true));
    let all = config.default_route.then(|| (".".to_owned(), true));
    search.chain(routing).chain(all).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tsrs_platform_api::MatchDomain;

    use super::*;

    #[test]
    fn search_domains_route_by_themselves_and_the_default_is_the_root() {
        let names =
            |names: &[&str]| names.iter().filter_map(|name| MatchDomain::new(name)).collect::<Vec<_>>();
        let config = DnsConfig {
            nameservers: vec![IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100))],
            match_domains: names(&["a.ts.net", "corp.test"]),
            search_domains: names(&["a.ts.net"]),
            default_route: false,
        };
        let pair = |name: &str, routing| (name.to_owned(), routing);
        assert_eq!(domains(&config), [pair("a.ts.net", false), pair("corp.test", true)]);
        let everything = DnsConfig { default_route: true, ..config };
        assert_eq!(domains(&everything).last(), Some(&pair(".", true)));
    }

    #[test]
    fn addresses_pass_both_ways() {
        for text in ["100.100.100.100", "fd00::53"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(address(&server(&ip).1), Some(ip));
        }
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
