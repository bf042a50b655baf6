//! The LocalAPI server: HTTP/1.1 over a Unix socket (client sheet §2).
//!
//! Each connection is a task. The kernel says who is at its other end; the table of `agent/localapi` says what that user
//! may do. Reads are answered from the backend's snapshot, writes go through the backend.

mod answer;
mod bus_stream;
mod connections;
mod debug;
mod dial;
mod dns;
mod listener;
mod lock;
mod lookup;
mod metrics;
mod misc;
mod peer_ping;
mod profiles;
mod report;
mod request;
mod settings;

use std::path::PathBuf;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use tsrs_agent_localapi::{Access, Endpoint, Identity, PATH_PREFIX};
use tsrs_agent_services::dns::DnsService;
use tsrs_platform_api::PeerCredentials;

use crate::backend::BackendHandle;
use crate::bus::Bus;
use crate::host::Host;
use crate::tunnel::Tunnel;
use crate::tunnel_routes::TunnelRoutes;

pub(crate) use answer::Answer;
pub(crate) use connections::{Caller, Slots};
pub(crate) use listener::Listener;
use request::Asked;

/// What the handlers answer from.
pub(crate) struct Api {
    pub(crate) backend: BackendHandle,
    pub(crate) bus: Bus,
    pub(crate) tunnel: Arc<dyn Tunnel>,
    pub(crate) host: Host,
    pub(crate) dns: Option<DnsService>,
    pub(crate) routes: TunnelRoutes,
    pub(crate) users: Arc<dyn PeerCredentials>,
    pub(crate) state_dir: PathBuf,
    pub(crate) tun_name: String,
    pub(crate) config_file: Option<PathBuf>,
    /// The user named by `TS_PERMIT_CERT_UID`.
    pub(crate) cert_uid: Option<u32>,
    /// The connections of all sockets.
    pub(crate) slots: Arc<Slots>,
}

impl Api {
    /// Answers one request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, caller: Arc<Caller>) -> Answer {
        match self.admit(&request, &caller).await {
            Ok((endpoint, path, access)) => {
                self.dispatch(endpoint, Asked::new(request, path, access), caller).await
            }
            Err(answer) => {
                // Who is still sending would find the connection closed, and not read why.
                request::discard(request.into_body()).await;
                answer
            }
        }
    }

    /// The endpoint that is asked for, its path, and what the caller may do there; or the answer without one.
    async fn admit(
        &self,
        request: &Request<Incoming>,
        caller: &Caller,
    ) -> Result<(&'static Endpoint, String, Access), Answer> {
        request::check(request)?;
        let path = request::decoded_path(request).ok_or_else(Answer::not_found)?;
        if let Some(answer) = outside(&path) {
            return Err(answer);
        }
        let endpoint = path.strip_prefix(PATH_PREFIX).and_then(Endpoint::at).ok_or_else(Answer::not_found)?;
        let access = self.access(caller.uid).await;
        match endpoint.check(request.method().as_str(), access) {
            Ok(()) => Ok((endpoint, path, access)),
            Err(refusal) => Err(Answer::text(refusal.status, refusal.text)),
        }
    }

    async fn dispatch(
        self: Arc<Self>,
        endpoint: &'static Endpoint,
        asked: Asked,
        caller: Arc<Caller>,
    ) -> Answer {
        match endpoint.path {
            "status" => self.status(&asked).await,
            "prefs" if asked.method() == "PATCH" => self.edit_prefs(asked).await,
            "prefs" => Answer::json(&self.backend.snapshot().prefs),
            "check-prefs" => self.check_prefs(asked).await,
            "start" => self.start(asked).await,
            "login-interactive" => self.login_interactive().await,
            "logout" => self.logout().await,
            "reset-auth" => self.reset_auth().await,
            "watch-ipn-bus" => self.watch_bus(&asked),
            "profiles/" => self.profile_list(&asked).await,
            "profiles/current" => Answer::json(&self.backend.snapshot().profile),
            "profiles/*" => self.profile(&asked).await,
            "whois" => self.whois(&asked),
            "ping" => self.ping(&asked).await,
            "dial" => self.dial(asked, &caller).await,
            "derpmap" => self.derp_map(),
            "services" => self.services(),
            "peer-by-id" => self.peer_by_id(&asked),
            "user-profile" => self.user_profile(&asked),
            "cert-domains" => self.cert_domains(),
            "dns-config" => self.dns_config(),
            "dns-osconfig" => self.dns_os_config().await,
            "dns-query" => self.dns_query(&asked).await,
            "serve-config" => misc::serve_config(asked).await,
            "suggest-exit-node" => self.suggest_exit_node(),
            "set-use-exit-node-enabled" => misc::use_exit_node(&asked),
            "check-ip-forwarding" => self.check_ip_forwarding().await,
            "check-udp-gro-forwarding" => misc::no_warning(),
            "check-so-mark-in-use" => misc::so_mark(),
            "set-expiry-sooner" => self.set_expiry_sooner(&asked).await,
            "reload-config" => self.reload_config().await,
            "shutdown" => self.shutdown().await,
            "metrics" => self.debug_metrics(),
            "usermetrics" => self.user_metrics().await,
            "netcheck" => Answer::json(&self.tunnel.netcheck().await),
            "upload-client-metrics" => misc::client_metrics(asked).await,
            "bugreport" => self.bug_report(&asked).await,
            "file-targets" => self.file_targets(),
            "tka/status" => self.lock_status(),
            path if path.starts_with("tka/") => self.lock(asked).await,
            "debug" => self.debug(&asked).await,
            "debug-packet-filter-rules" => self.filter_rules(),
            "debug-packet-filter-matches" => self.filter_matches(),
            "component-debug-logging" => debug::component_logs(),
            other => misc::not_built(other),
        }
    }

    /// What the user at the other end may do.
    async fn access(&self, uid: Option<u32>) -> Access {
        let mut identity = Identity {
            daemon_uid: nix::unistd::geteuid().as_raw(),
            operator_uid: None,
            cert_uid: self.cert_uid,
        };
        let access = identity.access(uid);
        let operator = self.backend.snapshot().prefs.operator_user.clone();
        if access.write || operator.is_empty() {
            return access;
        }
        identity.operator_uid = self.user_id(operator).await;
        identity.access(uid)
    }

    /// Number of a user. The user database may be far away, so it is asked on another thread.
    pub(crate) async fn user_id(&self, name: String) -> Option<u32> {
        let users = Arc::clone(&self.users);
        let found = tokio::task::spawn_blocking(move || users.user_id(&name)).await;
        match found {
            Ok(Ok(uid)) => uid,
            Ok(Err(error)) => {
                // What cannot be checked counts as refused.
                tracing::warn!(%error, "the user database cannot be read");
                None
            }
            Err(_) => None,
        }
    }
}

/// Pages outside the LocalAPI proper.
fn outside(path: &str) -> Option<Answer> {
    match path {
        "/" => Some(Answer::html(
            "<html><title>tsrs-agent</title><body><h1>tsrs-agent</h1>This is the local daemon of tsrs-agent.\n",
        )),
        "/server-status" => Some(Answer::json(&serde_json::json!({}))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
