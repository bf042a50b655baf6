//! Files of the storage, disablement, auth keys, links, text forms; and bytes that are damaged.

use std::sync::Arc;

use serde_json::Value;

use super::support::{
    aum, bootstrap, cases, file_of, flag, hash, hex, list, node, now, signer, text, to_hex,
};
use crate::argument::{ArgumentError, DisablementArgument, expose_secret_text, parse_key, value_text};
use crate::{
    Aum, AumHash, Authority, DisablementSecret, Graph, NodeKeySignature, SigningLink, State, StateId,
    StoredAum, Update, WrappedAuthKey,
};

#[test]
fn files_are_written_as_the_reference_writes_them() {
    let cases = cases("storage");
    assert_eq!(cases.len(), 17);
    let time = |value: &Value| {
        let seconds = value.as_i64().unwrap();
        (seconds != 0).then(|| jiff::Timestamp::from_second(seconds).unwrap())
    };
    for case in cases {
        let update = (!case["aum"].is_null()).then(|| aum(&case["aum"]));
        let name = update.as_ref().map(Aum::hash);
        let stored =
            StoredAum { aum: update, created: time(&case["created"]), purged: time(&case["purged"]) };
        assert_eq!(to_hex(stored.encode()), text(&case["file"]), "{case}");
        let Some(name) = name else { continue };
        assert_eq!(StoredAum::relative_path(name), text(&case["relative_path"]));
        let read = StoredAum::decode(&hex(&case["file"]), name).unwrap();
        assert_eq!(read, stored.purged.is_none().then_some(stored));
        assert!(StoredAum::decode(&hex(&case["file"]), AumHash::from_bytes([1; 32])).is_err());
    }
}

#[test]
fn files_are_read_as_the_reference_reads_them() {
    let file = file_of("storage");
    assert_eq!(list(&file["read"]).len(), 12);
    for case in list(&file["read"]) {
        let mut graph = Graph::default();
        let genesis = hex(&case["genesis_file"]);
        let genesis_name: AumHash = "T6RKTHAQG26LRE5J3RD6R54ZUDJFLQONARLJJBD6LJXQVELNJEQQ".parse().unwrap();
        let name = StoredAum::hash_of_name(text(&case["file_name"]).rsplit('/').next().unwrap());
        let files = [(Some(genesis_name), genesis), (name, hex(&case["content"]))];
        let mut readable = true;
        for (name, content) in files {
            // Files with other names are passed over.
            let Some(name) = name else { continue };
            match StoredAum::decode(&content, name) {
                Ok(Some(stored)) => graph.insert(Arc::new(Update::new(stored.aum.unwrap())), now()),
                Ok(None) => {}
                Err(_) => readable = false,
            }
        }
        let ancestor = &case["last_active_ancestor"];
        let mut opens = readable;
        if let Some(raw) = ancestor.as_str().map(tsrs_lab_vectors::hex) {
            match raw.try_into() {
                Ok(raw) => graph.set_last_active_ancestor(AumHash::from_bytes(raw)),
                Err(_) => opens = false,
            }
        }
        let opened = Authority::open(&graph).ok().filter(|_| opens);
        assert_eq!(opened.is_some(), flag(&case["open_ok"]), "{}", case["name"]);
        if let Some(authority) = opened {
            assert_eq!(authority.head(), hash(&case["head"]), "{}", case["name"]);
            assert_eq!(graph.len() as u64, case["aums"].as_u64().unwrap(), "{}", case["name"]);
        }
    }
}

#[test]
fn disablement_values_and_secrets_are_those_of_the_reference() {
    let file = file_of("disablement");
    assert_eq!(list(&file["cases"]).len() + list(&file["valid_disablement"]).len(), 21);
    for case in list(&file["cases"]) {
        let secret = DisablementSecret::from_bytes(hex(&case["secret"]));
        assert_eq!(to_hex(secret.value().unwrap()), text(&case["value"]));
    }
    let (authority, _) = bootstrap(aum(&file["genesis"]));
    for case in list(&file["valid_disablement"]) {
        let secret = DisablementSecret::from_bytes(hex(&case["secret"]));
        assert_eq!(authority.state().is_ended_by(&secret), flag(&case["valid"]), "{case}");
    }
    let long = DisablementSecret::from_bytes(vec![0; crate::MAX_SECRET_BYTES + 1]);
    assert!(long.value().is_err());
    assert!(!authority.state().is_ended_by(&long));
}

#[test]
fn wrapped_auth_keys_are_those_of_the_reference() {
    let cases = cases("wrapped-authkey");
    assert_eq!(cases.len(), 22);
    for case in cases {
        let parsed = WrappedAuthKey::parse(text(&case["input"]));
        // A private key of another length than 64 bytes, which the reference takes and fails with, is refused.
        let usable = case["private_len"].as_u64().is_none_or(|len| len == 64);
        assert_eq!(parsed.is_some(), flag(&case["is_wrapped"]) && usable, "{}", case["name"]);
        let Some(wrapped) = parsed else { continue };
        assert_eq!(wrapped.expose_auth_key(), text(&case["auth_key"]));
        assert_eq!(to_hex(wrapped.credential().encode()), text(&case["credential"]));
        let signed = wrapped.sign(node(&case["sign_for"]));
        assert_eq!(signed.is_ok(), flag(&case["sign_ok"]), "{}", case["name"]);
        if let Ok(signed) = signed {
            assert_eq!(to_hex(signed.encode()), text(&case["signature"]));
        }
    }
}

#[test]
fn wrapping_an_auth_key_can_be_undone_once() {
    let wrapped = WrappedAuthKey::wrap("tskey-auth-x", signer("S2"), &signer("S1")).unwrap();
    let again = WrappedAuthKey::parse(&wrapped.expose_text()).unwrap();
    assert_eq!(again.expose_auth_key(), "tskey-auth-x");
    assert_eq!(again.credential(), wrapped.credential());
    assert!(WrappedAuthKey::wrap(&wrapped.expose_text(), signer("S2"), &signer("S1")).is_none());
    assert_eq!(format!("{wrapped:?}"), "WrappedAuthKey([redacted])");
    let meta = crate::wrapping_key_meta(&tsrs_base_types::StableNodeId("nWRAP".to_owned()), now(), "kAUTH");
    assert_eq!(meta["wrapper_createtime"], "1800000000");
    assert_eq!(crate::Key::new(signer("S2").public(), 1, Some(meta)).validate(), Ok(()));
}

fn state_with_id(id1: u64) -> State {
    State::new(Vec::new(), Vec::new(), StateId(id1, 0))
}

#[test]
fn links_are_made_and_checked_as_by_the_reference() {
    let file = file_of("deeplink");
    let (make, check) = (list(&file["make"]), list(&file["cases"]));
    assert_eq!(make.len() + check.len(), 75);
    let field = |case: &Value, name: &str| text(&case[name]).to_owned();
    for case in make {
        let link = SigningLink {
            node_key: field(case, "nk"),
            lock_key: field(case, "tp"),
            device_name: field(case, "dn"),
            os: field(case, "os"),
            login: field(case, "em"),
        };
        let made = state_with_id(text(&case["state_id1"]).parse().unwrap()).make_link(&link);
        assert_eq!(made.is_ok(), flag(&case["ok"]), "{case}");
        if let Ok(url) = made {
            assert_eq!(url, text(&case["url"]));
        }
    }
    let state = state_with_id(text(&file["validate_state_id1"]).parse().unwrap());
    let mut stricter = 0;
    for case in check {
        let checked = state.check_link(text(&case["url"]));
        if flag(&case["valid"]) && is_refused_on_purpose(case) {
            assert!(checked.is_err(), "{case}");
            stricter += 1;
            continue;
        }
        assert_eq!(checked.is_ok(), flag(&case["valid"]), "{} {checked:?}", case["name"]);
        let Ok(link) = checked else { continue };
        let names = ["nk", "tp", "dn", "os", "em"];
        let values = [link.node_key, link.lock_key, link.device_name, link.os, link.login];
        for (name, value) in names.iter().zip(values) {
            assert_eq!(value, text(&case[*name]), "{}", case["name"]);
        }
    }
    assert!(stricter > 0);
}

/// Cases that the reference accepts: an empty operating system, something behind the path, and text that was moved so that a key
/// is no longer a key. Text moved between the other fields cannot be told from text that belongs there.
fn is_refused_on_purpose(case: &Value) -> bool {
    let whole = |name: &str, prefix: &str| {
        text(&case[name]).strip_prefix(prefix).is_some_and(|digits| digits.len() == 64)
    };
    text(&case["os"]).is_empty()
        || !text(&case["url"]).contains("/v1/?")
        || !whole("nk", "nodekey:")
        || !whole("tp", "tlpub:")
}

#[test]
fn text_forms_are_those_of_the_reference() {
    let cases = cases("text-forms");
    assert_eq!(cases.len(), 31);
    for case in cases {
        match text(&case["what"]) {
            "tailnet-lock key" => {
                let seed: [u8; 32] = hex(&case["seed"]).try_into().unwrap();
                let private = tsrs_base_types::LockPrivate::from_seed(&seed).unwrap();
                assert_eq!(*private.expose_text(), text(&case["private_text"]));
                assert_eq!(private.public().to_string(), text(&case["public_text"]));
                assert_eq!(private.public().cli_text(), text(&case["public_cli"]));
                assert_eq!(to_hex(private.public().as_bytes()), text(&case["key_id"]));
            }
            "parse public tailnet-lock key" => {
                let parsed = text(&case["text"]).parse::<tsrs_base_types::LockPublic>();
                assert_eq!(parsed.is_ok(), flag(&case["ok"]), "{case}");
                if let Ok(key) = parsed {
                    assert_eq!(to_hex(key.as_bytes()), text(&case["key_id"]));
                }
            }
            "AUM hash text" => {
                let raw: [u8; 32] = hex(&case["bytes"]).try_into().unwrap();
                assert_eq!(AumHash::from_bytes(raw).to_string(), text(&case["text"]));
                assert_eq!(text(&case["text"]).parse(), Ok(AumHash::from_bytes(raw)));
            }
            "parse node public key binary form" => {
                let parsed = tsrs_base_types::NodePublic::from_binary(&hex(&case["bytes"]));
                assert_eq!(parsed.is_some(), flag(&case["ok"]), "{case}");
            }
            _ => {
                let key = node(&case["raw"]);
                assert_eq!(to_hex(key.to_binary()), text(&case["binary"]), "{case}");
                assert_eq!(key.to_string(), text(&case["text"]));
            }
        }
    }
}

#[test]
fn arguments_are_read_and_secrets_are_kept_apart_from_values() {
    let key = signer("S1").public();
    assert_eq!(parse_key(&key.cli_text()).unwrap().votes, 1);
    let with_votes = parse_key(&format!("{key}?7")).unwrap();
    assert_eq!((with_votes.votes, with_votes.public()), (7, Some(key)));
    for votes in ["?", "?0", "?4097", "?x", "?-1"] {
        assert_eq!(parse_key(&format!("{key}{votes}")), Err(ArgumentError::Votes));
    }
    let value = value_text(&[0xab; 32]);
    assert!(matches!(value.parse(), Ok(DisablementArgument::Value(raw)) if raw == [0xab; 32]));
    let secret = DisablementSecret::from_bytes(vec![0xcd; 32]);
    let shown = expose_secret_text(&secret);
    assert!(shown.ends_with("CDCD"));
    assert!(
        matches!(shown.parse(), Ok(DisablementArgument::Secret(read)) if read.expose_bytes() == [0xcd; 32])
    );
    assert!(matches!("disablement:abcd".parse::<DisablementArgument>(), Err(ArgumentError::ValueLength)));
    assert!(matches!("abcd".parse::<DisablementArgument>(), Err(ArgumentError::Prefix)));
    assert_eq!(format!("{secret:?}"), "DisablementSecret([redacted])");
}

/// A generator of small numbers for damage that is the same in every run.
struct Damage(u64);

impl Damage {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[test]
fn damaged_bytes_never_panic_and_stay_canonical() {
    let (genesis, signatures) = (file_of("nks-verdicts"), cases("nks-verdicts"));
    let (authority, _) = bootstrap(aum(&genesis["genesis"]));
    let key = node(&signatures[0]["node_key"]);
    let mut inputs: Vec<Vec<u8>> = signatures.iter().step_by(5).map(|case| hex(&case["signature"])).collect();
    inputs.extend(cases("aum-encode").iter().step_by(9).map(|case| hex(&case["bytes"])));
    let check = |bytes: &[u8]| {
        if let Ok(aum) = Aum::decode(bytes) {
            let again = Aum::decode(&aum.encode()).unwrap();
            assert_eq!(again.hash(), aum.hash());
            let _ = (aum.validate(), aum.verify(authority.state(), false));
        }
        if let Ok(signature) = NodeKeySignature::decode(bytes) {
            assert_eq!(NodeKeySignature::decode(&signature.encode()).unwrap(), signature);
        }
        let _ = authority.authorize(key, bytes);
        let _ = StoredAum::decode(bytes, authority.head());
    };
    let mut damage = Damage(1);
    for input in &inputs {
        // Some inputs have bytes behind them on purpose, so that a beginning of them is whole.
        let whole = Aum::decode(input).is_ok();
        for len in (0..input.len().min(400)).filter(|_| whole) {
            assert!(Aum::decode(&input[..len]).is_err() && NodeKeySignature::decode(&input[..len]).is_err());
        }
        for _ in 0..60 {
            let mut bytes = input.clone();
            for _ in 0..=damage.below(3) {
                let at = damage.below(bytes.len());
                match damage.below(4) {
                    0 => bytes[at] = u8::try_from(damage.below(256)).unwrap(),
                    1 => bytes[at] ^= 1 << damage.below(8),
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, u8::try_from(damage.below(256)).unwrap()),
                }
            }
            check(&bytes);
        }
    }
    for deep in [15, 16, 17, 100_000] {
        let bytes = [vec![0x81; deep], vec![0x01]].concat();
        assert!(Aum::decode(&bytes).is_err() && NodeKeySignature::decode(&bytes).is_err());
        check(&[[0xa1, 0x05].repeat(deep), vec![0xf6]].concat());
    }
}
