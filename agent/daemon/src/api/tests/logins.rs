//! Logins, logouts and what becomes of the account.

use serde_json::{Value, json};
use tsrs_agent_localapi::BackendState;

use super::bench::{AUTH_URL, Bench, GOOD_KEY, ROOT};
use super::bus::{Watcher, is_running};

fn prefs() -> Value {
    json!({"ControlURL": "https://control.lab.test", "WantRunning": true, "NetfilterMode": 2,
        "NoStatefulFiltering": true})
}

#[tokio::test]
async fn an_interactive_login_is_told_in_the_captured_order() {
    let bench = Bench::new().await;
    // The state is shown before it is told.
    bench.backend.call(|_, _| ()).await.unwrap();
    let mut watcher = Watcher::new(&bench, 0).await;
    let has_url = |message: &Value| message["BrowseToURL"] == AUTH_URL;
    bench.start(prefs(), "").await;
    assert_eq!(watcher.words_until(has_url).await, ["Prefs", "Prefs", "State:2", "BrowseToURL"]);
    assert_eq!(bench.ask(ROOT, "POST", "login-interactive", None).await.status, 204);
    assert_eq!(watcher.words_until(has_url).await, ["BrowseToURL"], "who asks again is told where to go");
    let status = bench.ask(ROOT, "GET", "status", None).await.json();
    assert_eq!((&status["AuthURL"], &status["BackendState"]), (&json!(AUTH_URL), &json!("NeedsLogin")));
    bench.control.visit();
    bench.until(BackendState::Starting).await;
    bench.contact().await;
    let words: Vec<String> = watcher.words_until(is_running).await;
    let words: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| !["Engine", "NetMap"].contains(word)).collect();
    assert_eq!(words, ["LoginFinished", "Prefs", "State:5", "Prefs", "SelfChange", "State:6"]);
    let status = bench.ask(ROOT, "GET", "status", None).await.json();
    assert_eq!(status["AuthURL"], "");
    let account = bench.ask(ROOT, "GET", "profiles/current", None).await.json();
    assert_eq!(account["UserProfile"]["LoginName"], "lab");
}

#[tokio::test]
async fn a_bad_key_is_told_and_leaves_the_login_open() {
    let bench = Bench::new().await;
    let mut watcher = Watcher::new(&bench, 0).await;
    bench.start(prefs(), "no such key").await;
    assert_eq!(watcher.next_error().await.as_deref(), Some("invalid pre auth key"));
    assert_eq!(bench.backend.snapshot().state, BackendState::NeedsLogin);
    bench.log_in().await;
}

#[tokio::test]
async fn a_forced_login_shows_both_forms_of_the_new_key() {
    let bench = Bench::running().await;
    let before = bench.ask(ROOT, "GET", "status", None).await.json()["Self"]["PublicKey"].clone();
    let mut watcher = Watcher::new(&bench, 0).await;
    bench.start(prefs(), GOOD_KEY).await;
    assert_eq!(bench.ask(ROOT, "POST", "login-interactive", None).await.status, 204);
    let message = loop {
        let message = watcher.next().await.unwrap();
        if !message["SelfChange"].is_null() {
            break message;
        }
    };
    assert_ne!(message["SelfChange"]["Key"], before);
    assert_eq!(message["NetMap"]["SelfNode"]["Key"], message["SelfChange"]["Key"]);
}

#[tokio::test]
async fn a_logout_forgets_the_account_also_when_the_server_is_away() {
    let bench = Bench::running().await;
    assert_eq!(bench.ask(ROOT, "POST", "logout", None).await.status, 204);
    assert_eq!(bench.ask(ROOT, "GET", "profiles/", None).await.json(), json!([]));
    assert_eq!(bench.ask(ROOT, "POST", "logout", None).await.status, 204, "also when logged out");
    bench.log_in().await;
    bench.control.refuse_logout();
    let reply = bench.ask(ROOT, "POST", "logout", None).await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("no route to host"), "{}", reply.text());
    assert_eq!(bench.backend.snapshot().state, BackendState::NeedsLogin);
    assert_eq!(bench.ask(ROOT, "GET", "profiles/", None).await.json(), json!([]));
}

#[tokio::test]
async fn a_state_that_cannot_be_written_is_told_and_shown() {
    let bench = Bench::running().await;
    // A directory where the new file should be makes every write fail, as a full disk does.
    let obstacle = bench.dir.path().join("state.new");
    std::fs::create_dir(&obstacle).unwrap();
    let edit = |shields: bool| json!({"ShieldsUp": shields, "ShieldsUpSet": true});
    let reply = bench.ask(ROOT, "PATCH", "prefs", Some(&edit(true))).await;
    assert_eq!(reply.status, 500);
    assert!(reply.text().contains("could not be saved"), "{}", reply.text());
    let health = bench.ask(ROOT, "GET", "status", None).await.json()["Health"].to_string();
    assert!(health.contains("could not be written"), "{health}");
    std::fs::remove_dir(&obstacle).unwrap();
    assert_eq!(bench.ask(ROOT, "PATCH", "prefs", Some(&edit(false))).await.status, 200);
    let health = bench.ask(ROOT, "GET", "status", None).await.json()["Health"].to_string();
    assert!(!health.contains("could not be written"), "{health}");
}
