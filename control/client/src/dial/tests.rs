use rand_core::OsRng;
use tokio::net::TcpListener;

use super::*;
use crate::error::ErrorKind;
use crate::test_server::{Reply, TestServer, Upgrade, net};

/// One client's dial at these ports of localhost.
struct Attempt {
    net: Net,
    server: ServerUrl,
    machine_key: MachinePrivate,
    server_key: MachinePublic,
    ports: Ports,
    skip_plain: bool,
}

impl Attempt {
    fn new(server: &TestServer, http: Option<u16>, https: Option<u16>) -> Self {
        Self {
            net: net(),
            server: "https://localhost".parse().unwrap(),
            machine_key: MachinePrivate::generate(&mut OsRng),
            server_key: server.manners.lock().unwrap().key.public(),
            ports: Ports { http, https },
            skip_plain: false,
        }
    }

    async fn connect(&self, plan: Option<&ControlDialPlan>) -> Result<(), Error> {
        let Self { net, server, machine_key, server_key, ports, skip_plain } = self;
        let (ports, skip_plain) = (*ports, *skip_plain);
        let dialer = Dialer { net, server, machine_key, server_key, version: 119, ports, skip_plain };
        dialer.connect(plan).await.map(|_| ())
    }
}

async fn plain() -> TestServer {
    TestServer::start(|_| Reply::ok("")).await
}

async fn tls_with_key_of(other: &TestServer) -> TestServer {
    let server = TestServer::start_tls(|_| Reply::ok("")).await;
    let key = other.manners.lock().unwrap().key.clone();
    server.manners.lock().unwrap().key = key;
    server
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn candidate(ip: &str) -> ControlIpCandidate {
    ControlIpCandidate { ip: Some(ip.parse().unwrap()), ..ControlIpCandidate::default() }
}

#[tokio::test]
async fn plain_http_comes_first_and_tls_is_not_tried_when_it_works() {
    let plain = plain().await;
    let tls = tls_with_key_of(&plain).await;
    Attempt::new(&plain, Some(plain.addr.port()), Some(tls.addr.port())).connect(None).await.unwrap();
    assert_eq!((plain.outer_count("POST /ts2021"), tls.outer_count("POST /ts2021")), (1, 0));
}

#[tokio::test]
async fn tls_takes_over_from_a_plain_port_that_is_closed_broken_or_silent() {
    let plain = plain().await;
    let tls = tls_with_key_of(&plain).await;
    for (count, broken) in
        [None, Some(Upgrade::Say(b"garbage\r\n\r\n".to_vec())), Some(Upgrade::Silent)].into_iter().enumerate()
    {
        let port = match broken {
            Some(upgrade) => {
                plain.set_upgrade(upgrade);
                plain.addr.port()
            }
            None => closed_port().await,
        };
        // Its certificate is for nobody: only a warning, since Noise proves the server.
        Attempt::new(&tls, Some(port), Some(tls.addr.port())).connect(None).await.unwrap();
        assert_eq!(tls.outer_count("POST /ts2021"), count + 1);
    }
}

#[tokio::test]
async fn soon_after_another_dial_plain_http_is_skipped_where_tls_exists() {
    let plain = plain().await;
    let tls = tls_with_key_of(&plain).await;
    let mut attempt = Attempt::new(&plain, Some(plain.addr.port()), Some(tls.addr.port()));
    attempt.skip_plain = true;
    attempt.connect(None).await.unwrap();
    assert_eq!((plain.outer_count("POST"), tls.outer_count("POST")), (0, 1));
    attempt.ports.https = None;
    attempt.connect(None).await.unwrap();
    assert_eq!(plain.outer_count("POST"), 1);
}

#[tokio::test]
async fn when_all_fails_every_reason_is_told() {
    let plain = plain().await;
    plain.set_upgrade(Upgrade::Say(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n".to_vec()));
    let tls_port = closed_port().await;
    let error =
        Attempt::new(&plain, Some(plain.addr.port()), Some(tls_port)).connect(None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("status 405") && text.contains(&format!("localhost:{tls_port}")), "{text}");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn answers_that_are_no_upgrade_are_explained() {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\n\r\n";
    let error_frame = [switch.as_bytes(), b"\x03\0\x07too new"].concat();
    for (answer, kind, word) in [
        (b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec(), ErrorKind::NotControl, "reverse proxy"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n".to_vec(), ErrorKind::NotControl, "101"),
        (b"SSH-2.0-x\r\n\r\n".to_vec(), ErrorKind::NotControl, "HTTP/1.1"),
        (Vec::new(), ErrorKind::NotControl, "without an answer"),
        (switch.as_bytes().to_vec(), ErrorKind::Version, "too old or too new"),
        (error_frame, ErrorKind::Version, "too new"),
        ([switch.as_bytes(), &[2, 0, 48], &[1; 48]].concat(), ErrorKind::ServerKey, "prove its key"),
        ([switch.as_bytes(), &[4, 0, 48], &[1; 48]].concat(), ErrorKind::ServerKey, "no handshake message"),
    ] {
        let server = plain().await;
        server.set_upgrade(Upgrade::Say(answer.clone()));
        let error = Attempt::new(&server, Some(server.addr.port()), None).connect(None).await.unwrap_err();
        let text = error.to_string();
        assert!(error.kind() == kind && text.contains(word), "{}: {text}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn a_plan_replaces_dns_and_falls_back_to_it() {
    let server = plain().await;
    let mut attempt = Attempt::new(&server, Some(server.addr.port()), None);
    let plan = ControlDialPlan { candidates: vec![candidate("127.0.0.2"), candidate("127.0.0.1")] };
    attempt.server = "http://no-such-host.test".parse().unwrap();
    attempt.connect(Some(&plan)).await.unwrap();
    assert_eq!(attempt.connect(None).await.unwrap_err().kind(), ErrorKind::Unreachable);

    attempt.server = "http://localhost".parse().unwrap();
    let dead = ControlDialPlan { candidates: vec![candidate("127.0.0.2")] };
    attempt.connect(Some(&dead)).await.unwrap();
}

#[test]
fn a_plan_is_read_with_bounds() {
    let with = |delay: f64, limit: f64| ControlIpCandidate {
        dial_start_delay_sec: delay,
        dial_timeout_sec: limit,
        ..candidate("192.0.2.1")
    };
    for (entry, delay, limit) in [
        (with(1.5, 4.0), 1500, 4000),
        (with(0.0, 0.0), 0, 10_000),
        (with(-1.0, -1.0), 0, 10_000),
        (with(f64::NAN, f64::INFINITY), 0, 10_000),
        (with(1e9, 1e9), 0, 10_000),
    ] {
        let [found] = &usable(&[entry])[..] else { panic!() };
        assert_eq!((found.delay.as_millis(), found.limit.as_millis()), (delay, limit));
    }
    assert!(usable(&[candidate("2001:db8::1"), ControlIpCandidate::default()]).is_empty());
    let ace = ControlIpCandidate { ace_host: "ace.test".to_owned(), ..ControlIpCandidate::default() };
    assert_eq!(usable(&[ace])[0].ace_host.as_deref(), Some("ace.test"));
    assert_eq!(usable(&vec![candidate("192.0.2.1"); 100]).len(), MAX_CANDIDATES);

    assert_eq!(whole_limit(&[]), Duration::from_secs(10));
    for (delay, limit, whole) in [(0.0, 1.0, 10), (1.0, 9.0, 15), (60.0, 60.0, 60)] {
        assert_eq!(whole_limit(&usable(&[with(delay, limit)])).as_secs(), whole);
    }
}
