//! Captured exchanges of the official clients, sent again: our answers have the captured shape (README of `localapi/`,
//! point 1).

use std::collections::BTreeMap;

use serde_json::Value;
use tsrs_lab_vectors::json as vectors;

use super::bench::{Bench, OPERATOR, OTHER, ROOT};

/// Reads that a fake daemon can answer. What changes something is covered by the tests of the agent.
const READS: &[&str] = &[
    "status",
    "prefs",
    "whois",
    "derpmap",
    "services",
    "dns-config",
    "dns-osconfig",
    "dns-query",
    "profiles/",
    "profiles/current",
    "suggest-exit-node",
    "check-ip-forwarding",
    "check-udp-gro-forwarding",
    "check-so-mark-in-use",
    "serve-config",
    "tka/status",
    "usermetrics",
    "metrics",
    "bugreport",
    "debug-packet-filter-rules",
    "upload-client-metrics",
    "reload-config",
    "file-targets",
    "check-prefs",
];

/// Calls after which a run is in another state.
const WRITES: &[&str] = &["start", "login-interactive", "logout", "reset-auth", "serve-config", "profiles/"];

/// Members that are left out where they are empty, and that this tailnet has not (client sheet §1.6 and §2.3), and a
/// pref that 1.103 no longer has.
const LEFT_OUT: &[&str] = &[
    "AllowSingleHosts",
    "ExitNodeStatus",
    "KeyExpiry",
    "PrimaryRoutes",
    "ProfileName",
    "sshHostKeys",
    // Null until the user has chosen.
    "Apply",
];

/// Keyed by data: one entry is compared with one.
const MAPS: &[&str] = &["Peer", "User", "Regions", "Warnings"];

/// Whether `ours` has the shape of `theirs`: each member, of the same kind. A null of theirs says nothing about the kind.
fn same_shape(ours: &Value, theirs: &Value, path: &str) -> Result<(), String> {
    let differ = || Err(format!("{path}: {ours:.80} is not like {theirs:.80}"));
    match (ours, theirs) {
        (_, Value::Null) => Ok(()),
        (Value::Object(ours), Value::Object(theirs)) if MAPS.iter().any(|name| path.ends_with(name)) => {
            match (ours.values().next(), theirs.values().next()) {
                (Some(ours), Some(theirs)) => same_shape(ours, theirs, &format!("{path}.*")),
                _ => Ok(()),
            }
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, theirs) in theirs.iter().filter(|(key, _)| !LEFT_OUT.contains(&key.as_str())) {
                let ours = ours.get(key).ok_or_else(|| format!("{path}.{key}: missing"))?;
                same_shape(ours, theirs, &format!("{path}.{key}"))?;
            }
            Ok(())
        }
        (Value::Array(ours), Value::Array(theirs)) => match (ours.first(), theirs.first()) {
            (Some(ours), Some(theirs)) => same_shape(ours, theirs, &format!("{path}[]")),
            _ => Ok(()),
        },
        // Lists and objects that are empty here are null as Go writes them, or the other way round.
        (Value::Null, Value::Array(_) | Value::Object(_)) => Ok(()),
        (Value::String(_), Value::String(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_)) => Ok(()),
        _ => differ(),
    }
}

/// Sends every read of a state again; gives how many were compared, by path.
async fn replay(bench: &Bench, state: &str) -> BTreeMap<String, usize> {
    let (mut counts, mut failures) = (BTreeMap::new(), Vec::<String>::new());
    for version in ["1.103", "1.96.4"] {
        let runs = vectors(&format!("localapi/{version}.json"));
        for (name, run) in runs.as_object().unwrap() {
            let uid = match run["user"].as_str().unwrap() {
                "root" => ROOT,
                "operator" => OPERATOR,
                _ => OTHER,
            };
            if run["backend_state_before"] != state || is_special(name) {
                continue;
            }
            for exchange in run["exchanges"].as_array().unwrap() {
                let (request, response) = (&exchange["request"], &exchange["response"]);
                let Some(path) = request["path"].as_str().unwrap().strip_prefix("/localapi/v0/") else {
                    continue;
                };
                let method = request["method"].as_str().unwrap();
                if !matches!(method, "GET" | "POST")
                    || (method == "POST" && WRITES.iter().any(|write| path.starts_with(write)))
                {
                    // From here on the run is in another state.
                    break;
                }
                if !response["status"].is_u64() || !READS.contains(&path) {
                    continue;
                }
                let query: Vec<String> = request["query"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, value)| format!("{key}={}", value.as_str().unwrap().replace(' ', "+")))
                    .collect();
                let body = &request["body"]["json"];
                let reply = bench
                    .ask(
                        uid,
                        method,
                        &format!("{path}?{}", query.join("&")),
                        (!body.is_null()).then_some(body),
                    )
                    .await;
                let about = format!("{version} {name}: {method} {path} {query:?}");
                let theirs = response["status"].as_u64().unwrap();
                assert_eq!(u64::from(reply.status), theirs, "{about}: {}", reply.text());
                *counts.entry(path.to_owned()).or_insert(0) += 1;
                if theirs == 403 {
                    assert_eq!(reply.text(), response["body"]["text"].as_str().unwrap(), "{about}");
                } else if let Some(wanted) = response["body"].get("json") {
                    if let Err(error) = same_shape(&reply.json(), wanted, path) {
                        failures.push(format!("{about}: {error}"));
                    }
                    if path == "status" {
                        assert_eq!(reply.json()["BackendState"], wanted["BackendState"], "{about}");
                        assert!(reply.json()["Self"].is_object(), "{about}");
                    }
                }
                if let Some(kind) = response["headers"]["Content-Type"].as_str() {
                    assert_eq!(reply.header("content-type"), kind, "{about}");
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    counts
}

/// Runs that need more than the state, such as a serve config, an expired key or a peer that this tailnet has not.
fn is_special(name: &str) -> bool {
    [
        "serve",
        "funnel",
        "key-expired",
        "whois",
        "node-deleted",
        "after-",
        "web",
        "configure",
        "set-exit",
        "exit-node",
        "second",
    ]
    .iter()
    .any(|word| name.contains(word))
}

#[tokio::test]
async fn a_running_daemon_answers_as_captured() {
    let counts = replay(&Bench::running().await, "Running").await;
    assert!(counts.values().sum::<usize>() > 300, "{counts:?}");
    assert!(counts.len() > 12, "{counts:?}");
}

#[tokio::test]
async fn a_stopped_daemon_answers_as_captured() {
    let counts = replay(&Bench::stopped().await, "Stopped").await;
    assert!(counts.values().sum::<usize>() > 10, "{counts:?}");
}

#[tokio::test]
async fn a_daemon_before_its_first_login_answers_as_captured() {
    let counts = replay(&Bench::new().await, "NeedsLogin").await;
    assert!(counts.values().sum::<usize>() > 30, "{counts:?}");
}
