use std::sync::Arc;

use tsrs_control_netmap::Session;
use tsrs_control_tailcfg::MapResponse;
use tsrs_lab_vectors::json as vectors;

use super::*;

/// A netmap as headscale sent it.
fn captured() -> Arc<Netmap> {
    let file = vectors("headscale/map-first-restricted.json");
    let mut frames = Vec::new();
    find_frames(&file, &mut frames);
    let response: MapResponse = serde_json::from_value(frames.swap_remove(0)).unwrap();
    Session::new().handle(response, "2026-11-22T22:00:00Z".parse().unwrap()).unwrap().netmap.unwrap()
}

fn find_frames(value: &Value, out: &mut Vec<Value>) {
    match value {
        Value::Object(members) if members.contains_key("Node") && members.contains_key("DERPMap") => {
            out.push(value.clone())
        }
        Value::Object(members) => members.values().for_each(|value| find_frames(value, out)),
        Value::Array(items) => items.iter().for_each(|item| find_frames(item, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn addresses_to_ask_about_are_read_in_every_form() {
    let key = NodePublic::from_bytes([7; 32]);
    assert_eq!(WhoIsAddr::parse("100.64.0.1"), Some(WhoIsAddr::Ip("100.64.0.1".parse().unwrap())));
    assert_eq!(WhoIsAddr::parse("100.64.0.1:80"), Some(WhoIsAddr::Ip("100.64.0.1".parse().unwrap())));
    assert_eq!(WhoIsAddr::parse("[fd7a::1]:80"), Some(WhoIsAddr::Ip("fd7a::1".parse().unwrap())));
    assert_eq!(WhoIsAddr::parse(&key.to_string()), Some(WhoIsAddr::Key(key)));
    for bad in ["", "beta", "nodekey:zz", "100.64.0.1:", "1.2.3.4:99999"] {
        assert_eq!(WhoIsAddr::parse(bad), None, "{bad}");
    }
}

#[test]
fn the_netmap_has_every_member_of_the_official_form() {
    let netmap = captured();
    let ours = netmap_json(&netmap, netmap.self_node().key);
    for (file, pointer) in
        [("headscale/netmap-go-1.103.json", "/netmap"), ("headscale/netmap-go-1.96.4.json", "/notify/NetMap")]
    {
        let theirs = vectors(file);
        for (key, value) in theirs.pointer(pointer).unwrap().as_object().unwrap() {
            let our_value = ours.get(key).unwrap_or_else(|| panic!("{file}: {key} is missing"));
            let same_kind = std::mem::discriminant(our_value) == std::mem::discriminant(value);
            assert!(same_kind || our_value.is_null() || value.is_null(), "{file}: {key}");
        }
    }
}
