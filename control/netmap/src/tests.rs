use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tsrs_base_types::{NodeId, RegionId};
use tsrs_control_tailcfg::{MapResponse, Node, PeerChange};

use crate::peers::canonicalize;
use crate::*;

mod reference;
mod stream;

fn response(value: Value) -> MapResponse {
    serde_json::from_value(value).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A time at which no test peer has expired.
fn early() -> Timestamp {
    at("2024-01-01T00:00:00Z")
}

fn node(id: i64) -> Value {
    json!({
        "ID": id,
        "StableID": format!("n{id}"),
        "Name": format!("host{id}.tail1234.ts.net."),
        "Key": format!("nodekey:{id:064x}"),
        "DiscoKey": format!("discokey:{id:064x}"),
        "Addresses": [format!("100.64.{}.{}/32", id / 256, id % 256)],
        "Endpoints": ["192.0.2.1:41641"],
        "HomeDERP": 1,
        "Hostinfo": {"Hostname": format!("host{id}"), "OS": "linux"},
    })
}

fn with(mut value: Value, members: Value) -> Value {
    value.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    value
}

/// A session with ourselves (id 1000) and the given peers.
fn session(peers: impl IntoIterator<Item = Value>) -> Session {
    let mut session = Session::new();
    let peers: Vec<Value> = peers.into_iter().collect();
    session.handle(response(json!({"Node": node(1000), "Peers": peers})), early()).unwrap();
    session
}

fn ids(netmap: &Netmap) -> Vec<i64> {
    netmap.peers().iter().map(|node| node.id.0).collect()
}
