//! The server as a value.

mod lock;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::oneshot;
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{MachinePublic, NodeId, RegionId};
use tsrs_control_tailcfg::{DisplayMessage, Hostinfo, PingRequest, PingResponse};

use crate::config::{LabConfig, RegionConfig};
use crate::derp::{DerpStats, Hub};
use crate::dns::DnsSettings;
use crate::fault::Faults;
use crate::http::C2N_PATH;
use crate::identities::Identities;
use crate::keys::KeySpec;
use crate::listen::Listeners;
use crate::policy::Policy;
use crate::shared::Shared;
use crate::store::StateFile;
use crate::tailnet::{Injected, LabNode, PendingLogin, Tailnet, check_policy};

/// Threads that serve. Two, so that a slow request holds up nobody.
const THREADS: usize = 2;
/// Time that requests under way get when the server stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// A running lab server; it ends with this value. **For tests and demonstrations only**: its keys lie in clear, its
/// login page asks nobody who they are.
pub struct LabControl {
    parts: Parts,
    running: Option<Running>,
}

/// What outlives a stop.
#[derive(Clone)]
struct Parts {
    shared: Arc<Shared>,
    identities: Arc<Identities>,
    /// With the ports that were taken.
    config: LabConfig,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl LabControl {
    /// Starts a server on threads of its own. May be called from inside or outside an async runtime.
    pub fn start(config: LabConfig) -> Result<Self> {
        check_policy(&config.policy)?;
        let (parts, running) = run(config, None)?;
        Ok(Self { parts, running: Some(running) })
    }

    /// URL of control over TLS, for `--login-server`.
    pub fn url(&self) -> String {
        https_url(&self.parts.config)
    }

    /// URL of control over plain HTTP.
    pub fn http_url(&self) -> Option<String> {
        let config = &self.parts.config;
        config.http_port.map(|port| format!("http://{}", SocketAddr::new(config.address, port)))
    }

    /// The CA that signed the server's certificates, for `SSL_CERT_FILE`.
    pub fn ca_pem(&self) -> &str {
        self.parts.identities.ca_pem()
    }

    /// Writes the CA to a file.
    pub fn write_ca(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.ca_pem()).with_context(|| format!("write {}", path.display()))
    }

    /// The key that `GET /key` gives.
    pub fn noise_key(&self) -> MachinePublic {
        self.parts.shared.key.public()
    }

    /// Where DERP of a region listens.
    pub fn derp_address(&self, region: RegionId) -> Option<SocketAddr> {
        self.region(region).map(|region| SocketAddr::new(region.address, region.derp_port))
    }

    /// Where STUN of a region listens.
    pub fn stun_address(&self, region: RegionId) -> Option<SocketAddr> {
        let region = self.region(region)?;
        Some(SocketAddr::new(region.address, region.stun_port?))
    }

    /// Gives out an auth key.
    pub fn create_key(&self, spec: KeySpec) -> String {
        self.parts.shared.change(|tailnet| tailnet.create_key(spec, Timestamp::now()))
    }

    /// All nodes by number.
    pub fn nodes(&self) -> Vec<LabNode> {
        self.parts.shared.read(|tailnet| tailnet.nodes.values().cloned().collect())
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<LabNode> {
        self.parts.shared.read(|tailnet| tailnet.nodes.values().find(|node| node.name == name).cloned())
    }

    /// Waits until `check` gives something; it is looked at again after each change.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&[LabNode]) -> Option<T>,
    ) -> Result<T> {
        let nodes = |tailnet: &Tailnet| tailnet.nodes.values().cloned().collect::<Vec<_>>();
        let found = self.parts.shared.wait(limit, |tailnet| check(&nodes(tailnet)));
        found.with_context(|| format!("waited {limit:?} in vain: {what}; nodes: {:?}", self.names()))
    }

    /// Waits until this node is online.
    pub fn wait_online(&self, name: &str, limit: Duration) -> Result<LabNode> {
        let what = format!("{name} comes online");
        self.wait_for(&what, limit, |nodes| {
            nodes.iter().find(|node| node.name == name && node.online()).cloned()
        })
    }

    /// As [`Self::wait_for`], for async tests on one thread.
    pub async fn wait_for_async<T>(
        &self,
        what: &str,
        limit: Duration,
        mut check: impl FnMut(&[LabNode]) -> Option<T>,
    ) -> Result<T> {
        let mut version = self.parts.shared.version.subscribe();
        let found = tokio::time::timeout(limit, async {
            loop {
                if let Some(found) = check(&self.nodes()) {
                    return Some(found);
                }
                version.changed().await.ok()?;
            }
        });
        found.await.ok().flatten().with_context(|| format!("waited {limit:?} in vain: {what}"))
    }

    /// Logins that wait for somebody to visit their page.
    pub fn pending_logins(&self) -> Vec<PendingLogin> {
        self.parts.shared.read(|tailnet| tailnet.pending.values().cloned().collect())
    }

    /// Waits for a login page to be asked for.
    pub fn wait_pending_login(&self, limit: Duration) -> Result<PendingLogin> {
        let found = self.parts.shared.wait(limit, |tailnet| tailnet.pending.values().next().cloned());
        found.context("waited in vain for a login")
    }

    /// Lets a pending login in, as if its page had been visited.
    pub fn approve_login(&self, id: &str, user: &str) -> Result<()> {
        self.decide_login(id, Some(user))
    }

    /// Refuses a pending login.
    pub fn refuse_login(&self, id: &str) -> Result<()> {
        self.decide_login(id, None)
    }

    /// Lets a registered machine in, or shuts it out again.
    pub fn approve_machine(&self, id: NodeId, authorized: bool) -> Result<()> {
        self.edit(id, |node| node.authorized = authorized)
    }

    /// Approves these routes of a node, and no others.
    pub fn approve_routes(&self, id: NodeId, routes: &[IpNet]) -> Result<()> {
        self.edit(id, |node| node.approved_routes = routes.to_vec())
    }

    /// Ends the life of a node's key now.
    pub fn expire(&self, id: NodeId) -> Result<()> {
        self.set_expiry(id, Some(Timestamp::now()))
    }

    /// Sets the end of a node key's life; `None` is never.
    pub fn set_expiry(&self, id: NodeId, expiry: Option<Timestamp>) -> Result<()> {
        self.edit(id, |node| node.key_expiry = expiry.map_or(WireTime::ZERO, WireTime::from))
    }

    /// Gives a node another name.
    pub fn rename(&self, id: NodeId, name: &str) -> Result<()> {
        self.edit(id, |node| {
            node.name = name.to_owned();
            node.renamed = true;
        })
    }

    /// Gives a node tags, which take it from its user.
    pub fn set_tags(&self, id: NodeId, tags: &[&str]) -> Result<()> {
        self.edit(id, |node| {
            node.tags = tags.iter().map(|&tag| tag.to_owned()).collect();
            node.user.clear();
        })
    }

    /// Deletes a node; its stream ends.
    pub fn delete(&self, id: NodeId) -> Result<()> {
        if !self.parts.shared.change(|tailnet| tailnet.delete(id)) {
            bail!("no node {id}");
        }
        Ok(())
    }

    /// Changes anything about a node.
    pub fn edit(&self, id: NodeId, edit: impl FnOnce(&mut LabNode)) -> Result<()> {
        self.parts
            .shared
            .change(|tailnet| tailnet.nodes.get_mut(&id).map(edit))
            .with_context(|| format!("no node {id}"))
    }

    /// Changes who may reach what.
    pub fn set_policy(&self, policy: Policy) -> Result<()> {
        check_policy(&policy)?;
        self.parts.shared.change(|tailnet| tailnet.policy = policy);
        Ok(())
    }

    /// Changes DNS beside MagicDNS.
    pub fn set_dns(&self, dns: DnsSettings) {
        self.parts.shared.change(|tailnet| tailnet.dns = dns);
    }

    /// Whether registered nodes wait for [`Self::approve_machine`] from now on.
    pub fn set_machine_approval(&self, on: bool) {
        self.parts.shared.change(|tailnet| tailnet.machine_approval = on);
    }

    /// Shows all nodes a message for people; `None` takes it away.
    pub fn set_message(&self, id: &str, message: Option<DisplayMessage>) {
        self.parts.shared.change(|tailnet| match message {
            Some(message) => drop(tailnet.messages.insert(id.to_owned(), message)),
            None => drop(tailnet.messages.remove(id)),
        });
    }

    /// Sends a node any map message, for example `Health`, `Debug` or a wrong one.
    pub fn inject(&self, id: NodeId, message: serde_json::Value) {
        self.parts.shared.inject(id, Injected::Message(message));
    }

    /// Sends a node any bytes between two frames of its stream, for example a length without a body.
    pub fn inject_raw(&self, id: NodeId, bytes: Vec<u8>) {
        self.parts.shared.inject(id, Injected::Raw(bytes));
    }

    /// Adds nodes that exist on the map only, each with this Hostinfo and an endpoint; for tests of large tailnets.
    pub fn add_paper_nodes(&self, count: usize, hostinfo: &Hostinfo) {
        self.parts.shared.change(|tailnet| tailnet.add_paper_nodes(count, hostinfo, Timestamp::now()));
    }

    /// Asks a node for a sign of life over HTTP: a HEAD request, over Noise if `noise`.
    pub fn ping(&self, id: NodeId, noise: bool, limit: Duration) -> Result<()> {
        let (ping, answered) = self.parts.shared.expect_ping();
        let base = if noise { "https://unused".to_owned() } else { self.url() };
        let request = PingRequest {
            url: format!("{base}/machine/ping-response?id={ping}"),
            url_is_noise: noise,
            ..PingRequest::default()
        };
        self.ask(id, &request, answered, limit).map(drop)
    }

    /// Has a node ping an address by these means (`disco`, `TSMP`, `ICMP`, `peerapi`, by commas); its first answer.
    pub fn ping_address(&self, id: NodeId, types: &str, ip: IpAddr, limit: Duration) -> Result<PingResponse> {
        let (ping, answered) = self.parts.shared.expect_ping();
        let request = PingRequest {
            url: format!("https://unused/machine/ping-response?id={ping}"),
            url_is_noise: true,
            types: types.to_owned(),
            ip: Some(ip),
            ..PingRequest::default()
        };
        let body = self.ask(id, &request, answered, limit)?;
        serde_json::from_slice(&body).context("answer to a ping")
    }

    /// Sends a node a raw HTTP request for its c2n handler; the raw HTTP response.
    pub fn c2n(&self, id: NodeId, request: &str, limit: Duration) -> Result<String> {
        let (ping, answered) = self.parts.shared.expect_ping();
        let request = PingRequest {
            url: format!("https://unused{C2N_PATH}{ping}"),
            url_is_noise: true,
            types: "c2n".to_owned(),
            payload: tsrs_control_tailcfg::Base64(request.as_bytes().to_vec()),
            ..PingRequest::default()
        };
        let body = self.ask(id, &request, answered, limit)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// The faults that are on.
    pub fn faults(&self) -> &Faults {
        &self.parts.shared.faults
    }

    /// Counters of a region's DERP server.
    pub fn derp_stats(&self, region: RegionId) -> Option<DerpStats> {
        self.parts.shared.hubs.get(&region).map(|hub| hub.stats())
    }

    /// Whether a node is connected to a region's DERP server.
    pub fn is_on_derp(&self, region: RegionId, node: &LabNode) -> bool {
        self.parts.shared.hubs.get(&region).is_some_and(|hub| hub.has(&node.key))
    }

    /// Sends all DERP clients of a region a health text; empty means fine again.
    pub fn derp_health(&self, region: RegionId, problem: &str) {
        if let Some(hub) = self.parts.shared.hubs.get(&region) {
            hub.health(problem);
        }
    }

    /// Sends a DERP client any bytes between two frames, for example a frame that is none; `false` if it is not here.
    pub fn inject_derp(&self, region: RegionId, node: &LabNode, bytes: &[u8]) -> bool {
        self.parts.shared.hubs.get(&region).is_some_and(|hub| hub.inject(&node.key, bytes))
    }

    /// Ends all DERP connections of a region.
    pub fn cut_derp(&self, region: RegionId) {
        if let Some(hub) = self.parts.shared.hubs.get(&region) {
            hub.disconnect_all();
        }
    }

    /// STUN requests answered or dropped by a fault so far, in all regions.
    pub fn stun_requests(&self) -> u64 {
        self.parts.shared.stun_requests.load(Ordering::Relaxed)
    }

    /// Ends every connection: control, map streams, DERP. The listeners stay.
    pub fn cut_connections(&self) {
        self.parts.shared.change(Tailnet::end_streams);
        self.parts.shared.cut.send_modify(|cut| *cut += 1);
        self.parts.shared.hubs.values().for_each(|hub| hub.disconnect_all());
    }

    /// Stops serving: connections end, ports are closed. What the server knows stays.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            // The thread may have ended by a panic already; then there is nothing to stop.
            let _ = stop.send(());
            let _ = thread.join();
        }
    }

    /// Serves again after [`Self::stop`], on the same ports.
    pub fn resume(&mut self) -> Result<()> {
        if self.running.is_none() {
            let (_, running) = run(self.parts.config.clone(), Some(self.parts.clone()))?;
            self.running = Some(running);
        }
        Ok(())
    }

    fn region(&self, id: RegionId) -> Option<&RegionConfig> {
        self.parts.config.regions.iter().find(|region| region.id == id)
    }

    fn names(&self) -> Vec<(String, bool)> {
        self.nodes().into_iter().map(|node| (node.name.clone(), node.online())).collect()
    }

    fn decide_login(&self, id: &str, user: Option<&str>) -> Result<()> {
        if !self.parts.shared.change(|tailnet| tailnet.decide_login(id, user, Timestamp::now())) {
            bail!("no login {id} is pending");
        }
        Ok(())
    }

    fn ask(
        &self,
        id: NodeId,
        request: &PingRequest,
        answered: oneshot::Receiver<Vec<u8>>,
        limit: Duration,
    ) -> Result<Vec<u8>> {
        self.inject(id, json!({ "PingRequest": request }));
        let (done, result) = std::sync::mpsc::channel();
        // A thread of its own waits, so that this works inside and outside an async runtime.
        std::thread::spawn(move || done.send(answered.blocking_recv()));
        let body =
            result.recv_timeout(limit).with_context(|| format!("node {id} did not answer in {limit:?}"))?;
        body.context("the question was given up")
    }
}

impl Drop for LabControl {
    fn drop(&mut self) {
        self.stop();
    }
}

impl std::fmt::Debug for LabControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LabControl").field("url", &self.url()).finish_non_exhaustive()
    }
}

/// DERP servers by region.
pub(crate) type Hubs = BTreeMap<RegionId, Arc<Hub>>;

fn https_url(config: &LabConfig) -> String {
    format!("https://{}", SocketAddr::new(config.address, config.https_port))
}

/// Runs a server, new or stopped before, on a thread that owns its runtime: a runtime may not be dropped inside
/// another. The ports are opened there too, in the namespace that the thread enters.
fn run(mut config: LabConfig, stopped: Option<Parts>) -> Result<(Parts, Running)> {
    let (stop, stop_asked) = oneshot::channel::<()>();
    let (ready, started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("lab-control".to_owned()).spawn(move || {
        config.on_thread_start.run();
        let runtime = match runtime(&config) {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let begun = runtime.block_on(async { begin(&mut config, stopped) });
        let shared = begun.as_ref().ok().map(|parts| Arc::clone(&parts.shared));
        let heard = ready.send(begun).is_ok();
        let Some(shared) = shared.filter(|_| heard) else { return };
        // Dropping the handle stops as well as sending does.
        let _ = runtime.block_on(stop_asked);
        shared.cut.send_modify(|cut| *cut += 1);
        runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        shared.change(Tailnet::close_all_streams);
    })?;
    let parts = started.recv().context("the lab server's thread ended")??;
    Ok((parts, Running { stop, thread }))
}

fn runtime(config: &LabConfig) -> Result<tokio::runtime::Runtime> {
    let hook = config.on_thread_start.clone();
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("lab-control")
        .on_thread_start(move || hook.run())
        .enable_all()
        .build()?)
}

/// Opens the ports and begins to serve.
fn begin(config: &mut LabConfig, stopped: Option<Parts>) -> Result<Parts> {
    let listeners = Listeners::open(config)?;
    let parts = match stopped {
        Some(parts) => parts,
        None => new_parts(config)?,
    };
    listeners.serve(&parts.shared, &parts.identities, config.ephemeral_timeout)?;
    Ok(parts)
}

fn new_parts(config: &LabConfig) -> Result<Parts> {
    let ids: Vec<RegionId> = config.regions.iter().map(|region| region.id).collect();
    let (state, stored) = StateFile::open(config.state_file.as_deref(), &ids)?;
    let mut hubs = Hubs::new();
    for id in ids {
        hubs.insert(id, Arc::new(Hub::new(id, state.derp_key(id)?)));
    }
    let identities = Arc::new(Identities::new(config, &state.authority()?, &hubs)?);
    let mut tailnet =
        Tailnet::new(config, https_url(config), identities.derp_map().clone(), Timestamp::now());
    if let Some(stored) = stored {
        tailnet.restore(stored, Timestamp::now())?;
    }
    let key = state.noise_key()?;
    let state_file = config.state_file.clone().map(|path| (path, state));
    let shared = Arc::new(Shared::new(key, tailnet, hubs, config.keep_alive, state_file));
    Ok(Parts { shared, identities, config: config.clone() })
}
