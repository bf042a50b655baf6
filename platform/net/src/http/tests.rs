//! Requests over loopback, against a server of a few lines.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tsrs_platform_api::fake::FakeBinder;

use super::*;
use crate::dns::resolv_conf::DnsServers;
use crate::net::NetConfig;
use crate::proxy::env::Proxies;

fn net(proxies: Proxies) -> Net {
    let (binder, dns) = (Arc::new(FakeBinder::default()), DnsServers::default());
    Net::new(NetConfig { binder, proxies, ca_files: Vec::new(), dns, hosts_file: PathBuf::from("/dev/null") })
        .unwrap()
}

/// Answers each connection with the next text, and returns the requests.
async fn serve(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            requests.push(String::from_utf8(request).unwrap());
            // The client may have heard enough and gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
        requests
    });
    (address, served)
}

fn url(address: SocketAddr, path: &str) -> Url {
    format!("http://{address}{path}").parse().unwrap()
}

#[tokio::test]
async fn a_body_is_read_to_its_limit() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    let (address, served) = serve(vec![answer.clone(), answer.clone(), answer]).await;
    let net = net(Proxies::default());
    let mut request = HttpRequest::get(url(address, "/key?v=119"));
    let response = net.http(&request).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (StatusCode::OK, b"hello".as_slice()));

    request.max_body_len = 4;
    let error = net.http(&request).await.unwrap_err();
    assert!(matches!(error, NetError::Http { .. }) && error.to_string().contains("length limit"), "{error}");

    let response = net.http(&HttpRequest::head(url(address, "/ping"))).await.unwrap();
    assert_eq!((response.status, response.body.len()), (StatusCode::OK, 0));
    let requests = served.await.unwrap();
    assert!(requests[0].starts_with("GET /key?v=119 HTTP/1.1\r\n"), "{}", requests[0]);
    assert!(requests[0].contains(&format!("host: {address}\r\n")), "{}", requests[0]);
    assert!(requests[2].starts_with("HEAD /ping HTTP/1.1\r\n"), "{}", requests[2]);
}

#[tokio::test]
async fn garbage_and_endless_headers_are_errors() {
    let endless = format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(MAX_HEAD_LEN));
    for answer in ["SSH-2.0-x\r\n\r\n".to_owned(), String::new(), endless] {
        let (address, _served) = serve(vec![answer]).await;
        let error = net(Proxies::default()).http(&HttpRequest::get(url(address, "/"))).await.unwrap_err();
        assert!(matches!(error, NetError::Http { .. }), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_only_as_often_as_allowed() {
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n".to_owned();
    let answer = "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    let (address, served) = serve(vec![redirect.clone(), answer, redirect]).await;
    let mut request = HttpRequest::get(url(address, "/key"));
    request.max_redirects = 1;
    assert_eq!(net(Proxies::default()).http(&request).await.unwrap().status, StatusCode::NO_CONTENT);
    request.max_redirects = 0;
    assert_eq!(net(Proxies::default()).http(&request).await.unwrap().status, StatusCode::FOUND);
    assert!(served.await.unwrap()[1].starts_with("GET /next "));
}

#[test]
fn a_redirect_never_leaves_tls() {
    let from: Url = "https://a.test/key".parse().unwrap();
    let mut headers = HeaderMap::new();
    for (location, followed) in [
        ("http://a.test/key", false),
        ("https://b.test/key", true),
        ("/other", true),
        ("ftp://a.test/", false),
    ] {
        headers.insert(LOCATION, location.parse().unwrap());
        let response = HttpResponse {
            status: StatusCode::MOVED_PERMANENTLY,
            headers: headers.clone(),
            body: Bytes::new(),
        };
        assert_eq!(redirect(&from, &response).is_some(), followed, "{location}");
    }
}

#[tokio::test]
async fn a_plain_request_goes_to_the_proxy_with_its_whole_url() {
    let (proxy, served) = serve(vec!["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned()]).await;
    let setting = format!("http://user:pass@{proxy}");
    let net = net(Proxies::from_vars(|name| (name == "HTTP_PROXY").then(|| setting.clone())));
    let request = HttpRequest::get("http://hs.lab.test:8080/key?v=119".parse().unwrap());
    assert_eq!(&net.http(&request).await.unwrap().body[..], b"ok");
    let request = &served.await.unwrap()[0];
    assert!(request.starts_with("GET http://hs.lab.test:8080/key?v=119 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("proxy-authorization: Basic dXNlcjpwYXNz\r\n"), "{request}");
}

#[tokio::test]
async fn a_tls_destination_is_reached_through_connect() {
    let (proxy, served) = serve(vec!["HTTP/1.1 200 OK\r\n\r\nnot TLS".to_owned()]).await;
    let net = net(Proxies::from_vars(|name| (name == "HTTPS_PROXY").then(|| format!("http://{proxy}"))));
    let error = net.http(&HttpRequest::get("https://hs.lab.test/key".parse().unwrap())).await.unwrap_err();
    assert!(matches!(error, NetError::Tls { .. }), "{error}");
    assert!(served.await.unwrap()[0].starts_with("CONNECT hs.lab.test:443 HTTP/1.1\r\n"));
}

#[tokio::test]
async fn errors_say_who_and_what() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = net(Proxies::default()).http(&HttpRequest::get(url(closed, "/"))).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot connect to {closed}")), "{error}");

    let request = HttpRequest::get("http://no-such-host.lab.test/".parse().unwrap());
    let error = net(Proxies::default()).http(&request).await.unwrap_err();
    assert!(error.to_string().contains("no-such-host.lab.test"), "{error}");

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut request = HttpRequest::get(url(silent.local_addr().unwrap(), "/key"));
    request.limit = Duration::from_millis(50);
    let error = net(Proxies::default()).http(&request).await.unwrap_err();
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
}
