//! Against the lab's server, which can do what headscale cannot, and fail on purpose.

use std::time::Duration;

use tsrs_base_types::Redacted;
use tsrs_control_client::{Activity, Endpoint, Error, ErrorKind, Event};
use tsrs_control_tailcfg::{EndpointType, PingResponse};
use tsrs_lab_control::{FaultAction, FaultTarget, KeySpec, LabConfig, LabControl, LabNode};

use crate::client::{Client, Place};

/// How long the server waits for anything.
const LIMIT: Duration = Duration::from_secs(20);

struct Lab {
    control: LabControl,
    folder: tempfile::TempDir,
}

impl Lab {
    fn start(config: LabConfig) -> Self {
        let control = LabControl::start(config).unwrap();
        let folder = tempfile::tempdir().unwrap();
        control.write_ca(&folder.path().join("ca.pem")).unwrap();
        Self { control, folder }
    }

    fn place(&self) -> Place {
        Place { url: self.control.url(), ca_file: Some(self.folder.path().join("ca.pem")) }
    }

    fn key(&self) -> Option<Redacted<String>> {
        Some(Redacted::new(self.control.create_key(KeySpec::reusable())))
    }

    async fn node(&self, what: &str, fits: impl Fn(&LabNode) -> bool) -> LabNode {
        self.control
            .wait_for_async(what, LIMIT, |nodes| nodes.iter().find(|node| fits(node)).cloned())
            .await
            .unwrap()
    }

    /// A client that is logged in and connected, and its node.
    async fn online(&self, name: &str) -> (Client, LabNode) {
        let mut client = Client::start(self.place(), name);
        client.handle.login(false, self.key()).unwrap();
        client.online().await;
        let node = self.node("node", |node| node.name == name).await;
        (client, node)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_state_reaches_a_server_whose_stream_is_read_only() {
    let lab = Lab::start(LabConfig::default());
    let (client, _) = lab.online("node").await;
    let endpoint = Endpoint { addr: "192.0.2.7:41641".parse().unwrap(), kind: EndpointType::STUN };
    client.handle.set_endpoints(vec![endpoint]);
    let node = lab.node("endpoints", |node| node.endpoints == [endpoint.addr]).await;
    assert_eq!(node.endpoint_types, [EndpointType::STUN]);
    assert_eq!(node.hostinfo.hostname, "node");
    assert!(!node.disco.is_zero());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_waits_for_approval_without_an_error() {
    let lab = Lab::start(LabConfig { machine_approval: true, ..LabConfig::default() });
    let mut client = Client::start(lab.place(), "waiting");
    client.handle.login(false, lab.key()).unwrap();
    client.logged_in().await;
    let authorized = |wanted| {
        move |event: &Event| matches!(event, Event::MachineAuthorized(is) if *is == wanted).then_some(())
    };
    client.event("no approval", authorized(false)).await;
    let node = lab.node("node", |node| node.name == "waiting").await;
    lab.control.approve_machine(node.id, true).unwrap();
    client.event("approval", authorized(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_c2n_requests_are_answered() {
    let lab = Lab::start(LabConfig::default());
    let (mut client, node) = lab.online("node").await;
    // Each of these waits for the node's answer.
    let answers = tokio::task::spawn_blocking(move || {
        lab.control.ping(node.id, false, LIMIT).unwrap();
        lab.control.ping(node.id, true, LIMIT).unwrap();
        let echo = "POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello";
        let echoed = lab.control.c2n(node.id, echo, LIMIT).unwrap();
        let refused = lab.control.c2n(node.id, "GET /debug/goroutines HTTP/1.1\r\n\r\n", LIMIT).unwrap();
        let pinged =
            lab.control.ping_address(node.id, "disco", "100.64.0.9".parse().unwrap(), LIMIT).unwrap();
        // The server stays until the client, too, has the answer to its last call.
        (lab, echoed, refused, pinged)
    });
    let ping = client
        .event("ping", |event| match event {
            Event::Ping(ping) => Some(ping.clone()),
            _ => None,
        })
        .await;
    assert_eq!(ping.ip, Some("100.64.0.9".parse().unwrap()));
    let response =
        PingResponse { kind: "disco".to_owned(), err: "no peer".to_owned(), ..PingResponse::default() };
    client.handle.ping_response(&ping, &response).await.unwrap();
    let (_lab, echoed, refused, pinged) = answers.await.unwrap();
    assert!(echoed.starts_with("HTTP/1.1 200 OK\r\n") && echoed.ends_with("\r\n\r\nhello"), "{echoed}");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert_eq!(pinged.err, "no peer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_and_comes_back_is_found_again() {
    let mut lab = Lab::start(LabConfig::default());
    let (mut client, _) = lab.online("node").await;
    lab.control.cut_connections();
    client.event("offline", |event| matches!(event, Event::Offline).then_some(())).await;
    client.online().await;

    let key = client.latest().self_node().key;
    lab = tokio::task::spawn_blocking(move || {
        lab.control.stop();
        lab
    })
    .await
    .unwrap();
    let trouble = loop {
        let trouble = client.trouble().await;
        if trouble.kind == ErrorKind::Unreachable {
            break trouble;
        }
    };
    assert!(trouble.text.contains("cannot connect to"), "{}", trouble.text);
    lab.control.resume().unwrap();
    client.online().await;
    assert_eq!(client.latest().self_node().key, key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_server_are_told_and_survived() {
    let lab = Lab::start(LabConfig::default());
    let (mut client, node) = lab.online("node").await;
    let status = |code, retry_after| FaultAction::Status { code, retry_after, body: "down\n".to_owned() };
    let faults = lab.control.faults();
    // What fails at an upgrade is whatever dials first: the map stream or an update.
    for (target, action, kind) in [
        (FaultTarget::MapStream, status(503, None), ErrorKind::Server),
        (FaultTarget::MapStream, status(429, Some(1)), ErrorKind::RateLimited),
        (FaultTarget::MapStream, FaultAction::Garbage(b"\xff\xff\xff\xff".to_vec()), ErrorKind::Garbage),
        (FaultTarget::Upgrade, status(404, None), ErrorKind::NotControl),
        (FaultTarget::Upgrade, FaultAction::Garbage(b"hello".to_vec()), ErrorKind::NotControl),
    ] {
        faults.add_times(target, action, 1);
        client.handle.note_link_change();
        let trouble = client.trouble().await;
        assert_eq!(trouble.kind, kind, "{}", trouble.text);
        client.online().await;
    }
    faults.add_times(FaultTarget::Register, FaultAction::Garbage(b"<html>".to_vec()), 1);
    client.handle.login(false, None).unwrap();
    let trouble = client.trouble().await;
    assert_eq!((trouble.activity, trouble.kind), (Activity::Login, ErrorKind::Garbage), "{}", trouble.text);
    client.logged_in().await;
    client.online().await;

    // Wrong messages in the stream itself.
    lab.control.inject(node.id, serde_json::json!({"Peers": 7}));
    assert_eq!(client.trouble().await.kind, ErrorKind::Garbage);
    client.online().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_deletion_and_refusal_end_in_a_new_login() {
    let lab = Lab::start(LabConfig::default());
    let (mut client, node) = lab.online("node").await;
    let old_key = client.keys.current.clone();
    lab.control.expire(node.id).unwrap();
    client.event("expiry", |event| matches!(event, Event::KeyExpired).then_some(())).await;
    client.handle.login(false, None).unwrap();
    assert_eq!(client.logged_in().await.old, old_key);
    client.online().await;

    // Without an auth key, a deleted node needs its user, who may say no.
    let mut client = Client::start_with(lab.place(), "node", client.keys.clone());
    lab.control.delete(node.id).unwrap();
    client.handle.login(false, None).unwrap();
    client.auth_url().await;
    let id = lab.control.pending_logins()[0].id.clone();
    lab.control.refuse_login(&id).unwrap();
    let trouble = client.trouble().await;
    assert_eq!(trouble.kind, ErrorKind::Refused, "{}", trouble.text);
    client.handle.login(false, lab.key()).unwrap();
    client.logged_in().await;
    client.handle.logout().await.unwrap();
    client.event("logged out", |event| matches!(event, Event::LoggedOut).then_some(())).await;
    assert!(matches!(
        client.handle.set_dns(String::new(), "TXT".to_owned(), String::new()).await,
        Err(Error::NotOffered { .. })
    ));
}
