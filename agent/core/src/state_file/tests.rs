use rand_core::OsRng;
use tsrs_agent_localapi::NetworkProfile;
use tsrs_base_types::UserId;
use tsrs_base_types::time::WireTime;

use super::*;

fn state() -> State {
    let mut profiles = Profiles::default();
    for (id, name) in [(1, "lab"), (2, "other")] {
        profiles.start_new();
        let login = &mut profiles.current_mut().login;
        login.node_key = Some(NodePrivate::generate(&mut OsRng));
        login.old_node_key = (id == 2).then(|| NodePrivate::generate(&mut OsRng));
        login.lock_key = LockPrivate::generate(&mut OsRng);
        profiles.current_mut().prefs.hostname = name.to_owned();
        let user = UserProfile { id: UserId(id), login_name: name.into(), ..UserProfile::default() };
        let node_id = StableNodeId(format!("n{id}"));
        profiles.note_login(user, node_id, NetworkProfile::default(), WireTime::ZERO, &mut OsRng);
    }
    State { machine_key: MachinePrivate::generate(&mut OsRng), profiles }
}

#[test]
fn a_state_comes_back_as_it_was_written() {
    for state in
        [state(), State { machine_key: MachinePrivate::generate(&mut OsRng), profiles: Profiles::default() }]
    {
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(&bytes).unwrap(), Loaded { state: state.clone(), removed: Vec::new() });
    }
}

#[test]
fn the_blank_profile_is_current_again_when_it_was() {
    let mut state = state();
    state.profiles.start_new();
    let loaded = decode(&encode(&state).unwrap()).unwrap().state;
    assert!(!loaded.profiles.current().is_saved());
    assert_eq!(loaded.profiles.saved().count(), 2);
}

#[test]
fn every_truncation_is_damage_and_shows_no_key() {
    let bytes = encode(&state()).unwrap();
    let text = std::str::from_utf8(&bytes).unwrap().trim_end();
    for len in 0..text.len() {
        match decode(&text.as_bytes()[..len]) {
            Err(StateError::Corrupt(reason)) => assert!(!reason.contains("privkey:"), "{reason}"),
            other => panic!("{len}: {other:?}"),
        }
    }
}

#[test]
fn damage_is_told_apart_from_other_versions_and_owners() {
    let good: serde_json::Value = serde_json::from_slice(&encode(&state()).unwrap()).unwrap();
    let with = |key: &str, value: serde_json::Value| {
        let mut file = good.clone();
        file[key] = value;
        decode(&serde_json::to_vec(&file).unwrap())
    };
    assert_eq!(with("Version", 2.into()), Err(StateError::TooNew(2)));
    assert!(matches!(with("Version", 0.into()), Err(StateError::Corrupt(_))));
    assert!(matches!(with("Version", serde_json::Value::Null), Err(StateError::Corrupt(_))));
    assert!(matches!(with("MachineKey", "privkey:zz".into()), Err(StateError::Corrupt(_))));
    assert!(matches!(with("MachineKey", "".into()), Err(StateError::Corrupt(_))));
    assert!(matches!(with("MachineKey", format!("privkey:{:064}", 0).into()), Err(StateError::Corrupt(_))));
    assert!(with("MemberOfALaterMinorVersion", 1.into()).is_ok(), "unknown members are ignored");
    assert_eq!(decode(br#"{"_machinekey":"cHJpdmtleTo=","_profiles":"e30="}"#), Err(StateError::Foreign));
    assert!(matches!(decode(b"[]"), Err(StateError::Corrupt(_))));
    assert!(matches!(decode(&vec![b' '; MAX_LEN + 1]), Err(StateError::Corrupt(_))));
    // A version of the future is not judged by the shape of today.
    assert_eq!(decode(br#"{"Version":7,"Sealed":"x"}"#), Err(StateError::TooNew(7)));
}

#[test]
fn a_key_of_the_wrong_kind_is_named_by_its_field_only() {
    let mut file: serde_json::Value = serde_json::from_slice(&encode(&state()).unwrap()).unwrap();
    let profile = file["Profiles"].as_object_mut().unwrap().values_mut().next().unwrap();
    profile["NodeKey"] = "privkey:secretsecret".into();
    let error = decode(&serde_json::to_vec(&file).unwrap()).unwrap_err().to_string();
    assert!(error.contains("NodeKey") && !error.contains("secretsecret"), "{error}");
}

#[test]
fn stored_settings_without_effect_are_taken_out_and_named() {
    let mut state = state();
    state.profiles.current_mut().prefs.run_ssh = true;
    let id = state.profiles.current().meta.id.clone();
    let loaded = decode(&encode(&state).unwrap()).unwrap();
    assert!(!loaded.state.profiles.current().prefs.run_ssh);
    assert_eq!(loaded.removed.len(), 1);
    assert_eq!(loaded.removed[0].0, id);
    assert!(loaded.removed[0].1.reasons[0].contains("ssh"));
}

#[test]
fn debug_output_shows_no_key() {
    let state = state();
    let text = format!("{state:?}");
    let key = state.machine_key.expose_text();
    assert!(!text.contains(key.as_str()) && !text.contains("privkey:") && !text.contains("nlpriv:"));
}

#[test]
fn a_remembered_lock_comes_back_and_is_never_left_out_quietly() {
    use tsrs_control_tka::AumHash;
    let hash = |n| AumHash::from_bytes([n; 32]);
    let known = Known {
        lock: Some(Lock {
            pin: Pin { id: StateId(u64::MAX, 2), genesis: hash(1), head: hash(2) },
            disablement_values: vec![[3; 32], [4; 32]],
        }),
        disabled: vec![StateId(5, 6)],
        awaited: true,
    };
    let mut state = state();
    state.profiles.current_mut().login.lock = known.clone();
    assert_eq!(decode(&encode(&state).unwrap()).unwrap().state, state);
    // What a log-out leaves, and the next login at the same server takes up, whoever it is said to be.
    state.profiles.log_out_current();
    let mut state = decode(&encode(&state).unwrap()).unwrap().state;
    assert_eq!(state.profiles.left()[0].known, known);
    let user = UserProfile { id: UserId(99), login_name: "other".into(), ..UserProfile::default() };
    let network = NetworkProfile::default();
    state.profiles.note_login(user, StableNodeId::default(), network, WireTime::ZERO, &mut OsRng);
    assert_eq!(state.profiles.current().login.lock.lock, known.lock);
    assert!(state.profiles.left().is_empty());

    let text = String::from_utf8(encode(&state).unwrap().to_vec()).unwrap();
    for (part, damage) in [
        ("18446744073709551615:2", "18446744073709551615"),
        ("18446744073709551615:2", "18446744073709551616:2"),
        (hash(2).to_string().as_str(), "nothing"),
        ("0303030303", "zz03030303"),
        ("\"Genesis\"", "\"Beginning\""),
    ] {
        let damaged = text.replacen(part, damage, 1);
        assert_ne!(damaged, text);
        assert!(matches!(decode(damaged.as_bytes()), Err(StateError::Corrupt(_))), "{damage}");
    }
}
