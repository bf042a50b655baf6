//! Every endpoint by every method and user, against the captured matrix (README of `localapi/`, point 3).

use serde_json::{Value, json};
use tsrs_agent_localapi::Endpoint;
use tsrs_lab_vectors::json as vectors;

use super::bench::{Bench, OPERATOR, OTHER, ROOT};

/// What is not asked: it ends the daemon, the login or the tunnel of the bench, or never answers.
const LEFT_OUT: &[&str] =
    &["shutdown", "logout", "reset-auth", "start", "login-interactive", "watch-ipn-bus"];

/// Answers that a feature which is not built gives in place of success or of its own complaint.
const NOT_BUILT: &[&str] =
    &["files/", "query-feature", "id-token", "cert/", "tka/", "file-put/", "set-use-exit-node-enabled"];

/// What the captured daemon answered to a user, where the capture says.
fn captured(call: &Value, uid: u32) -> Option<&Value> {
    let who = if uid == OTHER { "other" } else { "root and operator" };
    call.get("all").or_else(|| call.get(who)).filter(|answer| answer["status"].is_u64())
}

#[tokio::test]
async fn no_endpoint_is_laxer_than_the_captured_matrix() {
    let bench = Bench::running().await;
    let raw = vectors("localapi/raw.json");
    let mut checked = 0;
    for call in raw["endpoint-matrix-1.103"]["calls"].as_array().unwrap() {
        let (path, method) = (call["path"].as_str().unwrap(), call["method"].as_str().unwrap());
        let bare = path.split('?').next().unwrap();
        if LEFT_OUT.contains(&bare) && method == "POST" || bare == "watch-ipn-bus" {
            continue;
        }
        for uid in [ROOT, OPERATOR, OTHER] {
            let Some(wanted) = captured(call, uid) else { continue };
            let theirs = wanted["status"].as_u64().unwrap();
            // A body that changes nothing.
            let body = matches!(method, "PATCH" | "POST" | "PUT").then(|| json!({}));
            let body = body.filter(|_| bare == "prefs" || bare == "serve-config");
            let reply = bench.ask(uid, method, path, body.as_ref()).await;
            let ours = u64::from(reply.status);
            checked += 1;
            if Endpoint::at(bare).is_none() {
                assert_eq!(ours, 404, "{call} {uid}");
            } else if bare == "dial" && uid == OTHER {
                assert!([403, 405].contains(&ours), "{call} {ours}");
            } else if theirs >= 400 || ours >= 400 {
                let unbuilt = NOT_BUILT.iter().any(|prefix| bare.starts_with(prefix));
                assert!(
                    ours == theirs || (unbuilt && ours >= 400 && theirs != 403),
                    "{call}: {uid} got {ours} {}",
                    reply.text()
                );
                if let Some(text) = wanted["body"].as_str().filter(|_| [403, 405].contains(&theirs)) {
                    assert_eq!(reply.text().trim_end(), text, "{call} {uid}");
                }
            } else {
                assert_eq!(ours, theirs, "{call} {uid}");
                if let Some(kind) = wanted["content_type"].as_str() {
                    assert_eq!(reply.header("content-type"), kind, "{call} {uid}");
                }
            }
            if method == "HEAD" {
                assert!(reply.body.is_empty(), "{call} {uid}");
            }
        }
    }
    assert!(checked > 500, "{checked}");
}

#[tokio::test]
async fn every_answer_forbids_framing_and_sniffing_and_tells_no_version() {
    let bench = Bench::new().await;
    for path in ["/", "/nosuch", "/localapi/v0/status", "/localapi/v0/nosuch"] {
        let request = super::bench::head("GET", path) + "\r\n";
        let reply = bench.raw(OTHER, request.as_bytes()).await;
        assert_eq!(reply.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert!(!reply.headers.contains_key("tailscale-version"), "{path}");
    }
}

#[tokio::test]
async fn the_operator_loses_the_right_with_the_pref() {
    let bench = Bench::running().await;
    assert_eq!(bench.ask(OPERATOR, "GET", "profiles/", None).await.status, 200);
    assert_eq!(bench.ask(OTHER, "GET", "profiles/", None).await.status, 403);
    let edit = json!({"OperatorUser": "", "OperatorUserSet": true});
    assert_eq!(bench.ask(OPERATOR, "PATCH", "prefs", Some(&edit)).await.status, 200);
    assert_eq!(bench.ask(OPERATOR, "GET", "profiles/", None).await.status, 403);
}
