//! The control client as the backend sees it: a trait, so that tests put their own in its place, and the real one.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tsrs_agent_core::agent::{ControlEvent, ControlStart, TroubleKind};
use tsrs_agent_core::lock::{Call, LockAnswer};
use tsrs_base_types::{DiscoPublic, Redacted};
use tsrs_control_client as client;
use tsrs_control_tailcfg::{Base64, EndpointType, Hostinfo, NetInfo};
use tsrs_platform_net::Net;

/// Events that wait for the backend; with them the client stops reading the map stream.
const EVENT_QUEUE_LEN: usize = 16;

/// What the tunnel tells about itself to the control server.
#[derive(Clone, Debug, Default)]
pub(crate) struct TunnelFacts {
    pub(crate) disco_key: DiscoPublic,
    pub(crate) endpoints: Vec<(SocketAddr, EndpointType)>,
    pub(crate) net_info: Option<NetInfo>,
}

/// Starts control clients.
pub(crate) trait ControlStarter: Send + Sync {
    /// Starts one; it ends when the handle is dropped.
    fn start(&self, start: ControlStart, facts: TunnelFacts) -> Result<Started, String>;
}

/// A client that runs, and what it tells.
pub(crate) struct Started {
    pub(crate) handle: Box<dyn ControlHandle>,
    pub(crate) events: mpsc::Receiver<ControlEvent>,
}

/// Steers a control client.
pub(crate) trait ControlHandle: Send + Sync {
    fn login(&self, renew: bool, auth_key: Option<Redacted<String>>) -> Result<(), String>;
    fn logout(&self) -> BoxFuture<'static, Result<(), String>>;
    fn set_expiry_sooner(&self, at: Timestamp) -> BoxFuture<'static, Result<(), String>>;
    fn set_hostinfo(&self, hostinfo: Hostinfo);
    fn set_facts(&self, facts: &TunnelFacts);
    fn set_paused(&self, paused: bool);
    fn note_link_change(&self);
    fn lock_call(&self, call: Call) -> BoxFuture<'static, Result<LockAnswer, String>>;
    fn set_lock_head(&self, head: String);
    /// For the calls of Tailnet Lock that a user makes.
    fn client(&self) -> Option<client::Handle>;
}

/// The real client.
pub(crate) struct RealControl {
    pub(crate) net: Net,
}

impl ControlStarter for RealControl {
    fn start(&self, start: ControlStart, facts: TunnelFacts) -> Result<Started, String> {
        let server = match start.server_url.as_str() {
            "" => client::ServerUrl::tailscale(),
            url => url.parse().map_err(|error| format!("the login server {url:?}: {error}"))?,
        };
        let config = client::Config {
            server,
            machine_key: start.machine_key,
            node_keys: client::NodeKeys { current: start.node_key, old: start.old_node_key },
            lock_key: start.lock_key,
            auth_key: None,
            ephemeral: false,
            tailnet: String::new(),
            local: client::LocalState {
                hostinfo: start.hostinfo,
                net_info: facts.net_info.clone(),
                endpoints: endpoints(&facts),
                disco_key: facts.disco_key,
                tka_head: start.lock_head,
            },
            cached_netmap: start.netmap,
            c2n: Arc::new(client::StandardC2n),
        };
        let (handle, mut raw) =
            client::ControlClient::start(config, self.net.clone()).map_err(|error| error.to_string())?;
        handle.set_paused(start.paused);
        let (tell, events) = mpsc::channel(EVENT_QUEUE_LEN);
        // Ends with the client, whose sender is dropped when the last handle is.
        tokio::spawn(async move {
            while let Some(event) = raw.recv().await {
                let Some(event) = translated(event) else { continue };
                if tell.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(Started { handle: Box::new(RealHandle(handle)), events })
    }
}

fn endpoints(facts: &TunnelFacts) -> Vec<client::Endpoint> {
    facts.endpoints.iter().map(|(addr, kind)| client::Endpoint { addr: *addr, kind: *kind }).collect()
}

struct RealHandle(client::Handle);

impl ControlHandle for RealHandle {
    fn login(&self, renew: bool, auth_key: Option<Redacted<String>>) -> Result<(), String> {
        self.0.login(renew, auth_key).map_err(|error| error.to_string())
    }

    fn logout(&self) -> BoxFuture<'static, Result<(), String>> {
        let handle = self.0.clone();
        Box::pin(async move { handle.logout().await.map_err(|error| error.to_string()) })
    }

    fn set_expiry_sooner(&self, at: Timestamp) -> BoxFuture<'static, Result<(), String>> {
        let handle = self.0.clone();
        Box::pin(async move { handle.set_expiry_sooner(at).await.map_err(|error| error.to_string()) })
    }

    fn set_hostinfo(&self, hostinfo: Hostinfo) {
        self.0.set_hostinfo(hostinfo);
    }

    fn set_facts(&self, facts: &TunnelFacts) {
        self.0.set_disco_key(facts.disco_key);
        self.0.set_endpoints(endpoints(facts));
        if let Some(net_info) = &facts.net_info {
            self.0.set_net_info(net_info.clone());
        }
    }

    fn set_paused(&self, paused: bool) {
        self.0.set_paused(paused);
    }

    fn note_link_change(&self) {
        self.0.note_link_change();
    }

    fn lock_call(&self, call: Call) -> BoxFuture<'static, Result<LockAnswer, String>> {
        let handle = self.0.clone();
        Box::pin(async move { ask(&handle, call).await.map_err(|error| error.to_string()) })
    }

    fn set_lock_head(&self, head: String) {
        self.0.set_tka_head(head);
    }

    fn client(&self) -> Option<client::Handle> {
        Some(self.0.clone())
    }
}

async fn ask(handle: &client::Handle, call: Call) -> Result<LockAnswer, client::Error> {
    Ok(match call {
        Call::Bootstrap(head) => {
            let head = head.map(|head| head.to_string()).unwrap_or_default();
            LockAnswer::Bootstrap(handle.tka_bootstrap(head).await?)
        }
        Call::Offer(offer) => {
            let ancestors = offer.ancestors.iter().map(ToString::to_string).collect();
            LockAnswer::Offer(handle.tka_sync_offer(offer.head.to_string(), ancestors).await?)
        }
        Call::Send { head, updates, interactive } => {
            let updates = updates.into_iter().map(Base64).collect();
            LockAnswer::Send(handle.tka_sync_send(head.to_string(), updates, interactive).await?)
        }
    })
}

/// What an event means for the agent; `None` for those that mean nothing to it.
fn translated(event: client::Event) -> Option<ControlEvent> {
    Some(match event {
        client::Event::AuthUrl(url) => ControlEvent::AuthUrl(url),
        client::Event::LoggedIn { keys, user, login } => ControlEvent::LoggedIn {
            node_key: keys.current?,
            old_node_key: keys.old,
            user: Box::new(user),
            login: Box::new(login),
        },
        client::Event::LoggedOut => ControlEvent::LoggedOut,
        client::Event::Netmap { netmap, changes } => ControlEvent::Netmap { netmap, changes },
        client::Event::KeyExpired => ControlEvent::KeyExpired,
        client::Event::Online => ControlEvent::Online,
        client::Event::Offline => ControlEvent::Offline,
        client::Event::Trouble(trouble) => ControlEvent::Trouble {
            kind: trouble_kind(trouble.kind),
            during_login: trouble.activity == client::Activity::Login,
            text: trouble.text,
        },
        client::Event::OpenPage(url) => ControlEvent::OpenPage(url),
        client::Event::ExitWanted(code) => {
            tracing::warn!(code, "the control server asks this program to end; it does not");
            return None;
        }
        // The netmap says the same; versions of the official client are no news; updates come with packages; the
        // client answers pings of HTTP kind itself, and others are not built.
        client::Event::MachineAuthorized(_)
        | client::Event::ClientVersion(_)
        | client::Event::DefaultAutoUpdate(_)
        | client::Event::Ping(_) => return None,
    })
}

fn trouble_kind(kind: client::ErrorKind) -> TroubleKind {
    match kind {
        client::ErrorKind::Certificate | client::ErrorKind::Clock => TroubleKind::Certificate,
        client::ErrorKind::NotControl
        | client::ErrorKind::Version
        | client::ErrorKind::ServerKey
        | client::ErrorKind::Refused
        | client::ErrorKind::Unsupported
        | client::ErrorKind::Configuration
        | client::ErrorKind::Host => TroubleKind::Final,
        client::ErrorKind::NodeUnknown => TroubleKind::NodeUnknown,
        client::ErrorKind::Unreachable
        | client::ErrorKind::RateLimited
        | client::ErrorKind::Server
        | client::ErrorKind::Garbage
        | client::ErrorKind::Broken
        | client::ErrorKind::NotOffered => TroubleKind::Passing,
    }
}
