//! The one HTTP/2 connection inside Noise that carries all calls; dialled on demand.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::AbortHandle;
use tsrs_base_types::{MachinePrivate, MachinePublic};
use tsrs_control_tailcfg::{ControlDialPlan, OverTlsPublicKeyResponse};
use tsrs_platform_net::{HttpRequest, Net};

use crate::calls::retry_after;
use crate::dial::Dialer;
use crate::early::WithoutEarlyPayload;
use crate::error::{Error, server_text};
use crate::noise::HandshakeError;
use crate::server::ServerUrl;

/// A dial so soon after the one before skips plain HTTP.
const RECENT_DIAL: Duration = Duration::from_secs(120);
/// Redirects followed for the key, as a web server in front of the control server may send them.
const MAX_KEY_REDIRECTS: usize = 3;
/// HTTP/2 flow control: the server may send so much before we have read it.
const STREAM_WINDOW_LEN: u32 = 1 << 20;
const CONNECTION_WINDOW_LEN: u32 = 2 << 20;
/// Header fields of one answer.
const MAX_HEADER_LIST_LEN: u32 = 16 * 1024;
/// While a call is open, a connection on which nothing comes is probed after this time. The map stream has a watchdog of
/// its own; this is for a login that waits for the user for hours.
const PROBE_INTERVAL: Duration = Duration::from_secs(60);
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Connector {
    net: Net,
    server: ServerUrl,
    machine_key: MachinePrivate,
    version: u16,
    plan: Mutex<Option<Arc<ControlDialPlan>>>,
    current: Mutex<Option<Connection>>,
    /// Held while dialling, so that there is one connection at most.
    dialling: tokio::sync::Mutex<Dialling>,
}

#[derive(Default)]
struct Dialling {
    server_key: Option<MachinePublic>,
    last: Option<Instant>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connector {
    pub(crate) fn new(net: Net, server: ServerUrl, machine_key: MachinePrivate, version: u16) -> Self {
        Self {
            net,
            server,
            machine_key,
            version,
            plan: Mutex::default(),
            current: Mutex::default(),
            dialling: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) const fn net(&self) -> &Net {
        &self.net
    }

    pub(crate) const fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// The plan of the server for its own addresses. It outlives connections and map streams.
    pub(crate) fn set_plan(&self, plan: Arc<ControlDialPlan>) {
        *lock(&self.plan) = Some(plan);
    }

    /// Closes the connection; every call on it fails, and the next one dials.
    pub(crate) fn disconnect(&self) {
        drop(lock(&self.current).take());
    }

    /// Sends a request whose URI has only a path.
    pub(crate) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = format!("https://{}{path}", self.server.authority());
        *request.uri_mut() = uri.parse().map_err(|error| Error::Request(format!("{error}: {uri}")))?;
        let mut sender = self.sender().await?;
        sender.ready().await.map_err(|error| broken(&error))?;
        sender.send_request(request).await.map_err(|error| broken(&error))
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let mut dialling = self.dialling.lock().await;
        // Somebody else may have dialled meanwhile.
        if let Some(sender) = self.open_sender() {
            return Ok(sender);
        }
        let connection = self.dial(&mut dialling).await?;
        let sender = connection.sender.clone();
        *lock(&self.current) = Some(connection);
        Ok(sender)
    }

    fn open_sender(&self) -> Option<SendRequest<Full<Bytes>>> {
        let current = lock(&self.current);
        current.as_ref().map(|connection| &connection.sender).filter(|sender| !sender.is_closed()).cloned()
    }

    async fn dial(&self, dialling: &mut Dialling) -> Result<Connection, Error> {
        let server_key = match dialling.server_key {
            Some(key) => key,
            None => *dialling.server_key.insert(self.fetch_key().await?),
        };
        let now = Instant::now();
        let skip_plain = dialling.last.is_some_and(|last| now.duration_since(last) < RECENT_DIAL);
        dialling.last = Some(now);
        let plan = lock(&self.plan).clone();
        let dialer = Dialer {
            net: &self.net,
            server: &self.server,
            machine_key: &self.machine_key,
            server_key: &server_key,
            version: self.version,
            ports: self.server.ports(),
            skip_plain,
        };
        let transport = match dialer.connect(plan.as_deref()).await {
            Ok(transport) => transport,
            Err(error) => {
                if concerns_key(&error) {
                    // The server may have a new key, such as after it was set up again.
                    dialling.server_key = None;
                }
                return Err(error);
            }
        };
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_LEN)
            .initial_connection_window_size(CONNECTION_WINDOW_LEN)
            .max_header_list_size(MAX_HEADER_LIST_LEN)
            .keep_alive_interval(PROBE_INTERVAL)
            .keep_alive_timeout(PROBE_TIMEOUT)
            .handshake(TokioIo::new(WithoutEarlyPayload::new(transport)))
            .await
            .map_err(|error| broken(&error))?;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %chain(&error), "connection to the control server ended");
            }
        });
        tracing::info!("connected to the control server");
        Ok(Connection { sender, task: task.abort_handle() })
    }

    /// The server's Noise key: the root of trust, so TLS is verified where the URL says https.
    async fn fetch_key(&self) -> Result<MachinePublic, Error> {
        let url = self.server.key_url(self.version);
        let request = HttpRequest { max_redirects: MAX_KEY_REDIRECTS, ..HttpRequest::get(url.clone()) };
        let response = self.net.http(&request).await?;
        let url = url.to_string();
        match response.status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => return Err(Error::RateLimited(retry_after(&response.headers))),
            status if status.is_server_error() => {
                let text = server_text(&response.body);
                return Err(Error::Status { what: "fetching the key", status: status.as_u16(), text });
            }
            status => return Err(Error::NotControl { url, answer: format!("status {}", status.as_u16()) }),
        }
        if response.body.is_empty() {
            return Err(Error::NoKey { url, version: self.version });
        }
        let keys: OverTlsPublicKeyResponse = serde_json::from_slice(&response.body).map_err(|_| {
            Error::NotControl { url: url.clone(), answer: "the answer holds no key".to_owned() }
        })?;
        if keys.public_key.is_zero() {
            return Err(Error::NoKey { url, version: self.version });
        }
        Ok(keys.public_key)
    }
}

/// Whether the server may have refused us because its key is another one: some servers answer a handshake that they
/// cannot open with an error status, or with nothing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what fails before the upgrade says nothing about the key"
)]
fn concerns_key(error: &Error) -> bool {
    match error {
        Error::Upgrade { .. } | Error::UpgradeAnswer { .. } => true,
        Error::Handshake { error, .. } => !matches!(error, HandshakeError::Io(_)),
        Error::Attempts(errors) => errors.iter().any(concerns_key),
        _ => false,
    }
}

pub(crate) fn broken(error: &hyper::Error) -> Error {
    Error::Broken(chain(error))
}

/// An error with its causes, since hyper's own text names only the outermost.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
