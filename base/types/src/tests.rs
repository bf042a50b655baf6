//! Every case of `keys.json` and `wire/boxes.json` (README of `lab/vectors`).

use serde_json::Value;
use tsrs_lab_vectors::{hex, json};

use crate::LockPrivate;
use crate::keys::*;

fn raw(value: &Value) -> [u8; 32] {
    hex(value.as_str().unwrap()).try_into().unwrap()
}

#[test]
fn key_texts_and_public_keys_agree_with_the_reference() {
    let vectors = json("keys.json");
    for case in vectors["cases"].as_array().unwrap() {
        let public_text = case["public_text"].as_str().unwrap();
        let private = || {
            raw(if case["private_raw"].is_null() { &case["private_raw_in"] } else { &case["private_raw"] })
        };
        match case["what"].as_str().unwrap() {
            "machine" => {
                let key: MachinePrivate = case["private_text_in"].as_str().unwrap().parse().unwrap();
                assert_eq!(key.expose_text().as_str(), case["private_text_out"].as_str().unwrap());
                assert_eq!(key.public().to_string(), public_text);
                assert_eq!(key.public().short(), case["short"].as_str().unwrap());
                assert_eq!(key.public().as_bytes(), &raw(&case["public_raw"]));
            }
            "node" => {
                let key: NodePrivate = case["private_text_in"].as_str().unwrap().parse().unwrap();
                assert_eq!(key.expose_text().as_str(), case["private_text_out"].as_str().unwrap());
                assert_eq!(key.public().to_string(), public_text);
                assert_eq!(key.public().short(), case["short"].as_str().unwrap());
                assert_eq!(key.public().to_binary().as_slice(), hex(case["public_binary"].as_str().unwrap()));
                assert_eq!(NodePublic::from_binary(&key.public().to_binary()), Some(key.public()));
            }
            "disco" => {
                let key = DiscoPrivate::from_bytes(private());
                assert_eq!(key.public().to_string(), public_text);
                assert_eq!(key.public().short(), case["short"].as_str().unwrap());
            }
            "challenge" => {
                let key = NodePrivate::from_bytes(private());
                let public = ChallengePublic::from_bytes(*key.public().as_bytes());
                assert_eq!(public.to_string(), public_text);
            }
            // Raw X25519 keys of more shapes; the public key is what counts.
            _ => {
                let key = NodePrivate::from_bytes(private());
                let public = public_text.rsplit(':').next().unwrap();
                assert_eq!(key.public().to_string(), format!("nodekey:{public}"), "{case}");
            }
        }
    }
}

#[test]
fn key_texts_are_refused_as_the_reference_refuses_them() {
    let vectors = json("keys.json");
    for case in vectors["parse"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let canonical = match case["type"].as_str().unwrap() {
            "machine private" => text.parse::<MachinePrivate>().map(|key| key.expose_text().to_string()),
            "node private" => text.parse::<NodePrivate>().map(|key| key.expose_text().to_string()),
            "machine public" => text.parse::<MachinePublic>().map(|key| key.to_string()),
            "node public" => text.parse::<NodePublic>().map(|key| key.to_string()),
            "disco public" => text.parse::<DiscoPublic>().map(|key| key.to_string()),
            "challenge public" => text.parse::<ChallengePublic>().map(|key| key.to_string()),
            "tailnet-lock public" => text.parse::<LockPublic>().map(|key| key.to_string()),
            "tailnet-lock private" => text.parse::<LockPrivate>().map(|key| key.expose_text().to_string()),
            other => panic!("unknown key type {other}"),
        };
        assert_eq!(canonical.is_ok(), case["ok"].as_bool().unwrap(), "{case}");
        if let (Ok(canonical), Some(wanted)) = (canonical, case["canonical"].as_str()) {
            assert_eq!(canonical, wanted);
        }
    }
}

#[test]
fn zero_keys_are_written_in_full() {
    let vectors = json("keys.json");
    let zero = &vectors["zero_key_text"];
    for (name, text) in [
        ("machine public", MachinePublic::default().to_string()),
        ("node public", NodePublic::default().to_string()),
        ("disco public", DiscoPublic::default().to_string()),
    ] {
        assert!(
            zero.as_object().unwrap().values().any(|value| value == &Value::String(text.clone())),
            "{name}: {zero}"
        );
    }
}

#[test]
fn nacl_boxes_open_and_seal_as_the_reference_does() {
    let vectors = json("wire/boxes.json");
    for case in vectors["cases"].as_array().unwrap() {
        let from = NodePrivate::from_bytes(raw(&case["from_private"]));
        let to = NodePrivate::from_bytes(raw(if case["to_private"].is_null() {
            &case["to_challenge_private"]
        } else {
            &case["to_private"]
        }));
        let sealed = hex(case["nonce_and_box"].as_str().unwrap());
        let opened = to.nacl_box(from.public().as_bytes()).open(&sealed);
        if case["open_ok"] == Value::Bool(false) {
            assert!(opened.is_err(), "{}", case["name"]);
            continue;
        }
        let plain = hex(case["plain"].as_str().unwrap());
        assert_eq!(opened.unwrap().as_slice(), plain, "{}", case["name"]);
        if let Some(nonce) = case["nonce"].as_str() {
            let nonce = hex(nonce).try_into().unwrap();
            let ours = from.nacl_box(to.public().as_bytes()).seal_with_nonce(&nonce, &plain);
            assert_eq!(ours, sealed[24..]);
        }
    }
}

#[test]
fn every_truncation_of_a_box_is_refused() {
    let mut rng = rand_core::OsRng;
    let (a, b) = (NodePrivate::generate(&mut rng), NodePrivate::generate(&mut rng));
    let sealed = a.nacl_box(b.public().as_bytes()).seal(&mut rng, b"hello");
    let opener = b.nacl_box(a.public().as_bytes());
    assert_eq!(opener.open(&sealed).unwrap().as_slice(), b"hello");
    for len in 0..sealed.len() {
        assert!(opener.open(&sealed[..len]).is_err());
    }
}

/// RFC 8032 §7.1, test 1: seed and public key.
#[test]
fn lock_keys_derive_their_public_half_as_ed25519_does() {
    let seed = raw(&Value::from("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
    let public = raw(&Value::from("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"));
    let key = LockPrivate::from_seed(&seed).unwrap();
    assert_eq!(key.public(), LockPublic::from_bytes(public));
    let again: LockPrivate = key.expose_text().parse().unwrap();
    assert!(again == key);
    assert_eq!(format!("{key:?}"), "LockPrivate([redacted])");
    let made = LockPrivate::generate(&mut rand_core::OsRng).unwrap();
    assert!(!made.public().is_zero() && made != key);
}
