//! A control server of a few lines on loopback, which does what a test tells it to.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand_core::OsRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tsrs_base_types::{MachinePrivate, MachinePublic};
use tsrs_platform_api::fake::FakeBinder;
use tsrs_platform_net::{AsyncStream, DnsServers, Net, NetConfig, Proxies};

use crate::noise::test_server::{accept, serve};

/// A call that came in Noise.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) client: MachinePublic,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) lb_keys: Vec<String>,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the server answers to a call.
pub(crate) enum Reply {
    Whole(u16, Vec<(&'static str, String)>, Bytes),
    Stream(mpsc::Receiver<Bytes>),
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self::Whole(200, Vec::new(), body.into())
    }

    pub(crate) fn status(status: u16, body: &str) -> Self {
        Self::Whole(status, Vec::new(), Bytes::copy_from_slice(body.as_bytes()))
    }
}

/// What the server does with the upgrade.
#[derive(Clone)]
pub(crate) enum Upgrade {
    /// As it should, with or without an early payload.
    Accept { early: bool },
    /// Says this, and closes.
    Say(Vec<u8>),
    /// Says nothing, for good.
    Silent,
}

type Calls = dyn Fn(Seen) -> Reply + Send + Sync;

/// What a test changes while the server runs.
pub(crate) struct Manners {
    /// Answers to the next `GET /key`, whole; with none left, the key.
    pub(crate) key_answers: VecDeque<String>,
    pub(crate) upgrade: Upgrade,
    /// Key of the next handshakes.
    pub(crate) key: MachinePrivate,
    /// Request lines that came outside Noise.
    pub(crate) outer: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct TestServer {
    pub(crate) addr: SocketAddr,
    pub(crate) manners: Arc<Mutex<Manners>>,
    calls: Arc<Calls>,
    tls: Option<TlsAcceptor>,
}

impl TestServer {
    pub(crate) async fn start(calls: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(calls, false).await
    }

    /// With a self-signed certificate for nothing that a client would ask for.
    pub(crate) async fn start_tls(calls: impl Fn(Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(calls, true).await
    }

    async fn start_with(calls: impl Fn(Seen) -> Reply + Send + Sync + 'static, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let manners = Manners {
            key_answers: VecDeque::new(),
            upgrade: Upgrade::Accept { early: true },
            key: MachinePrivate::generate(&mut OsRng),
            outer: Vec::new(),
        };
        let server = Self {
            addr: listener.local_addr().unwrap(),
            manners: Arc::new(Mutex::new(manners)),
            calls: Arc::new(calls),
            tls: tls.then(acceptor),
        };
        let running = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(running.clone().handle(stream));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) fn set_upgrade(&self, upgrade: Upgrade) {
        self.manners.lock().unwrap().upgrade = upgrade;
    }

    /// How many requests outside Noise began like this.
    pub(crate) fn outer_count(&self, begin: &str) -> usize {
        self.manners.lock().unwrap().outer.iter().filter(|line| line.starts_with(begin)).count()
    }

    async fn handle(self, stream: tokio::net::TcpStream) {
        match &self.tls {
            None => self.handle_http(Box::new(stream)).await,
            Some(acceptor) => {
                if let Ok(stream) = acceptor.accept(stream).await {
                    self.handle_http(Box::new(stream)).await;
                }
            }
        }
    }

    async fn handle_http(&self, mut stream: Box<dyn AsyncStream>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let head = String::from_utf8(head).unwrap();
        let line = head.lines().next().unwrap().to_owned();
        self.manners.lock().unwrap().outer.push(line.clone());
        if line.starts_with("GET /key?v=119 ") {
            let _ = stream.write_all(self.key_answer().as_bytes()).await;
        } else if line.starts_with("POST /ts2021 ") {
            self.handle_upgrade(stream, &head).await;
        } else {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        }
    }

    fn key_answer(&self) -> String {
        let mut manners = self.manners.lock().unwrap();
        manners.key_answers.pop_front().unwrap_or_else(|| {
            let key = manners.key.public();
            let body = format!(r#"{{"legacyPublicKey":"mkey:{}","publicKey":"{key}"}}"#, "0".repeat(64));
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        })
    }

    async fn handle_upgrade(&self, mut stream: Box<dyn AsyncStream>, head: &str) {
        let (key, upgrade) = {
            let manners = self.manners.lock().unwrap();
            (manners.key.clone(), manners.upgrade.clone())
        };
        let early = match upgrade {
            Upgrade::Accept { early } => early,
            Upgrade::Say(bytes) => {
                let _ = stream.write_all(&bytes).await;
                return;
            }
            Upgrade::Silent => return std::future::pending().await,
        };
        let header = |name: &str| {
            head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_else(|| {
                panic!("no {name} in {head}");
            })
        };
        assert_eq!(header("Upgrade"), "tailscale-control-protocol");
        assert_eq!(header("Connection"), "upgrade");
        let initiation = data_encoding::BASE64.decode(header("X-Tailscale-Handshake").as_bytes()).unwrap();
        let Some(accepted) = accept(&key, &initiation) else { return };
        assert_eq!(accepted.version, 119);
        let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\n\
                      Connection: upgrade\r\n\r\n";
        if stream.write_all(switch.as_bytes()).await.is_err() {
            return;
        }
        let mut stream = serve(stream, &accepted).await;
        if early {
            let payload = br#"{"nodeKeyChallenge":"chalpub:00"}"#;
            let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
            stream.write_all(&[b"\xff\xff\xffTS", &len[..], payload].concat()).await.unwrap();
            stream.flush().await.unwrap();
        }
        let service = service_fn(move |request: Request<Incoming>| {
            let (calls, client) = (Arc::clone(&self.calls), accepted.client);
            async move { Ok::<_, std::convert::Infallible>(answer(&*calls, client, request).await) }
        });
        // The client ends the connection whenever it likes.
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

async fn answer(
    calls: &Calls,
    client: MachinePublic,
    request: Request<Incoming>,
) -> Response<UnsyncBoxBody<Bytes, std::convert::Infallible>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let lb_keys = parts.headers.get_all("Ts-Lb").iter().map(|key| key.to_str().unwrap().to_owned()).collect();
    let path = parts.uri.path_and_query().unwrap().to_string();
    match calls(Seen { client, method: parts.method.to_string(), path, lb_keys, body }) {
        Reply::Whole(status, headers, body) => {
            let mut response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            response.body(Full::new(body).boxed_unsync()).unwrap()
        }
        Reply::Stream(chunks) => {
            let frames = stream::unfold(chunks, |mut chunks| async move {
                Some((Ok(Frame::data(chunks.recv().await?)), chunks))
            });
            Response::new(StreamBody::new(frames).boxed_unsync())
        }
    }
}

fn acceptor() -> TlsAcceptor {
    let certified = rcgen::generate_simple_self_signed(["nobody.test".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    Arc::new(config).into()
}

/// Connections without proxies, name servers or extra certificates.
pub(crate) fn net() -> Net {
    Net::new(NetConfig {
        binder: Arc::new(FakeBinder::default()),
        proxies: Proxies::default(),
        ca_files: Vec::new(),
        dns: DnsServers::default(),
        hosts_file: PathBuf::from("/dev/null"),
    })
    .unwrap()
}

/// A map response as it travels.
pub(crate) fn framed(response: &serde_json::Value) -> Bytes {
    let json = response.to_string();
    [&u32::try_from(json.len()).unwrap().to_le_bytes()[..], json.as_bytes()].concat().into()
}
