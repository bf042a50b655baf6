//! The server's settings from another process: one JSON command per `POST /` over a Unix socket.
//!
//! `curl --unix-socket PATH http://lab/ -d '{"create-key": {"reusable": true}}'`

use std::convert::Infallible;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tsrs_base_types::NodeId;

use crate::dns::DnsSettings;
use crate::fault::Fault;
use crate::keys::KeySpec;
use crate::policy::Policy;
use crate::server::LabControl;
use crate::sync::lock;
use crate::tailnet::LockLie;

/// Longest command.
const MAX_COMMAND_LEN: usize = 1 << 20;
/// Time that a client waits for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Time that a node gets to answer a ping.
const PING_LIMIT: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// URL and CA.
    Info,
    /// All nodes.
    Nodes,
    /// Gives out an auth key; its text.
    CreateKey(KeySpec),
    /// Logins that wait, by id, with the host name.
    Logins,
    /// Lets a login in as a node of a user.
    ApproveLogin {
        /// Its id.
        id: String,
        /// Login name; empty is the first user.
        #[serde(default)]
        user: String,
    },
    /// Refuses a login.
    RefuseLogin {
        /// Its id.
        id: String,
    },
    /// Lets a machine in.
    ApproveMachine(NodeId),
    /// Approves these routes of a node, and no others.
    ApproveRoutes {
        /// The node.
        id: NodeId,
        /// The routes.
        routes: Vec<IpNet>,
    },
    /// Gives a node another name.
    Rename {
        /// The node.
        id: NodeId,
        /// The name.
        name: String,
    },
    /// Ends the life of a node's key.
    Expire(NodeId),
    /// Deletes a node.
    Delete(NodeId),
    /// Changes who may reach what.
    SetPolicy(Policy),
    /// Changes DNS.
    SetDns(DnsSettings),
    /// Sends a node any map message.
    Inject {
        /// The node.
        id: NodeId,
        /// The message.
        message: Value,
    },
    /// Lies to the nodes about Tailnet Lock; `null` speaks the truth again.
    LieAboutLock(Option<LockLie>),
    /// Asks a node for a sign of life over Noise.
    Ping(NodeId),
    /// Switches a fault on.
    AddFault(Fault),
    /// Switches all faults off.
    ClearFaults,
    /// Ends every connection.
    CutConnections,
    /// Stops serving; the nodes are kept.
    Stop,
    /// Serves again.
    Resume,
}

impl Command {
    /// Carries it out.
    pub fn run(self, control: &mut LabControl) -> Result<Value> {
        match self {
            Self::Info => {
                return Ok(json!({
                    "url": control.url(), "http_url": control.http_url(), "ca_pem": control.ca_pem(),
                    "note": "test and demo server",
                }));
            }
            Self::Nodes => return Ok(control.nodes().iter().map(describe).collect()),
            Self::CreateKey(spec) => return Ok(json!(control.create_key(spec))),
            Self::Logins => {
                let logins = control.pending_logins().into_iter();
                return Ok(logins.map(|login| (login.id, json!(login.hostinfo.hostname))).collect());
            }
            Self::ApproveLogin { id, user } => control.approve_login(&id, &user)?,
            Self::RefuseLogin { id } => control.refuse_login(&id)?,
            Self::ApproveMachine(id) => control.approve_machine(id, true)?,
            Self::ApproveRoutes { id, routes } => control.approve_routes(id, &routes)?,
            Self::Rename { id, name } => control.rename(id, &name)?,
            Self::Expire(id) => control.expire(id)?,
            Self::Delete(id) => control.delete(id)?,
            Self::SetPolicy(policy) => control.set_policy(policy)?,
            Self::SetDns(dns) => control.set_dns(dns),
            Self::Inject { id, message } => control.inject(id, message),
            Self::LieAboutLock(lie) => control.lie_about_lock(lie)?,
            Self::Ping(id) => control.ping(id, true, PING_LIMIT)?,
            Self::AddFault(fault) => control.faults().push(fault),
            Self::ClearFaults => control.faults().clear(),
            Self::CutConnections => control.cut_connections(),
            Self::Stop => control.stop(),
            Self::Resume => control.resume()?,
        }
        Ok(Value::Null)
    }
}

fn describe(node: &crate::LabNode) -> Value {
    let mut described = json!(node);
    if let Value::Object(map) = &mut described {
        map.insert("online".to_owned(), json!(node.online()));
        map.insert("home_derp".to_owned(), json!(node.home_derp()));
    }
    described
}

/// Serves commands until the task is dropped.
pub async fn serve(socket: &Path, control: LabControl) -> Result<()> {
    // A socket that a killed predecessor left cannot be bound again.
    let _ = std::fs::remove_file(socket);
    let listener =
        tokio::net::UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?;
    let control = Arc::new(Mutex::new(control));
    loop {
        let (stream, _) = listener.accept().await?;
        let control = Arc::clone(&control);
        let service = hyper::service::service_fn(move |request| answer(Arc::clone(&control), request));
        tokio::spawn(async move {
            if let Err(error) = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
            {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

async fn answer(
    control: Arc<Mutex<LabControl>>,
    request: http::Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let result = async {
        let body = Limited::new(request.into_body(), MAX_COMMAND_LEN).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        let command: Command = serde_json::from_slice(&body).context("command")?;
        tokio::task::spawn_blocking(move || command.run(&mut lock(&control))).await?
    };
    let (status, value) = match result.await {
        Ok(value) => (StatusCode::OK, value),
        Err(error) => (StatusCode::BAD_REQUEST, json!({ "error": format!("{error:#}") })),
    };
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    Ok(response)
}

/// Sends one command to a server in another process.
pub fn call(socket: &Path, command: &Command) -> Result<Value> {
    let body = serde_json::to_string(command)?;
    let mut stream =
        UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
    let len = body.len();
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: lab\r\nConnection: close\r\nContent-Length: {len}\r\n\r\n{body}"
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").context("no answer")?;
    let value: Value = serde_json::from_str(body.trim()).context("answer")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{}", value["error"].as_str().unwrap_or(head));
    }
    Ok(value)
}
