//! Both patterns against the reference's WireGuard handshakes, and the control pattern against itself.

use tsrs_lab_vectors::{hex, json};
use zeroize::Zeroizing;

use crate::*;

const WIREGUARD: Protocol<'static> = Protocol {
    name: b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s",
    prologue: b"WireGuard v1 zx2c4 Jason@zx2c4.com",
    psk: true,
};
const CONTROL: Protocol<'static> = Protocol {
    name: b"Noise_IK_25519_ChaChaPoly_BLAKE2s",
    prologue: b"Tailscale Control Protocol v119",
    psk: false,
};

fn bytes<const N: usize>(value: &serde_json::Value) -> [u8; N] {
    hex(value.as_str().unwrap()).try_into().unwrap()
}

#[test]
fn wireguard_handshakes_agree_with_the_reference() {
    for case in json("wire/wireguard.json")["cases"].as_array().unwrap() {
        let initiator_static = bytes(&case["initiator_private"]);
        let responder_static = bytes(&case["responder_private"]);
        let responder_public = bytes(&case["responder_public"]);
        let psk = bytes(&case["preshared_key"]);
        let shared = Zeroizing::new(bytes(&case["static_static"]));
        let initiation_message = hex(case["initiation"].as_str().unwrap());
        let response_message = hex(case["response"].as_str().unwrap());

        let ephemeral = Zeroizing::new(bytes(&case["initiator_ephemeral_private"]));
        let timestamp: [u8; 12] = bytes(&case["timestamp"]);
        let (initiator, initiation) = Initiator::start(
            WIREGUARD,
            &initiator_static,
            &responder_public,
            Some(&shared),
            ephemeral,
            &timestamp,
        )
        .unwrap();
        assert_eq!(initiation.ephemeral, initiation_message[8..40]);
        assert_eq!(initiation.sealed_static, initiation_message[40..88]);
        assert_eq!(initiation.sealed_payload, initiation_message[88..116]);

        let identified = Responder::new(WIREGUARD, &responder_static, &responder_public)
            .read_static(&initiation.ephemeral, &initiation.sealed_static)
            .unwrap();
        assert_eq!(identified.initiator_static(), &bytes::<32>(&case["initiator_public"]));
        let (ready, payload) = identified.read_payload(None, &initiation.sealed_payload).unwrap();
        assert_eq!(payload.as_slice(), timestamp);
        let ephemeral = Zeroizing::new(bytes(&case["responder_ephemeral_private"]));
        let (response, theirs) = ready.respond(&ephemeral, &psk, &[]).unwrap();
        assert_eq!(response.ephemeral, response_message[12..44]);
        assert_eq!(response.sealed_payload, response_message[44..60]);

        let (payload, ours) = initiator.finish(&response.ephemeral, &response.sealed_payload, &psk).unwrap();
        assert!(payload.is_empty());
        assert_eq!(ours.handshake_hash, bytes::<32>(&case["after_response"]["hash"]));
        assert_eq!(*ours.chaining_key, bytes::<32>(&case["after_response"]["chain_key"]));
        assert_eq!(*ours.initiator_to_responder, bytes::<32>(&case["key_initiator_to_responder"]));
        assert_eq!(*ours.responder_to_initiator, bytes::<32>(&case["key_responder_to_initiator"]));
        assert_eq!(ours.initiator_to_responder, theirs.initiator_to_responder);
        assert_eq!(ours.responder_to_initiator, theirs.responder_to_initiator);
    }
}

#[test]
fn control_handshake_agrees_on_both_sides_and_refuses_damage() {
    let (client, server) = ([0x11; 32], [0x22; 32]);
    let server_public = public_of(&server);
    let (initiator, mut initiation) =
        Initiator::start(CONTROL, &client, &server_public, None, Zeroizing::new([0x33; 32]), &[]).unwrap();
    let read = |initiation: &Initiation| {
        Responder::new(CONTROL, &server, &server_public)
            .read_static(&initiation.ephemeral, &initiation.sealed_static)
            .and_then(|identified| identified.read_payload(None, &initiation.sealed_payload))
    };
    let (ready, _) = read(&initiation).unwrap();
    let (mut response, theirs) = ready.respond(&Zeroizing::new([0x44; 32]), &[0; 32], &[]).unwrap();
    let (_, ours) = initiator.finish(&response.ephemeral, &response.sealed_payload, &[0; 32]).unwrap();
    assert_eq!(ours.handshake_hash, theirs.handshake_hash);
    assert_eq!(ours.initiator_to_responder, theirs.initiator_to_responder);

    initiation.sealed_payload[0] ^= 1;
    assert_eq!(read(&initiation).err(), Some(NoiseError::Decrypt));
    initiation.ephemeral = [0; 32];
    assert_eq!(read(&initiation).err(), Some(NoiseError::SmallOrder));
    for len in 0..response.sealed_payload.len() {
        assert!(initiator.finish(&response.ephemeral, &response.sealed_payload[..len], &[0; 32]).is_err());
    }
    response.ephemeral = [0; 32];
    assert!(initiator.finish(&response.ephemeral, &response.sealed_payload, &[0; 32]).is_err());
}
