use http::Method;
use rand_core::OsRng;
use tsrs_base_types::NodePublic;

use super::*;
use crate::calls::{Call, MAX_ANSWER_LEN, json, register, request, update};
use crate::error::ErrorKind;
use crate::test_server::{Reply, TestServer, Upgrade, net};
use tsrs_control_tailcfg::{MapRequest, RegisterRequest};

fn connector(server: &TestServer) -> Connector {
    let machine_key = MachinePrivate::generate(&mut OsRng);
    Connector::new(net(), server.url().parse().unwrap(), machine_key, 119)
}

fn http_answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// A call that answers JSON.
async fn call(connector: &Connector, method: Method, path: &str) -> Result<serde_json::Value, Error> {
    let call = Call { what: "testing", method: &method, path, max_len: MAX_ANSWER_LEN };
    crate::calls::call(connector, call, NodePublic::default(), &serde_json::json!({})).await
}

async fn simple(connector: &Connector) -> Result<serde_json::Value, Error> {
    call(connector, Method::POST, "/machine/test").await
}

#[tokio::test]
async fn one_connection_carries_all_calls() {
    for early in [true, false] {
        let server = TestServer::start(|seen| Reply::ok(format!("{{\"path\":\"{}\"}}", seen.path))).await;
        server.set_upgrade(Upgrade::Accept { early });
        let connector = connector(&server);
        let calls = (0..8).map(|_| simple(&connector));
        for outcome in futures_util::future::join_all(calls).await {
            assert_eq!(outcome.unwrap()["path"], "/machine/test");
        }
        assert_eq!((server.outer_count("GET /key"), server.outer_count("POST /ts2021")), (1, 1));
        // A new connection needs no new key.
        connector.disconnect();
        simple(&connector).await.unwrap();
        assert_eq!((server.outer_count("GET /key"), server.outer_count("POST /ts2021")), (1, 2));
    }
}

#[tokio::test]
async fn a_broken_connection_fails_its_calls_and_the_next_dials() {
    let server = TestServer::start(|_| Reply::ok("{}")).await;
    let connector = connector(&server);
    simple(&connector).await.unwrap();
    let sender = connector.open_sender().unwrap();
    connector.disconnect();
    let request = request(Method::POST, "https://x/", &[], Bytes::new()).unwrap();
    let mut sender = sender;
    assert!(sender.send_request(request).await.is_err());
    simple(&connector).await.unwrap();
}

#[tokio::test]
async fn a_server_with_a_new_key_is_found_again() {
    let server = TestServer::start(|_| Reply::ok("{}")).await;
    let connector = connector(&server);
    simple(&connector).await.unwrap();
    connector.disconnect();
    server.manners.lock().unwrap().key = MachinePrivate::generate(&mut OsRng);
    assert!(simple(&connector).await.is_err());
    simple(&connector).await.unwrap();
    assert_eq!(server.outer_count("GET /key"), 2);
}

#[tokio::test]
async fn what_is_no_control_server_is_explained() {
    for (answer, kind, word) in [
        (http_answer("404 Not Found", "", "404 page not found"), ErrorKind::NotControl, "--login-server"),
        (http_answer("401 Unauthorized", "", ""), ErrorKind::NotControl, "401"),
        (http_answer("200 OK", "", "<html>hello</html>"), ErrorKind::NotControl, "--login-server"),
        (http_answer("200 OK", "", ""), ErrorKind::Version, "too old"),
        (http_answer("200 OK", "", "{}"), ErrorKind::Version, "too old"),
        (http_answer("503 Service Unavailable", "", "down"), ErrorKind::Server, "503: down"),
        (http_answer("429 Too Many", "Retry-After: 7\r\n", ""), ErrorKind::RateLimited, "in 7 s"),
        ("SMTP ready\r\n".to_owned(), ErrorKind::NotControl, "HTTP"),
        (http_answer("200 OK", "", &"x".repeat(65 * 1024)), ErrorKind::NotControl, "limit"),
    ] {
        let server = TestServer::start(|_| Reply::ok("{}")).await;
        server.manners.lock().unwrap().key_answers.push_back(answer);
        let connector = connector(&server);
        let error = simple(&connector).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{word}: {error}");
        // The next try succeeds: nothing wrong was kept.
        simple(&connector).await.unwrap();
    }
}

#[tokio::test]
async fn redirects_lead_to_the_key() {
    let server = TestServer::start(|_| Reply::ok("{}")).await;
    let redirect = http_answer("302 Found", "Location: /key?v=119\r\n", "");
    server.manners.lock().unwrap().key_answers.extend(vec![redirect.clone(); 3]);
    simple(&connector(&server)).await.unwrap();
    server.manners.lock().unwrap().key_answers.extend(vec![redirect; 4]);
    assert_eq!(simple(&connector(&server)).await.unwrap_err().kind(), ErrorKind::NotControl);
}

#[tokio::test]
async fn error_statuses_become_errors_with_their_reason() {
    for (status, headers, body, kind, word) in [
        (400, vec![], "unsupported client version: v1.64 (90)\n", ErrorKind::Version, "v1.64"),
        (401, vec![], "machine key does not match\n", ErrorKind::Refused, "does not match"),
        (404, vec![], "404 page not found\n", ErrorKind::Refused, "404"),
        (429, vec![("Retry-After", "12".to_owned())], "", ErrorKind::RateLimited, "12 s"),
        (500, vec![], "internal server error\n", ErrorKind::Server, "internal"),
        (503, vec![], "", ErrorKind::Server, "503"),
        (200, vec![], "not JSON", ErrorKind::Garbage, "cannot be understood"),
    ] {
        let server = TestServer::start(move |_| {
            Reply::Whole(status, headers.clone(), Bytes::from_static(body.as_bytes()))
        })
        .await;
        let error = register(&connector(&server), &RegisterRequest::default()).await.unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(word), "{status}: {error}");
    }
    let server = TestServer::start(|_| Reply::ok(vec![b' '; (1 << 20) + 1])).await;
    let error = register(&connector(&server), &RegisterRequest::default()).await.unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[tokio::test]
async fn requests_carry_the_node_keys_for_the_load_balancer() {
    let (one, two) = (NodePublic::from_bytes([1; 32]), NodePublic::from_bytes([2; 32]));
    let server = TestServer::start(move |seen| {
        let expected = match seen.path.as_str() {
            "/machine/register" => vec![one.to_string(), two.to_string()],
            _ => vec![two.to_string()],
        };
        assert_eq!(seen.lb_keys, expected);
        assert_eq!(seen.method, "POST");
        Reply::ok(if seen.path == "/machine/register" { "{}" } else { "" })
    })
    .await;
    let connector = connector(&server);
    let request = RegisterRequest { node_key: two, old_node_key: one, ..RegisterRequest::default() };
    register(&connector, &request).await.unwrap();
    update(&connector, &MapRequest { node_key: two, ..MapRequest::default() }).await.unwrap();
}

#[tokio::test]
async fn what_headscale_refuses_ends_as_not_offered() {
    let calls = tsrs_lab_vectors::json("headscale/other-calls.json");
    let calls: Vec<_> = calls["calls"].as_array().unwrap().clone();
    let answers = calls.clone();
    let server = TestServer::start(move |seen| {
        let found =
            answers.iter().find(|call| call["Method"] == seen.method && call["Path"] == seen.path).unwrap();
        let status = u16::try_from(found["Status"].as_u64().unwrap()).unwrap();
        Reply::status(status, found["Body"].as_str().unwrap_or_default())
    })
    .await;
    let connector = connector(&server);
    let mut seen = 0;
    for refused in &calls {
        let path = refused["Path"].as_str().unwrap();
        let is_small_call = !matches!(path, "/machine/register" | "/machine/map");
        if !is_small_call || !matches!(refused["Status"].as_u64(), Some(404 | 405 | 501)) {
            continue;
        }
        let method = Method::from_bytes(refused["Method"].as_str().unwrap().as_bytes()).unwrap();
        let outcome: Result<serde_json::Value, _> = call(&connector, method, path).await;
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotOffered, "{path}");
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
    assert!(json(&serde_json::json!({})).is_ok());
}
