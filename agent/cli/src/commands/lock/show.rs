//! `lock status` and `lock log`.

use data_encoding::{BASE32_NOPAD, BASE64URL, HEXLOWER};
use serde_json::{Value, json};
use tsrs_agent_localapi::lock::{
    GoBytes, LockKey, LockPeer, LockSignature, LockStanding, LockStatus, LockUpdate,
};

use super::{enabled, status as read};
use crate::client::Client;
use crate::error::Result;
use crate::output;

/// `--json`.
#[derive(clap::Args, Debug)]
pub(super) struct Json {
    /// Print JSON, in this version of its form.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = ["1"])]
    pub(super) json: Option<String>,
}

/// Arguments of `lock log`.
#[derive(clap::Args, Debug)]
pub(super) struct LogArgs {
    /// How many changes are shown.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    #[command(flatten)]
    json: Json,
}

pub(super) async fn status(as_json: bool, client: &Client) -> Result {
    let status = read(client).await?;
    if as_json {
        return output::json(&status_json(&status));
    }
    status_lines(&status).into_iter().for_each(output::line);
    Ok(())
}

fn status_lines(status: &LockStatus) -> Vec<String> {
    let mut lines = Vec::new();
    lines.push(match (status.enabled, status.standing) {
        (true, _) => "Tailnet Lock is ENABLED.".to_owned(),
        (false, LockStanding::AsEnabled) => "Tailnet Lock is NOT enabled.".to_owned(),
        (false, LockStanding::DisabledHere) => {
            "Tailnet Lock is switched off on this node (lock local-disable).".to_owned()
        }
        (false, LockStanding::Announced) => {
            "Tailnet Lock is announced and NOT verified yet: only peers that were there before stay."
                .to_owned()
        }
        (false, LockStanding::Shut) => "Tailnet Lock is NOT verified: no peer is let in.".to_owned(),
    });
    if !status.problem.is_empty() {
        lines.push(format!("Problem: {}", status.problem));
    }
    lines.push(String::new());
    if let (true, Some(node_key)) = (status.enabled, status.node_key) {
        if status.node_key_signed {
            lines.push("This node is accessible under Tailnet Lock.".to_owned());
        } else {
            lines.push("This node is LOCKED OUT by Tailnet Lock, and needs a signature.".to_owned());
            lines.push("Run the following command on a node with a trusted key:".to_owned());
            lines.push(format!("\ttailscale lock sign {node_key} {}", status.public_key.cli_text()));
        }
        lines.push(String::new());
    }
    if !status.public_key.is_zero() {
        lines.push(format!("This node's tailnet-lock key: {}", status.public_key.cli_text()));
        lines.push(String::new());
    }
    if let Some(keys) = status.trusted_keys.as_ref().filter(|_| status.enabled) {
        lines.push("Trusted signing keys:".to_owned());
        for key in keys {
            let own = if key.key == status.public_key { " (self)" } else { "" };
            lines.push(format!("\t{}\t{}{own}", key.key.cli_text(), key.votes));
        }
        lines.push(String::new());
    }
    if let Some(peers) = &status.filtered_peers {
        lines.push("Peers that are kept out:".to_owned());
        for peer in peers {
            let addresses: Vec<String> = peer.tailscale_ips.iter().map(ToString::to_string).collect();
            let (name, addresses) = (&peer.name, addresses.join(","));
            lines.push(format!(
                "\t{name}\t{addresses}\t{}\t{}\t{}",
                peer.stable_id, peer.node_key, peer.reason
            ));
        }
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

/// The official form (Tailnet Lock sheet §17), and, beside it, what only this agent has to say.
fn status_json(status: &LockStatus) -> Value {
    let mut out = json!({ "SchemaVersion": "1", "Enabled": status.enabled });
    if !status.public_key.is_zero() {
        out["PublicKey"] = json!(status.public_key.cli_text());
    }
    if let Some(key) = status.node_key {
        out["NodeKey"] = json!(key);
    }
    if status.standing != LockStanding::AsEnabled {
        out["Standing"] = json!(status.standing);
    }
    if !status.problem.is_empty() {
        out["Problem"] = json!(status.problem);
    }
    if !status.enabled {
        return out;
    }
    if let Some(head) = &status.head {
        out["Head"] = json!(BASE32_NOPAD.encode(head));
    }
    out["NodeKeySigned"] = json!(status.node_key_signed);
    out["NodeKeySignature"] = status.node_key_signature.as_ref().map_or(Value::Null, signature);
    out["TrustedKeys"] = list(status.trusted_keys.as_deref(), key);
    out["VisiblePeers"] = list(status.visible_peers.as_deref(), |peer| {
        let mut out = self::peer(peer);
        out["NodeKeySignature"] = signature(&peer.node_key_signature);
        out
    });
    out["FilteredPeers"] = list(status.filtered_peers.as_deref(), |peer| {
        let mut out = self::peer(peer);
        out["Reason"] = json!(peer.reason);
        out
    });
    if status.state_id != 0 {
        out["State"] = json!(status.state_id);
    }
    out
}

/// A list as Go writes it: `null` where there is nothing.
fn list<T>(entries: Option<&[T]>, show: impl Fn(&T) -> Value) -> Value {
    let entries = entries.filter(|entries| !entries.is_empty());
    entries.map_or(Value::Null, |entries| entries.iter().map(show).collect())
}

fn key(key: &LockKey) -> Value {
    let mut out = json!({ "Kind": key.kind, "Votes": key.votes, "Public": key.key.cli_text() });
    if let Some(meta) = key.metadata.as_ref().filter(|meta| !meta.is_empty()) {
        out["Meta"] = json!(meta);
    }
    out
}

fn peer(peer: &LockPeer) -> Value {
    json!({
        "ID": peer.stable_id, "DNSName": peer.name, "TailscaleIPs": peer.tailscale_ips, "NodeKey": peer.node_key,
    })
}

fn signature(signature: &LockSignature) -> Value {
    let kind = match signature.kind {
        0 => "invalid".to_owned(),
        1 => "direct".to_owned(),
        2 => "rotation".to_owned(),
        3 => "credential".to_owned(),
        other => format!("Sig?<{other}>"),
    };
    let mut out = json!({ "SigKind": kind, "Signature": BASE64URL.encode(&signature.signature.0) });
    let members = [
        ("PublicKey", &signature.pubkey),
        ("KeyID", &signature.key_id),
        ("WrappingPublicKey", &signature.wrapping_pubkey),
    ];
    for (name, GoBytes(bytes)) in members.into_iter().filter(|(_, bytes)| !bytes.0.is_empty()) {
        out[name] = json!(format!("tlpub:{}", HEXLOWER.encode(bytes)));
    }
    if let Some(nested) = &signature.nested {
        out["Nested"] = self::signature(nested);
    }
    out
}

pub(super) async fn log(args: LogArgs, client: &Client) -> Result {
    enabled(client).await?;
    let updates: Vec<LockUpdate> = client.get(&format!("tka/log?limit={}", args.limit)).await?;
    if args.json.json.is_some() {
        let message = |update: &LockUpdate| {
            json!({
                "Hash": BASE32_NOPAD.encode(&update.hash), "AUM": update.expanded,
                "Raw": BASE64URL.encode(&update.raw.0),
            })
        };
        let messages: Vec<Value> = updates.iter().map(message).collect();
        return output::json(&json!({ "SchemaVersion": "1", "Messages": messages }));
    }
    for update in &updates {
        output::line(format_args!("update {} ({})", BASE32_NOPAD.encode(&update.hash), update.change));
        for (name, value) in update.expanded.as_object().into_iter().flatten() {
            if name != "MessageKind" && name != "Signatures" {
                output::line(format_args!("{name}: {value}"));
            }
        }
        output::line("");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tsrs_base_types::{LockPublic, NodePublic};

    use super::*;

    fn locked_out() -> LockStatus {
        LockStatus {
            enabled: true,
            head: Some([1; 32]),
            public_key: LockPublic::from_bytes([2; 32]),
            node_key: Some(NodePublic::from_bytes([3; 32])),
            trusted_keys: Some(vec![LockKey { kind: "25519".into(), votes: 2, ..LockKey::default() }]),
            filtered_peers: Some(vec![LockPeer {
                name: "gamma.lab.test.".into(),
                reason: "not signed".into(),
                ..LockPeer::default()
            }]),
            ..LockStatus::default()
        }
    }

    #[test]
    fn a_node_that_is_locked_out_is_told_what_another_has_to_run() {
        let text = status_lines(&locked_out()).join("\n");
        let own = format!("tailscale lock sign nodekey:{} tlpub:{}", "03".repeat(32), "02".repeat(32));
        assert!(
            text.contains(&own) && text.contains("gamma.lab.test.") && text.contains("not signed"),
            "{text}"
        );
        let signed = LockStatus { node_key_signed: true, ..locked_out() };
        assert!(!status_lines(&signed).join("\n").contains("lock sign"));
    }

    #[test]
    fn a_lock_that_is_not_verified_is_not_shown_as_no_lock() {
        for (standing, words) in [
            (LockStanding::AsEnabled, "Tailnet Lock is NOT enabled."),
            (LockStanding::DisabledHere, "switched off on this node"),
            (LockStanding::Announced, "NOT verified yet"),
            (LockStanding::Shut, "no peer is let in"),
        ] {
            let problem = "the chain is gone".to_owned();
            let status = LockStatus { standing, problem, ..LockStatus::default() };
            let text = status_lines(&status).join("\n");
            assert!(text.contains(words) && text.contains("the chain is gone"), "{text}");
            let shown = status_json(&status);
            assert_eq!(shown.get("Standing").is_some(), standing != LockStanding::AsEnabled);
        }
    }

    #[test]
    fn json_has_the_members_of_the_official_client() {
        let shown = status_json(&locked_out());
        assert_eq!(shown["Head"].as_str().unwrap().len(), 52);
        assert_eq!(shown["TrustedKeys"][0]["Votes"], 2);
        assert_eq!((&shown["VisiblePeers"], &shown["NodeKeySigned"]), (&Value::Null, &json!(false)));
        assert_eq!(shown["FilteredPeers"][0]["DNSName"], "gamma.lab.test.");
        let inner = LockSignature { kind: 1, key_id: GoBytes(vec![5; 32]), ..LockSignature::default() };
        let outer = LockSignature { kind: 2, nested: Some(Box::new(inner)), ..LockSignature::default() };
        let shown = signature(&outer);
        assert_eq!((&shown["SigKind"], &shown["Nested"]["SigKind"]), (&json!("rotation"), &json!("direct")));
        assert!(shown.get("KeyID").is_none() && shown["Nested"]["KeyID"].is_string());
    }
}
