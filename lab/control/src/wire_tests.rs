//! The server over the wire, against what headscale was seen to answer to the same calls.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand_core::OsRng;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tsrs_base_noise::{Initiator, Protocol, Secret};
use tsrs_base_types::MachinePrivate;

use crate::noise::{NoiseStream, Records};
use crate::{FaultAction, FaultTarget, KeySpec, LabConfig, LabControl, LockCall, Policy, admin};

/// A connection of one machine, from the upgrade to HTTP/2. Written apart from `control/client`, so that the two ends
/// cannot share a mistake.
struct Client {
    http: SendRequest<Full<Bytes>>,
}

struct Reply {
    status: u16,
    allow: Option<String>,
    body: Vec<u8>,
}

impl Client {
    async fn connect(control: &LabControl, machine: &MachinePrivate) -> Self {
        let address = control.http_url().unwrap().trim_start_matches("http://").to_owned();
        let mut tcp = TcpStream::connect(&address).await.unwrap();
        let protocol = Protocol {
            name: b"Noise_IK_25519_ChaChaPoly_BLAKE2s",
            prologue: b"Tailscale Control Protocol v145",
            psk: false,
        };
        let server = control.noise_key();
        let (state, message) = Initiator::start(
            protocol,
            machine.expose_bytes(),
            server.as_bytes(),
            None,
            Secret::new([3; 32]),
            &[],
        )
        .unwrap();
        let mut initiation = vec![0, 145, 1, 0, 96];
        initiation.extend_from_slice(&message.ephemeral);
        initiation.extend_from_slice(&message.sealed_static);
        initiation.extend_from_slice(&message.sealed_payload);
        let head = format!(
            "POST /ts2021 HTTP/1.1\r\nHost: {address}\r\nUpgrade: tailscale-control-protocol\r\n\
             Connection: upgrade\r\nX-Tailscale-Handshake: {}\r\n\r\n",
            data_encoding::BASE64.encode(&initiation)
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(tcp.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"));
        let mut response = [0; 51];
        tcp.read_exact(&mut response).await.unwrap();
        let ephemeral = response[3..35].try_into().unwrap();
        let (_, split) = state.finish(&ephemeral, &response[35..], &[0; 32]).unwrap();
        let mut stream = NoiseStream::new(tcp, Records::initiator(&split), Vec::new());
        let mut early = [0; 9];
        stream.read_exact(&mut early).await.unwrap();
        assert_eq!(early[..5], [0xff, 0xff, 0xff, b'T', b'S']);
        let mut payload = vec![0; u32::from_be_bytes(early[5..].try_into().unwrap()).try_into().unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        assert!(payload.starts_with(b"{\"nodeKeyChallenge\":\"chalpub:"));
        let (http, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { http }
    }

    async fn call(&mut self, method: &str, path: &str, body: impl Into<Bytes>) -> Reply {
        let path = path.trim_start_matches("https://unused");
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("https://unused{path}"))
            .body(Full::new(body.into()))
            .unwrap();
        let (head, body) = self.http.send_request(request).await.unwrap().into_parts();
        Reply {
            status: head.status.as_u16(),
            allow: head.headers.get("allow").map(|value| value.to_str().unwrap().to_owned()),
            body: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    async fn post(&mut self, path: &str, body: &Value) -> Value {
        let reply = self.call("POST", path, body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// The messages of one map, without compression.
    async fn map(&mut self, node_key: &Value) -> Value {
        let request = json!({"Version": 145, "NodeKey": node_key, "Stream": false, "OmitPeers": false});
        let reply = self.call("POST", "/machine/map", request.to_string()).await;
        let (len, body) = reply.body.split_first_chunk::<4>().unwrap();
        assert_eq!(usize::try_from(u32::from_le_bytes(*len)).unwrap(), body.len());
        serde_json::from_slice(body).unwrap()
    }
}

fn start() -> LabControl {
    LabControl::start(LabConfig { users: vec!["lab".to_owned()], ..LabConfig::default() }).unwrap()
}

/// The captured request with a key that this server knows, where the captured one was good.
fn with_key(request: &Value, captured: &Value, control: &LabControl) -> String {
    let mut request = request.clone();
    let good = captured["Status"] == 200 && captured["Body"]["Error"] == "";
    if good && request["Auth"].is_object() {
        request["Auth"]["AuthKey"] = json!(control.create_key(KeySpec::reusable()));
    }
    if request.is_null() { String::new() } else { request.to_string() }
}

#[tokio::test]
async fn register_answers_as_headscale_does() {
    let control = start();
    let mut client = Client::connect(&control, &MachinePrivate::generate(&mut OsRng)).await;
    let cases = tsrs_lab_vectors::json("headscale/register.json");
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let label = &case["label"];
        let body = with_key(&case["Request"], case, &control);
        let reply = client.call(case["Method"].as_str().unwrap(), "/machine/register", body).await;
        assert_eq!(u64::from(reply.status), case["Status"].as_u64().unwrap(), "{label}");
        let Ok(answer) = serde_json::from_slice::<Value>(&reply.body) else {
            // Only the marketing name of the version differs.
            let expected = case["Body"].as_str().unwrap().replace("v1.64", "");
            assert_eq!(String::from_utf8(reply.body).unwrap(), expected, "{label}");
            continue;
        };
        let expected = &case["Body"];
        for member in ["Error", "NodeKeyExpired", "MachineAuthorized", "NodeKeySignature", "Login"] {
            assert_eq!(answer[member], expected[member], "{label}: {member}");
        }
        assert_eq!(answer["AuthURL"] == "", expected["AuthURL"] == "", "{label}: AuthURL");
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&answer), names(expected), "{label}: members");
        assert_eq!(names(&answer["User"]), names(&expected["User"]), "{label}: members of User");
    }
}

#[tokio::test]
async fn other_calls_are_answered_as_headscale_does() {
    let control = start();
    let mut client = Client::connect(&control, &MachinePrivate::generate(&mut OsRng)).await;
    let file = tsrs_lab_vectors::json("headscale/other-calls.json");
    let mut compared = 0;
    for case in file["calls"].as_array().unwrap() {
        let path = case["Path"].as_str().unwrap();
        // No SSH here; Tailnet Lock and an answer to a single map there are, as in the hosted service.
        let request = &case["Request"];
        let is_single_map = path == "/machine/map" && case["Status"] == 200 && request["OmitPeers"] != true;
        let is_other = path.starts_with("/machine/ssh/") || path.starts_with("/machine/tka/");
        if is_other || is_single_map {
            continue;
        }
        let body = with_key(request, case, &control);
        let reply = client.call(case["Method"].as_str().unwrap(), path, body).await;
        assert_eq!(u64::from(reply.status), case["Status"].as_u64().unwrap(), "{case}");
        assert_eq!(json!(reply.allow), case["Headers"]["Allow"], "{case}");
        if reply.status != 200 {
            let expected = case["Body"].as_str().unwrap().replace("v1.64", "");
            assert_eq!(String::from_utf8(reply.body).unwrap(), expected, "{case}");
        }
        compared += 1;
    }
    assert_eq!(compared, file["calls"].as_array().unwrap().len() - 12);
}

#[tokio::test]
async fn a_login_page_answers_the_waiting_call() {
    let control = start();
    let mut client = Client::connect(&control, &MachinePrivate::generate(&mut OsRng)).await;
    let key = json!("nodekey:93e6f31c9edf670a27125f1c7a7dd873c0420113312de94e3bbe87f085c65700");
    let mut request = json!({"Version": 145, "NodeKey": key, "Hostinfo": {"Hostname": "Probe.example"}});
    let url = client.post("/machine/register", &request).await["AuthURL"].as_str().unwrap().to_owned();
    let id = url.rsplit('/').next().unwrap().to_owned();
    request["Followup"] = json!(url);

    // The page itself, over plain HTTP.
    let page = |method: &'static str, body: &'static str| {
        let address = control.http_url().unwrap().trim_start_matches("http://").to_owned();
        let id = id.clone();
        async move {
            let mut tcp = TcpStream::connect(&address).await.unwrap();
            let len = body.len();
            let head = format!(
                "{method} /register/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
            );
            tcp.write_all(head.as_bytes()).await.unwrap();
            let mut text = String::new();
            tcp.read_to_string(&mut text).await.unwrap();
            text
        }
    };
    assert!(page("GET", "").await.contains("<b>Probe.example</b>"));
    let (answer, page) =
        tokio::join!(client.post("/machine/register", &request), page("POST", "user=eve%40lab.test"));
    assert!(page.contains("may join"), "{page}");
    assert_eq!(answer["AuthURL"], "");
    assert_eq!(answer["Login"]["LoginName"], "eve@lab.test");
    let map = client.map(&key).await;
    assert_eq!(map["Node"]["Name"], "probe.lab.test.");
    assert_eq!(map["Node"]["Addresses"], json!(["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]));
}

#[tokio::test]
async fn nodes_see_each_other_and_only_what_the_policy_grants() {
    let control = start();
    let mut keys = Vec::new();
    let mut clients = Vec::new();
    for number in 1..=2 {
        let mut client = Client::connect(&control, &MachinePrivate::generate(&mut OsRng)).await;
        let key = json!(format!("nodekey:{:064x}", number));
        let auth = control.create_key(KeySpec::single_use());
        let request = json!({"Version": 145, "NodeKey": key, "Auth": {"AuthKey": auth}, "Hostinfo": {"Hostname": "twin"}});
        assert_eq!(client.post("/machine/register", &request).await["MachineAuthorized"], true);
        let update = json!({"Version": 145, "NodeKey": key, "OmitPeers": true, "Endpoints": ["192.0.2.1:41641"],
            "DiscoKey": format!("discokey:{:064x}", number), "Hostinfo": {"Hostname": "twin", "NetInfo": {"PreferredDERP": 900}}});
        assert_eq!(client.call("POST", "/machine/map", update.to_string()).await.status, 200);
        keys.push(key);
        clients.push(client);
    }
    let map = clients[0].map(&keys[0]).await;
    assert_eq!(map["Node"]["Name"], "twin.lab.test.");
    let peer = &map["Peers"][0];
    assert_eq!((&peer["Name"], &peer["HomeDERP"]), (&json!("twin-1.lab.test."), &json!(900)));
    assert_eq!((&peer["Online"], &peer["Endpoints"]), (&json!(false), &json!(["192.0.2.1:41641"])));
    assert_eq!(map["PacketFilters"]["base"][0]["SrcIPs"], json!(["*"]));
    assert_eq!(map["DERPMap"]["Regions"]["900"]["Nodes"][0]["HostName"], "127.0.0.1");
    // A node cannot be read by another machine.
    let stolen = json!({"Version": 145, "NodeKey": keys[0]}).to_string();
    assert_eq!(clients[1].call("POST", "/machine/map", stolen).await.status, 404);

    control.set_policy(Policy::deny_all()).unwrap();
    let map = clients[0].map(&keys[0]).await;
    assert_eq!(map["Peers"], Value::Null);
    assert_eq!(map["PacketFilters"], json!({"base": []}));
}

/// A map stream, frame by frame.
struct Stream {
    body: hyper::body::Incoming,
    received: Vec<u8>,
    zstd: bool,
}

impl Stream {
    async fn open(client: &mut Client, node_key: &Value, compress: &str) -> Self {
        let request = json!({"Version": 145, "NodeKey": node_key, "Stream": true, "Compress": compress,
            "Hostinfo": {"Hostname": "ignored"}, "Endpoints": ["192.0.2.9:9"]});
        let request =
            Request::post("https://unused/machine/map").body(Full::new(request.to_string().into())).unwrap();
        let response = client.http.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), received: Vec::new(), zstd: !compress.is_empty() }
    }

    /// So many bytes, or `None` at the end of the stream.
    async fn take(&mut self, len: usize) -> Option<Vec<u8>> {
        while self.received.len() < len {
            let frame = self.body.frame().await?.ok()?;
            self.received.extend_from_slice(frame.data_ref().unwrap());
        }
        Some(self.received.drain(..len).collect())
    }

    async fn next(&mut self) -> Option<Value> {
        let len = u32::from_le_bytes(self.take(4).await?.try_into().unwrap());
        let body = self.take(usize::try_from(len).unwrap()).await?;
        if !self.zstd {
            return Some(serde_json::from_slice(&body).unwrap());
        }
        let decoder = ruzstd::decoding::StreamingDecoder::new(body.as_slice()).unwrap();
        Some(serde_json::from_reader(decoder).unwrap())
    }
}

async fn join(control: &LabControl, number: u8) -> (Client, Value) {
    let mut client = Client::connect(control, &MachinePrivate::generate(&mut OsRng)).await;
    let key = json!(format!("nodekey:{number:064x}"));
    let auth = control.create_key(KeySpec::single_use());
    let request = json!({"Version": 145, "NodeKey": key, "Auth": {"AuthKey": auth}, "Hostinfo": {"Hostname": format!("n{number}")}});
    assert_eq!(client.post("/machine/register", &request).await["Error"], "");
    (client, key)
}

#[tokio::test]
async fn a_stream_begins_whole_and_goes_on_with_what_is_new() {
    let control = start();
    let (mut first, first_key) = join(&control, 1).await;
    let (mut second, second_key) = join(&control, 2).await;
    for compress in ["", "zstd"] {
        let mut stream = Stream::open(&mut first, &first_key, compress).await;
        let whole = stream.next().await.unwrap();
        // What a streaming request says about its node is not taken over.
        assert_eq!(whole["Node"]["Name"], "n1.lab.test.");
        assert_eq!(whole["Node"]["Endpoints"], Value::Null);
        assert_eq!(whole["Node"]["Online"], true);
        assert_eq!(whole["Peers"].as_array().unwrap().len(), 1);

        let endpoint = format!("192.0.2.1:{}", 1000 + compress.len());
        let update = json!({"Version": 145, "NodeKey": second_key, "OmitPeers": true, "Endpoints": [endpoint],
            "Hostinfo": {"Hostname": "n2"}});
        assert_eq!(second.call("POST", "/machine/map", update.to_string()).await.status, 200);
        let delta = stream.next().await.unwrap();
        assert_eq!(delta["PeersChangedPatch"][0]["Endpoints"], json!([endpoint]));
        assert_eq!(delta["Node"], Value::Null);

        let id = control.node("n1").unwrap().id;
        control.inject(id, json!({"Health": ["x"]}));
        assert_eq!(stream.next().await.unwrap(), json!({"Health": ["x"]}));
        control.inject_raw(id, vec![1, 2, 3]);
        assert_eq!(stream.take(3).await.unwrap(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_stream_ends_with_a_newer_one_a_deletion_and_a_cut() {
    let mut control = start();
    let (mut client, key) = join(&control, 1).await;
    let mut old = Stream::open(&mut client, &key, "").await;
    old.next().await.unwrap();
    let mut new = Stream::open(&mut client, &key, "").await;
    new.next().await.unwrap();
    while old.next().await.is_some() {}
    let node = control.node("n1").unwrap();
    assert!(node.online());
    control.delete(node.id).unwrap();
    while new.next().await.is_some() {}
    let gone = json!({"Version": 145, "NodeKey": key, "Stream": true}).to_string();
    assert_eq!(client.call("POST", "/machine/map", gone).await.status, 404);

    let (mut client, key) = join(&control, 2).await;
    let mut stream = Stream::open(&mut client, &key, "").await;
    stream.next().await.unwrap();
    control.stop();
    while stream.next().await.is_some() {}
    assert!(!control.node("n2").unwrap().online());
    let url = control.url();
    control.resume().unwrap();
    assert_eq!(control.url(), url);
    join(&control, 3).await;
}

#[tokio::test]
async fn an_idle_stream_gets_keep_alives_until_it_is_silenced() {
    let keep_alive = std::time::Duration::from_millis(20);
    let control = LabControl::start(LabConfig { keep_alive, ..LabConfig::default() }).unwrap();
    let (mut client, key) = join(&control, 1).await;
    let mut stream = Stream::open(&mut client, &key, "").await;
    stream.next().await.unwrap();
    assert_eq!(stream.next().await.unwrap(), json!({"KeepAlive": true}));
    control.faults().silence_streams(true);
    // What was under way may still come; after that nothing does.
    let quiet = async { while stream.next().await.is_some() {} };
    assert!(tokio::time::timeout(keep_alive * 20, quiet).await.is_err(), "the stream must stay open");
    control.faults().clear();
    assert_eq!(stream.next().await.unwrap(), json!({"KeepAlive": true}));
}

#[tokio::test]
async fn faults_answer_in_place_of_the_server() {
    let control = start();
    let mut client = Client::connect(&control, &MachinePrivate::generate(&mut OsRng)).await;
    let refuse = FaultAction::Status { code: 429, retry_after: Some(7), body: "slow down".to_owned() };
    control.faults().add_times(FaultTarget::Register, refuse, 1);
    control.faults().add_times(FaultTarget::Register, FaultAction::Garbage(b"<html>".to_vec()), 1);
    let reply = client.call("POST", "/machine/register", "{}").await;
    assert_eq!((reply.status, reply.body.as_slice()), (429, &b"slow down"[..]));
    let reply = client.call("POST", "/machine/register", "{}").await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"<html>"[..]));
    assert_eq!(client.call("POST", "/machine/register", "{}").await.status, 400);
}

#[tokio::test]
async fn calls_of_the_lock_are_served_to_the_node_that_they_name() {
    let control = start();
    let (mut first, first_key) = join(&control, 1).await;
    let (mut second, _) = join(&control, 2).await;
    let path = "/machine/tka/bootstrap";
    let body = json!({"Version": 145, "NodeKey": first_key, "Head": ""}).to_string();
    let reply = first.call("GET", path, body.clone()).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"{}"[..]));
    let reply = first.call("POST", path, body.clone()).await;
    assert_eq!((reply.status, reply.allow.as_deref()), (405, Some("GET")));
    assert_eq!(second.call("GET", path, body.clone()).await.status, 404);
    assert_eq!(first.call("GET", path, "{").await.status, 404);
    assert_eq!(first.call("GET", "/machine/tka/other", body.clone()).await.status, 404);
    let offer = first.call("GET", "/machine/tka/sync/offer", body.clone()).await;
    assert_eq!(offer.status, 400, "no lock");

    // Faults touch one call; an answer without end can be left.
    control.faults().add_times(FaultTarget::Lock(LockCall::Bootstrap), FaultAction::Endless, 1);
    let request = Request::get(format!("https://unused{path}")).body(Full::new(body.clone().into())).unwrap();
    let mut endless = first.http.send_request(request).await.unwrap().into_body();
    for _ in 0..100 {
        let frame = endless.frame().await.unwrap().unwrap();
        assert!(frame.data_ref().unwrap().iter().all(|byte| *byte == b' '));
    }
    drop(endless);
    assert_eq!(first.call("GET", path, body).await.status, 200);
}

#[tokio::test]
async fn an_initiation_that_is_none_is_refused_and_an_old_version_gets_no_answer() {
    let control = start();
    let address = control.http_url().unwrap().trim_start_matches("http://").to_owned();
    let ask = |handshake: String| {
        let address = address.clone();
        async move {
            let mut tcp = TcpStream::connect(&address).await.unwrap();
            let head = format!(
                "POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\
                 X-Tailscale-Handshake: {handshake}\r\n\r\n"
            );
            tcp.write_all(head.as_bytes()).await.unwrap();
            // A server that refuses may have closed already.
            let _ = tcp.shutdown().await;
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            answer
        }
    };
    assert!(ask("not base64!".to_owned()).await.starts_with("HTTP/1.1 400"));
    for initiation in [vec![0; 5], vec![0; 101]] {
        let answer = ask(data_encoding::BASE64.encode(&initiation)).await;
        assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn a_state_file_makes_the_next_process_the_same_server() {
    let folder = tempfile::tempdir().unwrap();
    let config = LabConfig { state_file: Some(folder.path().join("state.json")), ..LabConfig::default() };
    let first = LabControl::start(config.clone()).unwrap();
    first.add_paper_nodes(3, &tsrs_control_tailcfg::Hostinfo::default());
    let (noise_key, nodes) = (first.noise_key(), first.nodes());
    drop(first);
    let second = LabControl::start(config.clone()).unwrap();
    assert_eq!(second.noise_key(), noise_key);
    assert_eq!(second.nodes(), nodes);
    drop(second);
    std::fs::write(config.state_file.as_ref().unwrap(), "{").unwrap();
    assert!(LabControl::start(config).is_err(), "a damaged file is not overwritten");
}

#[test]
fn commands_go_through_the_admin_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let control = start();
    let url = control.url();
    let served = socket.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // Ends with the process.
        runtime.block_on(admin::serve(&served, control))
    });
    let call = |text: &str| admin::call(&socket, &serde_json::from_str(text).unwrap());
    while !socket.exists() {
        std::thread::yield_now();
    }
    assert_eq!(call("\"info\"").unwrap()["url"], url);
    let key = call("{\"create-key\": {\"reusable\": true, \"tags\": [\"tag:a\"]}}").unwrap();
    assert!(key.as_str().unwrap().starts_with("tskey-auth-"));
    assert_eq!(call("\"nodes\"").unwrap(), json!([]));
    assert!(call("{\"expire\": 7}").unwrap_err().to_string().contains("no node 7"));
    let bad =
        call("{\"set-policy\": {\"grants\": [{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"tcp:x\"]}]}}");
    assert!(bad.unwrap_err().to_string().contains("tcp:x"));
}
