//! Requests that are none: the captured checks of hosts, pages, paths, bodies and parameters.

use std::sync::PoisonError;

use serde_json::Value;
use tsrs_lab_vectors::json as vectors;

use super::bench::{Bench, OTHER, PEER, ROOT, head};

/// Captured answers that we do not copy, each with its reason.
fn differs(label: &str) -> Option<&'static [u16]> {
    Some(match label {
        // The official daemon never answers; saying so is better than a request that hangs.
        "ping bad type" | "ping lower icmp" => &[400],
        // Exit nodes are not built, and no pref is stored that has no effect.
        "prefs bad exit id" => &[400],
        // Only TCP is carried by `dial`.
        "dial udp" => &[502],
        // Taildrop is not built.
        "file-put no such peer"
        | "file-put bad path"
        | "files unknown"
        | "files delete unknown"
        | "files bad wait" => &[501],
        _ => return None,
    })
}

#[tokio::test]
async fn captured_request_checks_give_the_captured_answers() {
    let bench = Bench::running().await;
    let raw = vectors("localapi/raw.json");
    let mut checked = 0;
    for check in raw["request-checks-1.103"]["checks"].as_array().unwrap() {
        let label = check["label"].as_str().unwrap();
        // Needs a tunnel; `endpoints` has it with one.
        if label == "dial closed port" {
            continue;
        }
        let uid = if check["who"] == "other" { OTHER } else { ROOT };
        let mut path = check["path"].as_str().unwrap().to_owned();
        let own_id = bench.backend.snapshot().netmap.as_ref().unwrap().self_node().id;
        path = path.replace("id=1", &format!("id={own_id}"));
        let mut request = format!("{} {path} HTTP/1.1\r\n", check["method"].as_str().unwrap());
        if let Some(host) = check["host"].as_str() {
            request += &format!("Host: {host}\r\n");
        }
        let headers = check["headers"].as_object().unwrap();
        for (name, value) in headers {
            request += &format!("{name}: {}\r\n", value.as_str().unwrap());
        }
        if !headers.contains_key("Connection") {
            request += "Connection: close\r\n";
        }
        let body = match &check["request_body"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            body @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                body.to_string()
            }
        };
        request += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
        let reply = bench.raw(uid, request.as_bytes()).await;
        checked += 1;
        if let Some(wanted) = differs(label) {
            assert!(wanted.contains(&reply.status), "{label}: {} {}", reply.status, reply.text());
            continue;
        }
        assert_eq!(u64::from(reply.status), check["status"].as_u64().unwrap(), "{label}: {}", reply.text());
        if let Some(text) = check["body"]["text"].as_str().filter(|_| same_words(label)) {
            assert_eq!(reply.text(), text, "{label}");
        }
        if let Some(wanted) = check["body"]["json"].as_object() {
            let ours = reply.json();
            for key in wanted.keys() {
                assert!(ours.get(key).is_some(), "{label}: {key} is missing in {ours}");
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

/// Whether people or scripts see the text, and it does not come from Go's own decoder.
fn same_words(label: &str) -> bool {
    !["root page", "root page other", "prefs wrong type", "prefs bad route", "no host", "usermetrics other"]
        .contains(&label)
}

#[tokio::test]
async fn bodies_may_come_with_a_length_or_in_chunks() {
    let bench = Bench::new().await;
    let body = r#"{"Hostname":"x","HostnameSet":true}"#;
    let with_length =
        format!("{}Content-Length: {}\r\n\r\n{body}", head("PATCH", "/localapi/v0/prefs"), body.len());
    let (first, second) = body.split_at(7);
    let in_chunks = format!(
        "{}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        head("PATCH", "/localapi/v0/prefs"),
        first.len(),
        second.len()
    );
    for request in [with_length, in_chunks] {
        let reply = bench.raw(ROOT, request.as_bytes()).await;
        assert_eq!((reply.status, &reply.json()["Hostname"]), (200, &Value::from("x")));
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_and_change_nothing() {
    let bench = Bench::running().await;
    let before = bench.backend.snapshot().prefs.clone();
    let host = "Host: local-tailscaled.sock\r\n";
    let cases: Vec<(String, &[u16])> = vec![
        ("GARBAGE\r\n\r\n".into(), &[400]),
        ("GET / HTTP/9.9\r\n\r\n".into(), &[400]),
        (format!("GET /localapi/v0/status HTTP/1.1\r\n{host}{host}Connection: close\r\n\r\n"), &[400, 403]),
        (
            format!("GET http://evil.example/localapi/v0/status HTTP/1.1\r\n{host}Connection: close\r\n\r\n"),
            &[403],
        ),
        (format!("GET /localapi/v0/%zz HTTP/1.1\r\n{host}Connection: close\r\n\r\n"), &[400, 404]),
        (format!("GET /localapi/v0/status%ff HTTP/1.1\r\n{host}Connection: close\r\n\r\n"), &[400, 404]),
        (format!("PATCH /localapi/v0/prefs HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"), &[400]),
        (
            format!(
                "PATCH /localapi/v0/prefs HTTP/1.1\r\n{host}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
            ),
            &[400],
        ),
        ("GET / HTTP/1.1\r\n".to_owned() + &"X: y\r\n".repeat(200) + "\r\n", &[431]),
        (format!("GET /{} HTTP/1.1\r\n", "a".repeat(100 << 10)), &[414, 431]),
    ];
    for (request, wanted) in cases {
        let reply = bench.raw(ROOT, request.as_bytes()).await;
        assert!(wanted.contains(&reply.status), "{:.60}: {}", request, reply.status);
    }
    assert_eq!(bench.backend.snapshot().prefs, before);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused() {
    let bench = Bench::new().await;
    let len = super::super::request::MAX_BODY_LEN + 1;
    let mut request =
        format!("{}Content-Length: {len}\r\n\r\n", head("PATCH", "/localapi/v0/prefs")).into_bytes();
    request.resize(request.len() + len, b' ');
    assert_eq!(bench.raw(ROOT, &request).await.status, 413);
}

#[tokio::test]
async fn a_caller_that_is_refused_may_finish_its_request_first() {
    let bench = Bench::new().await;
    let body = [b' '; 100 << 10];
    let head = format!("{}Content-Length: {}\r\n\r\n", head("PATCH", "/localapi/v0/prefs"), body.len());
    let mut stream = bench.connect(OTHER);
    tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.unwrap();
    // Long enough for an answer that does not wait for the rest.
    let mut answer = Vec::new();
    let early = tokio::io::AsyncReadExt::read_buf(&mut stream, &mut answer);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(100), early).await.is_err());
    tokio::io::AsyncWriteExt::write_all(&mut stream, &body).await.unwrap();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 403 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn no_prefix_of_a_request_is_taken_for_the_whole() {
    let bench = Bench::new().await;
    let body = r#"{"WantRunning":true,"WantRunningSet":true}"#;
    let request =
        format!("{}Content-Length: {}\r\n\r\n{body}", head("PATCH", "/localapi/v0/prefs"), body.len());
    for len in 0..request.len() {
        let mut stream = bench.connect(ROOT);
        tokio::io::AsyncWriteExt::write_all(&mut stream, &request.as_bytes()[..len]).await.unwrap();
        drop(stream);
        // The server sees the end and makes room.
        while !bench.api.slots.is_empty() {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(bench.ask(ROOT, "GET", "prefs", None).await.json()["WantRunning"], false);
    let reply = bench.raw(ROOT, request.as_bytes()).await;
    assert_eq!(reply.json()["WantRunning"], true);
}

#[tokio::test]
async fn a_ping_without_an_answer_is_held_until_the_caller_leaves() {
    let bench = Bench::running().await;
    *bench.tunnel.silent.lock().unwrap_or_else(PoisonError::into_inner) = true;
    let path = format!("ping?ip={PEER}&type=disco");
    let asking = bench.ask(ROOT, "POST", &path, None);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), asking).await.is_err());
}
