//! From the command line to a running daemon, and back.

mod instance_lock;
mod state;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rand_core::OsRng;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tsrs_agent_core::agent::{Agent, Setup, Snapshot};
use tsrs_agent_core::health::Problem;
use tsrs_agent_localapi::BackendState;
use tsrs_agent_services::dns::{DnsService, DnsSettings};
use tsrs_platform_api::{EventSink, Instance, PlatformEvent};
use tsrs_platform_net::{DnsServers, Net, NetConfig};
use tsrs_tunnel_engine::EngineHandle;

use crate::api::{Api, Listener};
use crate::backend::{Backend, BackendHandle, Input, Parts, now};
use crate::bus::Bus;
use crate::control::RealControl;
use crate::flags::Flags;
use crate::host::Host;
use crate::platform::{self, Platform, ServiceManager};
use crate::store::Store;
use crate::tunnel::{RealTunnel, TunnelParts};
use crate::tunnel_routes::TunnelRoutes;
use crate::{config_file, host_facts};
use instance_lock::InstanceLock;

/// How long an orderly end may take; what is not given back by then the next start gives back.
const CLOSE_LIMIT: Duration = Duration::from_secs(15);

/// Events of the system and of the engine that wait for the backend.
const EVENT_QUEUE_LEN: usize = 64;

/// Packets between the TUN and the resolver.
const SERVICE_QUEUE_LEN: usize = 256;

/// Undoes a dead predecessor.
pub(crate) fn cleanup(flags: &Flags) -> anyhow::Result<Vec<String>> {
    let _lock = InstanceLock::take(flags.instance)?;
    if !flags.state_dir.exists() {
        bail!(
            "{} does not exist, so no agent has run with it; give the right --statedir",
            flags.state_dir.display()
        );
    }
    let store = Store::open(&flags.state_dir, &flags.state_file)?;
    platform::undo_predecessor(store.dir(), flags.instance, &flags.tun)
}

/// Runs until a signal or a client ends it.
pub(crate) async fn run(flags: Flags) -> anyhow::Result<()> {
    // From the first change on, a signal leads to an orderly end.
    let signals = Signals::listen()?;
    let service = ServiceManager::new()?;
    platform::check_privilege()?;
    let store = Store::open(&flags.state_dir, &flags.state_file)?;
    let _lock = InstanceLock::take(flags.instance)?;
    if flags.instance == Instance::ZERO
        && let Some(running) = platform::running_tailscaled()
    {
        bail!(
            "{running}, which uses the same interface, routes and marks; stop it with `systemctl disable --now \
             tailscaled`, or run this agent as --instance 1. Its login can be taken over with --import \
             /var/lib/tailscale/tailscaled.state"
        );
    }
    let undone = platform::undo_predecessor(store.dir(), flags.instance, &flags.tun)?;
    if !undone.is_empty() {
        tracing::warn!(?undone, "undid what a predecessor left");
    }
    let loaded = state::load(&store, flags.import.as_deref())?;

    let (system_tell, system) = mpsc::channel(EVENT_QUEUE_LEN);
    let platform = platform::open(flags.instance, &flags.tun, store.dir(), sink(system_tell))?;
    let listener = Listener::open(&flags.socket)?;
    let official = official_listener(&flags);
    tracing::info!(socket = %flags.socket.display(), tun = flags.tun, "the LocalAPI is open");

    let Platform { tun, router, dns, link, binder, users } = platform;
    let mut net_config = NetConfig::new(Arc::clone(&binder), DnsServers::default());
    net_config.ca_files.extend(flags.ca_file.clone());
    let net = Net::new(net_config).context("prepare the agent's own connections")?;
    let (tunnel_tell, tunnel_events) = mpsc::channel(EVENT_QUEUE_LEN);
    let parts = TunnelParts {
        tun,
        port: flags.port,
        port_is_fixed: flags.port_is_fixed,
        binder: Arc::clone(&binder),
        net: net.clone(),
        link: link.state(),
    };
    let (tunnel, outputs) = RealTunnel::start(parts, tunnel_tell).await?;
    let routes = TunnelRoutes::default();
    let dns_service = start_dns(outputs, &net, binder, &routes);

    let host_facts = host_facts::read();
    let setup = Setup { state: loaded.state, version: host_facts.version.clone(), host: host_facts };
    let mut agent = Agent::new(setup, OsRng);
    agent.handle_link(link.state(), now());
    for (problem, text) in &loaded.problems {
        agent.note_problem(*problem, Some(text), now());
    }
    let tunnel: Arc<dyn crate::tunnel::Tunnel> = Arc::new(tunnel);
    let (host_tell, host_done) = mpsc::channel(EVENT_QUEUE_LEN);
    let (host, _thread) = Host::start(router, dns, move |done| {
        // The backend takes these until the last.
        let _ = host_tell.blocking_send(done);
    })
    .context("start the thread for the host's settings")?;
    let bus = Bus::new();
    let parts = Parts {
        agent,
        store,
        control: Box::new(RealControl { net: net.clone() }),
        tunnel: Arc::clone(&tunnel),
        host: host.clone(),
        dns: Some(dns_service.clone()),
        net: Some(net),
        routes: routes.clone(),
        bus: bus.clone(),
    };
    let (backend, inputs, handle) = Backend::new(parts);
    forward(system, handle.inputs(), Input::Platform);
    forward(tunnel_events, handle.inputs(), Input::Tunnel);
    forward(host_done, handle.inputs(), Input::Host);
    let running = tokio::spawn(backend.run(inputs));

    let api = Arc::new(Api {
        backend: handle.clone(),
        bus,
        tunnel,
        host,
        dns: Some(dns_service),
        routes,
        users: Arc::clone(&users),
        state_dir: flags.state_dir.clone(),
        tun_name: flags.tun.clone(),
        config_file: flags.config.clone(),
        cert_uid: cert_uid(&*users),
        slots: Arc::default(),
    });
    let serving = tokio::spawn(listener.serve(Arc::clone(&api)));
    let serving_official = official.map(|listener| tokio::spawn(listener.serve(Arc::clone(&api))));
    if let Some(path) = &flags.config
        && let Err(error) = config_file::apply(path, &api).await
    {
        tracing::error!(error, "the configuration file is not used");
        let noted = handle.call(move |backend, now| {
            backend.agent.note_problem(Problem::ApplyDiskConfig, Some(&error), now);
        });
        noted.await.context("note the configuration file")?;
    }
    let telling = tokio::spawn(tell_service_manager(service, handle.clone()));

    let ended = wait_for_end(&handle, running, signals).await;
    telling.abort();
    for serving in [Some(serving), serving_official].into_iter().flatten() {
        serving.abort();
        // The socket's file goes with the task. That it was ended is no news.
        let _ = serving.await;
    }
    drop((api, link));
    ended
}

fn sink(tell: mpsc::Sender<PlatformEvent>) -> EventSink {
    EventSink::new(move |event| {
        if tell.try_send(event).is_err() {
            tracing::warn!("an event of the system was lost");
        }
    })
}

/// The official CLI looks for this path. It is served while nothing answers there.
fn official_listener(flags: &Flags) -> Option<Listener> {
    let path = flags.instance.official_socket().filter(|_| flags.socket_is_default)?;
    match Listener::open(&path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "the official CLI has to be told --socket");
            None
        }
    }
}

fn start_dns(
    outputs: crate::tunnel::TunnelOutputs,
    net: &Net,
    binder: Arc<dyn tsrs_platform_api::SocketBinder>,
    routes: &TunnelRoutes,
) -> DnsService {
    let (from_host, from_tun) = mpsc::channel(SERVICE_QUEUE_LEN);
    let (to_tun, to_host) = mpsc::channel(SERVICE_QUEUE_LEN);
    let mut services = outputs.services;
    tokio::spawn(async move {
        while let Some(packet) = services.recv().await {
            if from_host.send(packet.into_vec()).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(give_to_host(to_host, outputs.handle));
    let routes = routes.clone();
    DnsService::start(DnsSettings {
        from_tun,
        to_tun,
        net: net.clone(),
        binder,
        through_tunnel: Arc::new(move |address| routes.lead_to(address)),
    })
}

async fn give_to_host(mut packets: mpsc::Receiver<Vec<u8>>, engine: EngineHandle) {
    while let Some(packet) = packets.recv().await {
        if engine.send_to_host(packet.into_boxed_slice()).await.is_err() {
            return;
        }
    }
}

/// Passes events on to the backend, in their order.
fn forward<T: Send + 'static>(mut from: mpsc::Receiver<T>, to: mpsc::Sender<Input>, wrap: fn(T) -> Input) {
    tokio::spawn(async move {
        while let Some(event) = from.recv().await {
            if to.send(wrap(event)).await.is_err() {
                return;
            }
        }
    });
}

/// The user who may fetch certificates without being root or operator.
fn cert_uid(users: &dyn tsrs_platform_api::PeerCredentials) -> Option<u32> {
    let name = std::env::var("TS_PERMIT_CERT_UID").ok().filter(|name| !name.is_empty())?;
    match name.parse() {
        Ok(uid) => Some(uid),
        Err(_) => users.user_id(&name).ok().flatten(),
    }
}

/// The signals that mean something here; one that comes before it is waited for is kept.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listen for SIGINT")?,
            // A hang-up ends nothing: there is nothing to read again, and the tunnel may carry the session that sends it.
            hang_up: signal(SignalKind::hangup()).context("listen for SIGHUP")?,
        })
    }
}

/// A service manager starts a daemon again that ended with a failure.
fn result(ended: Result<Result<(), String>, tokio::task::JoinError>) -> anyhow::Result<()> {
    let ended = ended.context("the backend failed")?;
    ended.map_err(|reason| anyhow::anyhow!("the tunnel failed: {reason}; start the daemon again"))
}

async fn wait_for_end(
    handle: &BackendHandle,
    mut running: tokio::task::JoinHandle<Result<(), String>>,
    Signals { mut terminate, mut interrupt, mut hang_up }: Signals,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => tracing::info!("SIGHUP is ignored; use reload-config"),
            ended = &mut running => return result(ended),
        }
    }
    // It may have ended by itself in this moment.
    let _ = handle.send(Input::Shutdown).await;
    match tokio::time::timeout(CLOSE_LIMIT, running).await {
        Ok(ended) => result(ended),
        Err(_) => {
            bail!("the orderly end took too long; the next start, or `tsrs-agent cleanup`, undoes the rest")
        }
    }
}

/// READY only when the address is on the TUN or a human is needed: units that wait for us can then bind to it.
async fn tell_service_manager(service: ServiceManager, handle: BackendHandle) {
    let settled = |snapshot: &Arc<Snapshot>| match snapshot.state {
        BackendState::NoState | BackendState::InUseOtherUser => false,
        BackendState::Starting => snapshot.address_is_set,
        BackendState::NeedsLogin
        | BackendState::NeedsMachineAuth
        | BackendState::Stopped
        | BackendState::Running => true,
    };
    if handle.until(settled).await.is_err() {
        return;
    }
    service.ready(handle.snapshot().state.word());
    let mut told = handle.snapshot().state;
    let mut beat = service.watchdog_interval().map(tokio::time::interval);
    loop {
        let beating = async {
            match &mut beat {
                Some(beat) => drop(beat.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = handle.until(|snapshot| snapshot.state != told) => {
                if changed.is_err() {
                    return service.stopping();
                }
                told = handle.snapshot().state;
                service.status(told.word());
            }
            () = beating => {
                // Alive means that the backend answers.
                if handle.call(|_, _| ()).await.is_ok() {
                    service.watchdog();
                }
            }
        }
    }
}
