use rand_core::OsRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tsrs_base_noise::{Initiator, Protocol, Secret, Split, public_of};
use tsrs_base_types::MachinePrivate;

use super::handshake::HandshakeError;
use super::records::Records;
use super::*;

/// An initiation for capability version 133 and the state that finishes it.
fn initiation(client: &MachinePrivate, server: &MachinePrivate) -> (Initiator, Vec<u8>) {
    let protocol = Protocol {
        name: b"Noise_IK_25519_ChaChaPoly_BLAKE2s",
        prologue: b"Tailscale Control Protocol v133",
        psk: false,
    };
    let server_public = public_of(server.expose_bytes());
    let ephemeral = Secret::new([7; 32]);
    let (state, message) =
        Initiator::start(protocol, client.expose_bytes(), &server_public, None, ephemeral, &[]).unwrap();
    let mut bytes = vec![0, 133, TYPE_INITIATION, 0, 96];
    bytes.extend_from_slice(&message.ephemeral);
    bytes.extend_from_slice(&message.sealed_static);
    bytes.extend_from_slice(&message.sealed_payload);
    (state, bytes)
}

fn established() -> (Records, handshake::Accepted, MachinePrivate) {
    let client = MachinePrivate::generate(&mut OsRng);
    let server = MachinePrivate::generate(&mut OsRng);
    let (state, bytes) = initiation(&client, &server);
    let accepted = accept(&server, &Secret::new([9; 32]), &bytes).unwrap();
    let split = finish(&state, &accepted.response);
    (Records::initiator(&split), accepted, client)
}

fn finish(state: &Initiator, response: &[u8]) -> Split {
    assert_eq!(response[..3], [TYPE_RESPONSE, 0, 48]);
    let ephemeral = response[3..35].try_into().unwrap();
    state.finish(&ephemeral, &response[35..], &[0; 32]).unwrap().1
}

#[test]
fn both_sides_agree_and_the_machine_key_is_known() {
    let (mut client, mut accepted, private) = established();
    assert_eq!(accepted.version, 133);
    assert_eq!(accepted.machine, private.public());
    let mut frame = Vec::new();
    assert_eq!(client.seal(b"up", &mut frame).unwrap(), 2);
    assert_eq!(accepted.records.open(&mut frame).unwrap(), b"up");
    let mut frame = Vec::new();
    accepted.records.seal(b"down", &mut frame).unwrap();
    assert_eq!(client.open(&mut frame).unwrap(), b"down");
}

#[test]
fn every_truncation_and_every_flipped_byte_of_an_initiation_is_refused() {
    let client = MachinePrivate::generate(&mut OsRng);
    let server = MachinePrivate::generate(&mut OsRng);
    let (_, bytes) = initiation(&client, &server);
    for len in 0..bytes.len() {
        assert_eq!(
            accept(&server, &Secret::new([9; 32]), &bytes[..len]).err(),
            Some(HandshakeError::Length(len))
        );
    }
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        // Bit 255 of an X25519 key is ignored, so the lowest bit is flipped; here every byte counts.
        damaged[index] ^= 1;
        assert!(accept(&server, &Secret::new([9; 32]), &damaged).is_err(), "byte {index}");
    }
}

#[test]
fn record_nonces_count_big_endian() {
    let (_, accepted, _) = established();
    let mut records = accepted.records;
    let mut frames = Vec::new();
    for _ in 0..3 {
        let mut frame = Vec::new();
        records.seal(b"same", &mut frame).unwrap();
        frames.push(frame);
    }
    assert_ne!(frames[0], frames[1]);
    assert_eq!(frames[0].len(), HEADER_LEN + 4 + TAG_LEN);
}

#[tokio::test]
async fn stream_carries_more_than_one_record_both_ways() {
    let (mut client, accepted, _) = established();
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut stream = NoiseStream::new(near, accepted.records, accepted.response);
    stream.queue(b"early").unwrap();
    let big = vec![5; 10_000];
    stream.write_all(&big).await.unwrap();
    stream.flush().await.unwrap();

    let mut response = [0; 51];
    far.read_exact(&mut response).await.unwrap();
    let mut plain = Vec::new();
    while plain.len() < 10_005 {
        let mut frame = vec![0; HEADER_LEN];
        far.read_exact(&mut frame).await.unwrap();
        let len = usize::from(u16::from_be_bytes([frame[1], frame[2]]));
        frame.resize(HEADER_LEN + len, 0);
        far.read_exact(&mut frame[HEADER_LEN..]).await.unwrap();
        plain.extend_from_slice(client.open(&mut frame).unwrap());
    }
    assert_eq!(&plain[..5], b"early");
    assert_eq!(plain[5..], big[..]);

    let mut frames = Vec::new();
    client.seal(&[], &mut frames).unwrap();
    client.seal(b"hello", &mut frames).unwrap();
    far.write_all(&frames).await.unwrap();
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"hello");
}

#[tokio::test]
async fn damaged_oversized_and_foreign_records_end_the_stream() {
    let cases: [(&str, Vec<u8>); 4] = [
        ("type", vec![3, 0, 20]),
        ("length", vec![TYPE_RECORD, 0x0f, 0xfe]),
        ("shorter than a tag", vec![TYPE_RECORD, 0, 5, 0, 0, 0, 0, 0]),
        ("not authentic", [&[TYPE_RECORD, 0, 20][..], &[0; 20]].concat()),
    ];
    for (what, bytes) in cases {
        let (_, accepted, _) = established();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut stream = NoiseStream::new(near, accepted.records, Vec::new());
        far.write_all(&bytes).await.unwrap();
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{what}");
    }
}
