//! The agent walked through logins, changes and failures with a virtual clock.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rand_core::OsRng;
use serde_json::{Value, json};
use tsrs_agent_localapi::json::from_client;
use tsrs_agent_localapi::{MaskedPrefs, Prefs, StartOptions};
use tsrs_base_types::{DiscoPrivate, MachinePrivate, NodePrivate, NodePublic};
use tsrs_control_netmap::Session;
use tsrs_control_tailcfg::{Login, MapResponse, User};
use tsrs_platform_api::{DnsConfig, Interface, RouterConfig};
use tsrs_tunnel_dataplane::Change as PeerStep;

use super::*;
use crate::lock::Call;
use crate::lock::testing::Folder;
use crate::profiles::Profiles;

mod lock;

/// An agent with everything around it that a test needs.
struct Bench {
    agent: Agent<OsRng>,
    now: Now,
    session: Session,
    /// What the actions have led to.
    router: RouterConfig,
    dns: DnsConfig,
    peers: BTreeSet<NodePublic>,
    saved: usize,
    control: Vec<String>,
    fail_router: bool,
    router_warnings: Vec<String>,
    control_reachable: Option<bool>,
    /// The netmap that was last to be kept, and of which account.
    cached: Option<(String, Arc<Netmap>)>,
    /// The netmap that the control client was last started with.
    started_with: Option<Arc<Netmap>>,
    /// Calls about Tailnet Lock that were not answered yet.
    lock_calls: Vec<(u64, Call)>,
    /// What was written of its chain.
    chain: Folder,
}

impl Bench {
    fn new() -> Self {
        Self::with_state(State {
            machine_key: MachinePrivate::generate(&mut OsRng),
            profiles: Profiles::default(),
        })
    }

    fn with_state(state: State) -> Self {
        Self::with_kept(state, Kept::default())
    }

    fn with_kept(state: State, kept: Kept) -> Self {
        let host = HostFacts { hostname: "alpha".into(), os: "linux".into(), ..HostFacts::default() };
        let now = Now { mono: Instant::now(), wall: "2026-11-22T12:00:00Z".parse().unwrap() };
        let agent = Agent::new(Setup { state, host, version: "0.1.0".into() }, OsRng);
        let mut bench = Self {
            agent,
            now,
            session: Session::new(),
            router: RouterConfig::default(),
            dns: DnsConfig::default(),
            peers: BTreeSet::new(),
            saved: 0,
            control: Vec::new(),
            fail_router: false,
            router_warnings: Vec::new(),
            control_reachable: None,
            cached: None,
            started_with: None,
            lock_calls: Vec::new(),
            chain: Folder::default(),
        };
        bench.agent.handle_link(Arc::new(links()), bench.now);
        bench.agent.begin(kept, bench.now);
        bench.drain();
        bench
    }

    /// Carries out all actions; gives the messages of the bus as words.
    fn drain(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        loop {
            while let Some(notice) = self.agent.poll_notice() {
                words.extend(notice_words(&notice));
            }
            let Some(action) = self.agent.poll_action() else { break };
            match action {
                Action::Save => self.saved += 1,
                Action::Router(config) => {
                    let result = if self.fail_router { Err("no permission".to_owned()) } else { Ok(()) };
                    if result.is_ok() {
                        self.router = config;
                    }
                    self.agent.handle_router_done(result, &self.router_warnings, self.now);
                }
                Action::Dns(config) => {
                    self.dns = config;
                    self.agent.handle_dns_done(Ok(()), self.now);
                }
                Action::Tunnel(TunnelAction::Peers(steps)) => {
                    for step in steps {
                        match step {
                            PeerStep::Upsert(peer) => drop(self.peers.insert(peer.key)),
                            PeerStep::Remove(key) => {
                                assert!(self.peers.remove(&key), "removed what is not there")
                            }
                            PeerStep::Patch(key, _) => {
                                assert!(self.peers.contains(&key), "patched a stranger")
                            }
                        }
                    }
                }
                Action::Tunnel(TunnelAction::Up(false)) => self.peers.clear(),
                Action::Tunnel(TunnelAction::ControlReachable(reachable)) => {
                    self.control_reachable = Some(reachable);
                }
                Action::Control(ControlAction::Lock { number, call }) => self.lock_calls.push((number, call)),
                Action::Control(action) => {
                    if let ControlAction::Start(start) = &action {
                        self.started_with = start.netmap.clone();
                    }
                    self.control.push(control_word(&action));
                }
                Action::StoreLock { steps, .. } => {
                    steps.iter().for_each(|step| self.chain.write(step));
                    self.agent.handle_lock_stored(Ok(()), self.now);
                }
                Action::LoadProfile(id) => {
                    let netmap = self.cached.take_if(|(of, _)| *of == id).map(|(_, netmap)| netmap);
                    self.agent.handle_kept(&id, Kept { netmap, ..Kept::default() }, self.now);
                }
                Action::CacheNetmap { profile_id, netmap } => self.cached = Some((profile_id, netmap)),
                Action::Tunnel(_) | Action::ForgetProfile(_) | Action::Resolver(_) | Action::Hosts(_) => {}
            }
        }
        words
    }

    fn take_control(&mut self) -> Vec<String> {
        std::mem::take(&mut self.control)
    }

    fn advance(&mut self, time: Duration) -> Vec<String> {
        self.now.mono += time;
        self.now.wall += time;
        self.agent.handle_timeout(self.now);
        self.drain()
    }

    fn edit(&mut self, body: Value) -> Result<Vec<String>, String> {
        let edit: MaskedPrefs = from_client(body.to_string().as_bytes()).unwrap();
        self.agent.edit_prefs(&edit, &|_| true, self.now).map_err(|error| error.to_string())?;
        Ok(self.drain())
    }

    fn start(&mut self, auth_key: &str) -> Vec<String> {
        let prefs = Prefs { want_running: true, logged_out: false, ..crate::prefs::defaults() };
        let options =
            StartOptions { update_prefs: Some(prefs), auth_key: auth_key.into(), ..StartOptions::default() };
        self.agent.start(options, &|_| true, self.now).unwrap();
        self.drain()
    }

    fn logged_in(&mut self, key: &NodePrivate) -> Vec<String> {
        let login = Login { login_name: "lab".into(), ..Login::default() };
        let user = User { id: tsrs_base_types::UserId(1), ..User::default() };
        let event = ControlEvent::LoggedIn {
            node_key: key.clone(),
            old_node_key: None,
            user: Box::new(user),
            login: Box::new(login),
        };
        self.agent.handle_control(event, self.now);
        self.agent.handle_control(ControlEvent::Online, self.now);
        self.drain()
    }

    fn frame(&mut self, frame: Value) -> Vec<String> {
        let response: MapResponse = serde_json::from_value(frame).unwrap();
        let update = self.session.handle(response, self.now.wall).unwrap();
        let event = ControlEvent::Netmap { netmap: update.netmap.unwrap(), changes: update.changes };
        self.agent.handle_control(event, self.now);
        self.drain()
    }

    fn contact(&mut self) -> Vec<String> {
        self.agent.handle_engine(EngineEvent::Contact { live_derp_count: 1, live_peer_count: 0 }, self.now);
        self.drain()
    }

    fn state(&self) -> BackendState {
        self.agent.snapshot(self.now).state
    }

    /// A bench that runs with two peers.
    fn running() -> (Self, NodePrivate) {
        let mut bench = Self::new();
        let key = NodePrivate::generate(&mut OsRng);
        bench.start("tskey-auth-x");
        bench.logged_in(&key);
        bench.frame(first_frame(key.public(), &[2, 3]));
        bench.contact();
        assert_eq!(bench.state(), BackendState::Running);
        bench.take_control();
        (bench, key)
    }
}

fn kept(netmap: &Arc<Netmap>) -> Kept {
    Kept { netmap: Some(Arc::clone(netmap)), ..Kept::default() }
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

fn peer_key(n: u8) -> NodePublic {
    NodePublic::from_bytes([n; 32])
}

fn node(n: u8, key: NodePublic, routes: &[&str]) -> Value {
    let own = format!("100.64.0.{n}/32");
    let mut allowed: Vec<String> = vec![own.clone()];
    allowed.extend(routes.iter().map(|route| (*route).to_owned()));
    json!({
        "ID": n, "StableID": format!("n{n}"), "Name": format!("host{n}.lab.test."), "User": 1, "Key": key,
        "DiscoKey": DiscoPrivate::from_bytes([n; 32]).public(), "HomeDERP": 1,
        "Addresses": [own], "AllowedIPs": allowed, "MachineAuthorized": true, "Online": true,
    })
}

fn first_frame(own: NodePublic, peers: &[u8]) -> Value {
    let peers: Vec<Value> = peers.iter().map(|n| node(*n, peer_key(*n), &[])).collect();
    json!({
        "Node": node(1, own, &[]), "Peers": peers, "Domain": "lab.test",
        "DNSConfig": {"Proxied": true, "Domains": ["lab.test"]},
        "UserProfiles": [{"ID": 1, "LoginName": "lab", "DisplayName": "Lab"}],
        "PacketFilter": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}],
        "DERPMap": {"Regions": {"1": {"RegionID": 1, "RegionCode": "lab", "Nodes": []}}},
    })
}

fn notice_words(notice: &Notice) -> Vec<String> {
    let notify = match notice {
        Notice::EngineStatus => return vec!["Engine".into()],
        Notice::Message(notify) => notify,
        Notice::WithNetmap(notify, _) => return [words_of(notify), vec!["NetMap".into()]].concat(),
    };
    words_of(notify)
}

fn words_of(notify: &Notify) -> Vec<String> {
    let Value::Object(members) = serde_json::to_value(notify).unwrap() else { panic!() };
    members
        .into_iter()
        .filter(|(key, value)| !value.is_null() && key != "Version" && key != "Health")
        .map(|(key, value)| if key == "State" { format!("State:{value}") } else { key })
        .collect()
}

fn control_word(action: &ControlAction) -> String {
    match action {
        ControlAction::Start(start) => format!("start {}", start.server_url).trim().to_owned(),
        ControlAction::Stop => "stop".into(),
        ControlAction::Login { renew, auth_key } => format!("login renew={renew} key={}", auth_key.is_some()),
        ControlAction::Logout => "logout".into(),
        ControlAction::Hostinfo(_) => "hostinfo".into(),
        ControlAction::Pause(paused) => format!("pause={paused}"),
        ControlAction::Lock { number, .. } => format!("lock {number}"),
        ControlAction::LockHead(head) => format!("lock-head {head}"),
    }
}

#[test]
fn a_fresh_agent_needs_a_login_and_talks_to_nobody() {
    let bench = Bench::new();
    assert_eq!(bench.state(), BackendState::NeedsLogin);
    assert!(bench.control.is_empty());
    assert_eq!(bench.router, RouterConfig::default());
    let snapshot = bench.agent.snapshot(bench.now);
    assert!(!snapshot.have_node_key && snapshot.profiles.is_empty());
    assert_eq!(snapshot.health_texts, ["Tailscale is stopped."]);
}

#[test]
fn an_interactive_login_tells_watchers_in_the_captured_order() {
    let mut bench = Bench::new();
    assert_eq!(bench.start(""), ["Prefs", "Prefs", "State:2"]);
    bench.agent.login_interactive(bench.now);
    assert_eq!(bench.drain(), [""; 0], "the login of `start` goes on");
    assert_eq!(bench.take_control(), ["start", "login renew=false key=false"]);

    bench.agent.handle_control(ControlEvent::AuthUrl("https://hs.example/register/x".into()), bench.now);
    assert_eq!(bench.drain(), ["BrowseToURL"]);
    bench.agent.login_interactive(bench.now);
    assert_eq!(bench.drain(), ["BrowseToURL"], "who asks again is told where to go");
    assert_eq!(bench.agent.snapshot(bench.now).auth_url.as_deref(), Some("https://hs.example/register/x"));

    let key = NodePrivate::generate(&mut OsRng);
    let saved = bench.saved;
    assert_eq!(bench.logged_in(&key), ["LoginFinished", "Prefs", "State:5"]);
    assert!(bench.saved > saved, "the keys are stored at once");
    assert_eq!(bench.frame(first_frame(key.public(), &[2, 3])), ["Prefs", "SelfChange"]);
    assert_eq!(bench.contact(), ["State:6", "Engine"]);
    let snapshot = bench.agent.snapshot(bench.now);
    assert_eq!(snapshot.prefs.config.unwrap().user_profile.login_name, "lab");
    assert_eq!((snapshot.profile.name.as_str(), snapshot.profile.node_id.0.as_str()), ("lab", "n1"));
    assert_eq!(snapshot.auth_url, None);
}

#[test]
fn going_up_sets_address_routes_and_names_and_going_down_takes_them_away() {
    let (mut bench, _) = Bench::running();
    assert_eq!(bench.router.addresses, ["100.64.0.1".parse::<Ipv4Addr>().unwrap()]);
    assert_eq!(bench.router.routes.len(), 2);
    assert_eq!(bench.peers, BTreeSet::from([peer_key(2), peer_key(3)]));
    assert!(!bench.dns.is_empty());

    let words = bench.edit(json!({"WantRunning": false, "WantRunningSet": true})).unwrap();
    assert_eq!(words, ["Prefs", "State:4"]);
    assert_eq!((&bench.router, &bench.dns), (&RouterConfig::default(), &DnsConfig::default()));
    assert!(bench.peers.is_empty());
    assert_eq!(bench.take_control(), ["hostinfo", "stop"]);
    assert_eq!(
        bench.agent.poll_timeout(bench.now),
        bench.agent.cache_due,
        "nothing but the cache is left to do"
    );

    let words = bench.edit(json!({"WantRunning": true, "WantRunningSet": true})).unwrap();
    assert_eq!(words, ["Prefs", "State:5"]);
    assert_eq!(bench.take_control(), ["start", "login renew=false key=false"]);
    assert_eq!(bench.router.routes.len(), 2, "the known netmap is used at once");
    assert_eq!(bench.contact(), ["State:6", "Engine"]);
}

#[test]
fn without_a_relay_the_agent_runs_after_its_grace() {
    let mut bench = Bench::new();
    let key = NodePrivate::generate(&mut OsRng);
    bench.start("tskey-auth-x");
    bench.logged_in(&key);
    bench.frame(first_frame(key.public(), &[]));
    assert_eq!(bench.state(), BackendState::Starting);
    bench.advance(RELAY_GRACE);
    assert_eq!(bench.state(), BackendState::Running);
}

#[test]
fn losing_all_contact_is_no_start_anew() {
    let (mut bench, _) = Bench::running();
    let lost = EngineEvent::Contact { live_derp_count: 0, live_peer_count: 0 };
    bench.agent.handle_engine(lost.clone(), bench.now);
    assert_eq!(bench.state(), BackendState::Running);
    // What begins again has no contact yet.
    for wanted in [false, true] {
        bench.edit(json!({"WantRunning": wanted, "WantRunningSet": true})).unwrap();
    }
    bench.agent.handle_engine(lost, bench.now);
    assert_eq!(bench.state(), BackendState::Starting);
}

#[test]
fn a_refused_key_is_told_once_and_the_next_try_starts_clean() {
    let mut bench = Bench::new();
    bench.start("tskey-auth-bad");
    let trouble = |kind, text: &str| ControlEvent::Trouble { kind, during_login: true, text: text.into() };
    bench.agent.handle_control(trouble(TroubleKind::Final, "invalid pre auth key"), bench.now);
    assert_eq!(bench.drain(), ["ErrMessage"]);
    assert_eq!(bench.state(), BackendState::NeedsLogin);
    let texts = bench.agent.snapshot(bench.now).health_texts;
    assert!(texts.iter().all(|text| !text.contains("tskey")));
    bench.take_control();
    bench.start("tskey-auth-good");
    assert_eq!(bench.take_control(), ["login renew=false key=true"]);
    assert_eq!(bench.agent.snapshot(bench.now).health_texts, [""; 0]);
}

#[test]
fn a_node_that_the_server_forgot_and_refuses_is_logged_out() {
    let (mut bench, key) = Bench::running();
    let trouble = |kind, during_login| ControlEvent::Trouble {
        kind,
        during_login,
        text: "authkey already used".into(),
    };
    // A refusal alone, as of a new key that is wrong, costs the node nothing.
    bench.agent.handle_control(trouble(TroubleKind::Final, true), bench.now);
    assert_eq!(bench.state(), BackendState::Running);

    bench.agent.handle_control(trouble(TroubleKind::NodeUnknown, false), bench.now);
    assert_eq!(bench.state(), BackendState::NeedsLogin);
    bench.logged_in(&key);
    assert_eq!(bench.state(), BackendState::Starting, "the old netmap may name another address");
    bench.frame(first_frame(key.public(), &[2]));
    bench.contact();
    assert_eq!(bench.state(), BackendState::Running);
}

#[test]
fn a_forced_login_keeps_the_tunnel_up_and_shows_the_new_key() {
    let (mut bench, _) = Bench::running();
    assert_eq!(bench.start(""), ["Prefs", "State:6", "Engine"]);
    bench.agent.login_interactive(bench.now);
    bench.drain();
    assert_eq!(bench.take_control(), ["login renew=true key=false"], "one registration, not two");
    bench.agent.handle_control(ControlEvent::AuthUrl("https://x".into()), bench.now);
    assert_eq!(bench.state(), BackendState::Running);
    assert_eq!(bench.peers.len(), 2);
    bench.drain();
    let key = NodePrivate::generate(&mut OsRng);
    assert_eq!(bench.logged_in(&key), ["LoginFinished", "Prefs"]);
    bench.session.begin_stream();
    let words = bench.frame(first_frame(key.public(), &[2, 3]));
    assert_eq!(words, ["SelfChange", "NetMap"], "both forms of client learn of the key");
}

#[test]
fn a_map_that_is_faster_than_the_login_does_not_hide_the_new_key() {
    let (mut bench, _) = Bench::running();
    bench.start("");
    bench.agent.login_interactive(bench.now);
    bench.drain();
    let key = NodePrivate::generate(&mut OsRng);
    let words = bench.frame(json!({"Node": node(1, key.public(), &[])}));
    assert_eq!(words, [""; 0], "clients wait for the key that the login makes ours");
    assert_eq!(bench.logged_in(&key), ["LoginFinished", "Prefs", "SelfChange", "NetMap"]);
}

#[test]
fn a_second_call_that_comes_after_the_login_asks_for_no_other() {
    let mut bench = Bench::new();
    bench.start("tskey-auth-once");
    assert_eq!(bench.take_control(), ["start", "login renew=false key=true"]);
    bench.logged_in(&NodePrivate::generate(&mut OsRng));
    bench.agent.login_interactive(bench.now);
    bench.drain();
    assert_eq!(bench.take_control(), [""; 0]);
    // The next one stands for itself.
    bench.agent.login_interactive(bench.now);
    bench.drain();
    assert_eq!(bench.take_control(), ["login renew=true key=false"]);
    // And one that comes long after `start` is somebody's own wish.
    let mut late = Bench::new();
    late.start("tskey-auth-once");
    late.logged_in(&NodePrivate::generate(&mut OsRng));
    late.take_control();
    late.advance(START_PAIR + Duration::from_secs(1));
    late.agent.login_interactive(late.now);
    late.drain();
    assert_eq!(late.take_control(), ["login renew=true key=false"]);
}

#[test]
fn start_without_a_second_call_registers_again_after_a_moment() {
    for (key, delay, wanted) in [
        ("", START_DELAY, "login renew=false key=false"),
        ("tskey-auth-x", START_PAIR, "login renew=false key=true"),
    ] {
        let (mut bench, _) = Bench::running();
        bench.start(key);
        bench.advance(delay - Duration::from_millis(1));
        assert_eq!(bench.take_control(), [""; 0]);
        bench.advance(Duration::from_millis(1));
        assert_eq!(bench.take_control(), [wanted]);
    }
}

#[test]
fn a_second_call_that_comes_late_has_the_key_of_the_first() {
    let (mut bench, _) = Bench::running();
    bench.start("tskey-auth-once");
    bench.advance(START_PAIR - Duration::from_secs(1));
    bench.agent.login_interactive(bench.now);
    bench.drain();
    assert_eq!(bench.take_control(), ["login renew=true key=true"]);
    bench.advance(START_PAIR);
    assert_eq!(bench.take_control(), [""; 0]);
}

#[test]
fn a_node_that_the_server_has_forgotten_uses_the_key_at_once() {
    let (mut bench, _) = Bench::running();
    bench.start("tskey-auth-x");
    let (kind, text) = (TroubleKind::NodeUnknown, String::new());
    bench.agent.handle_control(ControlEvent::Trouble { kind, during_login: false, text }, bench.now);
    bench.drain();
    assert_eq!(bench.take_control(), ["login renew=false key=true"]);
}

#[test]
fn an_expired_key_takes_the_tunnel_down_and_start_asks_for_a_new_one() {
    let (mut bench, key) = Bench::running();
    let mut own = node(1, key.public(), &[]);
    own["KeyExpiry"] = json!("2026-11-22T13:00:00Z");
    bench.frame(json!({"Node": own}));
    let texts = bench.agent.snapshot(bench.now).health_texts;
    assert!(texts.iter().any(|text| text.contains("2026-11-22T13:00:00Z")), "{texts:?}");
    bench.advance(Duration::from_secs(3600));
    assert_eq!(bench.state(), BackendState::NeedsLogin);
    assert_eq!(bench.router, RouterConfig::default());
    bench.take_control();
    bench.start("");
    assert_eq!(bench.take_control(), ["login renew=true key=false"]);
    // An administrator extends the key: back without a login.
    let mut own = node(1, key.public(), &[]);
    own["KeyExpiry"] = json!("2027-11-22T13:00:00Z");
    bench.frame(json!({"Node": own}));
    bench.contact();
    assert_eq!(bench.state(), BackendState::Running);
}

#[test]
fn a_device_that_waits_for_approval_carries_nothing() {
    let mut bench = Bench::new();
    let key = NodePrivate::generate(&mut OsRng);
    bench.start("tskey-auth-x");
    bench.logged_in(&key);
    let mut frame = first_frame(key.public(), &[2]);
    frame["Node"]["MachineAuthorized"] = json!(false);
    assert!(bench.frame(frame).contains(&"State:3".to_owned()));
    assert!(bench.peers.is_empty() && bench.router == RouterConfig::default());
    bench.frame(json!({"Node": node(1, key.public(), &[])}));
    bench.contact();
    assert_eq!(bench.state(), BackendState::Running);
}

#[test]
fn deltas_touch_only_the_peers_they_name() {
    let (mut bench, _) = Bench::running();
    bench.frame(json!({"PeersChanged": [node(4, peer_key(4), &[])], "PeersRemoved": [2]}));
    assert_eq!(bench.peers, BTreeSet::from([peer_key(3), peer_key(4)]));
    let routes: Vec<String> = bench.router.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["100.64.0.3/32", "100.64.0.4/32"]);
    // Whether a peer is online is nothing to tunnel or host.
    let response: MapResponse = serde_json::from_value(json!({"OnlineChange": {"3": false}})).unwrap();
    let update = bench.session.handle(response, bench.now.wall).unwrap();
    let event = ControlEvent::Netmap { netmap: update.netmap.unwrap(), changes: update.changes };
    bench.agent.handle_control(event, bench.now);
    assert!(bench.agent.poll_action().is_none());
    // A new key is another peer.
    bench.frame(json!({"PeersChangedPatch": [{"NodeID": 3, "Key": peer_key(33)}]}));
    assert_eq!(bench.peers, BTreeSet::from([peer_key(33), peer_key(4)]));
}

#[test]
fn subnet_routes_are_taken_when_accepted_and_default_routes_never() {
    let (mut bench, _) = Bench::running();
    bench.frame(json!({"PeersChanged": [node(4, peer_key(4), &["10.7.0.0/16", "0.0.0.0/0"])]}));
    assert_eq!(bench.router.routes.len(), 3);
    assert!(bench.agent.snapshot(bench.now).health_texts[0].contains("--accept-routes"));
    bench.edit(json!({"RouteAll": true, "RouteAllSet": true})).unwrap();
    let routes: Vec<String> = bench.router.routes.iter().map(ToString::to_string).collect();
    assert!(
        routes.contains(&"10.7.0.0/16".to_owned()) && !routes.contains(&"0.0.0.0/0".to_owned()),
        "{routes:?}"
    );
    assert!(bench.agent.snapshot(bench.now).health_texts.is_empty());
    bench.edit(json!({"RouteAll": false, "RouteAllSet": true})).unwrap();
    assert_eq!(bench.router.routes.len(), 3);
}

#[test]
fn advertised_routes_reach_host_and_control() {
    let (mut bench, _) = Bench::running();
    bench
        .edit(json!({"AdvertiseRoutes": ["10.9.0.0/24", "192.0.2.0/24"], "AdvertiseRoutesSet": true}))
        .unwrap();
    assert_eq!(bench.router.advertised.len(), 2);
    assert!(bench.take_control().contains(&"hostinfo".to_owned()));
    // The interface that made one of them local is gone.
    let empty = LinkState {
        interfaces: vec![Interface { addresses: Vec::new(), ..links().interfaces[0].clone() }],
        ..links()
    };
    bench.agent.handle_link(Arc::new(empty), bench.now);
    bench.drain();
    assert_eq!(bench.router.advertised.len(), 1);
    let texts = bench.agent.snapshot(bench.now).health_texts;
    assert!(texts.iter().any(|text| text.contains("192.0.2.0/24") && !text.contains("10.9")), "{texts:?}");
    bench.agent.handle_link(Arc::new(links()), bench.now);
    bench.drain();
    assert_eq!(bench.router.advertised.len(), 2);
    assert!(bench.agent.snapshot(bench.now).health_texts.is_empty());
}

#[test]
fn a_foreign_firewall_is_shown_while_the_tunnel_is_up() {
    let (mut bench, _) = Bench::running();
    bench.router_warnings = vec!["a chain drops".to_owned(), "another too".to_owned()];
    bench.edit(json!({"AdvertiseRoutes": ["10.9.0.0/24"], "AdvertiseRoutesSet": true})).unwrap();
    let texts = bench.agent.snapshot(bench.now).health_texts;
    assert_eq!(texts, ["a chain drops; another too"]);
    bench.router_warnings.clear();
    bench.edit(json!({"WantRunning": false, "WantRunningSet": true})).unwrap();
    assert_eq!(bench.agent.snapshot(bench.now).health_texts, ["Tailscale is stopped."]);
}

#[test]
fn the_engine_hears_whether_control_can_be_reached() {
    let mut bench = Bench::new();
    assert_eq!(bench.control_reachable, Some(false));
    let key = NodePrivate::generate(&mut OsRng);
    bench.start("tskey-auth-x");
    bench.logged_in(&key);
    bench.frame(first_frame(key.public(), &[2]));
    for (event, reachable) in [(ControlEvent::Online, true), (ControlEvent::Offline, false)] {
        bench.agent.handle_control(event, bench.now);
        bench.drain();
        assert_eq!(bench.control_reachable, Some(reachable));
    }
}

#[test]
fn a_failed_step_is_reported_retried_and_not_counted_as_up() {
    let mut bench = Bench::new();
    let key = NodePrivate::generate(&mut OsRng);
    bench.fail_router = true;
    bench.start("tskey-auth-x");
    bench.logged_in(&key);
    bench.frame(first_frame(key.public(), &[2]));
    bench.contact();
    assert_eq!(bench.state(), BackendState::Starting);
    assert!(bench.agent.snapshot(bench.now).health_texts.contains(&"no permission".to_owned()));
    bench.fail_router = false;
    bench.advance(APPLY_RETRY);
    assert_eq!(bench.state(), BackendState::Running);
    assert_eq!(bench.router.routes.len(), 1);
    assert!(bench.agent.snapshot(bench.now).health_texts.is_empty());
}

#[test]
fn accounts_are_changed_without_leaving_anything_of_the_old_one() {
    let (mut bench, _) = Bench::running();
    let first = bench.agent.snapshot(bench.now).profile.id;
    bench.agent.new_profile(bench.now);
    assert_eq!(bench.drain(), ["Prefs", "State:2"]);
    assert!(bench.peers.is_empty() && bench.router == RouterConfig::default());
    assert_eq!(bench.take_control(), ["stop"]);
    assert_eq!(bench.agent.snapshot(bench.now).profiles.len(), 1);
    assert!(!bench.agent.snapshot(bench.now).have_node_key);
    // Late events of the old client change nothing.
    bench.agent.handle_control(ControlEvent::Online, bench.now);
    bench.agent.handle_control(ControlEvent::AuthUrl("https://late".into()), bench.now);
    assert_eq!(bench.agent.snapshot(bench.now).auth_url, None);

    assert!(bench.agent.switch_profile("zzzz", bench.now).is_err());
    bench.agent.switch_profile(&first, bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.state(), BackendState::Starting);
    assert_eq!(bench.take_control(), ["start", "login renew=false key=false"]);
    bench.agent.delete_profile("zzzz", bench.now);
    bench.agent.delete_profile(&first, bench.now);
    bench.drain();
    assert_eq!(bench.state(), BackendState::NeedsLogin);
    assert!(bench.agent.snapshot(bench.now).profiles.is_empty());
}

#[test]
fn logging_out_asks_the_server_and_forgets_the_keys_either_way() {
    let (mut bench, _) = Bench::running();
    assert_eq!(bench.agent.begin_logout(bench.now), LoginStep::AskServer);
    bench.drain();
    assert_eq!(bench.take_control(), ["logout"]);
    bench.agent.finish_logout(bench.now);
    bench.drain();
    assert_eq!(bench.take_control(), ["stop"]);
    assert_eq!(bench.state(), BackendState::NeedsLogin);
    assert!(!bench.agent.has_node_key() && bench.agent.snapshot(bench.now).profiles.is_empty());
    assert_eq!(bench.agent.begin_logout(bench.now), LoginStep::Done);
}

#[test]
fn another_server_is_another_account() {
    let (mut bench, _) = Bench::running();
    let machine = bench.agent.state().machine_key.clone();
    bench.edit(json!({"ControlURL": "https://hs.example", "ControlURLSet": true})).unwrap();
    let snapshot = bench.agent.snapshot(bench.now);
    assert!(!snapshot.have_node_key, "the key of one server is never shown to another");
    assert_eq!((snapshot.profiles.len(), snapshot.state), (1, BackendState::NeedsLogin));
    assert!(bench.peers.is_empty());
    assert!(bench.agent.state().machine_key == machine);
    // A first login that was tried on the wrong server is tried anew.
    let mut bench = Bench::new();
    bench.start("tskey-auth-x");
    bench.take_control();
    let prefs =
        Prefs { control_url: "https://hs.example".into(), want_running: true, ..crate::prefs::defaults() };
    let options = StartOptions {
        update_prefs: Some(Prefs { logged_out: false, ..prefs }),
        auth_key: "tskey-auth-x".into(),
        ..StartOptions::default()
    };
    bench.agent.start(options, &|_| true, bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.take_control(), ["stop", "start https://hs.example", "login renew=false key=true"]);
}

#[test]
fn prefs_that_cannot_be_had_change_nothing() {
    let (mut bench, _) = Bench::running();
    let before = bench.agent.snapshot(bench.now).prefs;
    let saved = bench.saved;
    let refusal =
        bench.edit(json!({"ShieldsUp": true, "ShieldsUpSet": true, "RunSSH": true, "RunSSHSet": true}));
    assert!(refusal.unwrap_err().contains("ssh"));
    let options = StartOptions {
        update_prefs: Some(Prefs { run_web_client: true, ..crate::prefs::defaults() }),
        ..StartOptions::default()
    };
    assert!(bench.agent.start(options, &|_| true, bench.now).is_err());
    assert_eq!(bench.drain(), [""; 0]);
    assert_eq!(bench.agent.snapshot(bench.now).prefs, before);
    assert_eq!(bench.saved, saved);
}

#[test]
fn a_cached_netmap_brings_the_tunnel_up_before_control_answers() {
    let (bench, key) = Bench::running();
    let mut json = Vec::new();
    tsrs_control_netmap::write_cache(bench.agent.netmap().unwrap(), &mut json).unwrap();
    let cached = tsrs_control_netmap::read_cache(&json, bench.now.wall).unwrap();
    let mut again = Bench::with_kept(bench.agent.state().clone(), kept(&cached));
    assert_eq!(again.router.routes.len(), 2);
    assert_eq!(again.peers.len(), 2);
    again.advance(RELAY_GRACE);
    assert_eq!(again.state(), BackendState::Running);
    // The cache of a login that is over is not taken.
    let fresh = State { machine_key: MachinePrivate::generate(&mut OsRng), profiles: Profiles::default() };
    assert!(Bench::with_kept(fresh, kept(&cached)).agent.netmap().is_none());
    // Nor one that nobody asked for.
    let mut other = Bench::new();
    other.agent.handle_kept("", kept(&cached), other.now);
    assert!(other.agent.netmap().is_none());
    // The first frame of control replaces what was cached.
    again.agent.handle_control(ControlEvent::Online, again.now);
    again.frame(first_frame(key.public(), &[3, 4]));
    assert!(again.peers.contains(&peer_key(4)));
}

#[test]
fn the_netmap_is_written_once_per_burst_and_not_for_who_is_online() {
    let (mut bench, _) = Bench::running();
    bench.agent.cache_due = None;
    bench.frame(json!({"OnlineChange": {"3": false}}));
    assert_eq!(bench.agent.cache_due, None);
    bench.frame(json!({"PeersRemoved": [2]}));
    let due = bench.agent.cache_due.unwrap();
    bench.advance(Duration::from_secs(1));
    bench.frame(json!({"PeersRemoved": [3]}));
    assert_eq!(bench.agent.cache_due, Some(due));
    bench.agent.handle_timeout(Now { mono: due, wall: bench.now.wall });
    assert!(
        std::iter::from_fn(|| bench.agent.poll_action())
            .any(|action| matches!(action, Action::CacheNetmap { .. }))
    );
    assert_eq!(bench.agent.cache_due, None);
}

#[test]
fn an_account_that_comes_back_begins_with_its_netmap_and_control_with_the_same() {
    let (mut bench, _) = Bench::running();
    let id = bench.agent.snapshot(bench.now).profile.id;
    bench.agent.new_profile(bench.now);
    bench.drain();
    assert!(bench.peers.is_empty());
    bench.take_control();
    bench.agent.switch_profile(&id, bench.now).unwrap();
    bench.drain();
    assert_eq!(bench.peers.len(), 2);
    assert_eq!(bench.take_control(), ["start", "login renew=false key=false"]);
    // Otherwise a peer that has gone meanwhile would stay, since its going would be no change.
    assert_eq!(bench.started_with.as_ref().map(|netmap| netmap.peers().len()), Some(2));
}

#[test]
fn a_network_that_is_gone_pauses_control() {
    let (mut bench, _) = Bench::running();
    bench.agent.handle_link(Arc::default(), bench.now);
    bench.drain();
    assert!(bench.take_control().contains(&"pause=true".to_owned()));
    assert_eq!(bench.state(), BackendState::Running, "peers on this host's networks may be back any moment");
    bench.advance(Duration::from_secs(6));
    assert!(bench.agent.snapshot(bench.now).health_texts.iter().any(|text| text.contains("network")));
    bench.agent.handle_link(Arc::new(links()), bench.now);
    bench.drain();
    assert!(bench.take_control().contains(&"pause=false".to_owned()));
}

#[test]
fn whois_names_peers_with_what_they_may_do() {
    use crate::status::{WhoIsAddr, whois};
    let (mut bench, _) = Bench::running();
    bench.frame(json!({"PacketFilters": {"grants": [{"SrcIPs": ["100.64.0.2"], "CapGrant": [
        {"Dsts": ["100.64.0.1/32"], "CapMap": {"example.test/cap/demo": [{"role": "reader"}]}}]}]}}));
    let ask =
        |bench: &Bench, ip: &str| whois(&bench.agent.snapshot(bench.now), WhoIsAddr::Ip(ip.parse().unwrap()));
    let found = ask(&bench, "100.64.0.2").unwrap();
    assert_eq!(found.node.unwrap().name, "host2.lab.test.");
    assert_eq!(found.user_profile.unwrap().login_name, "lab");
    assert!(found.cap_map.unwrap().contains("example.test/cap/demo"));
    assert_eq!(ask(&bench, "100.64.0.3").unwrap().cap_map, None);
    assert!(ask(&bench, "100.64.0.1").is_some(), "itself");
    assert!(ask(&bench, "100.99.0.1").is_none());
    // Also while stopped.
    bench.edit(json!({"WantRunning": false, "WantRunningSet": true})).unwrap();
    assert!(ask(&bench, "100.64.0.2").unwrap().cap_map.unwrap().contains("example.test/cap/demo"));
}

#[test]
fn rules_that_cannot_be_trusted_let_nobody_in() {
    let (mut bench, _) = Bench::running();
    let mut unsigned = node(4, peer_key(4), &[]);
    unsigned["UnsignedPeerAPIOnly"] = json!(true);
    bench.frame(json!({"PeersChanged": [unsigned], "PacketFilter": [
        {"SrcIPs": ["100.64.0.0/24"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}]}));
    let texts = bench.agent.snapshot(bench.now).health_texts;
    assert!(texts.iter().any(|text| text.contains("packet filter")), "{texts:?}");
}
