//! Ed25519, node-key signatures and their making.

use super::support::{aum, bootstrap, cases, file_of, flag, hex, list, node, signer, text, to_hex};
use crate::ed25519::{Entry, Rules, is_small_order, verify, verify_batch};
use crate::{Key, NodeKeySignature, Refusal, ReplaceError, SigKind, State, StateId};

#[test]
fn both_verdicts_are_those_of_the_reference() {
    let cases = cases("ed25519-edge");
    assert_eq!(cases.len(), 387);
    let mut entries = Vec::new();
    for case in &cases {
        let [public, message, signature] = ["public", "message", "signature"].map(|name| hex(&case[name]));
        for (rules, name) in [(Rules::Zip215, "zip215"), (Rules::Rfc8032, "rfc8032")] {
            assert_eq!(
                verify(rules, &public, &message, &signature),
                flag(&case[name]),
                "{} {name}",
                case["name"]
            );
        }
        let sizes = (public.try_into(), message.try_into(), signature.try_into());
        if let (Ok(public), Ok(message), Ok(signature)) = sizes {
            entries.push((Entry { public, message, signature }, flag(&case["zip215"])));
        }
    }
    assert!(entries.len() > 300);
    // A batch of good ones only, torsion and all, goes through the one equation; a mixed one falls back.
    let (good, _): (Vec<_>, Vec<_>) = entries.iter().copied().partition(|(_, good)| *good);
    for batch in [good, entries] {
        let (entries, expected): (Vec<Entry>, Vec<bool>) = batch.into_iter().unzip();
        assert_eq!(verify_batch(&entries), expected);
    }
}

#[test]
fn node_keys_are_judged_as_by_the_reference() {
    let file = file_of("nks-verdicts");
    let (authority, _) = bootstrap(aum(&file["genesis"]));
    assert_eq!(list(&file["cases"]).len(), 477);
    let mut stricter = 0;
    for case in list(&file["cases"]) {
        let bytes = hex(&case["signature"]);
        let decoded = NodeKeySignature::decode(&bytes);
        assert_eq!(decoded.is_ok(), flag(&case["decode_ok"]), "{case}");
        let verdict = authority.authorize(node(&case["node_key"]), &bytes);
        if let Ok(signature) = &decoded {
            assert_eq!(to_hex(signature.sig_digest().as_bytes()), text(&case["sig_hash"]));
            let wrapping = signature.wrapping_public().map(to_hex);
            assert_eq!(wrapping.as_deref(), case["wrapping_public"].as_str(), "{case}");
            let key_id = signature.authorizing_key_id().map(to_hex);
            assert_eq!(key_id.as_deref(), case["authorizing_key_id"].as_str(), "{case}");
            // Stricter on purpose: a rotation for which anybody could have signed is dropped.
            if uses_weak_wrapping_key(signature) {
                assert!(verdict.is_err(), "{case}");
                stricter += usize::from(flag(&case["ok"]));
                continue;
            }
        }
        assert_eq!(verdict.is_ok(), flag(&case["ok"]), "{case} {verdict:?}");
        let Ok(verified) = verdict else { continue };
        let Some(expected) = case.get("rotation").filter(|rotation| !rotation.is_null()) else {
            assert_eq!(verified.rotation, None);
            continue;
        };
        let rotation = verified.rotation.unwrap();
        let previous: Vec<String> = rotation.previous.iter().map(|key| to_hex(key.as_bytes())).collect();
        let wanted: Vec<&str> = list(&expected["prev_node_keys"]).iter().map(text).collect();
        assert_eq!(previous, wanted);
        assert_eq!(u64::from(rotation.initial.kind().0), expected["initial_sig_kind"].as_u64().unwrap());
        assert_eq!(to_hex(rotation.initial.encode()), text(&expected["initial_sig"]));
    }
    assert!(stricter > 0, "the cases hold forged rotations");
}

/// The property of the cases that are judged stricter than by the reference.
pub(super) fn uses_weak_wrapping_key(signature: &NodeKeySignature) -> bool {
    signature
        .layers()
        .filter(|layer| layer.kind() == SigKind::ROTATION)
        .filter_map(|layer| layer.nested()?.wrapping_public())
        .any(is_small_order)
}

#[test]
fn signatures_are_made_again_as_the_reference_makes_them() {
    let file = file_of("nks-resign");
    let (authority, _) = bootstrap(aum(&file["genesis"]));
    assert_eq!(list(&file["cases"]).len(), 73);
    let mut too_deep = 0;
    for case in list(&file["cases"]) {
        let (old, new_key) = (hex(&case["old"]), node(&case["new_node_key"]));
        let made = NodeKeySignature::resign(&old, new_key, &signer(text(&case["signer"])));
        // A signature that no node can read is not made, where the reference makes it.
        if flag(&case["ok"]) && NodeKeySignature::decode(&hex(&case["new"])).is_err() {
            assert!(made.is_err());
            too_deep += 1;
            continue;
        }
        assert_eq!(made.is_ok(), flag(&case["ok"]), "{case} {made:?}");
        let Ok(made) = made else { continue };
        assert_eq!(to_hex(&made), text(&case["new"]), "{}", case["name"]);
        assert_eq!(made == old, flag(&case["unchanged"]));
        assert_eq!(
            authority.authorize(new_key, &made).is_ok(),
            flag(&case["new_authorized"]),
            "{}",
            case["name"]
        );
    }
    assert!(too_deep > 0);
}

#[test]
fn known_signatures_come_out() {
    let file = file_of("known-values");
    let known = |name: &str| {
        let case = list(&file["cases"]).iter().find(|case| case["name"] == name).unwrap();
        text(&case["value"]).to_owned()
    };
    let (s1, s2, s3) = (signer("S1"), signer("S2"), signer("S3"));
    let [first, second] = [0x11, 0x22].map(|byte| tsrs_base_types::NodePublic::from_bytes([byte; 32]));
    let digest = |signature: &NodeKeySignature| to_hex(signature.sig_digest().as_bytes());
    let direct = NodeKeySignature::direct(first, Some(s3.public()), &s1).unwrap();
    assert_eq!(digest(&direct), known("direct digest"));
    let rotation = NodeKeySignature::rotation(second, direct, &s3).unwrap();
    assert_eq!(digest(&rotation), known("rotation digest"));
    let credential = NodeKeySignature::credential(s2.public(), &s1).unwrap();
    assert_eq!(digest(&credential), known("credential digest"));
    let around = NodeKeySignature::by_credential(first, credential, &s2).unwrap();
    assert_eq!(digest(&around), known("rotation around credential digest"));
    assert_eq!(around.encode().len().to_string(), known("rotation around credential length"));
    // The all-zero wrapping key that the official command writes is left out.
    let plain = NodeKeySignature::direct(first, Some(tsrs_base_types::LockPublic::default()), &s1).unwrap();
    assert_eq!(digest(&plain), known("unsigned direct, no wrapping key digest"));
}

#[test]
fn a_signature_by_a_leaving_key_is_replaced_and_keeps_its_wrapping_key() {
    let (s1, s2, s3) = (signer("S1"), signer("S2"), signer("S3"));
    let keys = [&s1, &s2].map(|key| Key::new(key.public(), 1, None));
    let state = State::new(keys.into(), vec![[1; 32]], StateId(1, 2));
    let [first, second] = [0x11, 0x22].map(|byte| tsrs_base_types::NodePublic::from_bytes([byte; 32]));
    let direct = NodeKeySignature::direct(first, Some(s3.public()), &s1).unwrap();
    let old = NodeKeySignature::rotation(second, direct, &s3).unwrap().encode();
    let new = NodeKeySignature::replace(&state, &old, &s1.public(), &s2).unwrap();
    assert_eq!(new.wrapping_public(), Some(s3.public().as_bytes().as_slice()));
    assert_eq!(state.authorize(second, &new.encode()).unwrap().key_id, s2.public().as_bytes());
    let other = NodeKeySignature::replace(&state, &old, &s2.public(), &s2);
    assert_eq!(other, Err(ReplaceError::OtherKey));
    // What control made up is not signed.
    let forged = NodeKeySignature::direct(first, None, &s3).unwrap().encode();
    let refused = NodeKeySignature::replace(&state, &forged, &s3.public(), &s2);
    assert_eq!(refused, Err(ReplaceError::Refused(Refusal::Untrusted)));
}
