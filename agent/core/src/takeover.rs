//! Taking a login over from tailscaled's state file (client sheet §2.7). The file is read, never written.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde::Deserialize;
use tsrs_agent_localapi::{LoginProfile, Prefs, UserProfile};
use tsrs_base_types::{LockPrivate, MachinePrivate, NodePrivate, StableNodeId};
use zeroize::{Zeroize, Zeroizing};

use crate::lock::Known;
use crate::prefs::remove_unsupported;
use crate::profiles::{Login, MAX_PROFILE_COUNT, Profile, Profiles};
use crate::state_file::{Loaded, State, state_id};

/// Why a login could not be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TakeoverError {
    /// It is sealed by a TPM.
    #[error(
        "the file is sealed by the TPM of this machine; log in again, or unseal it with tailscaled first"
    )]
    Sealed,
    /// It is not tailscaled's state.
    #[error("the file is no state of tailscaled: {0}")]
    Shape(String),
    /// There is nothing to take over.
    #[error("tailscaled is not logged in")]
    NoLogin,
}

/// What a TPM-sealed file begins with.
const SEALED: &[u8] = b"tpmseal:";

/// The login inside prefs, with its keys.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Persist {
    #[serde(rename = "PrivateNodeKey")]
    node_key: KeyText,
    #[serde(rename = "OldPrivateNodeKey")]
    old_node_key: KeyText,
    #[serde(rename = "UserProfile")]
    user: UserProfile,
    #[serde(rename = "NetworkLockKey")]
    lock_key: KeyText,
    #[serde(rename = "NodeID")]
    node_id: StableNodeId,
    #[serde(rename = "DisallowedTKAStateIDs")]
    disabled_locks: Option<Vec<String>>,
}

/// Key text; wiped on drop.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct KeyText(String);

impl Drop for KeyText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[derive(Deserialize)]
struct WithPersist {
    #[serde(rename = "Config")]
    config: Option<Persist>,
}

/// The state that a file of tailscaled amounts to.
///
/// # Errors
/// It is sealed, damaged or empty; nothing is taken over.
pub fn from_tailscaled(content: &[u8]) -> Result<Loaded, TakeoverError> {
    if content.starts_with(SEALED) {
        return Err(TakeoverError::Sealed);
    }
    let shape = |what: &str| TakeoverError::Shape(what.to_owned());
    let entries: BTreeMap<String, Option<String>> =
        serde_json::from_slice(content).map_err(|error| TakeoverError::Shape(error.to_string()))?;
    let entry = |key: &str| -> Option<Zeroizing<Vec<u8>>> {
        let text = entries.get(key)?.as_ref()?;
        BASE64.decode(text.as_bytes()).ok().map(Zeroizing::new)
    };
    let machine_key = entry("_machinekey").ok_or_else(|| shape("it has no machine key"))?;
    let machine_key: MachinePrivate = std::str::from_utf8(&machine_key)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| shape("its machine key is none"))?;
    let listed: BTreeMap<String, LoginProfile> = match entry("_profiles") {
        Some(json) => {
            serde_json::from_slice(&json).map_err(|error| TakeoverError::Shape(error.to_string()))?
        }
        None => return Err(TakeoverError::NoLogin),
    };
    let mut profiles = Vec::new();
    let mut removed = Vec::new();
    for meta in listed.into_values().filter(|meta| !meta.id.is_empty()).take(MAX_PROFILE_COUNT) {
        let Some(json) = entry(&meta.key) else { continue };
        let profile = profile(meta, &json)?;
        if let Some((profile, taken_out)) = profile {
            if !taken_out.reasons.is_empty() {
                removed.push((profile.meta.id.clone(), taken_out));
            }
            profiles.push(profile);
        }
    }
    if profiles.is_empty() {
        return Err(TakeoverError::NoLogin);
    }
    let current =
        entry("_current-profile").and_then(|key| String::from_utf8(key.to_vec()).ok()).unwrap_or_default();
    let id =
        profiles.iter().find(|profile| profile.meta.key == current).map(|profile| profile.meta.id.clone());
    let profiles = Profiles::new(profiles, &id.unwrap_or_default(), Vec::new());
    Ok(Loaded { state: State { machine_key, profiles }, removed })
}

fn profile(
    mut meta: LoginProfile,
    json: &[u8],
) -> Result<Option<(Profile, crate::prefs::Removed)>, TakeoverError> {
    let read = |error: serde_json::Error| TakeoverError::Shape(format!("account {}: {error}", meta.id));
    let persist = serde_json::from_slice::<WithPersist>(json).map_err(read)?.config.unwrap_or_default();
    let mut prefs: Prefs = serde_json::from_slice(json).map_err(read)?;
    prefs.config = None;
    let Some(node_key) = node_key(&persist.node_key) else { return Ok(None) };
    let removed = remove_unsupported(&mut prefs);
    meta.key = format!("profile-{}", meta.id);
    meta.control_url.clone_from(&prefs.control_url);
    let login = Login {
        node_key: Some(node_key),
        old_node_key: self::node_key(&persist.old_node_key),
        lock_key: persist.lock_key.0.parse::<LockPrivate>().ok().filter(|key| !key.public().is_zero()),
        user: persist.user.clone(),
        node_id: persist.node_id.clone(),
        lock: Known {
            disabled: persist.disabled_locks.iter().flatten().filter_map(|id| state_id(id)).collect(),
            ..Known::default()
        },
    };
    Ok(Some((Profile { meta, prefs, login }, removed)))
}

fn node_key(text: &KeyText) -> Option<NodePrivate> {
    text.0.parse::<NodePrivate>().ok().filter(|key| !key.is_zero())
}

#[cfg(test)]
mod tests {
    use rand_core::OsRng;
    use serde_json::{Value, json};

    use super::*;

    fn file(exit_node: &str) -> (Value, NodePrivate, MachinePrivate) {
        let (node, machine) = (NodePrivate::generate(&mut OsRng), MachinePrivate::generate(&mut OsRng));
        let encode = |text: &str| Value::from(BASE64.encode(text.as_bytes()));
        let prefs = json!({
            "ControlURL": "https://hs.example", "WantRunning": true, "RouteAll": true, "RunSSH": true,
            "CorpDNS": true, "NetfilterMode": 2, "ExitNodeID": exit_node, "AllowSingleHosts": true,
            "Config": {"PrivateNodeKey": node.expose_text().as_str(), "OldPrivateNodeKey": format!("privkey:{:064}", 0),
                "UserProfile": {"ID": 1, "LoginName": "lab", "DisplayName": "Lab"}, "NodeID": "n3",
                "NetworkLockKey": LockPrivate::generate(&mut OsRng).unwrap().expose_text().as_str()},
        });
        let profiles = json!({"ab12": {"ID": "ab12", "Name": "lab", "Key": "profile-ab12",
            "UserProfile": {"ID": 1, "LoginName": "lab", "DisplayName": "Lab"}, "NodeID": "n3"}});
        let file = json!({
            "_machinekey": encode(machine.expose_text().as_str()),
            "_profiles": encode(&profiles.to_string()),
            "_current-profile": encode("profile-ab12"),
            "profile-ab12": encode(&prefs.to_string()),
            "_daemon": Value::Null,
        });
        (file, node, machine)
    }

    #[test]
    fn a_login_is_taken_over_with_its_keys_and_settings() {
        let (file, node, machine) = file("");
        let loaded = from_tailscaled(&serde_json::to_vec(&file).unwrap()).unwrap();
        let current = loaded.state.profiles.current();
        assert!(loaded.state.machine_key == machine);
        assert!(current.login.node_key.as_ref() == Some(&node) && current.login.old_node_key.is_none());
        assert!(current.login.lock_key.is_some());
        assert!(current.prefs.route_all && current.prefs.want_running && !current.prefs.run_ssh);
        assert_eq!(
            (current.meta.name.as_str(), current.meta.control_url.as_str()),
            ("lab", "https://hs.example")
        );
        assert_eq!(loaded.removed.len(), 1);
        // What was taken over can be written and read again.
        let bytes = crate::state_file::encode(&loaded.state).unwrap();
        assert_eq!(crate::state_file::decode(&bytes).unwrap().state, loaded.state);
    }

    #[test]
    fn an_exit_node_that_cannot_be_used_keeps_the_tunnel_down() {
        let (file, ..) = file("n9");
        let loaded = from_tailscaled(&serde_json::to_vec(&file).unwrap()).unwrap();
        assert!(!loaded.state.profiles.current().prefs.want_running);
        assert!(loaded.removed[0].1.held_down);
    }

    #[test]
    fn what_is_no_login_is_refused_with_the_reason() {
        assert_eq!(from_tailscaled(b"tpmseal:xyz"), Err(TakeoverError::Sealed));
        assert!(matches!(from_tailscaled(b"{}"), Err(TakeoverError::Shape(_))));
        assert!(matches!(from_tailscaled(b"["), Err(TakeoverError::Shape(_))));
        let (mut file, ..) = file("");
        file["_machinekey"] = Value::from(BASE64.encode(b"privkey:zz"));
        assert!(matches!(from_tailscaled(&serde_json::to_vec(&file).unwrap()), Err(TakeoverError::Shape(_))));
        let (mut file, ..) = self::file("");
        file.as_object_mut().unwrap().remove("_profiles");
        assert_eq!(from_tailscaled(&serde_json::to_vec(&file).unwrap()), Err(TakeoverError::NoLogin));
    }
}
