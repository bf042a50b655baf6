//! The reference's own sequences of responses and what it makes of them.

use std::collections::BTreeSet;

use super::*;

/// The value with everything that means "absent" left out, so that documents are compared by meaning.
fn meaning(value: &Value) -> Option<Value> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Number(number) => number.as_f64().filter(|number| *number != 0.0).map(Value::from),
        Value::String(text) if text.is_empty() || text == "0001-01-01T00:00:00Z" => None,
        Value::Bool(true) | Value::String(_) => Some(value.clone()),
        Value::Array(list) => (!list.is_empty())
            .then(|| list.iter().map(|entry| meaning(entry).unwrap_or(Value::Null)).collect()),
        Value::Object(map) => {
            let kept = map.iter().filter_map(|(key, value)| Some((key.clone(), meaning(value)?)));
            let kept: Map<_, _> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
    }
}

fn to_json(value: &impl serde::Serialize) -> Value {
    serde_json::to_value(value).unwrap()
}

fn summary(netmap: &Netmap) -> Map<String, Value> {
    let entry = |node: &Arc<Node>| json!({"display_name": node.computed_name, "node": to_json(node)});
    let profiles = |list: Vec<_>| -> Map<_, _> {
        list.into_iter()
            .map(|profile: &Arc<_>| (to_json(profile)["ID"].to_string(), to_json(profile)))
            .collect()
    };
    let messages = netmap.display_messages().into_iter().map(|(id, message)| {
        let from_health = id.starts_with("health-");
        let health = json!({"from_health": true, "severity": message.severity});
        (id, if from_health { health } else { to_json(&message) })
    });
    let caps = netmap.self_node().capabilities.iter().map(String::as_str);
    let caps: BTreeSet<&str> = caps.chain(netmap.self_node().cap_map.names()).collect();
    let summary = json!({
        "peers": netmap.peers().iter().map(entry).collect::<Vec<_>>(),
        "self": entry(netmap.self_node()),
        "self_caps": caps,
        "packet_filter_rules": netmap.filter_rules().map(to_json).collect::<Vec<_>>(),
        "dns": to_json(netmap.dns()),
        "derp_map": to_json(netmap.derp_map()),
        "ssh_policy": netmap.ssh_policy().map(to_json),
        "domain": netmap.domain(),
        "audit_log_id": netmap.audit_log_id(),
        "collect_services": netmap.collect_services(),
        "user_profiles": profiles(netmap.user_profiles_in_use().into_values().collect()),
        "user_profiles_known": profiles(netmap.user_profiles().collect()),
        "display_messages": messages.collect::<Map<_, _>>(),
        "tka_enabled": netmap.lock_wanted(),
        "tka_head": netmap.lock_head().unwrap_or_default(),
    });
    summary.as_object().unwrap().clone()
}

/// Rewrites a message into the one that the reference acts upon.
///
/// Quirk, by its property: an entry of `PeersChanged` that differs from the peer known *before the message* only in
/// members that a patch has. The reference turns it into a patch, so that an absent `Endpoints`, `HomeDERP`, `Cap`,
/// `KeySignature`, `Online` or `LastSeen` keeps the old value, `Online` and `LastSeen` do not appear where there were
/// none, the rule for outdated disco keys applies, and it takes effect after everything else in the message: after
/// other entries with its id, after a removal, after the message's own patches. We take `PeersChanged` at its word: the
/// entry replaces the peer.
fn as_the_reference_reads(mut message: MapResponse, before: Option<&Arc<Netmap>>) -> MapResponse {
    let Some(before) = before else { return message };
    if !message.peers.is_empty() {
        return message;
    }
    let suffix =
        message.node.as_ref().map_or(before.magic_dns_suffix(), |node| names::magic_dns_suffix(&node.name));
    let mut replacements = Vec::new();
    for entry in std::mem::take(&mut message.peers_changed) {
        match before.peers().get(entry.id).and_then(|known| as_patch(&entry, known, suffix)) {
            Some(patch) => message.peers_changed_patch.push(patch),
            None => replacements.push(entry),
        }
    }
    message.peers_changed = replacements;
    message
}

fn as_patch(entry: &Node, known: &Node, suffix: &str) -> Option<PeerChange> {
    let mut entry = entry.clone();
    canonicalize(&mut entry, suffix);
    let same_elsewhere = Node {
        key: known.key,
        key_expiry: known.key_expiry,
        key_signature: known.key_signature.clone(),
        disco_key: known.disco_key,
        endpoints: known.endpoints.clone(),
        home_derp: known.home_derp,
        cap: known.cap,
        cap_map: known.cap_map.clone(),
        online: known.online,
        last_seen: known.last_seen,
        ..entry.clone()
    };
    (same_elsewhere == *known).then(|| PeerChange {
        node_id: entry.id,
        derp_region: if entry.home_derp == known.home_derp { Default::default() } else { entry.home_derp },
        cap: if entry.cap == known.cap { Default::default() } else { entry.cap },
        cap_map: changed(entry.cap_map, &known.cap_map),
        endpoints: changed(entry.endpoints, &known.endpoints).filter(|list| !list.is_empty()),
        key: changed(entry.key, &known.key),
        key_signature: changed(entry.key_signature, &known.key_signature)
            .filter(|signature| !signature.is_empty()),
        disco_key: changed(entry.disco_key, &known.disco_key),
        online: changed(entry.online, &known.online).flatten().filter(|_| known.online.is_some()),
        last_seen: changed(entry.last_seen, &known.last_seen).flatten().filter(|_| known.last_seen.is_some()),
        key_expiry: changed(entry.key_expiry, &known.key_expiry),
    })
}

fn changed<T: PartialEq>(new: T, old: &T) -> Option<T> {
    (new != *old).then_some(new)
}

/// Compares by meaning; of lists, entry by entry, so that a failure shows no more than what differs.
fn assert_same(got: &Value, expected: &Value, what: &str) {
    if let (Value::Array(got), Value::Array(expected)) = (got, expected) {
        for (got, expected) in got.iter().zip(expected) {
            assert_eq!(meaning(got), meaning(expected), "{what}");
        }
        assert_eq!(got.len(), expected.len(), "{what}");
    }
    assert_eq!(meaning(got), meaning(expected), "{what}");
}

/// Runs all cases of a file; returns how many steps were compared, and in how many of them the quirk made a difference.
fn run(file: &str) -> (usize, usize) {
    let vectors = tsrs_lab_vectors::json(file);
    let clock = at(vectors["clock"].as_str().unwrap());
    let (mut steps, mut quirks) = (0, 0);
    for case in vectors["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let mut session = Session::new();
        let mut expected = Map::new();
        for (number, step) in case["steps"].as_array().unwrap().iter().enumerate() {
            let literal = response(step["response"].clone());
            let before = session.netmap().cloned();
            let message = as_the_reference_reads(literal.clone(), before.as_ref());
            if message != literal {
                let mut plain = session.clone();
                let plain = plain.handle(literal, clock).unwrap();
                let read = session.handle(message, clock).unwrap();
                let peers = |update: &Update| {
                    let netmap = update.netmap.as_ref().or(before.as_ref()).unwrap();
                    netmap.peers().iter().cloned().collect::<Vec<_>>()
                };
                quirks += usize::from(peers(&plain) != peers(&read));
            } else {
                session.handle(message, clock).unwrap();
            }
            let changed = step["changed"].as_object().unwrap();
            expected.extend(changed.clone());
            let got = summary(session.netmap().unwrap());
            for (member, expected) in &expected {
                // The filter's own crate counts what it makes of the rules.
                if member != "packet_filter_matches" {
                    let got = got.get(member).unwrap_or_else(|| panic!("{member}"));
                    assert_same(got, expected, &format!("{name}, step {number}, {member}"));
                }
            }
            steps += 1;
        }
        assert_eq!(Value::Object(expected), case["final"], "{name}: the file contradicts itself");
    }
    (steps, quirks)
}

#[test]
fn hand_picked_sequences() {
    let (steps, quirks) = run("netmap/hand-picked.json");
    assert!(steps > 150 && quirks > 0, "{steps} {quirks}");
}

#[test]
fn random_sequences() {
    let (steps, quirks) = run("netmap/random.json");
    assert_eq!(steps, 330);
    assert!(quirks > 0, "{quirks}");
}
