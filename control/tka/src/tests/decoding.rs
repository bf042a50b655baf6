//! Encodings, hashes and static rules.

use serde_json::Value;

use super::support::{bootstrap, cases, file_of, flag, hex, list, signer, text, to_hex};
use crate::{
    Aum, AumHash, Authority, DecodeError, DisablementSecret, Key, NodeKeySignature, State, StateId, Storage,
    UpdateBuilder,
};

fn check_aum(case: &Value) {
    let bytes = hex(&case["bytes"]);
    let decoded = Aum::decode(&bytes);
    assert_eq!(decoded.is_ok(), flag(&case["decode_ok"]), "{case} {decoded:?}");
    let Ok(aum) = decoded else { return };
    let same = case["canonical_same"].as_bool() == Some(true);
    let canonical = if same { bytes } else { hex(&case["canonical"]) };
    assert_eq!(to_hex(aum.encode()), to_hex(&canonical), "{case}");
    assert_eq!(to_hex(aum.hash().as_bytes()), text(&case["hash"]), "{case}");
    assert_eq!(to_hex(aum.sig_digest().as_bytes()), text(&case["sig_hash"]), "{case}");
    assert_eq!(aum.validate().is_ok(), flag(&case["static_ok"]), "{case} {:?}", aum.validate());
    if let Some(fields) = case.get("fields") {
        check_fields(&aum, fields);
    }
    assert_eq!(Aum::decode(&aum.encode()).unwrap().encode(), aum.encode());
}

fn optional_hex(bytes: Option<&Vec<u8>>) -> Value {
    bytes.map_or(Value::Null, |bytes| Value::from(to_hex(bytes)))
}

fn check_key(key: &Key, fields: &Value) {
    assert_eq!(u64::from(key.kind), fields["kind"].as_u64().unwrap());
    assert_eq!(Value::from(key.votes), fields["votes"]);
    assert_eq!(optional_hex(key.public.as_ref()), fields["public"]);
    check_meta(key.meta.as_ref(), &fields["meta"]);
}

fn check_meta(meta: Option<&crate::Meta>, fields: &Value) {
    match meta {
        None => assert!(fields.is_null(), "{fields}"),
        Some(meta) => assert_eq!(serde_json::to_value(meta).unwrap(), *fields),
    }
}

fn check_fields(aum: &Aum, fields: &Value) {
    assert_eq!(u64::from(aum.kind.0), fields["kind"].as_u64().unwrap());
    assert_eq!(optional_hex(aum.prev.as_ref()), fields["prev"]);
    assert_eq!(optional_hex(aum.key_id.as_ref()), fields["key_id"], "{fields}");
    match &aum.key {
        Some(key) => check_key(key, &fields["key"]),
        None => assert!(fields["key"].is_null()),
    }
    check_meta(aum.meta.as_ref(), &fields["meta"]);
    assert_eq!(aum.state.is_some(), fields["state"].is_object(), "{fields}");
    if let Some(state) = &aum.state {
        for (key, fields) in state.keys().iter().zip(list(&fields["state"]["keys"])) {
            check_key(key, fields);
        }
        assert_eq!(state.keys().len(), list(&fields["state"]["keys"]).len());
        assert_eq!(state.id.0.to_string(), text(&fields["state"]["state_id1"]));
        assert_eq!(state.id.1.to_string(), text(&fields["state"]["state_id2"]));
    }
    let signatures = list(&fields["signatures"]);
    assert_eq!(aum.signatures.len(), signatures.len());
    for (signature, fields) in aum.signatures.iter().zip(signatures) {
        assert_eq!(optional_hex(signature.key_id.as_ref()), fields["key_id"]);
        assert_eq!(optional_hex(signature.signature.as_ref()), fields["signature"]);
    }
}

#[test]
fn updates_read_and_write_as_the_reference_does() {
    let mut count = 0;
    for file in ["aum-encode", "aum-decode", "aum-decode-fuzz"] {
        for case in cases(file) {
            check_aum(&case);
            count += 1;
        }
    }
    assert_eq!(count, 541 + 187 + 1200);
}

#[test]
fn static_rules_are_those_of_the_reference() {
    let cases = cases("aum-static");
    assert_eq!(cases.len(), 111);
    for case in cases {
        let decoded = Aum::decode(&hex(&case["bytes"]));
        assert_eq!(decoded.is_ok(), flag(&case["decode_ok"]), "{case}");
        let valid = decoded.is_ok_and(|aum| aum.validate().is_ok());
        assert_eq!(valid, flag(&case["ok"]), "{case}");
    }
}

#[test]
fn signatures_read_and_write_as_the_reference_does() {
    let mut count = 0;
    for case in ["nks-decode", "nks-decode-fuzz"].into_iter().flat_map(cases) {
        count += 1;
        let bytes = hex(&case["bytes"]);
        let decoded = NodeKeySignature::decode(&bytes);
        assert_eq!(decoded.is_ok(), flag(&case["decode_ok"]), "{case} {decoded:?}");
        let Ok(signature) = decoded else { continue };
        let same = case["canonical_same"].as_bool() == Some(true);
        let canonical = if same { bytes } else { hex(&case["canonical"]) };
        assert_eq!(to_hex(signature.encode()), to_hex(&canonical), "{case}");
        assert_eq!(to_hex(signature.sig_digest().as_bytes()), text(&case["sig_hash"]), "{case}");
        if let Some(fields) = case.get("fields") {
            check_layer(&signature, fields);
        }
    }
    assert_eq!(count, 44 + 500);
}

fn check_layer(signature: &NodeKeySignature, fields: &Value) {
    assert_eq!(u64::from(signature.kind().0), fields["sig_kind"].as_u64().unwrap());
    for (bytes, name) in signature.members().iter().zip(["pubkey", "key_id", "signature", "wrapping_pubkey"])
    {
        assert_eq!(to_hex(bytes), fields[name].as_str().unwrap_or_default(), "{fields}");
    }
    match signature.nested() {
        Some(nested) => check_layer(nested, &fields["nested"]),
        None => assert!(fields["nested"].is_null()),
    }
}

#[test]
fn hashes_read_as_the_reference_reads_them() {
    let cases = cases("hash-text");
    assert_eq!(cases.len(), 44);
    for case in cases {
        let ancestors: Vec<&str> = list(&case["ancestors"]).iter().map(text).collect();
        let offer = crate::SyncOffer::parse(text(&case["head"]), ancestors);
        assert_eq!(offer.is_ok(), flag(&case["ok"]), "{case}");
        if let Ok(offer) = offer {
            assert_eq!(to_hex(offer.head.as_bytes()), text(&case["head_bytes"]), "{case}");
        }
    }
}

#[test]
fn hash_argument_is_hex_or_base32() {
    let hash = AumHash::from_bytes([7; 32]);
    assert_eq!(AumHash::from_argument(&hash.to_string()), Ok(hash));
    assert_eq!(AumHash::from_argument(&"07".repeat(32)), Ok(hash));
    assert!(AumHash::from_argument(&"0g".repeat(32)).is_err());
    assert!(AumHash::from_argument("").is_err());
}

#[test]
fn long_input_is_refused_before_it_is_read() {
    let long = vec![0xf6; crate::limits::MAX_AUM_BYTES + 1];
    assert_eq!(Aum::decode(&long), Err(DecodeError::TooLarge));
    assert_eq!(NodeKeySignature::decode(&long), Err(DecodeError::TooLarge));
}

#[test]
fn known_updates_come_out() {
    let file = file_of("known-values");
    assert_eq!(list(&file["cases"]).len(), 22);
    let known = |name: &str| {
        let case = list(&file["cases"]).iter().find(|case| case["name"] == name);
        text(&case.unwrap_or_else(|| panic!("{name}"))["value"]).to_owned()
    };
    for number in 1..=3 {
        let name = format!("S{number}");
        assert_eq!(to_hex(signer(&name).public().as_bytes()), known(&format!("{name} public")));
    }
    let value = DisablementSecret::from_bytes(vec![0xa5; 32]).value().unwrap();
    assert_eq!(to_hex(value), known("kdf a5x32 (D)"));
    assert_eq!(to_hex(DisablementSecret::from_bytes(vec![1, 2, 3]).value().unwrap()), known("kdf 010203"));
    let state = State::new(vec![Key::new(signer("S1").public(), 2, None)], vec![value], StateId(1, 2));
    let genesis = Authority::create(state, &signer("S1")).unwrap();
    assert_eq!(to_hex(genesis.sig_digest().as_bytes()), known("G digest"));
    assert_eq!(to_hex(genesis.hash().as_bytes()), known("G hash"));
    assert_eq!(genesis.hash().to_string(), known("G hash text"));
    assert_eq!(to_hex(genesis.encode()), known("G bytes"));
    let (authority, storage) = bootstrap(genesis);
    let key = signer("S1");
    let mut builder = UpdateBuilder::new(&authority, &key);
    let meta = [("a", "yy"), ("bb", "x")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    builder.add_key(Key::new(signer("S2").public(), 1, Some(meta.into()))).unwrap();
    let made = builder.finish(&authority, storage.graph()).unwrap();
    assert_eq!(to_hex(made[0].sig_digest().as_bytes()), known("add-key digest"));
    assert_eq!(to_hex(made[0].hash().as_bytes()), known("add-key hash"));
    assert_eq!(to_hex(made[0].encode()), known("add-key bytes"));
}
