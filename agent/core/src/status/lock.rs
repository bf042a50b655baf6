//! Tailnet Lock as clients are told of it.

use std::net::IpAddr;

use data_encoding::{BASE64URL, HEXLOWER};
use serde_json::{Map, Value, json};
use tsrs_agent_localapi::lock::{
    GoBytes, LockKey, LockPeer, LockSignature, LockStanding, LockStatus, LockUpdate,
};
use tsrs_base_types::LockPublic;
use tsrs_control_tailcfg::Node;
use tsrs_control_tka::{Aum, AumSignature, Key, NodeKeySignature, Update};

use crate::agent::{Snapshot, Standing};

/// Builds the answer of `tka/status`.
pub fn lock_status(snapshot: &Snapshot) -> LockStatus {
    let lock = &snapshot.lock;
    let base = LockStatus {
        public_key: if snapshot.have_node_key { snapshot.lock_key } else { LockPublic::default() },
        node_key: snapshot.have_node_key.then_some(snapshot.node_key),
        standing: match lock.standing {
            Standing::Off | Standing::Verified => LockStanding::AsEnabled,
            Standing::DisabledHere => LockStanding::DisabledHere,
            Standing::Announced => LockStanding::Announced,
            Standing::Shut => LockStanding::Shut,
        },
        problem: lock.error.clone().unwrap_or_default(),
        filtered_peers: (!lock.hidden.is_empty()).then(|| hidden(snapshot)),
        ..LockStatus::default()
    };
    let (Some(state), Standing::Verified) = (&lock.state, lock.standing) else { return base };
    let own = snapshot.netmap.as_ref().map(|netmap| signature(netmap.self_node()));
    let visible = |netmap: &std::sync::Arc<tsrs_control_netmap::Netmap>| {
        netmap.peers().iter().map(|node| peer(node, String::new())).collect()
    };
    LockStatus {
        enabled: true,
        head: state.last.map(|head| *head.as_bytes()),
        node_key_signed: matches!(lock.own, Some(Ok(_))),
        node_key_signature: Some(own.unwrap_or_default()),
        trusted_keys: Some(state.keys().iter().map(|key| self::key(key)).collect()),
        visible_peers: snapshot.netmap.as_ref().map(visible),
        state_id: state.id.0,
        ..base
    }
}

/// An update as `tka/log` shows it.
pub fn lock_update(update: &Update) -> LockUpdate {
    let aum = update.aum();
    LockUpdate {
        hash: *update.hash().as_bytes(),
        change: aum.kind.to_string(),
        raw: GoBytes(aum.encode()),
        expanded: expanded(aum),
    }
}

fn hidden(snapshot: &Snapshot) -> Vec<LockPeer> {
    let lock = &snapshot.lock;
    let peers = lock.full.as_ref().map(|full| full.peers());
    let found = lock.hidden.iter().filter_map(|(id, reason)| {
        let node = peers?.original(*id)?;
        Some(peer(node, reason.clone()))
    });
    found.collect()
}

fn peer(node: &Node, reason: String) -> LockPeer {
    let own = node.addresses.iter().filter(|net| net.prefix_len() == net.max_prefix_len());
    LockPeer {
        name: node.name.clone(),
        id: node.id,
        stable_id: node.stable_id.clone(),
        tailscale_ips: own.map(|net| net.addr()).collect::<Vec<IpAddr>>(),
        node_key: node.key,
        node_key_signature: signature(node),
        reason,
    }
}

fn signature(node: &Node) -> LockSignature {
    NodeKeySignature::decode(&node.key_signature.0).map(|signature| shown(&signature)).unwrap_or_default()
}

/// At most as deep as the decoder lets signatures be.
fn shown(signature: &NodeKeySignature) -> LockSignature {
    let [pubkey, key_id, bytes, wrapping] = signature.members().map(|member| GoBytes(member.to_vec()));
    LockSignature {
        kind: signature.kind().0,
        pubkey,
        key_id,
        signature: bytes,
        nested: signature.nested().map(|nested| Box::new(shown(nested))),
        wrapping_pubkey: wrapping,
    }
}

fn key(key: &Key) -> LockKey {
    LockKey {
        kind: kind(key),
        key: key.public().unwrap_or_default(),
        metadata: key.meta.clone(),
        votes: key.votes,
    }
}

/// The members of an update in the form of `lock log --json` (Tailnet Lock sheet §17); what is not set is left out.
fn expanded(aum: &Aum) -> Value {
    let id_text = |id: &[u8]| format!("tlpub:{}", HEXLOWER.encode(id));
    let mut out = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            out.insert(name.to_owned(), value);
        }
    };
    let key = |key: &Key| {
        let mut out = json!({"Kind": kind(key), "Votes": key.votes, "Public": id_text(key.id())});
        if let Some(meta) = key.meta.as_ref().filter(|meta| !meta.is_empty()) {
            out["Meta"] = json!(meta);
        }
        out
    };
    set("MessageKind", Some(json!(aum.kind.to_string())));
    set("PrevAUMHash", aum.parent().map(|parent| json!(parent.to_string())));
    set("Key", aum.key.as_ref().map(key));
    set("KeyID", aum.key_id.as_ref().map(|id| json!(id_text(id))));
    let state = aum.state.as_ref().map(|state| {
        json!({
            "DisablementSecrets": state.disablement_values().map(|value| HEXLOWER.encode(value)).collect::<Vec<_>>(),
            "Keys": state.keys().iter().map(|one| key(one)).collect::<Vec<_>>(),
            "StateID1": state.id.0, "StateID2": state.id.1,
        })
    });
    set("State", state);
    set("Votes", aum.votes.map(|votes| json!(votes)));
    set("Meta", aum.meta.as_ref().filter(|meta| !meta.is_empty()).map(|meta| json!(meta)));
    let signature = |signature: &AumSignature| {
        let (id, bytes) = (signature.key_id.as_deref(), signature.signature.as_deref());
        json!({
            "KeyID": id_text(id.unwrap_or_default()),
            "Signature": BASE64URL.encode(bytes.unwrap_or_default()),
        })
    };
    let signatures: Vec<Value> = aum.signatures.iter().map(signature).collect();
    set("Signatures", (!signatures.is_empty()).then(|| json!(signatures)));
    Value::Object(out)
}

fn kind(key: &Key) -> String {
    if key.kind == Key::ED25519 { "25519".to_owned() } else { format!("Key?<{}>", key.kind) }
}
