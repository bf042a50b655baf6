//! HTTP over the daemon's Unix socket (client sheet §2.1).

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tsrs_agent_localapi::requests::ErrorBody;
use tsrs_agent_localapi::{HOST, MaskedPrefs, Notify, PATH_PREFIX, Prefs, Status, WatchMask};

use crate::error::{CliError, Result};

/// Longest answer that is read: a netmap of a very large tailnet fits.
const MAX_ANSWER_BYTES: usize = 512 << 20;

/// A client of one daemon.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether a daemon answers at the socket.
    pub(crate) async fn is_there(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// `GET status`, with or without peers.
    pub(crate) async fn status(&self, peers: bool) -> Result<Status> {
        self.get(if peers { "status" } else { "status?peers=false" }).await
    }

    /// `GET prefs`.
    pub(crate) async fn prefs(&self) -> Result<Prefs> {
        self.get("prefs").await
    }

    /// `PATCH prefs`.
    pub(crate) async fn edit_prefs(&self, edit: &MaskedPrefs) -> Result<Prefs> {
        let answer = self.send(Method::PATCH, "prefs", serde_json::to_vec(edit)?).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// A GET that answers JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.send(Method::GET, path, Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// A GET that answers text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String> {
        let answer = self.send(Method::GET, path, Vec::new()).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// A POST with a JSON body.
    pub(crate) async fn post(&self, path: &str, body: &impl Serialize) -> Result<Bytes> {
        self.send(Method::POST, path, serde_json::to_vec(body)?).await
    }

    /// Any request; an answer other than 2xx is an error with its text.
    pub(crate) async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes> {
        let (status, body) = self.request(method, path, body).await?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    /// Any request, with its status.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Bytes)> {
        let response = self.exchange(method, path, HeaderMap::new(), body).await?;
        let status = response.status();
        let limited = http_body_util::Limited::new(response.into_body(), MAX_ANSWER_BYTES);
        let body =
            limited.collect().await.map_err(|error| CliError::new(format!("reading the answer: {error}")))?;
        Ok((status, body.to_bytes()))
    }

    /// Any request with a reason for the audit log of the control server; an answer other than 2xx is an error.
    pub(crate) async fn send_with_reason(
        &self,
        method: Method,
        path: &str,
        reason: &str,
        body: Vec<u8>,
    ) -> Result {
        let mut headers = HeaderMap::new();
        if !reason.is_empty() {
            let value = HeaderValue::from_str(&data_encoding::BASE64.encode(reason.as_bytes()))
                .map_err(|error| CliError::new(format!("--reason: {error}")))?;
            headers.insert(HeaderName::from_static("x-tailscale-reason"), value);
        }
        let response = self.exchange(method, path, headers, body).await?;
        let status = response.status();
        let body =
            response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if status.is_success() { Ok(()) } else { Err(refusal(status, &body)) }
    }

    /// Any request with headers of its own; the body is left to the caller.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let broken = |error: hyper::Error| CliError::new(format!("talking to the daemon: {error}"));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::builder().method(method).uri(format!("{PATH_PREFIX}{path}"));
        if let Some(all) = request.headers_mut() {
            all.extend(headers);
            all.insert(http::header::HOST, HeaderValue::from_static(HOST));
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| CliError::new(format!("making the request: {error}")))?;
        sender.send_request(request).await.map_err(broken)
    }

    /// Opens the bus.
    pub(crate) async fn watch(&self, mask: WatchMask) -> Result<Watcher> {
        let path = format!("watch-ipn-bus?mask={}", mask.0);
        let response = self.exchange(Method::GET, &path, HeaderMap::new(), Vec::new()).await?;
        if response.status().is_success() {
            return Ok(Watcher { body: response.into_body(), buffer: Vec::new() });
        }
        let status = response.status();
        let body =
            response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Err(refusal(status, &body))
    }

    fn unreachable(&self, error: &std::io::Error) -> CliError {
        let socket = self.socket.display();
        if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) {
            return CliError::new(format!("no daemon answers at {socket}"))
                .hint("Start it with `sudo tsrs-agent up`, or name its socket with --socket.");
        }
        if error.kind() == ErrorKind::PermissionDenied {
            return CliError::new(format!("no permission to open {socket}")).denied();
        }
        CliError::new(format!("connecting to {socket}: {error}"))
    }
}

/// The stream of the bus.
pub(crate) struct Watcher {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watcher {
    /// The next message; an error when the daemon ends the stream.
    pub(crate) async fn next(&mut self) -> Result<Notify> {
        Ok(serde_json::from_slice(&self.next_line().await?)?)
    }

    /// The next message as it came.
    pub(crate) async fn next_line(&mut self) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                return Ok(line);
            }
            let frame = self.body.frame().await;
            let frame = frame.ok_or_else(|| CliError::new("the daemon ended the stream of its state"))?;
            let frame =
                frame.map_err(|error| CliError::new(format!("reading the daemon's state: {error}")))?;
            if let Ok(data) = frame.into_data() {
                if self.buffer.len() + data.len() > MAX_ANSWER_BYTES {
                    return Err(CliError::new("a message of the daemon is too long"));
                }
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// The error that a status other than 2xx stands for.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> CliError {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error }) if !error.is_empty() => error,
        _ => String::from_utf8_lossy(body).trim().to_owned(),
    };
    if status == StatusCode::FORBIDDEN {
        return CliError::new(format!("Access denied: {text}")).denied();
    }
    if text.is_empty() {
        return CliError::new(format!("the daemon answers {status}"));
    }
    CliError::new(text)
}
