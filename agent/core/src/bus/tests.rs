use tsrs_agent_localapi::notify::{EngineStatus, HealthState, PeerState};
use tsrs_agent_localapi::tailcfg::{Node, PeerChange};
use tsrs_agent_localapi::{BackendState, Prefs, Status};
use tsrs_base_types::NodeId;

use super::*;

fn everything() -> Notify {
    Notify {
        version: "1".into(),
        session_id: "abc".into(),
        state: Some(BackendState::Running),
        browse_to_url: Some("https://x".into()),
        prefs: Some(Box::new(Prefs::zero())),
        net_map: Some(serde_json::json!({})),
        self_change: Some(Box::default()),
        health: Some(HealthState::default()),
        initial_status: Some(Box::new(Status::default())),
        peer_state: [(NodeId(1), PeerState::default())].into(),
        peers_changed: vec![Node::default()],
        peers_removed: vec![NodeId(2)],
        peer_changed_patch: vec![PeerChange::default()],
        ..Notify::default()
    }
}

/// Names of the members that hold a value.
fn members(notify: &Notify) -> Vec<String> {
    let value = serde_json::to_value(notify).unwrap();
    let object = value.as_object().unwrap();
    object
        .iter()
        .filter(|(key, value)| !value.is_null() && *key != "Version")
        .map(|(key, _)| key.clone())
        .collect()
}

#[test]
fn the_first_message_holds_what_the_mask_asks_for() {
    for (mask, wanted) in [
        (2, &["BrowseToURL", "SessionID", "State"][..]),
        (4, &["Prefs"]),
        (8, &["NetMap", "SelfChange"]),
        (14, &["BrowseToURL", "NetMap", "Prefs", "SelfChange", "SessionID", "State"]),
        (128, &["Health"]),
        (8320, &["Health"]),
        (4160, &[]),
        (16384, &["InitialStatus"]),
        (45062, &["BrowseToURL", "Prefs", "SessionID", "State"]),
        (
            327_399 & !65536,
            &["BrowseToURL", "Health", "InitialStatus", "PeerState", "Prefs", "SessionID", "State"],
        ),
    ] {
        assert_eq!(members(&first(WatchMask(mask), everything()).unwrap()), wanted, "{mask}");
    }
    for mask in [0, 1, 4096, 8192, 32768] {
        assert_eq!(first(WatchMask(mask), everything()), None, "{mask}");
    }
}

#[test]
fn later_messages_leave_out_peers_unless_asked_for() {
    let cut = |mask| members(&later(WatchMask(mask), &everything()).unwrap());
    let plain = ["BrowseToURL", "Health", "NetMap", "Prefs", "SelfChange", "State"];
    assert_eq!(cut(0), plain);
    assert!(cut(4096).contains(&"PeersChanged".to_owned()) && cut(4096).contains(&"PeersRemoved".to_owned()));
    assert!(cut(32768).contains(&"PeerChangedPatch".to_owned()));
    assert!(!cut(8192).contains(&"NetMap".to_owned()));
    assert!(cut(1 << 18).contains(&"PeerState".to_owned()));
    let peers_only = Notify { peers_removed: vec![NodeId(2)], ..Notify::default() };
    assert_eq!(later(WatchMask(0), &peers_only), None);
    assert_eq!(later(WatchMask(4096), &peers_only), Some(peers_only.clone()));
}

#[test]
fn masks_are_decimal_and_the_inside_bit_is_refused() {
    assert_eq!(parse_mask(None), Ok(WatchMask(0)));
    assert_eq!(parse_mask(Some("45062")), Ok(WatchMask(45062)));
    assert_eq!(parse_mask(Some("x")), Err("bad mask"));
    assert_eq!(parse_mask(Some("-1")), Err("bad mask"));
    assert!(parse_mask(Some("65536")).unwrap_err().contains("in-process"));
}

#[test]
fn statistics_wait_and_the_rest_does_not() {
    let now = Instant::now();
    let stats = |n| Notify {
        engine: Some(EngineStatus { rx_bytes: n, ..EngineStatus::default() }),
        ..Notify::default()
    };
    let mut limiter = RateLimiter::default();
    assert!(limiter.handle(stats(1), now).is_some(), "the first goes out at once");
    assert_eq!(limiter.poll_timeout(), None);
    assert_eq!(limiter.handle(stats(2), now), None);
    assert_eq!(limiter.handle(stats(3), now), None);
    assert_eq!(limiter.poll_timeout(), Some(now + RATE_LIMIT));
    assert_eq!(limiter.handle_timeout(now), None);
    let state = Notify { state: Some(BackendState::Running), ..Notify::default() };
    let sent = limiter.handle(state, now).unwrap();
    assert_eq!((sent.state, sent.engine.unwrap().rx_bytes), (Some(BackendState::Running), 3));
    assert_eq!(limiter.handle(stats(4), now), None);
    let sent = limiter.handle_timeout(now + RATE_LIMIT).unwrap();
    assert_eq!(sent.engine.unwrap().rx_bytes, 4);
    assert_eq!(limiter.handle_timeout(now + RATE_LIMIT * 2), None);
}
