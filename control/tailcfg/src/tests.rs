use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tsrs_base_types::time::WireTime;
use tsrs_base_types::{NodeId, RegionId};

use crate::*;

/// The value with everything that means "absent" left out: `null`, empty texts and lists, false, zero, zero times and
/// keys, recursively. Two documents that agree in this form mean the same.
fn meaning(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(value.clone()),
        Value::Number(number) => (number.as_f64() != Some(0.0)).then(|| value.clone()),
        Value::String(text) => {
            let zero_key = text
                .split_once(':')
                .is_some_and(|(_, rest)| !rest.is_empty() && rest.bytes().all(|b| b == b'0'));
            (!text.is_empty() && text != "0001-01-01T00:00:00Z" && !zero_key).then(|| value.clone())
        }
        Value::Array(list) => (!list.is_empty())
            .then(|| list.iter().map(|entry| meaning(entry).unwrap_or(Value::Null)).collect()),
        Value::Object(map) => {
            let map: serde_json::Map<_, _> =
                map.iter().filter_map(|(key, value)| Some((key.clone(), meaning(value)?))).collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
    }
}

/// Reads a document as `T`, writes it, and wants the same meaning; then wants the second reading to equal the first.
fn round_trip<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(document: &Value) -> T {
    let read: T =
        serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
    let written = serde_json::to_value(&read).unwrap();
    assert_eq!(meaning(&written), meaning(document));
    let again: T = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
    assert_eq!(again, read);
    read
}

fn frames(name: &str) -> Vec<Value> {
    let file = tsrs_lab_vectors::json(name);
    file["frames"].as_array().unwrap().iter().map(|frame| frame["map_response"].clone()).collect()
}

const CAPTURES: [&str; 5] = [
    "headscale/map-first-allow-all.json",
    "headscale/map-first-deny-all.json",
    "headscale/map-first-restricted.json",
    "headscale/map-first-tagged.json",
    "headscale/map-stream.json",
];

#[test]
fn captured_map_frames_and_requests_keep_their_meaning() {
    for name in CAPTURES {
        for frame in frames(name) {
            round_trip::<MapResponse>(&frame);
        }
        round_trip::<MapRequest>(&tsrs_lab_vectors::json(name)["request"]);
    }
}

#[test]
fn captured_register_calls_keep_their_meaning() {
    let calls = tsrs_lab_vectors::json("headscale/register.json");
    let mut read = 0;
    for call in calls.as_array().unwrap() {
        if call["Request"].is_object() {
            round_trip::<RegisterRequest>(&call["Request"]);
            read += 1;
        }
        if call["Body"].is_object() {
            round_trip::<RegisterResponse>(&call["Body"]);
            read += 1;
        }
    }
    assert!(read > 10);
}

#[test]
fn nodes_of_the_reference_netmaps_keep_their_meaning() {
    for name in ["netmap-go-1.96.4", "netmap-go-1.103", "netmap-go-1.103-tagged-exit"] {
        let file = tsrs_lab_vectors::json(&format!("headscale/{name}.json"));
        let netmap = file.get("netmap").unwrap_or(&file["notify"]["NetMap"]);
        round_trip::<Node>(&netmap["SelfNode"]);
        for peer in netmap["Peers"].as_array().unwrap() {
            round_trip::<Node>(peer);
        }
        round_trip::<DerpMap>(&netmap["DERPMap"]);
        round_trip::<DnsConfig>(&netmap["DNS"]);
    }
}

#[test]
fn a_written_node_has_the_members_of_the_reference() {
    let file = tsrs_lab_vectors::json("headscale/netmap-go-1.96.4.json");
    let node = &file["notify"]["NetMap"]["SelfNode"];
    let read: Node = serde_json::from_value(node.clone()).unwrap();
    assert_eq!(&serde_json::to_value(&read).unwrap(), node);
}

#[test]
fn null_counts_as_absent_for_every_member() {
    fn all_null<T: DeserializeOwned + Serialize + Default + PartialEq + std::fmt::Debug>(names: &[&str]) {
        let document: serde_json::Map<String, Value> =
            names.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        assert_eq!(serde_json::from_value::<T>(document.into()).unwrap(), T::default());
    }
    all_null::<Node>(&[
        "ID",
        "StableID",
        "Name",
        "User",
        "Key",
        "KeyExpiry",
        "KeySignature",
        "Addresses",
        "AllowedIPs",
        "Endpoints",
        "DERP",
        "HomeDERP",
        "Hostinfo",
        "Created",
        "Tags",
        "LastSeen",
        "Online",
        "MachineAuthorized",
        "CapMap",
        "SelfNodeV4MasqAddrForThisPeer",
        "ExitNodeDNSResolvers",
    ]);
    all_null::<MapResponse>(&[
        "KeepAlive",
        "PingRequest",
        "Node",
        "DERPMap",
        "Peers",
        "PeersChanged",
        "PeersRemoved",
        "PeersChangedPatch",
        "PeerSeenChange",
        "DNSConfig",
        "Domain",
        "PacketFilter",
        "PacketFilters",
        "Health",
        "DisplayMessages",
        "ControlTime",
        "TKAInfo",
        "Debug",
    ]);
    all_null::<Hostinfo>(&[
        "OS",
        "Container",
        "RoutableIPs",
        "Services",
        "NetInfo",
        "sshHostKeys",
        "ShieldsUp",
    ]);
}

#[test]
fn a_disablement_secret_travels_and_is_not_printed() {
    let text = r#"{"GenesisAUM":"AQI=","DisablementSecret":"c2VjcmV0"}"#;
    let answer: TkaBootstrapResponse = serde_json::from_str(text).unwrap();
    assert_eq!(answer.disablement_secret.expose(), b"secret");
    assert!(!format!("{answer:?}").contains("115"), "{answer:?}");
    assert_eq!(serde_json::to_string(&answer).unwrap(), text);
    let absent = r#"{"GenesisAUM":null,"DisablementSecret":null}"#;
    assert_eq!(
        serde_json::from_str::<TkaBootstrapResponse>(absent).unwrap(),
        TkaBootstrapResponse::default()
    );
    assert_eq!(serde_json::to_string(&TkaBootstrapResponse::default()).unwrap(), "{}");
}

#[test]
fn calls_of_the_lock_are_written_as_the_reference_writes_them() {
    let finish: TkaInitFinishRequest =
        serde_json::from_value(json!({"Version": 113, "Signatures": {"7": "AQI="}})).unwrap();
    assert_eq!(finish.signatures[&NodeId(7)].0, [1, 2]);
    let written = serde_json::to_value(&finish).unwrap();
    assert_eq!(written["Signatures"], json!({"7": "AQI="}));
    assert!(written.get("SupportDisablement").is_none(), "{written}");
    let begin: TkaInitBeginResponse =
        serde_json::from_value(json!({"NeedSignatures": [{"NodeID": 3, "RotationPubkey": null}, null]}))
            .unwrap();
    assert_eq!(begin.need_signatures, [TkaSignInfo { node_id: NodeId(3), ..TkaSignInfo::default() }]);
}

#[test]
fn present_empty_lists_differ_from_absent_ones() {
    let response: MapResponse =
        serde_json::from_str(r#"{"PacketFilter":[],"Health":[],"PacketFilters":{"base":null,"x":[]}}"#)
            .unwrap();
    assert_eq!(response.packet_filter, Some(Vec::new()));
    assert_eq!(response.health, Some(Vec::new()));
    assert_eq!(response.packet_filters["base"], None);
    assert_eq!(response.packet_filters["x"], Some(Vec::new()));
    let change: PeerChange = serde_json::from_str(r#"{"NodeID":1,"Endpoints":[]}"#).unwrap();
    assert_eq!(change.endpoints, Some(Vec::new()));
    assert_eq!(serde_json::to_string(&change).unwrap(), r#"{"NodeID":1,"Endpoints":[]}"#);
    let node: Node = serde_json::from_str(r#"{"Addresses":["100.64.0.1/32"],"AllowedIPs":[]}"#).unwrap();
    assert!(node.routes().is_empty());
    let node: Node = serde_json::from_str(r#"{"Addresses":["100.64.0.1/32"],"AllowedIPs":null}"#).unwrap();
    assert_eq!(node.routes(), node.addresses);
}

#[test]
fn zero_time_in_a_patch_is_present() {
    let change: PeerChange =
        serde_json::from_str(r#"{"NodeID":1,"KeyExpiry":"0001-01-01T00:00:00Z"}"#).unwrap();
    assert_eq!(change.key_expiry, Some(WireTime::ZERO));
}

#[test]
fn null_entries_and_null_regions_are_dropped() {
    let response: MapResponse = serde_json::from_value(json!({
        "Peers": [null, {"ID": 2}, null],
        "DERPMap": {"Regions": {"1": null, "2": {"RegionID": 2, "Nodes": [null, {"Name": "2a"}]}}},
        "DNSConfig": {"Routes": {"a.example": null, "b.example": [], "c.example": [{"Addr": "192.0.2.1"}, null]}},
    }))
    .unwrap();
    assert_eq!(response.peers.iter().map(|node| node.id).collect::<Vec<_>>(), [NodeId(2)]);
    let map = response.derp_map.unwrap();
    assert_eq!(map.regions().map(|region| region.region_id).collect::<Vec<_>>(), [RegionId(2)]);
    assert_eq!(map.region(RegionId(2)).unwrap().nodes.len(), 1);
    let routes = response.dns_config.unwrap().routes;
    assert_eq!(routes.values().map(Vec::len).collect::<Vec<_>>(), [0, 0, 1]);
}

#[test]
fn addresses_that_do_not_parse_are_dropped_from_lists() {
    let node: Node = serde_json::from_value(json!({
        "Addresses": ["100.64.0.1/32", "", null, "100.64.0.999/32"],
        "Endpoints": ["192.0.2.1:1", "[fe80::1%eth0]:2", "[2001:db8::1]:3", "name:4"],
    }))
    .unwrap();
    assert_eq!(node.addresses.len(), 1);
    assert_eq!(node.endpoints, ["192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:3".parse().unwrap()]);
}

#[test]
fn an_empty_ping_address_means_none() {
    let ping: PingRequest = serde_json::from_str(r#"{"URL":"https://192.0.2.1/x","IP":""}"#).unwrap();
    assert_eq!(ping.ip, None);
}

#[test]
fn escapes_and_unknown_members_are_read() {
    let node: Node = serde_json::from_str(r#"{"Name":"a\u002db.example.","Key":"nodekey:\u0030000000000000000000000000000000000000000000000000000000000000001","Later":{"x":[1]}}"#).unwrap();
    assert_eq!(node.name, "a-b.example.");
    assert!(!node.key.is_zero());
}

#[test]
fn capability_values_stay_verbatim() {
    let text = r#"{"a":null,"b":[],"c":[{"x" : 1.50},null,"t"]}"#;
    let map: CapMap = serde_json::from_str(text).unwrap();
    assert!(map.contains("a") && map.contains("b") && !map.contains("d"));
    assert_eq!(map.values("a"), Some(&[][..]));
    assert_eq!(map.values("d"), None);
    assert_eq!(map.values("c").unwrap()[0].text(), r#"{"x" : 1.50}"#);
    assert_eq!(map.values("c").unwrap()[2].read::<String>().unwrap(), "t");
    assert_eq!(serde_json::to_string(&map).unwrap(), text);
}

#[test]
fn the_old_derp_text_counts_only_without_a_number() {
    let region = |home, legacy: &str| {
        Node { home_derp: RegionId(home), legacy_derp: legacy.to_owned(), ..Node::default() }.derp_region()
    };
    assert_eq!(region(3, "127.3.3.40:7"), Some(RegionId(3)));
    assert_eq!(region(0, "127.3.3.40:7"), Some(RegionId(7)));
    for bad in ["", "127.3.3.40:0", "127.3.3.40:x", "127.3.3.41:7", "127.3.3.40:70000"] {
        assert_eq!(region(0, bad), None, "{bad}");
    }
}

#[test]
fn home_scores_that_are_not_positive_are_ignored() {
    let map: DerpMap =
        serde_json::from_str(r#"{"HomeParams":{"RegionScore":{"1":0.5,"2":0,"3":-1}}}"#).unwrap();
    let scores = [1, 2, 3, 4].map(|id| map.home_score(RegionId(id)));
    assert_eq!(scores, [0.5, 1.0, 1.0, 1.0]);
}

#[test]
fn auth_keys_are_not_printed() {
    let request = RegisterRequest {
        auth: Some(RegisterResponseAuth { auth_key: AuthKey::new("tskey-auth-secret".to_owned()) }),
        ..RegisterRequest::default()
    };
    assert!(!format!("{request:?}").contains("secret"));
    assert!(serde_json::to_string(&request).unwrap().contains("tskey-auth-secret"));
}

#[test]
fn latency_alone_is_no_change_of_net_info() {
    let one = NetInfo { preferred_derp: RegionId(1), ..NetInfo::default() };
    let mut two = one.clone();
    two.derp_latency.insert("1-v4".to_owned(), 0.1);
    assert!(one.same_but_latency(&two));
    two.working_udp = Some(true);
    assert!(!one.same_but_latency(&two));
}

#[test]
fn a_list_longer_than_the_limit_is_refused() {
    let list = |count: usize| format!("{{\"PeersChangedPatch\":[{}{{}}]}}", "{},".repeat(count - 1));
    assert!(serde_json::from_str::<MapResponse>(&list(MAX_LIST_LEN)).is_ok());
    assert!(serde_json::from_str::<MapResponse>(&list(MAX_LIST_LEN + 1)).is_err());
}

/// Every prefix of a document and every document with one byte changed is either read or refused.
#[test]
fn damaged_documents_do_not_panic() {
    let document = serde_json::to_vec(&frames("headscale/map-first-restricted.json")[0]).unwrap();
    for len in 0..document.len() {
        assert!(serde_json::from_slice::<MapResponse>(&document[..len]).is_err());
    }
    let mut refused = 0;
    for at in 0..document.len() {
        for byte in [b'"', b'{', b'0', b'\\', 0xff] {
            let mut damaged = document.clone();
            damaged[at] = byte;
            refused += usize::from(serde_json::from_slice::<MapResponse>(&damaged).is_err());
        }
    }
    assert!(refused > document.len());
}

/// Every member of a document in turn gets a value of every JSON kind.
#[test]
fn members_of_another_kind_do_not_panic() {
    fn places(value: &Value, here: &str, out: &mut Vec<String>) {
        out.push(here.to_owned());
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    places(value, &format!("{here}/{}", key.replace('~', "~0").replace('/', "~1")), out);
                }
            }
            Value::Array(list) => {
                if let Some(first) = list.first() {
                    places(first, &format!("{here}/0"), out);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = frames("headscale/map-first-restricted.json")[0].clone();
    let mut all = Vec::new();
    places(&document, "", &mut all);
    assert!(all.len() > 100);
    for place in all {
        for other in
            [Value::Null, json!(true), json!(-1), json!(1e300), json!("x"), json!([1, "y"]), json!({"z": {}})]
        {
            let mut document = document.clone();
            *document.pointer_mut(&place).unwrap() = other;
            let text = document.to_string();
            if let Ok(read) = serde_json::from_str::<MapResponse>(&text) {
                serde_json::to_string(&read).unwrap();
            }
        }
    }
}
