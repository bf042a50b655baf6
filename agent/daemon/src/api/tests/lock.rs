//! `tka/*` without a lock: the captured answers, and no call to control.

use serde_json::{Value, json};

use super::bench::{Bench, OTHER, ROOT};

#[tokio::test]
async fn without_a_lock_every_call_says_so_in_the_captured_words() {
    let bench = Bench::running().await;
    let key = json!({"Kind": 1, "Votes": 1, "Public": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", "Meta": null});
    let node = format!("nodekey:{}", "22".repeat(32));
    let wrap = json!({"TSKey": "tskey-auth-x", "TKAKey": ""});
    for (path, body, status, words) in [
        (
            "tka/sign",
            json!({"NodeKey": node, "RotationPublic": null}),
            500,
            "signing failed: tailnet-lock is not active",
        ),
        ("tka/sign", json!("x"), 400, "invalid JSON body"),
        ("tka/disable", json!(3333), 400, "tailnet-lock disable failed: tailnet-lock is not active"),
        (
            "tka/force-local-disable",
            json!({}),
            400,
            "tailnet-lock local disable failed: tailnet-lock is not active",
        ),
        ("tka/force-local-disable", json!(1), 400, "invalid JSON body"),
        (
            "tka/modify",
            json!({"AddKeys": [key]}),
            500,
            "tailnet-lock modify failed: tailnet-lock is not active",
        ),
        ("tka/modify", json!({"AddKeys": [{"Kind": 1, "Votes": 9000}]}), 500, "votes"),
        (
            "tka/init",
            json!({"Keys": [key], "DisablementValues": []}),
            403,
            "Tailnet Lock is not supported on your pricing plan",
        ),
        ("tka/wrap-preauth-key", wrap, 500, "tailnet-lock is not active"),
        ("tka/generate-recovery-aum", json!({"Keys": [], "ForkFrom": ""}), 500, "tailnet-lock is not active"),
        ("tka/generate-recovery-aum", json!({"Keys": [], "ForkFrom": "x"}), 400, "decoding fork-from"),
        ("tka/verify-deeplink", json!("x"), 400, "invalid JSON for verifyRequest body"),
        (
            "tka/verify-deeplink",
            json!({"URL": "tailscale://sign-device/v1/"}),
            200,
            "tailnet-lock is not active",
        ),
        ("tka/cosign-recovery-aum", json!({}), 400, "decoding AUM"),
        ("tka/submit-recovery-aum", json!({}), 400, "decoding AUM"),
    ] {
        let reply = bench.ask(ROOT, "POST", path, Some(&body)).await;
        assert_eq!(u64::from(reply.status), status, "{path} {}", reply.text());
        assert!(reply.text().contains(words), "{path}: {}", reply.text());
    }
    let log = bench.ask(OTHER, "GET", "tka/log", None).await;
    assert_eq!((log.status, log.text().trim()), (500, "reading log failed: tailnet-lock is not active"));
    let log = bench.ask(OTHER, "GET", "tka/log?limit=many", None).await;
    assert_eq!(log.status, 400);
    let status = bench.ask(OTHER, "GET", "tka/status", None).await.json();
    assert_eq!(
        (&status["Enabled"], &status["Head"], status.get("Standing")),
        (&json!(false), &Value::Null, None)
    );
}

#[tokio::test]
async fn a_lock_that_is_demanded_and_not_there_is_seen_in_every_status() {
    let bench = Bench::running().await;
    let edit = json!({"LockRequired": true, "LockRequiredSet": true});
    assert_eq!(bench.ask(ROOT, "PATCH", "prefs", Some(&edit)).await.status, 200);
    let lock = bench.ask(OTHER, "GET", "tka/status", None).await.json();
    assert_eq!((&lock["Enabled"], &lock["Standing"]), (&json!(false), &json!("shut")));
    assert_eq!(lock["FilteredPeers"].as_array().unwrap().len(), 2);
    let status = bench.ask(OTHER, "GET", "status", None).await.json();
    assert!(status["Peer"].is_null(), "{status}");
    assert!(status["Health"].to_string().contains("Tailnet Lock is not verified"), "{status}");
    let whois = bench.ask(ROOT, "GET", &format!("whois?addr={}", super::bench::PEER), None).await;
    assert_eq!(whois.status, 404);
}
