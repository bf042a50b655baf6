//! Reads that are answered from the snapshot: status, owners of addresses, parts of the netmap.

use http::StatusCode;
use serde_json::json;
use tsrs_agent_core::status::{self, WhoIsAddr};
use tsrs_agent_localapi::lock::LockStatus;
use tsrs_base_types::{NodeId, UserId};

use super::request::Call;
use super::response::{self, Outcome, Refused};
use crate::ask::Ask;

pub(super) async fn status(call: Call) -> Outcome {
    // Without the engine's view the rest is still worth showing.
    let live = call.api.asks.ask(Ask::Live).await.unwrap_or_default();
    let with_peers = call.query.value("peers") != "false";
    response::json(&status::status(&call.api.asks.snapshot(), &live, with_peers))
}

pub(super) fn whois(call: &Call) -> Outcome {
    let addr = match call.query.value("addr") {
        "" => return Err(Refused::bad("missing 'addr' parameter")),
        text => WhoIsAddr::parse(text).ok_or_else(|| Refused::bad("invalid 'addr' parameter"))?,
    };
    match status::whois(&call.snapshot, addr) {
        Some(owner) => response::json(&owner),
        None => Err(Refused::text(StatusCode::NOT_FOUND, "no match for IP:port")),
    }
}

/// `null` before the first netmap; the last one stays while stopped.
pub(super) fn derp_map(call: &Call) -> Outcome {
    response::json(&call.snapshot.netmap.as_ref().map(|netmap| netmap.derp_map().as_ref()))
}

/// Tailscale Services; we know of none.
pub(super) fn services(call: &Call) -> Outcome {
    match call.snapshot.netmap {
        Some(_) => response::json(&json!({})),
        None => Err(no_netmap()),
    }
}

pub(super) fn no_netmap() -> Refused {
    Refused::text(StatusCode::SERVICE_UNAVAILABLE, "no netmap")
}

pub(super) fn peer_by_id(call: &Call) -> Outcome {
    let id = NodeId(id(call)?);
    match call.snapshot.netmap.as_ref().and_then(|netmap| netmap.node(id)) {
        Some(node) => response::json(node.as_ref()),
        None => Err(Refused::text(StatusCode::NOT_FOUND, "no peer with that NodeID")),
    }
}

pub(super) fn user_profile(call: &Call) -> Outcome {
    let id = UserId(id(call)?);
    match call.snapshot.netmap.as_ref().and_then(|netmap| netmap.user_profile(id)) {
        Some(user) => response::json(user.as_ref()),
        None => Err(Refused::text(StatusCode::NOT_FOUND, "no user with that UserID")),
    }
}

fn id(call: &Call) -> Result<i64, Refused> {
    call.query.value("id").parse().map_err(|_| Refused::bad("invalid 'id' parameter"))
}

/// Sorted, or `null`.
pub(super) fn cert_domains(call: &Call) -> Outcome {
    let domains = call.snapshot.netmap.as_ref().map(|netmap| netmap.dns().cert_domains.clone());
    let sorted = domains.filter(|domains| !domains.is_empty()).map(|mut domains| {
        domains.sort();
        domains
    });
    response::json(&sorted)
}

/// Tailnet Lock. A lock that the tailnet announces is shown as one that has not signed us: nothing here verifies it.
pub(super) fn lock_status(call: &Call) -> Outcome {
    let snapshot = &call.snapshot;
    let head = snapshot.netmap.as_ref().and_then(|netmap| netmap.lock_head());
    response::json(&LockStatus {
        enabled: head.is_some(),
        head: head.and_then(|head| data_encoding::BASE32_NOPAD.decode(head.as_bytes()).ok()?.try_into().ok()),
        public_key: snapshot.lock_key,
        node_key: snapshot.have_node_key.then_some(snapshot.node_key),
        ..LockStatus::default()
    })
}
