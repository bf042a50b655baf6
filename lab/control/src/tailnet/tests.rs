use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tsrs_base_types::{MachinePublic, NodeId, NodePublic};
use tsrs_control_tailcfg::{MapRequest, MapResponse, Node, RegisterRequest};

use super::*;
use crate::policy::Grant;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn tailnet() -> Tailnet {
    let config = LabConfig { key_lifetime: None, ..LabConfig::default() };
    Tailnet::new(&config, "https://127.0.0.1".to_owned(), DerpMap::default(), NOW)
}

fn join(tailnet: &mut Tailnet, number: u8, spec: KeySpec, hostinfo: Value) -> NodeId {
    let auth_key = tailnet.create_key(spec, NOW);
    let request = json!({
        "Version": 133, "NodeKey": NodePublic::from_bytes([number; 32]), "Auth": {"AuthKey": auth_key},
        "Hostinfo": hostinfo,
    });
    let request: RegisterRequest = serde_json::from_value(request).unwrap();
    let Outcome::Answer(answer) = tailnet.register(MachinePublic::from_bytes([number; 32]), &request, NOW)
    else {
        panic!("must not wait")
    };
    assert_eq!(answer.error, "");
    tailnet.node_by_key(&request.node_key).unwrap().id
}

fn three() -> (Tailnet, [NodeId; 3]) {
    let mut tailnet = tailnet();
    let ids = [1, 2, 3].map(|number| {
        join(&mut tailnet, number, KeySpec::reusable(), json!({"Hostname": format!("host{number}")}))
    });
    (tailnet, ids)
}

/// The message that a viewer gets for a change.
fn delta(tailnet: &mut Tailnet, viewer: NodeId, change: impl FnOnce(&mut Tailnet)) -> Option<MapResponse> {
    let before = tailnet.view(viewer, NOW).unwrap();
    change(tailnet);
    tailnet.view(viewer, NOW).unwrap().since(&before, NOW)
}

fn update(tailnet: &mut Tailnet, id: NodeId, members: Value) -> bool {
    let mut request = json!({"Version": 133, "OmitPeers": true});
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let request: MapRequest = serde_json::from_value(request).unwrap();
    tailnet.update(id, &request)
}

#[test]
fn nothing_new_is_no_message() {
    let (mut tailnet, [a, ..]) = three();
    assert_eq!(delta(&mut tailnet, a, |_| ()), None);
    let same = json!({"Hostinfo": {"Hostname": "host1"}});
    assert!(!update(&mut tailnet, a, same.clone()));
    // NetInfo is kept when it is missing, and told to nobody but by the home region.
    assert!(update(
        &mut tailnet,
        a,
        json!({"Hostinfo": {"Hostname": "host1", "NetInfo": {"PreferredDERP": 7}}})
    ));
    assert!(!update(&mut tailnet, a, same));
    assert_eq!(tailnet.nodes[&a].home_derp().0, 7);
}

#[test]
fn what_a_patch_can_say_is_a_patch() {
    let (mut tailnet, [a, b, _]) = three();
    let disco = DiscoPublic::from_bytes([9; 32]);
    let message = delta(&mut tailnet, a, |tailnet| {
        let members = json!({"DiscoKey": disco, "Endpoints": ["192.0.2.1:1"],
            "Hostinfo": {"Hostname": "host2", "NetInfo": {"PreferredDERP": 5}}});
        update(tailnet, b, members);
        tailnet.open_stream(b);
    })
    .unwrap();
    assert!(message.peers_changed.is_empty() && message.node.is_none() && message.packet_filters.is_empty());
    let [change] = message.peers_changed_patch.as_slice() else { panic!("{message:?}") };
    assert_eq!((change.node_id, change.derp_region.0, change.online), (b, 5, Some(true)));
    assert_eq!(change.disco_key, Some(disco));
    assert_eq!(change.endpoints.as_ref().unwrap().len(), 1);

    let message = delta(&mut tailnet, a, |tailnet| tailnet.close_stream(b, NOW)).unwrap();
    assert_eq!(message.peers_changed_patch[0].online, Some(false));
    assert_eq!(message.peers_changed_patch[0].last_seen, Some(NOW.into()));
}

#[test]
fn what_a_patch_cannot_say_is_a_whole_node() {
    let (mut tailnet, [a, b, c]) = three();
    let message = delta(&mut tailnet, a, |tailnet| {
        update(tailnet, b, json!({"Hostinfo": {"Hostname": "other"}}));
    })
    .unwrap();
    assert_eq!(message.peers_changed[0].name, "other.lab.test.");
    let message = delta(&mut tailnet, a, |tailnet| {
        tailnet.delete(c);
    })
    .unwrap();
    assert_eq!(message.peers_removed, [c]);
    // The node itself is told by Node.
    let message = delta(&mut tailnet, a, |tailnet| {
        update(tailnet, a, json!({"Hostinfo": {"Hostname": "self"}}));
    })
    .unwrap();
    assert_eq!(message.node.unwrap().name, "self.lab.test.");
    assert!(message.peers_changed.is_empty());
}

#[test]
fn settings_reach_everybody_and_only_what_changed() {
    let (mut tailnet, [a, ..]) = three();
    let dns = DnsSettings { resolvers: vec!["192.0.2.53".to_owned()], ..DnsSettings::default() };
    let message = delta(&mut tailnet, a, |tailnet| tailnet.dns = dns).unwrap();
    assert_eq!(message.dns_config.unwrap().resolvers[0].addr, "192.0.2.53");
    assert!(message.derp_map.is_none() && message.user_profiles.is_empty());
    let text = DisplayMessage { title: "t".to_owned(), ..DisplayMessage::default() };
    let message =
        delta(&mut tailnet, a, |tailnet| drop(tailnet.messages.insert("m".to_owned(), text))).unwrap();
    assert!(message.display_messages["m"].is_some());
    let message = delta(&mut tailnet, a, |tailnet| drop(tailnet.messages.remove("m"))).unwrap();
    assert_eq!(message.display_messages["m"], None);
}

#[test]
fn a_policy_decides_rules_and_who_is_seen() {
    let mut tailnet = tailnet();
    let client = join(&mut tailnet, 1, KeySpec::single_use(), json!({"Hostname": "client"}));
    let web = join(&mut tailnet, 2, KeySpec::single_use().tagged(&["tag:web"]), json!({"Hostname": "web"}));
    let router = join(
        &mut tailnet,
        3,
        KeySpec::single_use().of_user("bob@lab.test"),
        json!({"Hostname": "router", "RoutableIPs": ["10.1.0.0/16", "0.0.0.0/0"]}),
    );
    let route: IpNet = "10.1.0.0/16".parse().unwrap();
    tailnet.nodes.get_mut(&router).unwrap().approved_routes = vec![route];
    tailnet.policy = Policy::of([
        Grant::new(&["lab@lab.test"], &["tag:web"], &["tcp:80", "icmp:*"]),
        Grant::new(&["client"], &["10.1.2.0/24"], &["22"]),
    ]);
    let full = |id| tailnet.view(id, NOW).unwrap().full(NOW);
    let rules = |message: &MapResponse| message.packet_filters["base"].clone().unwrap();
    let names =
        |message: &MapResponse| message.peers.iter().map(|peer| peer.name.clone()).collect::<Vec<_>>();

    let seen = full(client);
    assert_eq!(names(&seen), ["web.lab.test.", "router.lab.test."]);
    assert!(rules(&seen).is_empty());
    // The default route was not approved.
    assert_eq!(seen.peers[1].allowed_ips.as_ref().unwrap().len(), 3);
    assert_eq!(seen.peers[1].primary_routes, [route]);

    let seen = full(web);
    assert_eq!(names(&seen), ["client.lab.test."]);
    assert_eq!(seen.node.as_ref().unwrap().user, TAGGED_USER);
    let rules_of_web = rules(&seen);
    assert_eq!(rules_of_web[0].src_ips, ["100.64.0.1", "fd7a:115c:a1e0::1"]);
    assert_eq!(
        (rules_of_web[0].ip_proto.as_slice(), rules_of_web[0].dst_ports[0].ports.first),
        (&[6][..], 80)
    );
    assert_eq!(rules_of_web[1].ip_proto, [1, 58]);

    let seen = full(router);
    assert_eq!(names(&seen), ["client.lab.test."]);
    assert_eq!(rules(&seen)[0].dst_ports[0].ip, "10.1.2.0/24");
}

#[test]
fn of_two_routers_the_one_that_is_online_has_the_route() {
    let mut tailnet = tailnet();
    let viewer = join(&mut tailnet, 1, KeySpec::reusable(), json!({"Hostname": "viewer"}));
    tailnet.policy.auto_approve_routes = vec!["10.0.0.0/8".parse().unwrap()];
    let hostinfo = json!({"Hostname": "router", "RoutableIPs": ["10.1.0.0/16"]});
    let routers = [2, 3].map(|number| join(&mut tailnet, number, KeySpec::reusable(), hostinfo.clone()));
    let owners = |tailnet: &Tailnet| {
        let message = tailnet.view(viewer, NOW).unwrap().full(NOW);
        message
            .peers
            .iter()
            .filter(|peer| !peer.primary_routes.is_empty())
            .map(|peer| peer.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(owners(&tailnet), [routers[0]]);
    tailnet.open_stream(routers[1]);
    assert_eq!(owners(&tailnet), [routers[1]]);
    tailnet.open_stream(routers[0]);
    assert_eq!(owners(&tailnet), [routers[0]]);
}

#[test]
fn a_new_node_key_keeps_the_address_and_a_second_machine_gets_its_own() {
    let (mut tailnet, [a, ..]) = three();
    let address = tailnet.nodes[&a].ipv4;
    let request = |key: u8, auth_key: String| -> RegisterRequest {
        serde_json::from_value(json!({
            "Version": 133, "NodeKey": NodePublic::from_bytes([key; 32]), "Auth": {"AuthKey": auth_key},
            "OldNodeKey": NodePublic::from_bytes([1; 32]), "Hostinfo": {"Hostname": "host1"},
        }))
        .unwrap()
    };
    let auth_key = tailnet.create_key(KeySpec::reusable(), NOW);
    tailnet.register(MachinePublic::from_bytes([1; 32]), &request(40, auth_key.clone()), NOW);
    assert_eq!(tailnet.nodes[&a].key, NodePublic::from_bytes([40; 32]));
    assert_eq!(tailnet.nodes[&a].ipv4, address);
    // Another machine that names the old key of the first is another node.
    tailnet.register(MachinePublic::from_bytes([41; 32]), &request(41, auth_key.clone()), NOW);
    let other = tailnet.node_by_key(&NodePublic::from_bytes([41; 32])).unwrap();
    assert_ne!(other.ipv4, address);
    assert_eq!(other.name, "host1-1");
    // And a key in use is refused to a third.
    let answer = tailnet.register(MachinePublic::from_bytes([42; 32]), &request(41, auth_key), NOW);
    let Outcome::Answer(answer) = answer else { panic!("must not wait") };
    assert!(answer.error.contains("in use"));
}

#[test]
fn a_single_use_key_serves_one_node_and_its_restarts() {
    let mut tailnet = tailnet();
    let auth_key = tailnet.create_key(KeySpec::single_use(), NOW);
    let mut register = |number: u8| {
        let request = json!({"Version": 133, "NodeKey": NodePublic::from_bytes([number; 32]), "Auth": {"AuthKey": auth_key}});
        let request: RegisterRequest = serde_json::from_value(request).unwrap();
        match tailnet.register(MachinePublic::from_bytes([number; 32]), &request, NOW) {
            Outcome::Answer(answer) => answer.error,
            Outcome::Wait(_) => panic!("must not wait"),
        }
    };
    assert_eq!(register(1), "");
    assert_eq!(register(1), "");
    assert_eq!(register(2), "authkey already used");
}

#[test]
fn ephemeral_nodes_go_some_time_after_they_left() {
    let mut tailnet = tailnet();
    let id = join(&mut tailnet, 1, KeySpec::single_use().ephemeral(), json!({}));
    let timeout = Duration::from_secs(60);
    let at = |secs: i64| Timestamp::from_second(secs).unwrap();
    tailnet.open_stream(id);
    assert!(!tailnet.pass_time(NOW, at(1000), timeout));
    tailnet.close_stream(id, at(1000));
    assert!(!tailnet.pass_time(at(1000), at(1059), timeout));
    assert!(tailnet.pass_time(at(1059), at(1060), timeout));
    assert!(tailnet.nodes.is_empty());
}

#[test]
fn a_state_file_brings_back_nodes_keys_and_the_next_number() {
    let (mut tailnet, [a, _, c]) = three();
    tailnet.open_stream(a);
    tailnet.delete(c);
    let json = serde_json::to_vec(&tailnet.store()).unwrap();
    let mut other = Tailnet::new(&LabConfig::default(), String::new(), DerpMap::default(), NOW);
    other.restore(serde_json::from_slice(&json).unwrap(), NOW).unwrap();
    assert!(!other.nodes[&a].online());
    assert_eq!(other.nodes[&a].ipv4, tailnet.nodes[&a].ipv4);
    let next = join(&mut other, 9, KeySpec::reusable(), json!({}));
    assert_eq!(next, NodeId(4), "the number of a deleted node is not given again");
}

/// The deltas of any history, applied as a client applies them, give the map that a new stream would get.
#[test]
fn folded_deltas_equal_a_fresh_map() {
    for seed in 1..=30u64 {
        let (mut tailnet, ids) = three();
        let mut random = seed;
        let mut next = |bound: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(random >> 33).unwrap() % bound
        };
        let viewer = ids[0];
        let mut sent = tailnet.view(viewer, NOW).unwrap();
        let mut peers: BTreeMap<NodeId, Node> =
            sent.full(NOW).peers.into_iter().map(|peer| (peer.id, peer)).collect();
        for step in 0..60u8 {
            let others: Vec<NodeId> = tailnet.nodes.keys().copied().filter(|id| *id != viewer).collect();
            let id = *others.get(next(others.len().max(1))).unwrap_or(&viewer);
            match next(8) {
                0 => {
                    join(&mut tailnet, 50 + step, KeySpec::reusable(), json!({"Hostname": "new"}));
                }
                1 if id != viewer => {
                    tailnet.delete(id);
                }
                2 => {
                    tailnet.open_stream(id);
                }
                3 => tailnet.close_stream(id, Timestamp::from_second(step.into()).unwrap()),
                4 => {
                    update(&mut tailnet, id, json!({"Endpoints": [format!("192.0.2.1:{step}")]}));
                }
                5 => {
                    update(&mut tailnet, id, json!({"Hostinfo": {"Hostname": format!("h{step}")}}));
                }
                6 => tailnet.policy = if next(2) == 0 { Policy::allow_all() } else { Policy::deny_all() },
                _ => drop(update(
                    &mut tailnet,
                    id,
                    json!({"Hostinfo": {"NetInfo": {"PreferredDERP": next(4)}}}),
                )),
            }
            let view = tailnet.view(viewer, NOW).unwrap();
            if let Some(message) = view.since(&sent, NOW) {
                fold(&mut peers, message);
            }
            let fresh: BTreeMap<NodeId, Node> =
                view.full(NOW).peers.into_iter().map(|peer| (peer.id, peer)).collect();
            assert_eq!(peers, fresh, "seed {seed}, step {step}");
            sent = view;
        }
    }
}

fn fold(peers: &mut BTreeMap<NodeId, Node>, message: MapResponse) {
    for id in message.peers_removed {
        assert!(peers.remove(&id).is_some());
    }
    for peer in message.peers_changed {
        peers.insert(peer.id, peer);
    }
    for change in message.peers_changed_patch {
        let peer = peers.get_mut(&change.node_id).unwrap();
        if change.derp_region.0 != 0 {
            peer.home_derp = change.derp_region;
        }
        if change.cap.0 != 0 {
            peer.cap = change.cap;
        }
        peer.endpoints = change.endpoints.unwrap_or(std::mem::take(&mut peer.endpoints));
        peer.key = change.key.unwrap_or(peer.key);
        peer.disco_key = change.disco_key.unwrap_or(peer.disco_key);
        peer.key_expiry = change.key_expiry.unwrap_or(peer.key_expiry);
        peer.online = change.online.or(peer.online);
        // Not shown for nodes that are online.
        peer.last_seen = if peer.online == Some(true) { None } else { change.last_seen.or(peer.last_seen) };
    }
}
