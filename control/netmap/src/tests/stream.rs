//! Behaviour of a session over frames, streams and time.

use tsrs_control_tailcfg::{ControlDialPlan, DisplayMessage};

use super::*;

fn frames(name: &str) -> Vec<MapResponse> {
    let file = tsrs_lab_vectors::json(name);
    let frames = file["frames"].as_array().unwrap();
    frames.iter().map(|frame| response(frame["map_response"].clone())).collect()
}

fn removed(changes: &[Change]) -> Vec<i64> {
    let id = |change: &Change| if let Change::PeerRemoved(node) = change { Some(node.id.0) } else { None };
    changes.iter().filter_map(id).collect()
}

fn added(changes: &[Change]) -> Vec<i64> {
    let id = |change: &Change| if let Change::PeerAdded(node) = change { Some(node.id.0) } else { None };
    changes.iter().filter_map(id).collect()
}

fn changed(changes: &[Change]) -> Vec<i64> {
    let id = |change: &Change| {
        if let Change::PeerChanged { after, .. } = change { Some(after.id.0) } else { None }
    };
    changes.iter().filter_map(id).collect()
}

fn assert_same_netmap(one: &Netmap, other: &Netmap) {
    let none = change::changes(Some(one), other, change::Touched::All);
    let none: Vec<_> = none.into_iter().filter(|change| *change != Change::UserProfiles).collect();
    assert_eq!(none, []);
    assert!(one.user_profiles().eq(other.user_profiles()));
}

#[test]
fn every_captured_first_frame_gives_a_netmap() {
    for name in ["allow-all", "deny-all", "restricted", "tagged"] {
        let mut session = Session::new();
        for frame in frames(&format!("headscale/map-first-{name}.json")) {
            session.handle(frame, early()).unwrap();
        }
        let netmap = session.netmap().unwrap();
        assert_eq!(netmap.magic_dns_suffix(), "lab.test");
        assert_eq!(netmap.peers().is_empty(), name == "deny-all", "{name}");
        assert!(netmap.derp_map().region(RegionId(999)).is_some());
    }
}

#[test]
fn a_captured_stream_ends_where_a_fresh_one_would_begin() {
    let frames = frames("headscale/map-stream.json");
    let now = at("2026-11-22T23:00:00Z");
    let mut session = Session::new();
    // A second session that is told every state as one full first frame.
    let mut model = Model::default();
    for frame in frames {
        model.apply(&frame);
        let before = session.netmap().cloned();
        let update = session.handle(frame, now).unwrap();
        assert_eq!(update.netmap.is_none(), update.changes.is_empty());
        let netmap = session.netmap().unwrap();
        let fresh = Session::new().handle(model.first_frame(), now).unwrap().netmap.unwrap();
        assert_same_netmap(netmap, &fresh);
        // The changes are exactly what differs.
        let mut expected = change::changes(before.as_deref(), netmap, change::Touched::All);
        expected.retain(|change| *change != Change::UserProfiles || update.changes.contains(change));
        assert_eq!(update.changes, expected);
    }
    assert!(model.peers.len() > 1);
}

/// The state of a stream kept as plain members, to build a complete first frame from.
#[derive(Default)]
struct Model {
    last: MapResponse,
    peers: std::collections::BTreeMap<NodeId, Node>,
}

impl Model {
    fn apply(&mut self, frame: &MapResponse) {
        if frame.keep_alive {
            return;
        }
        assert!(
            frame.peer_seen_change.is_empty() && frame.online_change.is_empty(),
            "not sent by this server"
        );
        if !frame.peers.is_empty() {
            self.peers = frame.peers.iter().map(|node| (node.id, node.clone())).collect();
        }
        for id in &frame.peers_removed {
            self.peers.remove(id);
        }
        for node in &frame.peers_changed {
            self.peers.insert(node.id, node.clone());
        }
        for patch in &frame.peers_changed_patch {
            if let Some(node) = self.peers.get_mut(&patch.node_id) {
                peers::apply_patch(node, patch.clone());
            }
        }
        let last = &mut self.last;
        last.node = frame.node.clone().or(last.node.take());
        last.derp_map = frame.derp_map.clone().or(last.derp_map.take());
        last.dns_config = frame.dns_config.clone().or(last.dns_config.take());
        last.ssh_policy = frame.ssh_policy.clone().or(last.ssh_policy.take());
        if !frame.domain.is_empty() {
            last.domain.clone_from(&frame.domain);
        }
        if !frame.packet_filters.is_empty() {
            last.packet_filters.clone_from(&frame.packet_filters);
        }
        last.user_profiles.extend(frame.user_profiles.iter().cloned());
    }

    fn first_frame(&self) -> MapResponse {
        MapResponse { peers: self.peers.values().cloned().collect(), ..self.last.clone() }
    }
}

#[test]
fn a_delta_names_exactly_the_peers_that_differ() {
    let mut session = session([node(1), node(2), node(3), node(4)]);
    let update = session
        .handle(
            response(json!({
                "PeersRemoved": [3, 77],
                "PeersChanged": [node(5), node(4)],
                "PeersChangedPatch": [{"NodeID": 2, "DERPRegion": 7}, {"NodeID": 1, "DERPRegion": 1}, {"NodeID": 99, "Cap": 1}],
            })),
            early(),
        )
        .unwrap();
    assert_eq!(removed(&update.changes), [3]);
    assert_eq!(changed(&update.changes), [2]);
    assert_eq!(added(&update.changes), [5]);
    assert_eq!(update.changes.len(), 3);
    let netmap = update.netmap.unwrap();
    assert_eq!(ids(&netmap), [1, 2, 4, 5]);
    assert_eq!(netmap.peers().get(NodeId(2)).unwrap().home_derp, RegionId(7));
}

#[test]
fn snapshots_share_the_peers_that_did_not_change() {
    let mut session = session((1..=50).map(node));
    let before = Arc::clone(session.netmap().unwrap());
    let patch = response(json!({"PeersChangedPatch": [{"NodeID": 7, "Online": true}]}));
    let after = session.handle(patch, early()).unwrap().netmap.unwrap();
    assert_eq!(before.peers().get(NodeId(7)).unwrap().online, None);
    for (old, new) in before.peers().iter().zip(after.peers().iter()) {
        assert_eq!(Arc::ptr_eq(old, new), old.id != NodeId(7));
    }
    let (old, new) = (before.peers().get(NodeId(7)).unwrap(), after.peers().get(NodeId(7)).unwrap());
    assert!(Arc::ptr_eq(old.hostinfo.as_ref().unwrap(), new.hostinfo.as_ref().unwrap()));
    assert!(Arc::ptr_eq(before.derp_map(), after.derp_map()));
}

#[test]
fn a_frame_that_changes_nothing_gives_no_snapshot() {
    let mut session = session([node(1)]);
    let before = Arc::clone(session.netmap().unwrap());
    for same in [
        json!({}),
        json!({"Node": node(1000)}),
        json!({"PeersChanged": [node(1)]}),
        json!({"Peers": [node(1)]}),
    ] {
        let update = session.handle(response(same), early()).unwrap();
        assert!(update.netmap.is_none() && update.changes.is_empty());
    }
    let after = session.netmap().unwrap();
    assert!(before.peers().iter().zip(after.peers().iter()).all(|(old, new)| Arc::ptr_eq(old, new)));
}

#[test]
fn peers_are_found_by_key_and_address_through_changes() {
    let mut session = session([node(1), node(2)]);
    let key = |id: i64| format!("nodekey:{id:064x}").parse().unwrap();
    let addr = |text: &str| text.parse().unwrap();
    let netmap = Arc::clone(session.netmap().unwrap());
    assert_eq!(netmap.node_by_key(&key(2)).unwrap().id, NodeId(2));
    assert_eq!(netmap.node_by_addr(addr("100.64.0.1")).unwrap().id, NodeId(1));
    assert_eq!(netmap.node_by_addr(addr("100.64.3.232")).unwrap().id, NodeId(1000));
    assert_eq!(netmap.node_by_key(&key(1000)).unwrap().id, NodeId(1000));
    assert_eq!(netmap.node(NodeId(1000)).unwrap().id, NodeId(1000));
    assert!(netmap.node_by_addr(addr("100.64.0.3")).is_none());

    // The address moves from one peer to another, and a key is rotated.
    let update = response(json!({
        "PeersChanged": [with(node(2), json!({"Addresses": ["100.64.0.1/32", "10.0.0.0/8"]}))],
        "PeersRemoved": [1],
        "PeersChangedPatch": [{"NodeID": 2, "Key": format!("nodekey:{:064x}", 9)}],
    }));
    let netmap = session.handle(update, early()).unwrap().netmap.unwrap();
    assert_eq!(netmap.node_by_addr(addr("100.64.0.1")).unwrap().id, NodeId(2));
    assert!(netmap.node_by_addr(addr("100.64.0.2")).is_none());
    assert!(netmap.node_by_addr(addr("10.0.0.0")).is_none(), "a subnet is no own address");
    assert_eq!(netmap.node_by_key(&key(9)).unwrap().id, NodeId(2));
    assert!(netmap.node_by_key(&key(2)).is_none() && netmap.node_by_key(&key(1)).is_none());
}

#[test]
fn an_address_claimed_twice_stays_found_when_one_goes() {
    let twin = with(node(2), json!({"Addresses": ["100.64.0.1/32"]}));
    let mut session = session([node(1), twin]);
    session.handle(response(json!({"PeersRemoved": [1]})), early()).unwrap();
    let netmap = session.netmap().unwrap();
    assert_eq!(netmap.node_by_addr("100.64.0.1".parse().unwrap()).unwrap().id, NodeId(2));
}

#[test]
fn the_first_frame_of_a_stream_must_name_us() {
    let mut session = Session::new();
    for frame in [json!({}), json!({"PeersChanged": [node(1)]}), json!({"Peers": [node(1)]})] {
        assert!(matches!(session.handle(response(frame), early()), Err(Error::NoNode)));
    }
    assert!(session.handle(response(json!({"KeepAlive": true, "PeersRemoved": [1]})), early()).is_ok());
    assert!(session.netmap().is_none());
    assert!(session.handle(response(json!({"Node": node(1000)})), early()).is_ok());
}

#[test]
fn a_new_stream_starts_from_nothing_and_tells_the_difference() {
    let mut session = Session::new();
    let first = json!({"Node": node(1000), "Peers": [node(1), node(2)], "Domain": "a", "DERPMap": {"Regions": {"1": {"RegionID": 1}}}});
    session.handle(response(first), early()).unwrap();
    session.begin_stream();
    assert!(
        session.handle(response(json!({"PeersRemoved": [1]})), early()).is_err(),
        "no state of the old stream"
    );
    assert_eq!(ids(session.netmap().unwrap()), [1, 2], "an ended stream clears nothing");
    let second = json!({"Node": node(1000), "Peers": [node(2), node(3)], "Domain": "a"});
    let update = session.handle(response(second), early()).unwrap();
    assert_eq!((removed(&update.changes), added(&update.changes)), (vec![1], vec![3]));
    assert_eq!(update.changes.len(), 3, "{:?}", update.changes);
    assert!(update.changes.contains(&Change::DerpMap));
    assert_eq!(session.netmap().unwrap().derp_map().regions().count(), 0);
}

#[test]
fn a_new_stream_without_visible_peers_removes_all() {
    let mut session = session([node(1)]);
    session.begin_stream();
    let update = session.handle(response(json!({"Node": node(1000)})), early()).unwrap();
    assert_eq!(update.changes, [Change::PeerRemoved(Arc::new(expected_peer()))]);

    fn expected_peer() -> Node {
        let mut peer: Node = serde_json::from_value(node(1)).unwrap();
        canonicalize(&mut peer, "tail1234.ts.net");
        peer
    }
}

#[test]
fn another_suffix_renames_all_peers() {
    let mut session = session([node(1), node(2)]);
    let renamed = with(node(1000), json!({"Name": "host1000.other.net."}));
    let update = session.handle(response(json!({"Node": renamed, "PeersRemoved": [2]})), early()).unwrap();
    let netmap = update.netmap.unwrap();
    assert_eq!(netmap.peers().get(NodeId(1)).unwrap().computed_name, "host1.tail1234.ts.net");
    assert_eq!((changed(&update.changes), removed(&update.changes)), (vec![1], vec![2]));
}

#[test]
fn requests_are_taken_out_of_keep_alives_and_given_once() {
    let mut session = session([]);
    let frame = json!({
        "KeepAlive": true,
        "PingRequest": {"URL": "https://192.0.2.1/ping?id=1"},
        "PopBrowserURL": "https://192.0.2.1/a",
        "ClientVersion": {"LatestVersion": "2.0"},
        "ControlDialPlan": {"Candidates": [{"IP": "192.0.2.9"}]},
        "Debug": {"SleepSeconds": 1.5},
        "Domain": "ignored",
    });
    let requests = session.handle(response(frame.clone()), early()).unwrap().requests;
    assert!(requests.keep_alive && requests.ping.is_some() && requests.client_version.is_some());
    assert_eq!(requests.pop_browser_url.as_deref(), Some("https://192.0.2.1/a"));
    assert!(requests.debug.is_none(), "state of a keep-alive is void");
    let again = session.handle(response(frame), early()).unwrap().requests;
    assert!(again.ping.is_none() && again.pop_browser_url.is_none());
    let other = json!({"PingRequest": {"URL": "https://192.0.2.1/ping?id=2"}, "Debug": {"Exit": 1}});
    let update = session.handle(response(other), early()).unwrap();
    assert!(update.requests.ping.is_some() && update.requests.debug.is_some());
    assert_eq!(update.changes, [Change::DialPlan], "the plan of the keep-alive is in the next snapshot");
}

#[test]
fn a_dial_plan_outlives_its_stream_and_an_empty_one_replaces_it() {
    let plan = |session: &Session| session.netmap().unwrap().dial_plan().map(|plan| plan.candidates.len());
    let mut session = Session::new();
    let first = json!({"Node": node(1000), "ControlDialPlan": {"Candidates": [{"IP": "192.0.2.9"}]}});
    session.handle(response(first), early()).unwrap();
    session.begin_stream();
    session.handle(response(json!({"Node": node(1000)})), early()).unwrap();
    assert_eq!(plan(&session), Some(1));
    session.handle(response(json!({"ControlDialPlan": {}})), early()).unwrap();
    assert_eq!(plan(&session), Some(0));
    assert_eq!(**session.netmap().unwrap().dial_plan().unwrap(), ControlDialPlan::default());
}

#[test]
fn an_expired_peer_is_visible_but_unreachable_until_its_expiry_moves() {
    let mortal = with(node(1), json!({"KeyExpiry": "2024-06-01T00:00:00Z"}));
    let mut session = session([mortal, node(2)]);
    assert_eq!(session.poll_timeout(), Some(at("2024-06-01T00:00:10Z")));
    assert!(session.handle_time(at("2024-05-31T23:59:59Z")).changes.is_empty());

    let update = session.handle_time(at("2024-06-01T00:00:10Z"));
    assert_eq!(changed(&update.changes), [1]);
    let netmap = update.netmap.unwrap();
    let peer = netmap.peers().get(NodeId(1)).unwrap();
    assert!(peer.expired && peer.endpoints.is_empty() && peer.derp_region().is_none());
    assert_eq!(peer.key.short(), "[bad01]");
    assert_eq!(peer.computed_name, "host1");
    assert_eq!(session.poll_timeout(), None);

    // A patch reaches the peer as the server knows it.
    let now = at("2024-06-02T00:00:00Z");
    session.handle(response(json!({"PeersChangedPatch": [{"NodeID": 1, "DERPRegion": 4}]})), now).unwrap();
    let peer = Arc::clone(session.netmap().unwrap().peers().get(NodeId(1)).unwrap());
    assert!(peer.expired && peer.derp_region().is_none());
    let longer = json!({"PeersChangedPatch": [{"NodeID": 1, "KeyExpiry": "2025-01-01T00:00:00Z"}]});
    let netmap = session.handle(response(longer), now).unwrap().netmap.unwrap();
    let peer = netmap.peers().get(NodeId(1)).unwrap();
    assert!(!peer.expired && peer.endpoints.len() == 1);
    assert_eq!((peer.home_derp, peer.key), (RegionId(4), format!("nodekey:{:064x}", 1).parse().unwrap()));
    assert_eq!(session.poll_timeout(), Some(at("2025-01-01T00:00:10Z")));

    // The zero time: never.
    let never = json!({"PeersChangedPatch": [{"NodeID": 1, "KeyExpiry": "0001-01-01T00:00:00Z"}]});
    session.handle(response(never), now).unwrap();
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn a_peer_that_comes_expired_is_unreachable_at_once() {
    let dead = with(node(1), json!({"KeyExpiry": "2023-06-01T00:00:00Z"}));
    let mut session = session([dead.clone()]);
    assert!(session.netmap().unwrap().peers().get(NodeId(1)).unwrap().expired);
    session
        .handle(
            response(
                json!({"PeersChanged": [with(dead, json!({"ID": 2, "Key": format!("nodekey:{:064x}", 2)}))]}),
            ),
            early(),
        )
        .unwrap();
    assert!(session.netmap().unwrap().peers().get(NodeId(2)).unwrap().expired);
    session.handle(response(json!({"PeersRemoved": [1, 2]})), early()).unwrap();
    assert!(session.netmap().unwrap().peers().is_empty());
}

#[test]
fn what_the_server_calls_expired_is_left_as_it_is() {
    let dead = with(node(1), json!({"KeyExpiry": "2023-06-01T00:00:00Z", "Expired": true}));
    let session = session([dead]);
    let peer = session.netmap().unwrap().peers().get(NodeId(1)).unwrap();
    assert!(peer.expired && peer.endpoints.len() == 1);
    assert_eq!(session.poll_timeout(), None);
}

#[test]
fn expiry_goes_by_controls_clock() {
    let mut session = Session::new();
    let mortal = with(node(1), json!({"KeyExpiry": "2024-06-01T00:00:00Z"}));
    let frame = json!({"Node": node(1000), "Peers": [mortal], "ControlTime": "2024-05-31T12:00:00Z"});
    // Our clock is a day ahead; by it, the peer would have expired.
    session.handle(response(frame), at("2024-06-01T12:00:00Z")).unwrap();
    assert!(!session.netmap().unwrap().peers().get(NodeId(1)).unwrap().expired);
    assert_eq!(session.poll_timeout(), Some(at("2024-06-02T00:00:10Z")));
    assert_eq!(session.control_now(at("2024-06-02T00:00:00Z")), Some(at("2024-06-01T00:00:00Z")));
    assert_eq!(changed(&session.handle_time(at("2024-06-02T00:00:10Z")).changes), [1]);
}

#[test]
fn nothing_expires_by_a_clock_that_is_surely_wrong() {
    let mut session = Session::new();
    let dead = with(node(1), json!({"KeyExpiry": "2020-06-01T00:00:00Z"}));
    session
        .handle(response(json!({"Node": node(1000), "Peers": [dead]})), at("2021-01-01T00:00:00Z"))
        .unwrap();
    assert!(!session.netmap().unwrap().peers().get(NodeId(1)).unwrap().expired);
    // The next frame brings the time.
    let frame = json!({"ControlTime": "2024-01-01T00:00:00Z"});
    let update = session.handle(response(frame), at("2021-01-01T00:00:00Z")).unwrap();
    assert_eq!(changed(&update.changes), [1]);
}

#[test]
fn the_cache_gives_back_the_netmap() {
    let mut session = Session::new();
    let first = json!({
        "Node": node(1000),
        "Peers": [
            with(node(1), json!({"KeyExpiry": "2023-06-01T00:00:00Z", "CapMap": {"a": [1], "b": null}})),
            with(node(2), json!({"AllowedIPs": []})),
        ],
        "DERPMap": {"Regions": {"1": {"RegionID": 1, "Nodes": [{"Name": "1a"}]}}, "HomeParams": {"RegionScore": {"1": 0.5}}},
        "DNSConfig": {"Routes": {"example": []}, "Proxied": true},
        "Domain": "example.com",
        "CollectServices": true,
        "PacketFilters": {"base": [{"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}], "empty": []},
        "UserProfiles": [{"ID": 5, "LoginName": "a@example.com"}],
        "DisplayMessages": {"m": {"Title": "T"}},
        "Health": ["bad"],
        "SSHPolicy": {"rules": [{"principals": [{"any": true}], "sshUsers": {"*": "="}, "action": {"accept": true}}]},
        "TKAInfo": {"Disabled": true},
        "DomainDataPlaneAuditLogID": "log",
        "ControlDialPlan": {"Candidates": [{"IP": "192.0.2.1"}]},
    });
    session.handle(response(first), early()).unwrap();
    let netmap = session.netmap().unwrap();
    assert!(netmap.peers().get(NodeId(1)).unwrap().expired);

    let mut file = Vec::new();
    write_cache(netmap, &mut file).unwrap();
    let cached = read_cache(&file, early()).unwrap();
    assert!(cached.is_cached());
    let differs = change::changes(Some(netmap), &cached, change::Touched::All);
    assert_eq!(differs, [Change::UserProfiles, Change::Cached]);
    assert!(netmap.user_profiles().eq(cached.user_profiles()));
    assert_eq!(
        cached.display_messages()["m"],
        DisplayMessage { title: "T".to_owned(), ..Default::default() }
    );

    // Read when no clock is trusted, the peer is as the server sent it.
    let young = read_cache(&file, at("2020-01-01T00:00:00Z")).unwrap();
    assert!(!young.peers().get(NodeId(1)).unwrap().expired);
    assert_eq!(young.peers().get(NodeId(1)).unwrap().endpoints.len(), 1);

    // The first frame from the server changes little.
    let mut session = Session::with_netmap(cached);
    let frame = json!({"Node": node(1000), "Peers": [with(node(2), json!({"AllowedIPs": []}))]});
    let update = session.handle(response(frame), early()).unwrap();
    assert_eq!(removed(&update.changes), [1]);
    assert!(update.changes.contains(&Change::Cached) && !session.netmap().unwrap().is_cached());
    assert!(session.netmap().unwrap().dial_plan().is_some());
}

#[test]
fn damaged_caches_are_refused() {
    let session = session([node(1)]);
    let mut file = Vec::new();
    write_cache(session.netmap().unwrap(), &mut file).unwrap();
    for len in 0..file.len() {
        assert!(matches!(read_cache(&file[..len], early()), Err(CacheError::Json(_))));
    }
    let other = String::from_utf8(file).unwrap().replacen("\"Version\":1", "\"Version\":2", 1);
    assert!(matches!(read_cache(other.as_bytes(), early()), Err(CacheError::Version(2))));
    assert!(matches!(
        read_cache(br#"{"Version":1,"MapResponse":{}}"#, early()),
        Err(CacheError::Content(Error::NoNode))
    ));
}

#[test]
fn a_frame_over_a_limit_is_refused_and_changes_nothing() {
    let mut session = session([node(1)]);
    let before = Arc::clone(session.netmap().unwrap());
    let rules = |count: usize| (0..count).map(|_| json!({})).collect::<Vec<_>>();
    let too_many_rules =
        json!({"PacketFilters": {"a": rules(MAX_FILTER_RULES - 1), "b": rules(2)}, "Domain": "x"});
    assert!(matches!(session.handle(response(too_many_rules), early()), Err(Error::TooManyRules)));
    let messages: Map<_, _> = (0..=MAX_DISPLAY_MESSAGES).map(|id| (id.to_string(), json!({}))).collect();
    let too_many_messages = json!({"DisplayMessages": messages, "PeersRemoved": [1]});
    assert!(matches!(session.handle(response(too_many_messages), early()), Err(Error::TooManyMessages)));
    assert!(Arc::ptr_eq(&before, session.netmap().unwrap()));
}

#[test]
fn peers_added_one_by_one_are_bounded_too() {
    let bare = |ids: std::ops::Range<i64>| ids.map(|id| Node { id: NodeId(id), ..Node::default() }).collect();
    let mut session = session([]);
    let most = MAX_PEERS as i64;
    let frame = MapResponse { peers: bare(0..most), ..MapResponse::default() };
    session.handle(frame, early()).unwrap();
    let one_more = MapResponse { peers_changed: bare(most..most + 1), ..MapResponse::default() };
    assert!(matches!(session.handle(one_more, early()), Err(Error::TooManyPeers)));
    assert_eq!(session.netmap().unwrap().peers().len(), MAX_PEERS);
}

#[test]
fn garbage_frames_are_refused_or_folded_but_never_panic() {
    let mut good = session([node(1), node(2)]);
    let delta = json!({
        "Node": node(1000),
        "PeersChanged": [node(3)],
        "PeersRemoved": [2],
        "PeersChangedPatch": [{"NodeID": 1, "Endpoints": ["192.0.2.1:1"], "KeyExpiry": "2030-01-01T00:00:00Z"}],
        "PeerSeenChange": {"1": true},
        "OnlineChange": {"1": false},
        "PacketFilters": {"*": null, "a": []},
        "DERPMap": {"Regions": {"1": null}},
        "DisplayMessages": {"*": null, "x": {}},
        "ControlTime": "2024-01-01T00:00:00Z",
    })
    .to_string();
    let mut folded = 0;
    for at in 0..delta.len() {
        assert!(good.clone().handle_frame(&delta.as_bytes()[..at], early()).is_err());
        for byte in [b'9', b'"', b'-', b'}', b'z', 0] {
            let mut frame = delta.clone().into_bytes();
            frame[at] = byte;
            folded += usize::from(good.clone().handle_frame(&frame, early()).is_ok());
        }
    }
    assert!(folded > 0);
    assert!(good.handle_frame(delta.as_bytes(), early()).is_ok());
}
