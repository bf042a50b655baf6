//! The whole client against a scripted server on loopback.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test waits for one event among all others")]

use std::sync::Mutex;

use bytes::Bytes;
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::time::timeout;
use tsrs_base_types::{DiscoPublic, MachinePrivate, NodePrivate};
use tsrs_control_tailcfg::{Hostinfo, PingResponse};

use super::*;
use crate::StandardC2n;
use crate::config::NodeKeys;
use crate::error::ErrorKind;
use crate::event::Activity;
use crate::test_server::{Reply, Seen, TestServer, framed, net};

const LIMIT: Duration = Duration::from_secs(20);

/// A server that logs everybody in, and whose map streams a test writes.
struct Control {
    server: TestServer,
    /// The write ends of the map streams, newest last.
    streams: Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Control {
    async fn start() -> Self {
        let streams = Arc::new(Mutex::new(Vec::new()));
        let (seen_out, seen) = mpsc::unbounded_channel();
        let opened = Arc::clone(&streams);
        let server = TestServer::start(move |seen| {
            let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
            let reply = match seen.path.as_str() {
                "/machine/register" => Reply::ok("{}"),
                "/machine/map" if body["Stream"] == true => {
                    let (sender, chunks) = mpsc::channel(1);
                    opened.lock().unwrap().push(sender);
                    Reply::Stream(chunks)
                }
                _ => Reply::ok(""),
            };
            let _ = seen_out.send(seen);
            reply
        })
        .await;
        Self { server, streams, seen }
    }

    /// Waits for a call.
    async fn call(&mut self, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let wait = async {
            loop {
                let seen = self.seen.recv().await.unwrap();
                if wanted(&seen) {
                    return seen;
                }
            }
        };
        timeout(LIMIT, wait).await.expect("the call comes in time")
    }

    async fn opened_map(&mut self) -> Seen {
        self.call(|seen| seen.path == "/machine/map" && seen.json()["Stream"] == true).await
    }

    fn stream(&self) -> mpsc::Sender<Bytes> {
        self.streams.lock().unwrap().last().unwrap().clone()
    }

    async fn send(&self, response: Value) {
        self.stream().send(framed(&response)).await.unwrap();
    }
}

struct Client {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

fn start(server: &TestServer) -> Client {
    let config = Config {
        server: server.url().parse().unwrap(),
        machine_key: MachinePrivate::generate(&mut OsRng),
        node_keys: NodeKeys { current: Some(NodePrivate::from_bytes([8; 32])), old: None },
        lock_key: None,
        auth_key: None,
        ephemeral: false,
        tailnet: String::new(),
        local: LocalState { disco_key: DiscoPublic::from_bytes([1; 32]), ..LocalState::default() },
        cached_netmap: None,
        c2n: Arc::new(StandardC2n),
    };
    let (handle, events) = ControlClient::start(config, net()).unwrap();
    Client { handle, events }
}

impl Client {
    async fn event<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let wait = async {
            loop {
                if let Some(found) = wanted(self.events.recv().await.expect("the client runs")) {
                    return found;
                }
            }
        };
        timeout(LIMIT, wait).await.expect("the event comes in time")
    }
}

fn own_key() -> String {
    NodePrivate::from_bytes([8; 32]).public().to_string()
}

fn first_frame() -> Value {
    json!({"Node": {"ID": 1, "Name": "a.lab.test.", "Key": own_key(), "MachineAuthorized": true}})
}

/// A client whose first netmap came.
async fn online() -> (Control, Client) {
    let mut control = Control::start().await;
    let mut client = start(&control.server);
    client.handle.login(false, None).unwrap();
    control.opened_map().await;
    control.send(first_frame()).await;
    client.event(|event| matches!(event, Event::Online).then_some(())).await;
    (control, client)
}

#[tokio::test]
async fn a_session_begins_with_login_map_and_update() {
    let mut control = Control::start().await;
    let mut client = start(&control.server);
    client.handle.login(false, None).unwrap();
    let register = control.call(|seen| seen.path == "/machine/register").await;
    assert_eq!(register.json()["NodeKey"], own_key());
    assert_eq!((register.method.as_str(), &register.json()["Version"]), ("POST", &json!(119)));
    client
        .event(|event| match event {
            Event::LoggedIn { keys, .. } => keys.current.map(drop),
            _ => None,
        })
        .await;
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let map = control.call(|seen| seen.path == "/machine/map").await;
        assert_eq!(map.client, register.client);
        kinds.push((map.json()["Stream"].clone(), map.json()["OmitPeers"].clone()));
    }
    kinds.sort_by_key(|(stream, _)| stream == &json!(true));
    assert_eq!(kinds, [(json!(false), json!(true)), (json!(true), Value::Null)]);
    control.send(first_frame()).await;
    let netmap = client
        .event(|event| match event {
            Event::Netmap { netmap, .. } => Some(netmap),
            _ => None,
        })
        .await;
    assert_eq!(netmap.self_node().name, "a.lab.test.");
}

#[tokio::test]
async fn a_change_here_is_told_and_a_closed_handle_ends_the_client() {
    let (mut control, mut client) = online().await;
    client.handle.set_hostinfo(Hostinfo { hostname: "new".to_owned(), ..Hostinfo::default() });
    control
        .call(|seen| seen.json()["Hostinfo"]["Hostname"] == "new" && seen.json()["OmitPeers"] == true)
        .await;
    drop(client.handle);
    timeout(LIMIT, async { while client.events.recv().await.is_some() {} }).await.expect("the client ends");
    timeout(LIMIT, control.stream().closed()).await.expect("its connection, too");
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_and_nothing_is_forgotten() {
    let (mut control, mut client) = online().await;
    for bad in [None, Some(b"\xff\xff\xff\xff".as_slice()), Some(b"\x02\0\0\0[1")] {
        let stream = control.streams.lock().unwrap().pop().unwrap();
        if let Some(bad) = bad {
            stream.send(Bytes::from_static(bad)).await.unwrap();
        }
        drop(stream);
        client.event(|event| matches!(event, Event::Offline).then_some(())).await;
        let trouble = client
            .event(|event| match event {
                Event::Trouble(trouble) => Some(trouble),
                _ => None,
            })
            .await;
        let kind = if bad.is_some() { ErrorKind::Garbage } else { ErrorKind::Broken };
        assert_eq!((trouble.activity, trouble.kind), (Activity::Map, kind), "{}", trouble.text);
        assert!(trouble.retry_in.is_some());
        control.opened_map().await;
        control.send(first_frame()).await;
        client.event(|event| matches!(event, Event::Online).then_some(())).await;
    }
}

#[tokio::test]
async fn a_stream_that_does_not_say_who_we_are_is_dropped() {
    let mut control = Control::start().await;
    let mut client = start(&control.server);
    client.handle.login(false, None).unwrap();
    control.opened_map().await;
    control.send(json!({"Domain": "lab.test"})).await;
    let trouble = client
        .event(|event| match event {
            Event::Trouble(trouble) => Some(trouble),
            Event::Online | Event::Netmap { .. } => panic!("nothing came"),
            _ => None,
        })
        .await;
    assert_eq!(trouble.kind, ErrorKind::Garbage, "{}", trouble.text);
    control.opened_map().await;
}

#[tokio::test]
async fn requests_of_the_server_are_answered() {
    let (mut control, mut client) = online().await;
    let outside = format!("{}/machine/ping-response?id=1", control.server.url());
    control.send(json!({"KeepAlive": true, "PingRequest": {"URL": outside}})).await;
    control.send(json!({"PingRequest": {"URL": "https://unused/inside?id=2", "URLIsNoise": true}})).await;
    let inside = control.call(|seen| seen.path.starts_with("/inside")).await;
    assert_eq!((inside.method.as_str(), inside.path.as_str()), ("HEAD", "/inside?id=2"));

    let payload = data_encoding::BASE64.encode(b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
    let c2n = json!({"URL": "https://unused/c2n/3", "Types": "c2n", "Payload": payload});
    control.send(json!({ "PingRequest": c2n })).await;
    let answer = control.call(|seen| seen.path == "/c2n/3").await;
    assert_eq!(answer.method, "POST");
    assert!(answer.body.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.body.ends_with(b"\r\n\r\nhi"));

    let disco = json!({"URL": "https://unused/ping/4", "Types": "disco", "IP": "100.64.0.2"});
    control.send(json!({ "PingRequest": disco })).await;
    let ping = client
        .event(|event| match event {
            Event::Ping(ping) => Some(ping),
            _ => None,
        })
        .await;
    let response =
        PingResponse { kind: "disco".to_owned(), latency_seconds: 0.01, ..PingResponse::default() };
    client.handle.ping_response(&ping, &response).await.unwrap();
    let answer = control.call(|seen| seen.path == "/ping/4").await;
    assert_eq!(answer.json()["LatencySeconds"], 0.01);

    // The same URL as the one before is not answered again; the one outside Noise has come by now.
    control.send(json!({ "PingRequest": disco })).await;
    control.send(json!({"ClientVersion": {"LatestVersion": "9.9"}})).await;
    client
        .event(|event| match event {
            Event::Ping(_) => panic!("answered twice"),
            Event::ClientVersion(version) => (version.latest_version == "9.9").then_some(()),
            _ => None,
        })
        .await;
    let wait = async {
        while control.server.outer_count("HEAD /machine/ping-response?id=1 ") == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("the HEAD request comes");
}

#[tokio::test]
async fn pages_and_the_wish_to_exit_are_passed_on_after_a_check() {
    let (control, mut client) = online().await;
    control.send(json!({"PopBrowserURL": "javascript:alert(1)"})).await;
    control.send(json!({"PopBrowserURL": "https://lab.test/page"})).await;
    control.send(json!({"Debug": {"Exit": 3}})).await;
    let mut pages = Vec::new();
    client
        .event(|event| match event {
            Event::OpenPage(page) => {
                pages.push(page);
                None
            }
            Event::ExitWanted(code) => (code == 3).then_some(()),
            _ => None,
        })
        .await;
    assert_eq!(pages, ["https://lab.test/page"]);
}

#[tokio::test]
async fn an_owner_that_does_not_listen_stops_the_stream_and_misses_nothing() {
    const FRAMES: usize = 100;
    let (control, mut client) = online().await;
    let stream = control.stream();
    let sender = tokio::spawn(async move {
        for number in 0..FRAMES {
            // Large enough that no buffer on the way holds them all.
            let frame = json!({"Domain": format!("{number}.test"), "Unknown": "x".repeat(40_000)});
            stream.send(framed(&frame)).await.unwrap();
        }
        // The stream stays open.
        pending::<()>().await;
    });
    // The owner hears nothing and yet commands are obeyed.
    client.handle.set_hostinfo(Hostinfo { hostname: "alive".to_owned(), ..Hostinfo::default() });
    let mut control = control;
    control.call(|seen| seen.json()["Hostinfo"]["Hostname"] == "alive").await;
    assert!(client.events.len() <= EVENT_QUEUE_LEN);
    let mut next = 0;
    client
        .event(|event| match event {
            Event::Netmap { netmap, .. } => {
                assert_eq!(netmap.domain(), format!("{next}.test"));
                next += 1;
                (next == FRAMES).then_some(())
            }
            _ => None,
        })
        .await;
    sender.abort();
}

#[tokio::test]
async fn logout_and_a_shorter_expiry_are_single_calls() {
    let (mut control, mut client) = online().await;
    client.handle.set_expiry_sooner("2027-01-01T00:00:00Z".parse().unwrap()).await.unwrap();
    let call = control.call(|seen| seen.path == "/machine/register").await;
    assert_eq!(call.json()["Expiry"], "2027-01-01T00:00:00Z");
    client.handle.logout().await.unwrap();
    let call = control.call(|seen| seen.path == "/machine/register").await;
    assert_eq!(
        (&call.json()["Expiry"], &call.json()["NodeKey"]),
        (&json!("1970-01-01T00:02:03Z"), &json!(own_key()))
    );
    client.event(|event| matches!(event, Event::LoggedOut).then_some(())).await;
    // Without a key there is nothing to do, and it is done at once.
    client.handle.logout().await.unwrap();
    let time = "2027-01-01T00:00:00Z".parse().unwrap();
    assert!(matches!(client.handle.set_expiry_sooner(time).await, Err(Error::Request(_))));
}

#[tokio::test]
async fn calls_of_the_lock_are_get_with_a_body_and_their_answers_are_bounded() {
    use crate::calls::{MAX_ANSWER_LEN, MAX_CHAIN_ANSWER_LEN};
    let server = TestServer::start(|seen| {
        assert_eq!((seen.method.as_str(), &seen.json()["NodeKey"]), ("GET", &json!(own_key())));
        match seen.path.as_str() {
            "/machine/tka/bootstrap" if seen.json()["Head"] == "" => Reply::ok(r#"{"GenesisAUM":"AQI="}"#),
            "/machine/tka/sync/offer" => Reply::ok(vec![b' '; MAX_CHAIN_ANSWER_LEN + 1]),
            "/machine/tka/sync/send" => Reply::ok(r#"{"Head":"X"}"#),
            "/machine/tka/affected-sigs" => Reply::ok(vec![b' '; MAX_ANSWER_LEN + 1]),
            "/machine/tka/sign" => Reply::ok(""),
            path => Reply::status(404, path),
        }
    })
    .await;
    let Client { handle, events: _events } = start(&server);
    let updates = vec![tsrs_control_tailcfg::Base64(vec![1])];
    assert_eq!(handle.tka_bootstrap(String::new()).await.unwrap().genesis_aum.0, [1, 2]);
    assert_eq!(handle.tka_sync_send("X".into(), updates.clone(), true).await.unwrap().head, "X");
    handle.tka_sign(updates[0].clone()).await.unwrap();
    let offer = handle.tka_sync_offer("X".into(), vec!["Y".into()]).await.unwrap_err();
    let signatures = handle.tka_affected_sigs(updates[0].clone()).await.unwrap_err();
    for error in [offer, signatures] {
        assert!(error.to_string().contains("longer than"), "{error}");
    }
    assert!(matches!(handle.tka_init_begin(updates[0].clone()).await, Err(Error::NotOffered { .. })));
}
