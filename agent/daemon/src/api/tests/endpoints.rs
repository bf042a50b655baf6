//! What single endpoints do beyond the shape of their answers.

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tsrs_platform_api::RouterConfig;

use super::bench::{Bench, OPERATOR, OTHER, PEER, ROOT, head};
use crate::backend::Input;
use crate::tunnel::TunnelEvent;

#[tokio::test]
async fn the_four_pings_name_the_peer_and_their_way() {
    let bench = Bench::running().await;
    let disco = bench.ask(OTHER, "POST", &format!("ping?ip={PEER}&type=disco&size=0"), None).await.json();
    assert_eq!((&disco["NodeName"], &disco["Err"]), (&json!("beta"), &json!("")));
    assert_eq!((&disco["NodeIP"], &disco["Endpoint"]), (&json!(PEER), &json!("192.0.2.8:41641")));
    let tsmp = bench.ask(OTHER, "POST", &format!("ping?ip={PEER}&type=TSMP"), None).await.json();
    assert_eq!(tsmp["PeerAPIPort"], 58_436);
    let own = bench.ask(OTHER, "POST", "ping?ip=100.64.0.3&type=disco", None).await.json();
    assert_eq!((&own["IsLocalIP"], &own["Err"]), (&json!(true), &json!("100.64.0.3 is local Tailscale IP")));
    for stranger in ["100.64.99.99", "192.0.2.1", "fd7a:115c:a1e0::99"] {
        for kind in ["disco", "TSMP", "ICMP", "peerapi"] {
            let reply =
                bench.ask(OTHER, "POST", &format!("ping?ip={stranger}&type={kind}"), None).await.json();
            assert_eq!(reply["Err"], "no matching peer", "{stranger} {kind}");
        }
    }
}

#[tokio::test]
async fn a_stopped_daemon_sends_no_probe_of_its_own() {
    let bench = Bench::stopped().await;
    for kind in ["ICMP", "peerapi"] {
        let reply = bench.ask(ROOT, "POST", &format!("ping?ip={PEER}&type={kind}"), None).await.json();
        assert_ne!(reply["Err"], "", "{kind}");
    }
}

fn dial(host: &str, port: u16) -> String {
    format!(
        "POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\nUpgrade: ts-dial\r\nConnection: upgrade\r\n\
         Dial-Host: {host}\r\nDial-Port: {port}\r\nContent-Length: 0\r\n\r\n"
    )
}

#[tokio::test]
async fn dial_leaves_what_is_not_in_the_tailnet_to_the_caller() {
    let bench = Bench::running().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Neither the host itself, nor its network, nor the internet, nor our own address is dialled.
    for host in ["127.0.0.1", "192.0.2.7", "198.51.100.14", "100.64.0.3", "100.100.100.100"] {
        let reply = bench.raw(ROOT, dial(host, port).as_bytes()).await;
        assert_eq!((reply.status, reply.header("dial-self")), (200, "true"), "{host}");
        assert_eq!(reply.header("dial-addr"), format!("{host}:{port}"));
    }
    let reply = bench.raw(ROOT, dial("100.64.9.9", port).as_bytes()).await;
    let wanted = format!("dial failure: dial tcp 100.64.9.9:{port}: not in the tailnet\n");
    assert_eq!((reply.status, reply.text()), (502, wanted.as_str()), "nobody looks for it elsewhere");
    let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "nothing was dialled");
    assert_eq!(bench.raw(OTHER, dial(PEER, port).as_bytes()).await.status, 403);
}

#[tokio::test]
async fn dial_carries_bytes_both_ways_and_keeps_half_closes() {
    let bench = Bench::running().await;
    // The tunnel is the loopback interface here, and one of its addresses a host behind it.
    let behind = "127.0.0.2";
    bench.api.routes.set(&RouterConfig {
        addresses: vec!["100.64.0.3".parse().unwrap()],
        routes: [format!("{behind}/32").parse().unwrap()].into(),
        ..RouterConfig::default()
    });
    let listener = TcpListener::bind((behind, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
    });
    let mut stream = bench.connect(OPERATOR);
    stream.write_all(dial(behind, port).as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let len = stream.read(&mut answer).await.unwrap();
    let head = String::from_utf8_lossy(&answer[..len]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && head.contains("upgrade: ts-dial"), "{head}");
    stream.write_all(b"through the tunnel").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut echoed = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut echoed)).await;
    assert!(read.is_ok(), "the end of one side reaches the other");
    assert_eq!(echoed, b"through the tunnel");
    echo.await.unwrap();
    // A port that nobody listens on.
    let reply = bench.raw(ROOT, dial(behind, port).as_bytes()).await;
    let wanted = format!("dial failure: dial tcp {behind}:{port}: connect: connection refused\n");
    assert_eq!((reply.status, reply.text()), (502, wanted.as_str()));
}

#[tokio::test]
async fn names_of_peers_are_answered_by_our_resolver() {
    let bench = Bench::running().await;
    let reply = bench.ask(ROOT, "GET", "dns-query?name=beta.lab.test&type=A", None).await;
    let message = BASE64.decode(reply.json()["Bytes"].as_str().unwrap().as_bytes()).unwrap();
    assert!(message.ends_with(&[100, 64, 0, 1]), "{message:?}");
}

#[tokio::test]
async fn actions_reach_the_engine() {
    let bench = Bench::running().await;
    for action in ["restun", "rebind", "break-derp-conns"] {
        let reply = bench.ask(ROOT, "POST", &format!("debug?action={action}"), None).await;
        assert_eq!((reply.status, reply.text()), (200, "done\n"), "{action}");
    }
    assert_eq!(*bench.tunnel.asked.lock().unwrap(), ["restun", "rebind", "break-derp-conns"]);
    let netmap = bench.ask(ROOT, "POST", "debug?action=current-netmap", None).await.json();
    assert_eq!(netmap["SelfNode"]["Name"], "alpha.lab.test.");
    let fresh = Bench::new().await;
    let reply = fresh.ask(ROOT, "POST", "debug?action=current-netmap", None).await;
    assert_eq!((reply.status, reply.text()), (400, "no netmap\n"));
}

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_know() {
    let bench = Bench::running().await;
    let reply = bench.ask(OTHER, "GET", "usermetrics", None).await;
    for line in [
        "tailscaled_inbound_packets_total{path=\"direct_ipv4\"} 3",
        "tailscaled_inbound_dropped_packets_total{reason=\"acl\"} 2",
        "tailscaled_outbound_bytes_total{path=\"derp\"} 0",
        "tailscaled_home_derp_region_id 999",
        "tailscaled_advertised_routes 0",
    ] {
        assert!(reply.text().lines().any(|found| found == line), "{line} is missing in {}", reply.text());
    }
    // Each line is a comment or `name{labels} number`.
    for line in reply.text().lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("tailscaled_") && value.parse::<f64>().is_ok(), "{line}");
    }
}

#[tokio::test]
async fn a_bug_report_is_a_local_file_without_secrets() {
    let bench = Bench::running().await;
    let reply = bench.ask(ROOT, "POST", "bugreport?note=it+broke", None).await;
    let line = reply.text().trim_end();
    assert!(line.starts_with("BUG-") && !line.contains('\n'), "{line}");
    let reports: Vec<_> = std::fs::read_dir(&bench.api.state_dir)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("bugreport-"))
        .collect();
    assert_eq!(reports.len(), 1);
    let text = std::fs::read_to_string(reports[0].path()).unwrap();
    assert!(text.contains("it broke") && text.contains("alpha.lab.test."));
    assert!(!text.contains(super::bench::GOOD_KEY));
    for (at, _) in text.match_indices("privkey:") {
        assert!(text[at..].starts_with(&format!("privkey:{}", "0".repeat(64))));
    }
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(reports[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn accounts_are_made_listed_switched_and_forgotten() {
    let bench = Bench::running().await;
    let first = bench.ask(ROOT, "GET", "profiles/current", None).await.json();
    let id = first["ID"].as_str().unwrap().to_owned();
    assert_eq!((id.len(), &first["NetworkProfile"]["MagicDNSName"]), (4, &json!("lab.test")));
    let reply = bench.ask(ROOT, "PUT", "profiles/", None).await;
    assert_eq!((reply.status, reply.body.len()), (201, 0));
    assert_eq!(bench.ask(ROOT, "GET", "profiles/current", None).await.json()["ID"], "");
    assert_eq!(bench.ask(ROOT, "GET", "profiles/", None).await.json().as_array().unwrap().len(), 1);
    let reply = bench.ask(ROOT, "POST", &format!("profiles/{id}"), None).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(bench.ask(ROOT, "GET", "profiles/current", None).await.json()["ID"], json!(id));
    assert_eq!(bench.ask(ROOT, "DELETE", &format!("profiles/{id}"), None).await.status, 204);
    assert_eq!(bench.ask(ROOT, "GET", "profiles/", None).await.json(), json!([]));
}

#[tokio::test]
async fn prefs_without_effect_are_refused_with_the_reason() {
    let bench = Bench::running().await;
    let before = bench.backend.snapshot().prefs.clone();
    for edit in [
        json!({"RunSSH": true, "RunSSHSet": true}),
        json!({"AdvertiseRoutes": ["0.0.0.0/0", "::/0"], "AdvertiseRoutesSet": true}),
        json!({"AdvertiseRoutes": ["8.8.8.0/24"], "AdvertiseRoutesSet": true}),
        json!({"ExitNodeIP": PEER, "ExitNodeIPSet": true}),
        json!({"NetfilterMode": 9, "NetfilterModeSet": true}),
    ] {
        let reply = bench.ask(ROOT, "PATCH", "prefs", Some(&edit)).await;
        assert_eq!(reply.status, 400, "{edit}");
        assert!(!reply.json()["Error"].as_str().unwrap().is_empty(), "{edit}");
    }
    assert_eq!(bench.backend.snapshot().prefs, before);
}

#[tokio::test]
async fn other_settings_can_be_changed_while_an_operator_is_set() {
    let bench = Bench::running().await;
    let reply =
        bench.ask(OPERATOR, "PATCH", "prefs", Some(&json!({"Hostname": "new", "HostnameSet": true}))).await;
    assert_eq!((reply.status, &reply.json()["Hostname"]), (200, &json!("new")));
    let edit = json!({"OperatorUser": "nobody-here", "OperatorUserSet": true});
    assert_eq!(bench.ask(ROOT, "PATCH", "prefs", Some(&edit)).await.status, 400);
}

#[tokio::test]
async fn the_front_page_and_the_server_status_are_open_to_all() {
    let bench = Bench::new().await;
    let page = bench.raw(OTHER, (head("GET", "/") + "\r\n").as_bytes()).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let status = bench.raw(OTHER, (head("GET", "/server-status?wait=true") + "\r\n").as_bytes()).await;
    assert_eq!(status.json(), json!({}));
}

#[tokio::test]
async fn shutdown_is_answered_and_then_done() {
    let bench = Bench::new().await;
    let reply = bench.ask(ROOT, "POST", "shutdown", None).await;
    assert!([200, 204].contains(&reply.status), "{}", reply.status);
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        while bench.backend.call(|_, _| ()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    assert!(ended.await.is_ok());
    // Commands now say why nothing happens.
    let reply = bench.ask(ROOT, "POST", "login-interactive", None).await;
    assert_eq!(reply.status, 503);
}

#[tokio::test]
async fn a_tunnel_that_failed_ends_the_daemon() {
    let bench = Bench::running().await;
    let failed = TunnelEvent::Failed("tsrs-transmit: no such device".into());
    bench.backend.send(Input::Tunnel(failed)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), bench.running).await;
    let ended = ended.expect("the backend goes on").unwrap();
    assert_eq!(ended, Err("tsrs-transmit: no such device".to_owned()));
}
