//! Shapes and rights against every captured exchange (README of the reference cases, folder `localapi`).

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tsrs_lab_vectors::json as vectors;

use super::*;
use crate::json::from_client;
use crate::lock::LockStatus;
use crate::requests::{DnsOsConfig, DnsQueryAnswer, Reloaded};

/// Every captured exchange of both versions and of the mixed runs.
fn exchanges() -> Vec<Value> {
    let mut out = Vec::new();
    for file in ["localapi/1.103.json", "localapi/1.96.4.json", "localapi/cross.json"] {
        collect(&vectors(file), &mut out);
    }
    assert!(out.len() > 1000, "{}", out.len());
    out
}

fn collect(value: &Value, out: &mut Vec<Value>) {
    match value {
        Value::Object(members) => match members.get("exchanges").and_then(Value::as_array) {
            Some(exchanges) => out.extend(exchanges.iter().cloned()),
            None => members.values().for_each(|value| collect(value, out)),
        },
        Value::Array(items) => items.iter().for_each(|item| collect(item, out)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

/// The JSON bodies that a path answered with success.
fn answers(path: &str) -> Vec<Value> {
    let bodies: Vec<Value> = exchanges()
        .into_iter()
        .filter(|exchange| {
            exchange["request"]["path"] == format!("{PATH_PREFIX}{path}")
                && exchange["response"]["status"] == 200
        })
        .filter_map(|exchange| exchange["response"]["body"].get("json").cloned())
        .filter(|body| !body.is_null())
        .collect();
    assert!(!bodies.is_empty(), "no answer of {path}");
    bodies
}

/// Members of the official daemon that belong to no feature of ours: an entity tag of warnings, a pref that 1.103
/// no longer has, and messages about files, versions and policies.
const LEFT_OUT: &[&str] = &[
    "ETag",
    "AllowSingleHosts",
    "FilesWaiting",
    "IncomingFiles",
    "LocalTCPPort",
    "ClientVersion",
    "SuggestedExitNode",
    "Policy",
];

/// Whether `ours` has every member that `theirs` has, with the same value; more members are fine.
fn covers(ours: &Value, theirs: &Value) -> Result<(), String> {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => theirs
            .iter()
            .filter(|(key, _)| !LEFT_OUT.contains(&key.as_str()))
            .try_for_each(|(key, theirs)| {
                let ours = ours.get(key).ok_or_else(|| format!("{key}: missing"))?;
                covers(ours, theirs).map_err(|error| format!("{key}.{error}"))
            }),
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            ours.iter().zip(theirs).try_for_each(|(ours, theirs)| covers(ours, theirs))
        }
        (Value::Number(ours), Value::Number(theirs)) if ours.as_f64() == theirs.as_f64() => Ok(()),
        _ if ours == theirs => Ok(()),
        _ => Err(format!("{ours} is not {theirs}")),
    }
}

/// Reading and writing gives back the same members, values and nulls.
fn keeps_shape<T: DeserializeOwned + Serialize>(path: &str) {
    for body in answers(path) {
        let typed: T =
            serde_json::from_value(body.clone()).unwrap_or_else(|error| panic!("{path}: {error}\n{body}"));
        covers(&serde_json::to_value(&typed).unwrap(), &body)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
    }
}

#[test]
fn answers_keep_the_captured_shape() {
    keeps_shape::<Status>("status");
    keeps_shape::<Vec<LoginProfile>>("profiles/");
    keeps_shape::<LoginProfile>("profiles/current");
    keeps_shape::<PingResult>("ping");
    keeps_shape::<WhoIs>("whois");
    keeps_shape::<DnsOsConfig>("dns-osconfig");
    keeps_shape::<DnsQueryAnswer>("dns-query");
    keeps_shape::<LockStatus>("tka/status");
    keeps_shape::<Reloaded>("reload-config");
}

#[test]
fn prefs_keep_the_captured_shape_but_show_no_key() {
    let mut with_login = 0;
    for body in answers("prefs") {
        let typed: Prefs = from_client(body.to_string().as_bytes()).unwrap();
        with_login += usize::from(typed.config.is_some());
        covers(&serde_json::to_value(&typed).unwrap(), &body).unwrap();
    }
    assert!(with_login > 10);
}

#[test]
fn edits_of_the_official_clients_do_what_the_official_daemon_did() {
    let mut count = 0;
    for exchange in exchanges() {
        let request = &exchange["request"];
        if request["method"] != "PATCH" || exchange["response"]["status"] != 200 {
            continue;
        }
        let edit: MaskedPrefs = from_client(request["body"]["json"].to_string().as_bytes()).unwrap();
        let after: Prefs = serde_json::from_value(exchange["response"]["body"]["json"].clone()).unwrap();
        let mut again = after.clone();
        edit.apply_to(&mut again);
        // What the daemon adds itself: an address becomes the id of the exit node once the netmap knows it.
        again.exit_node_id.clone_from(&after.exit_node_id);
        again.exit_node_ip = after.exit_node_ip;
        assert_eq!(again, after);
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[test]
fn an_edit_is_written_as_the_official_client_writes_it() {
    let from = Prefs { hostname: "a".into(), ..Prefs::zero() };
    let to = Prefs {
        hostname: "b".into(),
        auto_update: prefs::AutoUpdatePrefs { check: true, apply: None },
        ..from.clone()
    };
    let edit = MaskedPrefs::between(&from, &to);
    let body = serde_json::to_value(&edit).unwrap();
    assert_eq!(body["HostnameSet"], true);
    assert_eq!(body["AutoUpdateSet"], serde_json::json!({"CheckSet": true}));
    assert_eq!(body.get("RouteAllSet"), None);
    assert_eq!(serde_json::from_value::<MaskedPrefs>(body).unwrap(), edit);
    let mut applied = from;
    edit.apply_to(&mut applied);
    assert_eq!(applied, to);
    assert!(MaskedPrefs::between(&to, &applied).is_empty());
}

#[test]
fn bodies_are_read_as_leniently_as_go_reads_them() {
    let edit: MaskedPrefs =
        from_client(br#"{"hostname":"x","HOSTNAMESET":true,"Nope":1,"NopeSet":true,"RouteAll":null}"#)
            .unwrap();
    assert!(edit.mask.hostname && !edit.mask.route_all);
    assert_eq!(edit.prefs.hostname, "x");
    assert!(from_client::<MaskedPrefs>(br#"{"RouteAll":"yes","RouteAllSet":true}"#).is_err());
    assert!(from_client::<MaskedPrefs>(br#"{"AdvertiseRoutes":["x"],"AdvertiseRoutesSet":true}"#).is_err());
    assert!(from_client::<MaskedPrefs>(b"{").is_err());
    assert!(from_client::<MaskedPrefs>(b"").is_err());
    let nested: MaskedPrefs =
        from_client(br#"{"autoupdate":{"check":true},"autoupdateset":{"checkset":true}}"#).unwrap();
    assert!(nested.mask.auto_update.check && nested.prefs.auto_update.check);
}

#[test]
fn options_of_start_are_read_and_hide_their_key() {
    let mut count = 0;
    for exchange in exchanges() {
        if exchange["request"]["path"] == "/localapi/v0/start" {
            let body = exchange["request"]["body"]["json"].to_string();
            let options: StartOptions = from_client(body.as_bytes()).unwrap();
            assert!(options.update_prefs.is_some());
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    let options = StartOptions { auth_key: "tskey-auth-secret".into(), ..StartOptions::default() };
    assert!(!format!("{options:?}").contains("secret"));
}

#[test]
fn bus_messages_keep_the_captured_shape() {
    let mut count = 0;
    for exchange in exchanges() {
        for message in exchange["response"]["stream"].as_array().into_iter().flatten() {
            let wanted = &message["json"];
            if wanted.get("Version").is_none() {
                continue;
            }
            let typed: Notify =
                serde_json::from_value(wanted.clone()).unwrap_or_else(|error| panic!("{error}: {wanted}"));
            covers(&serde_json::to_value(&typed).unwrap(), wanted).unwrap();
            count += 1;
        }
    }
    assert!(count > 200, "{count}");
}

#[test]
fn states_have_the_numbers_and_words_of_the_protocol() {
    for (number, state) in (0..).zip(BackendState::ALL) {
        assert_eq!(state.number(), number);
        assert_eq!(BackendState::from_number(number), Some(state));
        assert_eq!(serde_json::to_value(state).unwrap(), state.word());
    }
    assert_eq!(BackendState::from_number(7), None);
    assert!(Notify::default().is_empty());
    assert!(!Notify { state: Some(BackendState::Running), ..Notify::default() }.is_empty());
}

const CALLERS: [(&str, Access); 2] = [
    ("root and operator", Access { write: true, cert: false }),
    ("other", Access { write: false, cert: false }),
];

/// What the captured daemon answered to a caller: a row has one answer for all or one for each kind of caller.
fn captured<'a>(call: &'a Value, who: &str) -> Option<&'a Value> {
    call.get("all").or_else(|| call.get(who))
}

#[test]
fn access_is_never_laxer_than_the_captured_matrix() {
    for version in ["1.103", "1.96.4"] {
        let raw = vectors("localapi/raw.json");
        let calls = raw[format!("endpoint-matrix-{version}")]["calls"].as_array().unwrap().clone();
        let mut checked = 0;
        for call in &calls {
            let path = call["path"].as_str().unwrap();
            let bare = path.split('?').next().unwrap();
            let method = call["method"].as_str().unwrap();
            let Some(endpoint) = Endpoint::at(bare) else { continue };
            // The older daemon answers fewer methods here.
            if version == "1.96.4" && bare == "suggest-exit-node" {
                continue;
            }
            for (who, access) in CALLERS {
                let Some(answer) = captured(call, who) else { continue };
                let theirs = answer["status"].as_u64().unwrap();
                match endpoint.check(method, access) {
                    // What passes the table may still fail for its content, but never where rights are missing.
                    Ok(()) => assert!(![401, 403, 405].contains(&theirs) || bare == "drive/shares", "{call}"),
                    Err(refusal) if bare == "dial" && who == "other" => {
                        assert!([403, 405].contains(&refusal.status))
                    }
                    Err(refusal) => {
                        // The older daemon lacks some endpoints.
                        if theirs == 404 {
                            continue;
                        }
                        assert_eq!(u64::from(refusal.status), theirs, "{call}");
                        if let Some(text) = answer["body"].as_str() {
                            // The newer daemon says "tailnet-lock" where the older says "network-lock".
                            assert_eq!(refusal.text, text.replace("network-lock", "tailnet-lock"), "{call}");
                        }
                    }
                }
                checked += 1;
            }
        }
        assert!(checked > 300, "{version}: {checked}");
    }
}

#[test]
fn rights_come_from_the_user_at_the_other_end() {
    let identity = Identity { daemon_uid: 990, operator_uid: Some(1000), cert_uid: Some(33) };
    for (uid, write, cert) in [
        (Some(0), true, false),
        (Some(990), true, false),
        (Some(1000), true, false),
        (Some(33), false, true),
        (Some(1001), false, false),
        (None, false, false),
    ] {
        assert_eq!(identity.access(uid), Access { write, cert }, "{uid:?}");
    }
    assert!(Access { write: false, cert: true }.covers(Right::WriteOrCert));
    assert!(!Access { write: false, cert: true }.covers(Right::Write));
}

#[test]
fn paths_are_exact() {
    for path in ["status/", "", "profiles", "Status", "file-put", "../status"] {
        assert!(Endpoint::at(path).is_none(), "{path}");
    }
    assert_eq!(Endpoint::at("profiles/current").unwrap().path, "profiles/current");
    assert_eq!(Endpoint::at("profiles/abcd").unwrap().path, "profiles/*");
}
