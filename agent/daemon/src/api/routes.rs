//! From a request to the endpoint that answers it.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tsrs_agent_localapi::access::Refusal;
use tsrs_agent_localapi::{Access, Endpoint, Identity, PATH_PREFIX};

use super::query::Query;
use super::request::{Call, check_origin, decoded_path};
use super::response::{self, Answer, Outcome, Refused};
use super::server::Connection;
use super::{Api, bugreport, debug, dial, dns, features, lookup, metrics, ping, settings, watch};

const FRONT_PAGE: &str =
    "<html><title>tsrs-agent</title><body><h1>tsrs-agent</h1>This is the local agent of a tailnet.\n";

/// Answers a request.
pub(super) async fn answer(
    api: Arc<Api>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Answer {
    let mut answer = match route(api, connection, request).await {
        Ok(answer) => answer,
        Err(refused) => refused.into_answer(),
    };
    response::add_common_headers(&mut answer);
    answer
}

async fn route(api: Arc<Api>, connection: Arc<Connection>, request: Request<Incoming>) -> Outcome {
    check_origin(&request)?;
    let path = decoded_path(&request)?;
    match path.as_str() {
        "/" => return Ok(response::html(FRONT_PAGE)),
        // The socket is open only while there is a backend.
        "/server-status" => return response::json(&serde_json::json!({})),
        _ => {}
    }
    let not_found = || Refused::text(StatusCode::NOT_FOUND, "404 page not found");
    let path = path.strip_prefix(PATH_PREFIX).ok_or_else(not_found)?.to_owned();
    let endpoint = Endpoint::at(&path).ok_or_else(not_found)?;
    let snapshot = api.asks.snapshot();
    let access = access(&api, connection.uid, &snapshot.prefs.operator_user).await;
    endpoint.check(request.method().as_str(), access).map_err(|Refusal { status, text }| {
        Refused::text(StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN), text)
    })?;
    let call = Call {
        api,
        snapshot,
        connection,
        access,
        method: request.method().clone(),
        path,
        query: Query::parse(request.uri().query()),
        request,
    };
    dispatch(endpoint, call).await
}

/// The rights of a user. The name of the operator is looked up each time, as the user database may change.
async fn access(api: &Api, uid: Option<u32>, operator: &str) -> Access {
    let identity = Identity { daemon_uid: api.daemon_uid, operator_uid: None, cert_uid: api.cert_uid };
    let plain = identity.access(uid);
    if plain.write || operator.is_empty() || uid.is_none() {
        return plain;
    }
    let (credentials, operator) = (Arc::clone(&api.credentials), operator.to_owned());
    // The look-up may ask a directory service.
    let operator_uid = tokio::task::spawn_blocking(move || credentials.user_id(&operator)).await;
    let operator_uid = match operator_uid {
        Ok(Ok(uid)) => uid,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the operator could not be looked up, and has no rights for now");
            None
        }
        Err(_) => None,
    };
    Identity { operator_uid, ..identity }.access(uid)
}

async fn dispatch(endpoint: &Endpoint, call: Call) -> Outcome {
    match endpoint.path {
        "status" => lookup::status(call).await,
        "whois" => lookup::whois(&call),
        "derpmap" => lookup::derp_map(&call),
        "services" => lookup::services(&call),
        "peer-by-id" => lookup::peer_by_id(&call),
        "user-profile" => lookup::user_profile(&call),
        "cert-domains" => lookup::cert_domains(&call),
        "tka/status" => lookup::lock_status(&call),
        "file-targets" => features::file_targets(&call),
        "prefs" => settings::prefs(call).await,
        "check-prefs" => settings::check_prefs(call).await,
        "start" => settings::start(call).await,
        "login-interactive" => settings::login_interactive(call).await,
        "logout" => settings::logout(call).await,
        "reset-auth" => settings::reset_auth(call).await,
        "profiles/" => settings::profiles(call).await,
        "profiles/current" => response::json(&call.snapshot.profile),
        "profiles/*" => settings::profile(call).await,
        "set-expiry-sooner" => settings::set_expiry_sooner(call).await,
        "reload-config" => settings::reload_config(call).await,
        "shutdown" => settings::shutdown(call).await,
        "watch-ipn-bus" => watch::watch(call).await,
        "ping" => ping::ping(call).await,
        "netcheck" => ping::netcheck(call).await,
        "dial" => dial::dial(call).await,
        "dns-config" => dns::config(&call),
        "dns-osconfig" => dns::os_config(call).await,
        "dns-query" => dns::query(call).await,
        "usermetrics" => metrics::user(call).await,
        "metrics" => metrics::internal(call).await,
        "bugreport" => bugreport::bugreport(call).await,
        "debug" => debug::debug(call).await,
        "debug-packet-filter-rules" => debug::packet_filter_rules(&call),
        "debug-packet-filter-matches" => debug::packet_filter_matches(&call),
        "component-debug-logging" => debug::component_logs(),
        "serve-config" => features::serve_config(call).await,
        "query-feature" => features::query_feature(call).await,
        "id-token" => features::id_token(call).await,
        "suggest-exit-node" => features::suggest_exit_node(&call),
        "set-use-exit-node-enabled" => features::use_exit_node(&call),
        "check-ip-forwarding" => features::check_forwarding(call).await,
        "check-udp-gro-forwarding" => features::check_udp_gro(),
        "check-so-mark-in-use" => features::so_mark(),
        "upload-client-metrics" => features::discard_client_metrics(call).await,
        "tka/log" => features::lock_log(),
        path => features::not_built(path),
    }
}
