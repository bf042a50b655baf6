//! Messages of the reference, byte by byte.

use serde_json::Value;
use tsrs_lab_vectors::{hex, json};
use zeroize::Zeroizing;

use super::*;
use crate::cookie::{CookieJar, MacKeys};

fn bytes<const N: usize>(value: &Value) -> [u8; N] {
    hex(value.as_str().unwrap()).try_into().unwrap()
}

fn index(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn identity(value: &Value) -> Identity {
    Identity::new(NodePrivate::from_bytes(bytes(value)))
}

#[test]
fn handshakes_of_the_reference_are_written_and_read_exactly() {
    let now = std::time::Instant::now();
    let vectors = json("wire/wireguard.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let (initiator, responder) =
            (identity(&case["initiator_private"]), identity(&case["responder_private"]));
        assert_eq!(*initiator.public.as_bytes(), bytes::<32>(&case["initiator_public"]));
        let psk = bytes(&case["preshared_key"]);
        let shared = initiator.static_static(&responder.public).unwrap();
        assert_eq!(*shared, bytes::<32>(&case["static_static"]));
        let timestamp = Tai64n::from_bytes(&bytes(&case["timestamp"]));

        // The initiation, with its first MAC.
        let ephemeral = Zeroizing::new(bytes(&case["initiator_ephemeral_private"]));
        let own_index = index(&case["initiator_index"]);
        let (state, mut message) =
            initiate(&initiator, &responder.public, &shared, ephemeral, timestamp, own_index).unwrap();
        let mut jar = CookieJar::new(&responder.public);
        jar.finish(&mut message, now);
        assert_eq!(message.as_slice(), hex(case["initiation"].as_str().unwrap()));
        assert_eq!(
            MacKeys::new(&responder.public).mac1_verifies(&message),
            case["mac1_ok"].as_bool().unwrap()
        );
        assert!(!MacKeys::new(&initiator.public).mac1_verifies(&message));

        // Its answer, with its first MAC.
        let claimed = read_initiation(&responder, &message).unwrap();
        assert_eq!((claimed.peer, claimed.remote_index), (initiator.public, own_index));
        let proven = claimed.prove(&shared, &message).unwrap();
        assert_eq!(proven.timestamp, timestamp);
        let ephemeral = Zeroizing::new(bytes(&case["responder_ephemeral_private"]));
        let (mut response, theirs) =
            proven.respond(&ephemeral, &psk, index(&case["responder_index"])).unwrap();
        CookieJar::new(&initiator.public).finish(&mut response, now);
        assert_eq!(response.as_slice(), hex(case["response"].as_str().unwrap()));

        let (remote_index, ours) = read_response(&state, &response, &psk).unwrap();
        assert_eq!(remote_index, index(&case["responder_index"]));
        for split in [&ours, &theirs] {
            assert_eq!(*split.initiator_to_responder, bytes::<32>(&case["key_initiator_to_responder"]));
            assert_eq!(*split.responder_to_initiator, bytes::<32>(&case["key_responder_to_initiator"]));
            assert_eq!(*split.chaining_key, bytes::<32>(&case["after_response"]["chain_key"]));
            assert_eq!(split.handshake_hash, bytes::<32>(&case["after_response"]["hash"]));
        }

        // The cookie that the responder gave, and the same initiation with it.
        let cookie = &case["cookie"];
        let accepted = jar.take_cookie(&hex(cookie["reply"].as_str().unwrap()), now);
        assert_eq!(accepted, cookie["reply_accepted"].as_bool().unwrap());
        jar.finish(&mut message, now);
        assert_eq!(message.as_slice(), hex(cookie["initiation_with_mac2"].as_str().unwrap()));
    }
}

#[test]
fn a_wrong_preshared_key_is_noticed() {
    let own = Identity::new(NodePrivate::from_bytes([0x11; 32]));
    let other = Identity::new(NodePrivate::from_bytes([0x22; 32]));
    let shared = own.static_static(&other.public).unwrap();
    let ephemeral = |byte| Zeroizing::new([byte; 32]);
    let (state, message) =
        initiate(&own, &other.public, &shared, ephemeral(3), Tai64n::default(), 1).unwrap();
    let claimed = read_initiation(&other, &message).unwrap();
    let (response, _) =
        claimed.prove(&shared, &message).unwrap().respond(&ephemeral(4), &[1; 32], 2).unwrap();
    assert!(read_response(&state, &response, &ZERO_PSK).is_err());
    assert!(read_response(&state, &response, &[1; 32]).is_ok());
}

#[test]
fn another_static_key_cannot_be_claimed() {
    let [own, other, stranger] =
        [0x11, 0x22, 0x33].map(|byte| Identity::new(NodePrivate::from_bytes([byte; 32])));
    // The stranger writes the initiation as far as it can: with a wrong secret of the two static keys.
    let guessed = stranger.static_static(&other.public).unwrap();
    let ephemeral = Zeroizing::new([5; 32]);
    let (_, message) = initiate(&own, &other.public, &guessed, ephemeral, Tai64n::default(), 1).unwrap();
    let claimed = read_initiation(&other, &message).unwrap();
    assert_eq!(claimed.peer, own.public);
    let shared = other.static_static(&own.public).unwrap();
    assert!(claimed.prove(&shared, &message).is_err());
}
