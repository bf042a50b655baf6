//! The client against an in-memory server, and every way in which frames can be wrong.

use rand_core::OsRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tsrs_base_noise::Split;
use tsrs_base_types::MachinePrivate;
use zeroize::Zeroizing;

use super::test_server::{Accepted, accept};
use super::*;

const VERSION: u16 = 119;

fn keys() -> (MachinePrivate, MachinePrivate) {
    (MachinePrivate::generate(&mut OsRng), MachinePrivate::generate(&mut OsRng))
}

fn begin() -> (Initiated, Accepted) {
    let (client_key, server_key) = keys();
    let (initiated, message) = initiate(&client_key, &server_key.public(), VERSION, &mut OsRng).unwrap();
    let accepted = accept(&server_key, &message).unwrap();
    assert_eq!((accepted.client, accepted.version), (client_key.public(), VERSION));
    (initiated, accepted)
}

/// Both ends after a handshake. The server's end is given as keys and a raw stream.
async fn pair(buffer: usize) -> (NoiseStream<DuplexStream>, DuplexStream, Split) {
    let (initiated, accepted) = begin();
    let split = initiated.finish(&mut &accepted.response[..]).await.unwrap();
    let (near, far) = duplex(buffer);
    let client = NoiseStream::new(near, &split.initiator_to_responder, &split.responder_to_initiator);
    (client, far, accepted.split)
}

#[tokio::test]
async fn both_sides_agree_and_bytes_go_both_ways() {
    let (initiated, accepted) = begin();
    let split = initiated.finish(&mut &accepted.response[..]).await.unwrap();
    assert_eq!(split.handshake_hash, accepted.split.handshake_hash);

    for buffer in [1, 7, 4096, 1 << 20] {
        let (mut client, far, split) = pair(buffer).await;
        let mut server = NoiseStream::new(far, &split.responder_to_initiator, &split.initiator_to_responder);
        let sent: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let sent = if buffer < 10 { &sent[..20_000] } else { &sent[..] };
        let echo = async {
            let mut got = vec![0; sent.len()];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&got).await.unwrap();
            server.shutdown().await.unwrap();
        };
        let exchange = async {
            client.write_all(sent).await.unwrap();
            client.flush().await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert!(got == sent);
        };
        tokio::join!(echo, exchange);
    }
}

#[test]
fn the_nonce_counts_big_endian() {
    let key = Zeroizing::new([9; 32]);
    let mut sealer = Sealer::new(&key);
    let mut out = Vec::new();
    sealer.set_counter(0x0102);
    sealer.seal(b"x", &mut out).unwrap();
    let expected = {
        use chacha20poly1305::aead::{Aead, KeyInit};
        let cipher = chacha20poly1305::ChaCha20Poly1305::new((&[9; 32]).into());
        cipher.encrypt(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2].into(), b"x".as_slice()).unwrap()
    };
    assert_eq!(out[..3], [TYPE_RECORD, 0, 17]);
    assert_eq!(out[3..], expected);
    sealer.set_counter(u64::MAX);
    assert_eq!(sealer.seal(b"x", &mut out), Err(RecordError::Exhausted));
}

#[test]
fn a_record_holds_what_fits_into_4096_bytes() {
    let mut sealer = Sealer::new(&Zeroizing::new([9; 32]));
    let mut out = Vec::new();
    assert_eq!(sealer.seal(&[0; 5000], &mut out), Ok(MAX_PLAINTEXT_LEN));
    assert_eq!((out.len(), MAX_PLAINTEXT_LEN, MAX_CIPHERTEXT_LEN), (4096, 4077, 4093));
    assert_eq!(Opener::ciphertext_len([4, 0x0f, 0xfd]), Ok(4093));
}

#[test]
fn headers_that_are_no_record_are_refused() {
    for (header, error) in [
        ([4, 0x0f, 0xfe], RecordError::Length(4094)),
        ([4, 0xff, 0xff], RecordError::Length(65535)),
        ([4, 0, 15], RecordError::Length(15)),
        ([4, 0, 0], RecordError::Length(0)),
        ([1, 0, 96], RecordError::Type(1)),
        ([2, 0, 48], RecordError::Type(2)),
        ([3, 0, 16], RecordError::Type(3)),
        ([0, 0, 16], RecordError::Type(0)),
    ] {
        assert_eq!(Opener::ciphertext_len(header), Err(error));
    }
}

#[tokio::test]
async fn empty_records_are_skipped() {
    let (mut client, mut far, split) = pair(1 << 16).await;
    let mut sealer = Sealer::new(&split.responder_to_initiator);
    let mut bytes = Vec::new();
    for plain in [b"".as_slice(), b"a", b"", b"", b"bc", b""] {
        sealer.seal(plain, &mut bytes).unwrap();
    }
    far.write_all(&bytes).await.unwrap();
    drop(far);
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "abc");
}

#[tokio::test]
async fn a_stream_that_ends_within_a_record_is_an_error_at_every_length() {
    let (mut sealer, mut bytes) = (None, Vec::new());
    for len in 0..=20 {
        let (mut client, mut far, split) = pair(1 << 16).await;
        bytes.clear();
        sealer.insert(Sealer::new(&split.responder_to_initiator)).seal(b"a", &mut bytes).unwrap();
        assert_eq!(bytes.len(), 20);
        far.write_all(&bytes[..len]).await.unwrap();
        drop(far);
        let outcome = client.read_to_end(&mut Vec::new()).await;
        assert_eq!(outcome.is_ok(), len == 0 || len == 20, "{len}");
    }
}

#[tokio::test]
async fn damage_and_replay_end_the_connection_for_good() {
    for damage in 0..20 {
        let (mut client, mut far, split) = pair(1 << 16).await;
        let mut sealer = Sealer::new(&split.responder_to_initiator);
        let (mut bad, mut good) = (Vec::new(), Vec::new());
        sealer.seal(b"a", &mut bad).unwrap();
        sealer.seal(b"b", &mut good).unwrap();
        bad[damage] ^= 0x10;
        far.write_all(&bad).await.unwrap();
        far.write_all(&good).await.unwrap();
        drop(far);
        let mut got = Vec::new();
        assert!(client.read_to_end(&mut got).await.is_err(), "{damage}");
        assert!(client.read_to_end(&mut got).await.is_err(), "{damage}");
        assert!(got.is_empty());
    }
    let (mut client, mut far, split) = pair(1 << 16).await;
    let mut once = Vec::new();
    Sealer::new(&split.responder_to_initiator).seal(b"a", &mut once).unwrap();
    far.write_all(&[once.clone(), once].concat()).await.unwrap();
    let mut buffer = [0; 8];
    assert_eq!(client.read(&mut buffer).await.unwrap(), 1);
    assert!(client.read(&mut buffer).await.is_err());
    assert!(client.write(b"x").await.is_err(), "what cannot be read cannot be answered");
}

#[tokio::test]
async fn a_truncated_or_damaged_response_is_refused() {
    for len in 0..51 {
        let (initiated, accepted) = begin();
        let outcome = initiated.finish(&mut &accepted.response[..len]).await;
        assert!(matches!(outcome, Err(HandshakeError::Closed)), "{len}");
    }
    for at in 0..51 {
        let (initiated, mut accepted) = begin();
        accepted.response[at] ^= 1;
        assert!(initiated.finish(&mut &accepted.response[..]).await.is_err(), "{at}");
    }
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let (client_key, server_key) = keys();
    let (_, other_key) = keys();
    let (initiated, message) = initiate(&client_key, &server_key.public(), VERSION, &mut OsRng).unwrap();
    assert!(accept(&other_key, &message).is_none());
    let (_, theirs) = begin();
    assert!(matches!(initiated.finish(&mut &theirs.response[..]).await, Err(HandshakeError::Noise(_))));
}

#[tokio::test]
async fn an_error_frame_is_kept_short_and_printed_safely() {
    let text = "no\n".repeat(1000);
    let frame =
        [&[TYPE_ERROR], &u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let (initiated, _) = begin();
    let error = initiated.finish(&mut &frame[..]).await.err().unwrap();
    let HandshakeError::Refused(kept) = &error else { panic!("{error}") };
    assert_eq!(kept.len(), MAX_ERROR_LEN);
    assert!(!error.to_string().contains('\n'), "line breaks of a stranger are escaped");
    let (initiated, _) = begin();
    assert!(matches!(initiated.finish(&mut &[TYPE_ERROR, 0, 0][..]).await, Err(HandshakeError::Refused(_))));
}
