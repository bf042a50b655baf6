//! A daemon without network: everything but its surroundings is real.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tsrs_agent_core::agent::{
    Agent, ControlEvent, ControlStart, EngineEvent, Setup, TroubleKind, TunnelAction,
};
use tsrs_agent_core::lock::{Call, LockAnswer};
use tsrs_agent_core::profiles::Profiles;
use tsrs_agent_core::state_file::State;
use tsrs_agent_core::status::{LiveStatus, PeerLive};
use tsrs_agent_core::wanted::HostFacts;
use tsrs_agent_localapi::BackendState;
use tsrs_agent_services::dns::{DnsService, DnsSettings};
use tsrs_base_types::{
    DiscoPrivate, DiscoPublic, MachinePrivate, NodePrivate, NodePublic, Redacted, RegionId, UserId,
};
use tsrs_control_netmap::Session;
use tsrs_control_tailcfg::{Hostinfo, Login, MapResponse, User};
use tsrs_lab_vectors::json as vectors;
use tsrs_platform_api::fake::{FakeBinder, FakeDns, FakeRouter};
use tsrs_platform_api::{Interface, LinkEvent, LinkState, PeerCred, PeerCredentials};
use tsrs_platform_net::{DnsServers, Net, NetConfig};

use super::super::connections::{self, Slot};
use super::super::{Api, Slots};
use crate::backend::{Backend, BackendHandle, Input, Parts, now};
use crate::bus::{Bus, BusItem};
use crate::control::{ControlHandle, ControlStarter, Started, TunnelFacts};
use crate::host::Host;
use crate::store::Store;
use crate::tunnel::{NO_REPLY, Pong, Probe, Tunnel, TunnelEvent, TunnelMetrics};
use crate::tunnel_routes::TunnelRoutes;

/// The user whom tests name as operator.
pub(super) const OPERATOR: u32 = 1000;
/// A user without rights.
pub(super) const OTHER: u32 = 1001;
pub(super) const ROOT: u32 = 0;

/// The auth key that the fake control server takes.
pub(super) const GOOD_KEY: &str = "tskey-auth-good";

/// Where it sends those who have no key.
pub(super) const AUTH_URL: &str = "https://control.lab.test/a/1";

/// The address of a peer in [`frame`].
pub(super) const PEER: &str = "100.64.0.1";

pub(super) struct Bench {
    pub(super) api: Arc<Api>,
    pub(super) backend: BackendHandle,
    pub(super) running: tokio::task::JoinHandle<Result<(), String>>,
    pub(super) bus: Bus,
    pub(super) tunnel: Arc<FakeTunnel>,
    pub(super) control: FakeControl,
    pub(super) dir: tempfile::TempDir,
}

impl Bench {
    /// A daemon that was never logged in.
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &dir.path().join("state")).unwrap();
        let machine_key = MachinePrivate::generate(&mut OsRng);
        let host = HostFacts { hostname: "alpha".into(), os: "linux".into(), ..HostFacts::default() };
        let state = State { machine_key, profiles: Profiles::default() };
        let mut agent = Agent::new(Setup { state, host, version: "0.1.0-tsrs".into() }, OsRng);
        agent.handle_link(Arc::new(links()), now());
        let (host_tell, mut host_done) = mpsc::channel(64);
        let (host, _thread) =
            Host::start(Box::new(FakeRouter::default()), Box::new(FakeDns::default()), move |done| {
                let _ = host_tell.blocking_send(done);
            })
            .unwrap();
        let control = FakeControl::default();
        let (tunnel, routes, bus) = (Arc::new(FakeTunnel::default()), TunnelRoutes::default(), Bus::new());
        let binder = Arc::new(FakeBinder::default());
        let net = Net::new(NetConfig::new(binder.clone(), DnsServers::default())).unwrap();
        let (_, from_tun) = mpsc::channel(1);
        let (to_tun, _) = mpsc::channel(1);
        let dns = DnsService::start(DnsSettings {
            from_tun,
            to_tun,
            net,
            binder,
            through_tunnel: Arc::new(|_| false),
        });
        let parts = Parts {
            agent,
            store,
            control: Box::new(control.clone()),
            tunnel: Arc::clone(&tunnel) as Arc<dyn Tunnel>,
            host: host.clone(),
            dns: Some(dns.clone()),
            net: None,
            routes: routes.clone(),
            bus: bus.clone(),
        };
        let (task, inputs, backend) = Backend::new(parts);
        let to_backend = backend.inputs();
        tokio::spawn(async move {
            while let Some(done) = host_done.recv().await {
                if to_backend.send(Input::Host(done)).await.is_err() {
                    return;
                }
            }
        });
        let running = tokio::spawn(task.run(inputs));
        let api = Arc::new(Api {
            backend: backend.clone(),
            bus: bus.clone(),
            tunnel: Arc::clone(&tunnel) as Arc<dyn Tunnel>,
            host,
            dns: Some(dns),
            routes,
            users: Arc::new(FakeUsers),
            state_dir: dir.path().to_owned(),
            tun_name: "lo".into(),
            config_file: None,
            cert_uid: None,
            slots: Arc::<Slots>::default(),
        });
        let bench = Self { api, backend, running, bus, tunnel, control, dir };
        bench.until(BackendState::NeedsLogin).await;
        bench
    }

    /// A daemon that is logged in and up.
    pub(super) async fn running() -> Self {
        let bench = Self::new().await;
        bench.log_in().await;
        bench
    }

    pub(super) async fn log_in(&self) {
        let prefs = json!({"ControlURL": "https://control.lab.test", "WantRunning": true, "CorpDNS": true,
            "NetfilterMode": 2, "NoStatefulFiltering": true, "OperatorUser": "op"});
        self.start(prefs, GOOD_KEY).await;
        self.contact().await;
        self.until(BackendState::Running).await;
    }

    pub(super) async fn start(&self, prefs: Value, auth_key: &str) {
        let options = json!({"UpdatePrefs": prefs, "AuthKey": auth_key});
        let reply = self.ask(ROOT, "POST", "start", Some(&options)).await;
        assert_eq!(reply.status, 204, "{}", reply.text());
    }

    /// The engine reaches a relay.
    pub(super) async fn contact(&self) {
        let contact = EngineEvent::Contact { live_derp_count: 1, live_peer_count: 1 };
        self.backend.send(Input::Tunnel(TunnelEvent::Agent(contact))).await.unwrap();
    }

    /// A daemon that is logged in and down.
    pub(super) async fn stopped() -> Self {
        let bench = Self::running().await;
        let reply = bench
            .ask(ROOT, "PATCH", "prefs", Some(&json!({"WantRunning": false, "WantRunningSet": true})))
            .await;
        assert_eq!(reply.status, 200);
        bench.until(BackendState::Stopped).await;
        bench
    }

    pub(super) async fn until(&self, state: BackendState) {
        let settled = self.backend.until(|snapshot| snapshot.state == state);
        let waited = tokio::time::timeout(Duration::from_secs(20), settled).await;
        assert!(waited.is_ok(), "the state stays {:?}", self.backend.snapshot().state);
    }

    /// A connection of a user.
    pub(super) fn connect(&self, uid: u32) -> DuplexStream {
        let (near, far) = tokio::io::duplex(64 << 10);
        let slot = Slot::take(&self.api.slots, Some(uid)).expect("too many connections");
        tokio::spawn(connections::serve(far, Arc::clone(&self.api), Some(uid), slot));
        near
    }

    /// One request on its own connection, its body in one chunk as the official client sends it.
    pub(super) async fn ask(&self, uid: u32, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let mut request = head(method, &format!("/localapi/v0/{path}"));
        match body {
            Some(body) => {
                let body = body.to_string();
                request +=
                    &format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
            }
            None => request += "Content-Length: 0\r\n\r\n",
        }
        self.raw(uid, request.as_bytes()).await
    }

    /// Raw bytes on a connection of their own; gives the answer.
    pub(super) async fn raw(&self, uid: u32, request: &[u8]) -> Reply {
        let mut stream = self.connect(uid);
        // A server that refuses early may not read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let reading = async {
            while !is_whole(&answer) && stream.read_buf(&mut answer).await.is_ok_and(|len| len > 0) {}
        };
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        assert!(read.is_ok(), "no end of the answer to {}", String::from_utf8_lossy(request));
        Reply::parse(&answer)
    }

    pub(super) fn tell(&self, notify: tsrs_agent_localapi::Notify) {
        self.bus.tell(BusItem { notify: Arc::new(notify), netmap: None });
    }
}

/// The head of a request, open for more headers.
pub(super) fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: close\r\n")
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Reply {
    fn parse(answer: &[u8]) -> Self {
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head in {:?}", String::from_utf8_lossy(answer)));
        let head = std::str::from_utf8(&answer[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut body = answer[end + 4..].to_vec();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            body = unchunked(&body);
        }
        Self { status, headers, body }
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Whether an answer has all the bytes that it says it has; those that do not say end with the connection.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let len = Reply::parse(answer).header("content-length").parse();
    len.is_ok_and(|len: usize| answer.len() >= end + 4 + len)
}

fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(end + 2..end + 2 + len) else { break };
        out.extend_from_slice(chunk);
        rest = rest.get(end + 4 + len..).unwrap_or_default();
    }
    out
}

fn links() -> LinkState {
    let interface = Interface {
        index: 2,
        name: "eth0".into(),
        up: true,
        loopback: false,
        addresses: vec!["192.0.2.7/24".parse().unwrap()],
    };
    LinkState { interfaces: vec![interface], default_route: None }
}

/// The first frame of a map stream, made from a captured netmap: alpha (we), beta and gamma.
pub(super) fn frame(own: NodePublic) -> MapResponse {
    let captured = vectors("localapi/1.103.json");
    let exchanges = captured["debug-netmap"]["exchanges"].as_array().unwrap();
    let netmap = exchanges
        .iter()
        .map(|exchange| &exchange["response"]["body"]["json"])
        .find(|body| body.is_object())
        .unwrap();
    let mut node = netmap["SelfNode"].clone();
    node["Key"] = json!(own);
    node["MachineAuthorized"] = json!(true);
    let users: Vec<&Value> = netmap["UserProfiles"].as_object().unwrap().values().collect();
    serde_json::from_value(json!({
        "Node": node, "Peers": netmap["Peers"], "Domain": netmap["Domain"], "DNSConfig": netmap["DNS"],
        "PacketFilter": netmap["PacketFilterRules"], "DERPMap": netmap["DERPMap"], "UserProfiles": users,
    }))
    .unwrap()
}

/// Lets those log in who have [`GOOD_KEY`] or visited [`AUTH_URL`], and keeps them until they log out.
#[derive(Clone, Default)]
pub(super) struct FakeControl(Arc<Mutex<ControlFacts>>);

#[derive(Default)]
struct ControlFacts {
    tell: Option<mpsc::Sender<ControlEvent>>,
    node_key: Option<NodePrivate>,
    refuses_logout: bool,
}

impl ControlFacts {
    fn tell(&self, event: ControlEvent) {
        self.tell.as_ref().unwrap().try_send(event).unwrap();
    }

    fn online(&self, key: &NodePrivate) {
        let update = Session::new().handle(frame(key.public()), Timestamp::now()).unwrap();
        self.tell(ControlEvent::Online);
        self.tell(ControlEvent::Netmap { netmap: update.netmap.unwrap(), changes: update.changes });
    }

    fn admit(&mut self, renew: bool) {
        let key = self.node_key.take().filter(|_| !renew);
        let key = key.unwrap_or_else(|| NodePrivate::generate(&mut OsRng));
        self.node_key = Some(key.clone());
        self.tell(ControlEvent::LoggedIn {
            node_key: key.clone(),
            old_node_key: None,
            user: Box::new(User { id: UserId(1), ..User::default() }),
            login: Box::new(Login { login_name: "lab".into(), ..Login::default() }),
        });
        self.online(&key);
    }
}

impl FakeControl {
    /// The user visits [`AUTH_URL`].
    pub(super) fn visit(&self) {
        self.0.lock().unwrap().admit(false);
    }

    pub(super) fn refuse_logout(&self) {
        self.0.lock().unwrap().refuses_logout = true;
    }
}

impl ControlStarter for FakeControl {
    fn start(&self, start: ControlStart, _facts: TunnelFacts) -> Result<Started, String> {
        let (tell, events) = mpsc::channel(16);
        let mut facts = self.0.lock().unwrap();
        facts.tell = Some(tell);
        facts.node_key = start.node_key;
        if let Some(key) = &facts.node_key {
            facts.online(key);
        }
        Ok(Started { handle: Box::new(self.clone()), events })
    }
}

impl ControlHandle for FakeControl {
    fn login(&self, renew: bool, auth_key: Option<Redacted<String>>) -> Result<(), String> {
        let mut facts = self.0.lock().unwrap();
        match auth_key {
            Some(key) if key.expose() == GOOD_KEY => facts.admit(renew),
            Some(_) => facts.tell(ControlEvent::Trouble {
                kind: TroubleKind::Final,
                during_login: true,
                text: "invalid pre auth key".into(),
            }),
            None => facts.tell(ControlEvent::AuthUrl(AUTH_URL.into())),
        }
        Ok(())
    }

    fn logout(&self) -> BoxFuture<'static, Result<(), String>> {
        let refuses = self.0.lock().unwrap().refuses_logout;
        async move { if refuses { Err("no route to host".to_owned()) } else { Ok(()) } }.boxed()
    }

    fn set_expiry_sooner(&self, _at: Timestamp) -> BoxFuture<'static, Result<(), String>> {
        async { Err("extending key is not allowed".to_owned()) }.boxed()
    }

    fn set_hostinfo(&self, _hostinfo: Hostinfo) {}
    fn set_facts(&self, _facts: &TunnelFacts) {}
    fn set_paused(&self, _paused: bool) {}
    fn note_link_change(&self) {}

    fn lock_call(&self, _call: Call) -> BoxFuture<'static, Result<LockAnswer, String>> {
        async { Err("not offered by this control server".to_owned()) }.boxed()
    }

    fn set_lock_head(&self, _head: String) {}

    fn client(&self) -> Option<tsrs_control_client::Handle> {
        None
    }
}

/// Answers pings, unless it is silent.
#[derive(Default)]
pub(super) struct FakeTunnel {
    pub(super) silent: Mutex<bool>,
    /// What the debug actions asked for.
    pub(super) asked: Mutex<Vec<&'static str>>,
}

impl FakeTunnel {
    fn note(&self, word: &'static str) -> BoxFuture<'_, ()> {
        self.asked.lock().unwrap().push(word);
        async {}.boxed()
    }
}

impl Tunnel for FakeTunnel {
    fn act(&self, _action: TunnelAction) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn change_link(&self, _event: LinkEvent) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    fn disco_key(&self) -> DiscoPublic {
        DiscoPrivate::from_bytes([7; 32]).public()
    }

    fn live(&self) -> BoxFuture<'_, LiveStatus> {
        let peer =
            PeerLive { rx_bytes: 5, tx_bytes: 7, has_session: true, active: true, ..PeerLive::default() };
        let live = LiveStatus {
            endpoints: vec!["192.0.2.7:41641".parse().unwrap()],
            home_derp: Some(RegionId(999)),
            live_derp_count: 1,
            peers: [(NodePublic::from_bytes([9; 32]), peer)].into(),
        };
        async move { live }.boxed()
    }

    fn ping(&self, _peer: NodePublic, probe: Probe) -> BoxFuture<'_, Result<Pong, String>> {
        let silent = *self.silent.lock().unwrap();
        async move {
            if silent {
                return Err(NO_REPLY.to_owned());
            }
            let pong = Pong { latency_seconds: 0.001, ..Pong::default() };
            Ok(match probe {
                Probe::Disco { .. } => Pong { endpoint: Some("192.0.2.8:41641".parse().unwrap()), ..pong },
                Probe::Tsmp => Pong { peer_api_port: 58_436, ..pong },
            })
        }
        .boxed()
    }

    fn netcheck(&self) -> BoxFuture<'_, Value> {
        async { json!({"UDP": true, "PreferredDERP": 999}) }.boxed()
    }

    fn restun(&self) -> BoxFuture<'_, ()> {
        self.note("restun")
    }

    fn rebind(&self) -> BoxFuture<'_, ()> {
        self.note("rebind")
    }

    fn break_relays(&self) -> BoxFuture<'_, ()> {
        self.note("break-derp-conns")
    }

    fn metrics(&self) -> TunnelMetrics {
        let mut metrics = TunnelMetrics::default();
        metrics.inbound.direct_packets = 3;
        metrics.inbound.drops = vec![("acl", 2)];
        metrics.detail = vec![("tun_reads".into(), 11)];
        metrics
    }
}

/// Knows one user by name; everybody at the other end of a real socket is root.
struct FakeUsers;

impl PeerCredentials for FakeUsers {
    fn peer(&self, _fd: BorrowedFd<'_>) -> std::io::Result<PeerCred> {
        Ok(PeerCred { uid: ROOT, gid: 0, groups: Vec::new(), pid: None })
    }

    fn user_id(&self, name: &str) -> std::io::Result<Option<u32>> {
        Ok((name == "op").then_some(OPERATOR))
    }

    fn group_id(&self, _name: &str) -> std::io::Result<Option<u32>> {
        Ok(None)
    }
}
