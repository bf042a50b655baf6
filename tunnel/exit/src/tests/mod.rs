//! The dialer against real proxies of Debian: microsocks, dante, tinyproxy and squid.
//!
//! Each test has a network namespace of its own in which everything lies on loopback:
//!
//! ```text
//! 11.0.0.7 this host    11.0.0.8 the proxy    11.1.2.3 the destination: TCP and UDP echo on port 7
//! ```
//!
//! The programs are looked for on PATH and below the folder that `TSRS_TEST_PROXIES` names, into which `scripts/test` unpacks their
//! packages. A test whose program is not there is skipped and counted.
#![cfg(target_os = "linux")]

mod kernel;
mod lab;
mod programs;
mod relay;

use std::sync::Arc;

use crate::dial::{
    DialError, Egress, Health, HostFacts, ProxyConfig, ProxyFailure, ProxyList, RealDialer, Received,
};
use crate::policy::Destination;
use crate::proxy::{Blame, Credentials, ProxyError, Reply};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::test_support::admitted;
use lab::{ECHO, isolated};
use programs::{Dante, Microsocks, Squid, Tinyproxy};

fn echo() -> Destination {
    admitted("11.1.2.3:7")
}

/// A port of the destination where nobody listens, and an address without a route.
fn closed() -> Destination {
    admitted("11.1.2.3:9")
}

fn unrouted() -> Destination {
    admitted("12.0.0.1:80")
}

/// A dialer for one proxy, with these credentials.
async fn dialer(url: &str, credentials: Option<&str>, ca_file: Option<&std::path::Path>) -> RealDialer {
    let credentials = credentials.map(|text| Arc::new(Credentials::parse(text.as_bytes()).unwrap()));
    let config = ProxyConfig { url: url.parse().unwrap(), credentials, allow_local: false };
    with_proxies(vec![config], ca_file).await
}

/// A dialer for these proxies; for none it is closed.
async fn with_proxies(proxies: Vec<ProxyConfig>, ca_file: Option<&std::path::Path>) -> RealDialer {
    let dialer = RealDialer::new(Arc::new(lab::Marker), lab::net(ca_file));
    let facts = HostFacts { own_addresses: [[11, 0, 0, 7].into()].into(), tunnelled: Vec::new() };
    let egress = ProxyList::new(proxies).map_or(Egress::Closed, Egress::Proxies);
    dialer.set_egress(egress, &facts).await;
    dialer
}

/// More bytes in both directions than all buffers on the way hold. Then an end that the destination answers with its own.
async fn carries_a_stream(dialer: &RealDialer) {
    let dialled = dialer.connect(echo()).await.unwrap();
    let sent: Vec<u8> = (0..4_000_000_u32).map(|index| (index % 251).to_le_bytes()[0]).collect();
    let (mut reader, mut writer) = tokio::io::split(dialled.stream);
    let mut received = vec![0; sent.len()];
    let write = async {
        writer.write_all(&sent).await?;
        // TLS may hold the last record back.
        writer.flush().await
    };
    let (wrote, read) = tokio::join!(write, reader.read_exact(&mut received));
    wrote.unwrap();
    read.unwrap();
    assert!(received == sent, "what came back is not what was sent");
    writer.shutdown().await.unwrap();
    assert_eq!(reader.read(&mut received).await.unwrap(), 0);
}

/// The end of one direction leaves the other open. microsocks and tinyproxy close both.
async fn carries_a_half_close(dialer: &RealDialer) {
    let mut dialled = dialer.connect(echo()).await.unwrap();
    let sent = vec![7; 200_000];
    dialled.stream.write_all(&sent).await.unwrap();
    dialled.stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    dialled.stream.read_to_end(&mut received).await.unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

async fn destination_error(dialer: &RealDialer, destination: Destination) -> ProxyError {
    match dialer.connect(destination).await.unwrap_err() {
        DialError::Destination { error, .. } => error,
        error @ (DialError::Closed | DialError::Busy | DialError::Mark(_) | DialError::Proxies(_)) => {
            panic!("{error}")
        }
    }
}

/// Wrong credentials: told by health and by a dial.
async fn refuses(url: &str, credentials: Option<&str>) {
    let dialer = dialer(url, credentials, None).await;
    dialer.check_health().await;
    let status = dialer.status().remove(0);
    let Health::Down(ProxyFailure::Handshake(error)) = status.health else { panic!("{:?}", status.health) };
    assert_eq!(error.blame(), Blame::Proxy);
    assert!(
        matches!(error, ProxyError::Credentials | ProxyError::NoAcceptableMethod | ProxyError::Closed),
        "{error:?}"
    );
    assert!(matches!(dialer.connect(echo()).await, Err(DialError::Proxies(_))));
}

async fn is_healthy(dialer: &RealDialer) {
    dialer.check_health().await;
    assert_eq!(dialer.status()[0].health, Health::Up);
}

#[test]
fn microsocks_carries_streams_with_a_login() {
    isolated::<Microsocks, _>(|proxy| async move {
        let dialer = dialer(&proxy.url(), Some("user:pass"), None).await;
        is_healthy(&dialer).await;
        carries_a_stream(&dialer).await;
        let refused = ProxyError::Refused(Reply::ConnectionRefused);
        assert_eq!(destination_error(&dialer, closed()).await, refused);
        let unreachable = ProxyError::Refused(Reply::NetworkUnreachable);
        assert_eq!(destination_error(&dialer, unrouted()).await, unreachable);
        // It knows no UDP, and says so.
        let Some(DialError::Proxies(failures)) = dialer.associate().await.err() else { panic!() };
        let refused = ProxyFailure::Handshake(ProxyError::Refused(Reply::CommandNotSupported));
        assert_eq!(failures[0].1, refused);
        refuses(&proxy.url(), Some("user:wrong")).await;
        refuses(&proxy.url(), None).await;
    });
}

#[test]
fn dante_carries_streams_and_datagrams() {
    isolated::<Dante, _>(|proxy| async move {
        let dialer = dialer(&proxy.url(), None, None).await;
        is_healthy(&dialer).await;
        carries_a_stream(&dialer).await;
        carries_a_half_close(&dialer).await;
        let refused = ProxyError::Refused(Reply::ConnectionRefused);
        assert_eq!(destination_error(&dialer, closed()).await, refused);

        let mut association = dialer.associate().await.unwrap();
        let mut buffer = vec![0; 65_536];
        for payload in [b"ping".as_slice(), &[7; 1200], b""] {
            association.send(echo(), payload).await.unwrap();
            let received = association.recv(&mut buffer).await.unwrap();
            assert_eq!(received, Received::Datagram { sender: ECHO, payload });
        }
        drop(proxy);
        assert!(association.recv(&mut buffer).await.is_err());
    });
}

#[test]
fn dante_asks_for_the_password_of_a_user_of_the_system() {
    isolated::<Dante, _>(|proxy| async move {
        let url = proxy.url_with_login();
        let dialer = dialer(&url, Some("exit-user:hunter2"), None).await;
        is_healthy(&dialer).await;
        carries_a_stream(&dialer).await;
        refuses(&url, Some("exit-user:wrong")).await;
        refuses(&url, None).await;
    });
}

#[test]
fn tinyproxy_carries_streams_with_basic_credentials() {
    isolated::<Tinyproxy, _>(|proxy| async move {
        let dialer = dialer(&proxy.url(), Some("user:pass"), None).await;
        is_healthy(&dialer).await;
        carries_a_stream(&dialer).await;
        let error = destination_error(&dialer, closed()).await;
        assert!(matches!(error, ProxyError::Refused(Reply::HttpStatus(500..=504))), "{error:?}");
        refuses(&proxy.url(), Some("user:wrong")).await;
        refuses(&proxy.url(), None).await;
    });
}

#[test]
fn squid_carries_streams_with_basic_credentials_and_over_tls() {
    isolated::<Squid, _>(|proxy| async move {
        let plain = dialer(&proxy.url(), Some("user:pass"), None).await;
        is_healthy(&plain).await;
        carries_a_stream(&plain).await;
        let error = destination_error(&plain, closed()).await;
        assert!(matches!(error, ProxyError::Refused(Reply::HttpStatus(503))), "{error:?}");
        refuses(&proxy.url(), Some("user:wrong")).await;
        refuses(&proxy.url(), None).await;

        let over_tls = dialer(&proxy.tls_url(), Some("user:pass"), Some(proxy.certificate())).await;
        is_healthy(&over_tls).await;
        carries_a_stream(&over_tls).await;
        let stranger = dialer(&proxy.tls_url(), Some("user:pass"), None).await;
        let Some(DialError::Proxies(failures)) = stranger.connect(echo()).await.err() else { panic!() };
        assert!(matches!(failures[0].1, ProxyFailure::Tls(_)), "{:?}", failures[0].1);
    });
}

#[test]
fn a_proxy_that_is_killed_ends_its_streams_and_is_found_to_be_down() {
    isolated::<Microsocks, _>(|proxy| async move {
        let dialer = dialer(&proxy.url(), Some("user:pass"), None).await;
        let mut dialled = dialer.connect(echo()).await.unwrap();
        dialled.stream.write_all(b"x").await.unwrap();
        dialled.stream.read_exact(&mut [0]).await.unwrap();
        drop(proxy);
        assert!(matches!(dialled.stream.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(matches!(dialer.connect(echo()).await, Err(DialError::Proxies(_))));
        assert!(matches!(dialer.status()[0].health, Health::Down(ProxyFailure::Unreachable(_))));
    });
}
