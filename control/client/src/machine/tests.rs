//! The session machine walked with a virtual clock.

use tsrs_base_types::time::WireTime;
use tsrs_base_types::{DiscoPublic, NodePrivate, RegionId};
use tsrs_control_tailcfg::{EndpointType, Hostinfo, NetInfo};

use super::*;
use crate::config::Endpoint;

const PAGE: &str = "https://hs.test/register/1";

/// The machine, its clock, and short names for what it does.
struct Walk {
    machine: Machine,
    now: Now,
    local: LocalState,
    registers: Vec<RegisterRequest>,
    maps: Vec<MapRequest>,
}

impl Walk {
    fn new() -> Self {
        Self::with_keys(NodeKeys::default())
    }

    fn with_keys(keys: NodeKeys) -> Self {
        let now = Now { mono: Instant::now(), wall: "2026-11-25T10:00:00Z".parse().unwrap() };
        let settings =
            LoginSettings { lock_key: None, auth_key: None, ephemeral: false, tailnet: String::new() };
        let local = LocalState { disco_key: DiscoPublic::from_bytes([1; 32]), ..LocalState::default() };
        let server = "https://hs.test".parse().unwrap();
        let machine = Machine::new(server, settings, keys, local.clone(), OsRng, now);
        Self { machine, now, local, registers: Vec::new(), maps: Vec::new() }
    }

    /// A machine whose node is logged in, with its first netmap.
    fn online() -> Self {
        let mut walk = Self::new();
        walk.machine.handle_login(false, None, walk.now);
        walk.accept();
        assert_eq!(walk.drain(), ["logged in", "register", "open map", "update"].map(str::to_owned));
        walk.netmap(None);
        walk.machine.handle_update_done(Ok(()), walk.now);
        assert_eq!(walk.drain(), ["online", "authorized true"].map(str::to_owned));
        walk
    }

    fn accept(&mut self) {
        self.machine.handle_register_done(Ok(RegisterResponse::default()), self.now);
    }

    fn netmap(&mut self, key_expiry: Option<Timestamp>) {
        let node = Node {
            key: self.machine.node_key(),
            machine_authorized: true,
            key_expiry: key_expiry.map(WireTime::from).unwrap_or_default(),
            ..Node::default()
        };
        self.machine.handle_netmap(&node, self.now);
    }

    /// What the machine did since the last time: events, then actions.
    fn drain(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        while let Some(event) = self.machine.poll_event() {
            names.push(match event {
                Event::AuthUrl(url) => format!("visit {url}"),
                Event::LoggedIn { .. } => "logged in".to_owned(),
                Event::LoggedOut => "logged out".to_owned(),
                Event::MachineAuthorized(is) => format!("authorized {is}"),
                Event::KeyExpired => "key expired".to_owned(),
                Event::Online => "online".to_owned(),
                Event::Offline => "offline".to_owned(),
                Event::Trouble(trouble) => format!("trouble {:?} {:?}", trouble.activity, trouble.kind),
                Event::Netmap { .. }
                | Event::OpenPage(_)
                | Event::ClientVersion(_)
                | Event::Ping(_)
                | Event::ExitWanted(_)
                | Event::DefaultAutoUpdate(_) => panic!("not from the machine: {event:?}"),
            });
        }
        while let Some(action) = self.machine.poll_action() {
            names.push(
                match action {
                    Action::Register(request) => {
                        self.registers.push(*request);
                        "register"
                    }
                    Action::CancelRegister => "cancel register",
                    Action::OpenMap(request) => {
                        self.maps.push(*request);
                        "open map"
                    }
                    Action::CloseMap => "close map",
                    Action::Update(request) => {
                        self.maps.push(*request);
                        "update"
                    }
                    Action::CancelUpdate => "cancel update",
                    Action::Expire(_) => "expire",
                    Action::Disconnect => "disconnect",
                }
                .to_owned(),
            );
        }
        names
    }

    /// Lets time pass to the next timeout, which must exist.
    fn pass(&mut self) -> Duration {
        let due = self.machine.poll_timeout(self.now).expect("something is due");
        let wait = due.saturating_duration_since(self.now.mono);
        self.now = Now { mono: self.now.mono + wait, wall: self.now.wall + wait };
        self.machine.handle_timeout(self.now);
        wait
    }

    fn assert_idle(&mut self) {
        assert_eq!(self.drain(), [""; 0]);
        assert_eq!(self.machine.poll_timeout(self.now), None);
    }
}

fn broken() -> Error {
    Error::Broken("gone".to_owned())
}

#[test]
fn an_auth_key_answers_for_its_own_login_alone() {
    let mut walk = Walk::new();
    walk.machine.handle_login(false, Some(Redacted::new("tskey-auth-x".to_owned())), walk.now);
    walk.accept();
    walk.drain();
    assert!(walk.registers[0].auth.is_some());
    walk.machine.handle_login(true, None, walk.now);
    walk.drain();
    assert_eq!(walk.registers.len(), 2);
    assert!(walk.registers[1].auth.is_none());
}

#[test]
fn nothing_happens_before_a_login() {
    let mut walk = Walk::with_keys(NodeKeys { current: Some(NodePrivate::generate(&mut OsRng)), old: None });
    walk.local.tka_head = "x".to_owned();
    walk.machine.handle_local(walk.local.clone(), walk.now);
    walk.machine.handle_timeout(walk.now);
    walk.assert_idle();
}

#[test]
fn login_opens_the_map_and_tells_our_state() {
    let mut walk = Walk::online();
    let [map, update] = &walk.maps[..] else { panic!("{:?}", walk.maps) };
    assert!(map.stream && !map.omit_peers && map.keep_alive && map.compress == "zstd");
    assert!(!update.stream && update.omit_peers);
    assert!(!map.node_key.is_zero() && map.node_key == update.node_key);
    assert_eq!(map.disco_key, DiscoPublic::from_bytes([1; 32]));
    assert!(map.hostinfo.is_some() && map.version == CapabilityVersion::CURRENT);
    walk.assert_idle();
}

#[test]
fn a_page_is_followed_until_the_user_came() {
    let mut walk = Walk::new();
    walk.machine.handle_login(false, None, walk.now);
    assert_eq!(walk.drain(), ["register"]);
    let page = RegisterResponse { auth_url: PAGE.to_owned(), ..RegisterResponse::default() };
    walk.machine.handle_register_done(Ok(page), walk.now);
    assert_eq!(walk.drain(), [format!("visit {PAGE}"), "register".to_owned()]);
    assert_eq!(walk.registers[1].followup, PAGE);
    // Asked again: the same page, and the wait goes on.
    walk.machine.handle_login(false, None, walk.now);
    assert_eq!(walk.drain(), [format!("visit {PAGE}")]);
    // With an auth key, or for a renewal, it begins anew.
    walk.machine.handle_login(false, Some(Redacted::new("k".to_owned())), walk.now);
    assert_eq!(walk.drain(), ["cancel register", "register"]);
    assert!(walk.registers[2].followup.is_empty() && walk.registers[2].auth.is_some());
    walk.accept();
    assert_eq!(walk.drain()[0], "logged in");
}

#[test]
fn failures_wait_longer_each_time_and_success_forgets_them() {
    let mut walk = Walk::online();
    let mut last = Duration::ZERO;
    for failure in 1..=20u32 {
        walk.machine.handle_map_ended(&broken(), walk.now);
        let names = walk.drain();
        let expected: &[&str] =
            if failure == 1 { &["offline", "trouble Map Broken"] } else { &["trouble Map Broken"] };
        assert_eq!(names, expected);
        last = walk.pass();
        let middle = f64::from(failure).powi(2) * 0.01;
        assert!((0.5 * middle..=1.5 * middle).contains(&last.as_secs_f64()), "{failure}: {last:?}");
        assert_eq!(walk.drain(), ["open map"]);
    }
    assert!(last > Duration::from_secs(1));
    walk.netmap(None);
    assert_eq!(walk.drain(), ["online"]);
    walk.machine.handle_map_ended(&broken(), walk.now);
    walk.drain();
    assert!(walk.pass() < Duration::from_millis(16));
}

#[test]
fn a_keep_alive_alone_does_not_reset_the_wait() {
    let mut walk = Walk::online();
    walk.machine.handle_map_ended(&broken(), walk.now);
    walk.pass();
    walk.machine.handle_map_ended(&broken(), walk.now);
    walk.drain();
    assert!(walk.pass() >= Duration::from_millis(20));
}

#[test]
fn changes_during_an_update_become_one_more_update() {
    let mut walk = Walk::online();
    for number in 0..5u8 {
        let addr = format!("192.0.2.{number}:41641").parse().unwrap();
        walk.local.endpoints = vec![Endpoint { addr, kind: EndpointType::STUN }];
        walk.machine.handle_local(walk.local.clone(), walk.now);
    }
    assert_eq!(walk.drain(), ["update"]);
    walk.machine.handle_update_done(Ok(()), walk.now);
    assert_eq!(walk.drain(), ["update"]);
    let last = walk.maps.last().unwrap();
    assert_eq!(last.endpoints, ["192.0.2.4:41641".parse().unwrap()]);
    assert_eq!(last.endpoint_types, [EndpointType::STUN]);
    walk.machine.handle_update_done(Ok(()), walk.now);
    walk.assert_idle();
}

#[test]
fn what_the_server_need_not_know_is_not_sent() {
    let mut walk = Walk::online();
    walk.machine.handle_local(walk.local.clone(), walk.now);
    walk.assert_idle();
    let net_info = NetInfo { preferred_derp: RegionId(1), ..NetInfo::default() };
    walk.local.net_info = Some(net_info.clone());
    walk.machine.handle_local(walk.local.clone(), walk.now);
    assert_eq!(walk.drain(), ["update"]);
    assert_eq!(walk.maps.last().unwrap().hostinfo.as_ref().unwrap().net_info.as_deref(), Some(&net_info));
    walk.machine.handle_update_done(Ok(()), walk.now);
    walk.local.net_info.as_mut().unwrap().derp_latency.insert("1-v4".to_owned(), 0.03);
    walk.machine.handle_local(walk.local.clone(), walk.now);
    walk.assert_idle();
    walk.local.hostinfo = Hostinfo { hostname: "new".to_owned(), ..Hostinfo::default() };
    walk.machine.handle_local(walk.local.clone(), walk.now);
    assert_eq!(walk.drain(), ["update"]);
}

#[test]
fn a_failed_update_is_sent_again_with_the_newest_state() {
    let mut walk = Walk::online();
    walk.local.tka_head = "one".to_owned();
    walk.machine.handle_local(walk.local.clone(), walk.now);
    walk.drain();
    let wait = Duration::from_secs(33);
    walk.machine.handle_update_done(Err(Error::RateLimited(wait)), walk.now);
    assert_eq!(walk.drain(), ["trouble Update RateLimited"]);
    walk.local.tka_head = "two".to_owned();
    walk.machine.handle_local(walk.local.clone(), walk.now);
    assert_eq!(walk.drain(), [""; 0]);
    assert_eq!(walk.pass(), wait);
    assert_eq!(walk.drain(), ["update"]);
    assert_eq!(walk.maps.last().unwrap().tka_head, "two");
}

#[test]
fn a_pause_cancels_everything_and_loses_nothing() {
    let mut walk = Walk::online();
    walk.local.tka_head = "one".to_owned();
    walk.machine.handle_local(walk.local.clone(), walk.now);
    walk.drain();
    walk.machine.handle_paused(true, walk.now);
    assert_eq!(walk.drain(), ["offline", "close map", "cancel update", "disconnect"]);
    walk.machine.handle_login(true, None, walk.now);
    walk.machine.handle_timeout(walk.now);
    walk.assert_idle();
    walk.machine.handle_paused(false, walk.now);
    assert_eq!(walk.drain(), ["register", "open map", "update"]);
    assert_eq!(walk.maps.last().unwrap().tka_head, "one");
}

#[test]
fn a_link_change_starts_all_again_at_once() {
    let mut walk = Walk::online();
    walk.machine.handle_map_ended(&broken(), walk.now);
    walk.machine.handle_login(true, None, walk.now);
    assert_eq!(walk.drain(), ["offline", "trouble Map Broken", "register"]);
    walk.machine.handle_link_change(walk.now);
    assert_eq!(walk.drain(), ["cancel register", "disconnect", "register", "open map"]);
    let [.., cancelled, again] = &walk.registers[..] else { panic!() };
    assert_eq!(cancelled.node_key, again.node_key, "the new key is not burnt");
}

#[test]
fn a_renewal_keeps_the_old_session_until_it_succeeds() {
    let mut walk = Walk::online();
    let old = walk.machine.node_key();
    walk.machine.handle_login(true, None, walk.now);
    assert_eq!(walk.drain(), ["register"]);
    let page = RegisterResponse { auth_url: PAGE.to_owned(), ..RegisterResponse::default() };
    walk.machine.handle_register_done(Ok(page), walk.now);
    assert_eq!(walk.drain(), [format!("visit {PAGE}"), "register".to_owned()]);
    assert_eq!(walk.machine.node_key(), old);
    walk.accept();
    assert_eq!(walk.drain(), ["logged in", "offline", "close map", "open map", "update"]);
    assert_ne!(walk.machine.node_key(), old);
    assert_eq!(walk.maps.last().unwrap().node_key, walk.machine.node_key());
}

#[test]
fn an_unknown_node_registers_before_it_asks_again() {
    for is_update in [false, true] {
        let mut walk = Walk::online();
        if is_update {
            walk.local.tka_head = "one".to_owned();
            walk.machine.handle_local(walk.local.clone(), walk.now);
            walk.drain();
            walk.machine.handle_update_done(Err(Error::NodeUnknown), walk.now);
            let expected = ["trouble Update NodeUnknown", "offline", "close map", "register"];
            assert_eq!(walk.drain(), expected);
        } else {
            walk.machine.handle_map_ended(&Error::NodeUnknown, walk.now);
            assert_eq!(walk.drain(), ["offline", "trouble Map NodeUnknown", "register"]);
        }
        // The server wants the user to come: nothing else is tried meanwhile.
        let page = RegisterResponse { auth_url: PAGE.to_owned(), ..RegisterResponse::default() };
        walk.machine.handle_register_done(Ok(page), walk.now);
        assert_eq!(walk.drain(), [format!("visit {PAGE}"), "register".to_owned()]);
        walk.assert_idle();
        walk.accept();
        assert_eq!(walk.drain(), ["logged in", "open map", "update"]);
    }
}

#[test]
fn the_key_expires_at_its_time_and_the_next_login_makes_a_new_one() {
    let mut walk = Walk::online();
    let old = walk.machine.node_key();
    walk.netmap(Some(walk.now.wall + Duration::from_secs(600)));
    assert_eq!(walk.drain(), [""; 0]);
    assert_eq!(walk.pass(), Duration::from_secs(600));
    assert_eq!(walk.drain(), ["key expired"]);
    walk.assert_idle();
    // The administrator gives it more time.
    walk.netmap(Some(walk.now.wall + Duration::from_secs(60)));
    walk.pass();
    assert_eq!(walk.drain(), ["key expired"]);
    walk.machine.handle_login(false, None, walk.now);
    assert_eq!(walk.drain(), ["register"]);
    let request = walk.registers.last().unwrap();
    assert_eq!(request.old_node_key, old);
    assert_ne!(request.node_key, old);
}

#[test]
fn a_netmap_for_another_key_says_nothing_about_ours() {
    let mut walk = Walk::online();
    let node =
        Node { key_expiry: WireTime::from(walk.now.wall), machine_authorized: false, ..Node::default() };
    walk.machine.handle_netmap(&node, walk.now);
    assert_eq!(walk.drain(), ["authorized false"]);
    walk.assert_idle();
}

#[test]
fn logout_ends_everything_and_a_failed_one_changes_nothing() {
    let mut walk = Walk::online();
    walk.machine.handle_expire(Expiry::Logout, walk.now);
    assert_eq!(walk.drain(), ["expire"]);
    walk.machine.handle_expiry_done(Expiry::Logout, false, walk.now);
    walk.assert_idle();
    assert!(!walk.machine.node_key().is_zero());

    walk.machine.handle_expire(Expiry::Logout, walk.now);
    walk.drain();
    walk.machine.handle_expiry_done(Expiry::Logout, true, walk.now);
    assert_eq!(walk.drain(), ["offline", "logged out", "close map"]);
    assert!(walk.machine.node_key().is_zero());
    walk.assert_idle();
    // Without a key there is nothing to send.
    walk.machine.handle_expire(Expiry::Logout, walk.now);
    assert_eq!(walk.drain(), ["logged out"]);

    walk.machine.handle_login(false, None, walk.now);
    assert_eq!(walk.drain(), ["register"]);
    assert!(walk.registers.last().unwrap().old_node_key.is_zero());
}

#[test]
fn logout_ends_a_login_that_waits() {
    let mut walk = Walk::new();
    walk.machine.handle_login(false, None, walk.now);
    walk.drain();
    walk.machine.handle_expire(Expiry::Logout, walk.now);
    assert_eq!(walk.drain(), ["logged out", "cancel register"]);
    walk.accept();
    walk.assert_idle();
}

#[test]
fn late_answers_of_cancelled_calls_change_nothing() {
    let mut walk = Walk::online();
    walk.machine.handle_paused(true, walk.now);
    walk.drain();
    walk.machine.handle_map_ended(&broken(), walk.now);
    walk.machine.handle_update_done(Err(broken()), walk.now);
    walk.machine.handle_register_done(Err(broken()), walk.now);
    assert_eq!(walk.drain(), [""; 0]);
}

#[test]
fn an_owner_that_does_not_listen_gets_the_newest_trouble_only() {
    let mut walk = Walk::online();
    for _ in 0..100 {
        walk.machine.handle_map_ended(&broken(), walk.now);
        walk.pass();
    }
    let troubles =
        std::iter::from_fn(|| walk.machine.poll_event()).filter(|event| matches!(event, Event::Trouble(_)));
    assert_eq!(troubles.count(), 1);
}
