//! All cases of `disco/*.json`, and truncations.

use std::time::Duration;

use serde_json::{Value, json};
use tsrs_base_types::{DiscoPrivate, DiscoPublic, NodePrivate, NodePublic};
use tsrs_lab_vectors::{hex, json as load};

use super::envelope::{HEADER_LEN, is_disco, seal_with_nonce, split};
use super::message::{Message, ParseError, TxId};
use super::relay::{AllocateRequest, AllocateResponse, Bind, RelayEndpoint};
use crate::disco::BoxCache;
use tsrs_lab_vectors::SeededRng as TestRng;

fn a() -> DiscoPrivate {
    DiscoPrivate::from_bytes([0xa1; 32])
}

fn b() -> DiscoPrivate {
    DiscoPrivate::from_bytes([0xb2; 32])
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(text(value)).try_into().unwrap()
}

fn number<T: TryFrom<u64>>(value: &Value) -> T
where
    T::Error: std::fmt::Debug,
{
    let number = value.as_u64().unwrap_or_else(|| text(value).parse().unwrap());
    T::try_from(number).unwrap()
}

fn addresses(value: &Value) -> Vec<std::net::SocketAddr> {
    value.as_array().unwrap().iter().map(|address| text(address).parse().unwrap()).collect()
}

fn client_keys(value: &Value) -> [DiscoPublic; 2] {
    [0, 1].map(|i| DiscoPublic::from_bytes(array(&value[i])))
}

fn bind(value: &Value) -> Bind {
    Bind {
        vni: number(&value["vni"]),
        generation: number(&value["generation"]),
        remote_key: DiscoPublic::from_bytes(array(&value["remote_key"])),
        challenge: array(&value["challenge"]),
    }
}

/// A negative lifetime of the reference is zero here.
fn lifetime(value: &Value) -> Duration {
    let nanos: i64 = text(value).parse().unwrap();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

fn relay_endpoint(value: &Value) -> RelayEndpoint {
    RelayEndpoint {
        server_key: DiscoPublic::from_bytes(array(&value["server_disco"])),
        client_keys: client_keys(&value["client_disco"]),
        lamport_id: number(&value["lamport_id"]),
        vni: number(&value["vni"]),
        bind_lifetime: lifetime(&value["bind_lifetime_ns"]),
        steady_state_lifetime: lifetime(&value["steady_state_lifetime_ns"]),
        addresses: addresses(&value["addr_ports"]),
    }
}

/// A message in the words of the files.
fn message(value: &Value) -> Message {
    match text(&value["type"]) {
        "ping" => Message::Ping {
            tx_id: TxId(array(&value["tx_id"])),
            node_key: (!value["node_key"].is_null())
                .then(|| NodePublic::from_bytes(array(&value["node_key"]))),
            padding_len: number(&value["padding"]),
        },
        "pong" => Message::Pong {
            tx_id: TxId(array(&value["tx_id"])),
            source: text(&value["src"]).parse().unwrap(),
        },
        "call_me_maybe" => Message::CallMeMaybe { endpoints: addresses(&value["endpoints"]) },
        "bind" => Message::BindRelay(bind(value)),
        "bind_challenge" => Message::BindRelayChallenge(bind(value)),
        "bind_answer" => Message::BindRelayAnswer(bind(value)),
        "call_me_maybe_via" => Message::CallMeMaybeVia(relay_endpoint(value)),
        "allocate_request" => Message::AllocateRelayRequest(AllocateRequest {
            client_keys: client_keys(&value["client_disco"]),
            generation: number(&value["generation"]),
        }),
        "allocate_response" => Message::AllocateRelayResponse(AllocateResponse {
            generation: number(&value["generation"]),
            endpoint: relay_endpoint(value),
        }),
        other => panic!("{other}"),
    }
}

#[test]
fn messages_and_envelopes_agree_with_the_reference() {
    let file = load("disco/messages.json");
    let node_key = NodePrivate::from_bytes(array(&file["node_key_private_raw"])).public();
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap() {
        seen += 1;
        let plain = hex(text(&case["plain"]));
        let sent = message(&case["message"]);
        if let Message::Ping { node_key: Some(key), .. } = &sent {
            assert_eq!(*key, node_key);
        }
        assert_eq!(sent.to_bytes(), plain, "{}", case["name"]);
        assert_eq!(case["parse_ok"], json!(true));
        assert_eq!(Message::parse(&plain), Ok(message(&case["parsed"])), "{}", case["name"]);

        let nacl = a().nacl_box(b().public().as_bytes());
        let packet = seal_with_nonce(&nacl, &a().public(), &array(&case["nonce"]), &plain);
        assert_eq!(packet, hex(text(&case["envelope"])), "{}", case["name"]);
        let (sender, sealed) = split(&packet).unwrap();
        assert_eq!(sender, a().public());
        assert_eq!(BoxCache::default().open(&b(), &sender, sealed).unwrap().as_slice(), plain);
    }
    assert_eq!(seen, 21);
}

#[test]
fn parser_verdicts_agree_with_the_reference() {
    let mut seen = 0;
    for case in load("disco/parse.json")["cases"].as_array().unwrap() {
        seen += 1;
        let parsed = Message::parse(&hex(text(&case["plain"])));
        match case["ok"].as_bool().unwrap() {
            true => assert_eq!(parsed, Ok(message(&case["parsed"])), "{}", case["note"]),
            false => assert!(parsed.is_err(), "{}", case["note"]),
        }
    }
    assert_eq!(seen, 285);
}

#[test]
fn recognition_and_opening_agree_with_the_reference() {
    let mut seen = 0;
    for case in load("disco/envelope.json")["cases"].as_array().unwrap() {
        seen += 1;
        let packet = hex(text(&case["packet"]));
        assert_eq!(is_disco(&packet), case["looks_like_disco"].as_bool().unwrap(), "{case}");
        let Some((sender, sealed)) = split(&packet) else { continue };
        assert_eq!(sender, DiscoPublic::from_bytes(array(&case["source"])));
        let plain = BoxCache::default().open(&b(), &sender, sealed);
        let expected = case["opens_for_b"].as_bool().unwrap().then(|| hex(text(&case["plain"])));
        assert_eq!(plain.map(|plain| plain.to_vec()), expected, "{case}");
    }
    assert_eq!(seen, 13);
}

#[test]
fn a_plain_ping_has_the_size_that_peers_know() {
    let ping = Message::Ping { tx_id: TxId([1; 12]), node_key: Some(NodePublic::default()), padding_len: 0 };
    let mut cache = BoxCache::default();
    let packet = cache.seal(&mut TestRng(1), &a(), &a().public(), &b().public(), &ping);
    assert_eq!(packet.len(), 124);
}

#[test]
fn every_truncation_of_every_message_and_envelope_is_judged_without_panic() {
    for case in load("disco/messages.json")["cases"].as_array().unwrap() {
        let plain = hex(text(&case["plain"]));
        for len in 0..plain.len() {
            if let Ok(message) = Message::parse(&plain[..len]) {
                // What parses is written again without loss of meaning.
                assert_eq!(Message::parse(&message.to_bytes()), Ok(message));
            }
        }
        let envelope = hex(text(&case["envelope"]));
        for len in 0..envelope.len() {
            let Some((sender, sealed)) = split(&envelope[..len]) else {
                assert!(len < HEADER_LEN);
                continue;
            };
            assert!(BoxCache::default().open(&b(), &sender, sealed).is_none(), "cut to {len}");
        }
    }
    assert_eq!(Message::parse(&[10, 0]), Err(ParseError::Type(10)));
}
