//! Watchers of the bus: order, masks, slowness.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tsrs_agent_localapi::{BackendState, Notify};

use super::bench::{Bench, OTHER, ROOT, head};

pub(super) struct Watcher {
    stream: BufReader<DuplexStream>,
    line: String,
}

impl Watcher {
    /// Begins to watch; the head of the answer has come.
    pub(super) async fn new(bench: &Bench, mask: u64) -> Self {
        let mut stream = bench.connect(OTHER);
        let request = head("GET", &format!("/localapi/v0/watch-ipn-bus?mask={mask}")) + "\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut watcher = Self { stream: BufReader::new(stream), line: String::new() };
        let mut kind = false;
        while watcher.read_line().await > 2 {
            kind |= watcher.line.eq_ignore_ascii_case("content-type: application/json\r\n");
        }
        assert!(kind, "the head comes at once and names the type");
        watcher
    }

    async fn read_line(&mut self) -> usize {
        self.line.clear();
        let read = self.stream.read_line(&mut self.line);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("nothing comes").unwrap()
    }

    /// The next message; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if self.read_line().await == 0 {
                return None;
            }
            if self.line.starts_with('{') {
                return Some(serde_json::from_str(&self.line).unwrap());
            }
        }
    }

    /// The next error; other messages are passed over.
    pub(super) async fn next_error(&mut self) -> Option<String> {
        loop {
            if let Some(text) = self.next().await?["ErrMessage"].as_str() {
                return Some(text.to_owned());
            }
        }
    }

    /// The members that say something, of messages up to and with the one that `last` accepts.
    pub(super) async fn words_until(&mut self, last: impl Fn(&Value) -> bool) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(message) = self.next().await {
            for (key, value) in message.as_object().unwrap() {
                match key.as_str() {
                    "Version" | "Health" => {}
                    "State" if !value.is_null() => words.push(format!("State:{value}")),
                    _ if !value.is_null() => words.push(key.clone()),
                    _ => {}
                }
            }
            if last(&message) {
                break;
            }
        }
        words
    }
}

pub(super) fn is_running(message: &Value) -> bool {
    message["State"] == BackendState::Running.number()
}

#[tokio::test]
async fn a_login_with_a_key_is_told_in_the_captured_order() {
    let bench = Bench::new().await;
    let mut watcher = Watcher::new(&bench, 0).await;
    bench.log_in().await;
    let words = watcher.words_until(is_running).await;
    let at = |word: &str| {
        words.iter().position(|found| found == word).unwrap_or_else(|| panic!("no {word} in {words:?}"))
    };
    assert!(at("State:2") < at("LoginFinished"), "{words:?}");
    assert!(at("LoginFinished") < at("SelfChange"), "{words:?}");
    assert!(at("SelfChange") < at("State:5") || at("State:5") < at("State:6"), "{words:?}");
    assert!(at("State:5") < at("State:6"), "{words:?}");
    assert_eq!(words.last().map(String::as_str), Some("State:6"));
}

#[tokio::test]
async fn going_down_and_up_is_told_to_watchers_without_any_bit() {
    let bench = Bench::running().await;
    let mut watcher = Watcher::new(&bench, 0).await;
    for (want, state) in [(false, BackendState::Stopped), (true, BackendState::Running)] {
        let edit = json!({"WantRunning": want, "WantRunningSet": true});
        assert_eq!(bench.ask(ROOT, "PATCH", "prefs", Some(&edit)).await.status, 200);
        bench.contact().await;
        let words = watcher.words_until(|message| message["State"] == state.number()).await;
        assert!(words.contains(&"Prefs".to_owned()), "{words:?}");
    }
}

#[tokio::test]
async fn the_first_message_holds_what_the_mask_asks_for() {
    let bench = Bench::running().await;
    for (mask, wanted) in [
        (2, &["SessionID", "State"][..]),
        (4, &["Prefs"]),
        (8, &["NetMap", "SelfChange"]),
        (128, &["Health"]),
        (14, &["SessionID", "State", "Prefs", "NetMap", "SelfChange"]),
        (1 << 14, &["InitialStatus"]),
    ] {
        let first = Watcher::new(&bench, mask).await.next().await.unwrap();
        for key in ["SessionID", "State", "Prefs", "NetMap", "SelfChange", "Health", "InitialStatus"] {
            let has = first.get(key).is_some_and(|value| !value.is_null());
            assert_eq!(has, wanted.contains(&key), "mask {mask}: {key}");
        }
        for key in [
            "Version",
            "ErrMessage",
            "LoginFinished",
            "State",
            "Prefs",
            "NetMap",
            "Engine",
            "BrowseToURL",
            "DriveShares",
        ] {
            assert!(first.get(key).is_some(), "mask {mask}: {key} is always there");
        }
    }
}

#[tokio::test]
async fn private_keys_never_reach_a_watcher() {
    let bench = Bench::running().await;
    let first = Watcher::new(&bench, 14).await.next().await.unwrap().to_string();
    for (at, _) in first.match_indices("privkey:") {
        assert!(first[at..].starts_with(&format!("privkey:{}", "0".repeat(64))));
    }
}

#[tokio::test]
async fn statistics_come_to_those_who_ask() {
    let bench = Bench::running().await;
    let mut watcher = Watcher::new(&bench, 1).await;
    let message = watcher.next().await.unwrap();
    assert_eq!(message["Engine"]["RBytes"], 5);
}

#[tokio::test]
async fn two_sessions_have_two_ids() {
    let bench = Bench::new().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        ids.push(
            Watcher::new(&bench, 2).await.next().await.unwrap()["SessionID"].as_str().unwrap().to_owned(),
        );
    }
    assert!(ids.iter().all(|id| id.len() == 16));
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_slow_watcher_is_dropped_and_the_others_are_not() {
    let bench = Bench::new().await;
    let mut slow = Watcher::new(&bench, 0).await;
    let mut quick = Watcher::new(&bench, 0).await;
    let told = 2000;
    for number in 0..told {
        let text = format!("{number}-{}", "x".repeat(1000));
        bench.tell(Notify { err_message: Some(text.clone()), ..Notify::default() });
        assert_eq!(quick.next_error().await, Some(text));
    }
    let mut seen = 0;
    while let Some(text) = slow.next_error().await {
        assert!(text.starts_with(&format!("{seen}-")), "the order is kept up to the end");
        seen += 1;
    }
    assert!(seen > 0 && seen < told, "{seen}");
}
