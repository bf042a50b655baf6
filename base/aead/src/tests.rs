//! RFC 8439, the reference's data packets, an independent implementation, and damage.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use tsrs_lab_vectors::{hex, json};

use crate::*;

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// Text of any length that differs from byte to byte.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn rfc_8439_section_2_8_2_and_appendix_a_5() {
    let sealed_then_opened = |key: &str, nonce: &str, aad: &str, plain: &[u8], sealed: &str| {
        let key = Key::new(&array(key));
        let mut buffer = plain.to_vec();
        let tag = key.seal_in_place(array(nonce), &hex(aad), &mut buffer).unwrap();
        buffer.extend_from_slice(&tag);
        assert_eq!(buffer, hex(sealed));
        key.open_in_place(array(nonce), &hex(aad), &mut buffer).unwrap();
        assert_eq!(&buffer[..plain.len()], plain);
    };
    sealed_then_opened(
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
          sunscreen would be it.",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
         1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
         3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    );
    sealed_then_opened(
        "1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0",
        "000000000102030405060708",
        "f33388860000000000004e91",
        "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, replaced, \
         or obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference \
         material or to cite them other than as /\u{201c}work in progress./\u{201d}"
            .as_bytes(),
        "64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0\
         bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855\
         9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e9\
         9040c5a40433225ee282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a\
         0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d91d361094fa68f0ff77987130\
         305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709beead9d67890cbb22392336fea1851f38",
    );
}

#[test]
fn data_packets_of_the_reference_agree() {
    for case in json("wire/wireguard.json")["cases"].as_array().unwrap() {
        let key = Key::new(&array(case["key_initiator_to_responder"].as_str().unwrap()));
        for packet in case["transport_initiator_to_responder"].as_array().unwrap() {
            let plain = hex(packet["plain"].as_str().unwrap());
            let wire = hex(packet["packet"].as_str().unwrap());
            let mut records = [Record {
                start: 16,
                text_len: plain.len(),
                counter: packet["counter"].as_u64().unwrap(),
                done: false,
            }];
            let mut buffer = wire[..16].to_vec();
            buffer.extend_from_slice(&plain);
            buffer.resize(wire.len(), 0);
            key.seal(&mut buffer, &mut records);
            assert!(records[0].done);
            assert_eq!(buffer, wire);
            key.open(&mut buffer, &mut records);
            assert!(records[0].done);
            assert_eq!(buffer[16..16 + plain.len()], plain);
        }
    }
}

#[test]
fn a_batch_equals_an_independent_implementation_record_by_record() {
    let raw = [0x42; KEY_LEN];
    let (key, oracle) = (Key::new(&raw), ChaCha20Poly1305::new(&raw.into()));
    let mut buffer = Vec::new();
    let mut records = Vec::new();
    for (len, counter) in
        [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 1280, 1420, 9000].into_iter().zip(u64::MAX - 20..)
    {
        records.push(Record { start: buffer.len(), text_len: len, counter, done: false });
        buffer.extend_from_slice(&text(len));
        buffer.extend_from_slice(&[0; TAG_LEN]);
    }
    key.seal(&mut buffer, &mut records);
    for record in &records {
        assert!(record.done);
        let mut expected = text(record.text_len);
        let tag =
            oracle.encrypt_in_place_detached(&nonce(record.counter).into(), &[], &mut expected).unwrap();
        let text_end = record.start + record.text_len;
        assert_eq!(buffer[record.start..text_end], expected);
        assert_eq!(buffer[text_end..text_end + TAG_LEN], *tag);
    }
    key.open(&mut buffer, &mut records);
    for record in &records {
        assert!(record.done);
        assert_eq!(buffer[record.start..record.start + record.text_len], text(record.text_len));
    }
}

#[test]
fn damage_in_one_record_leaves_the_others() {
    let key = Key::new(&[7; KEY_LEN]);
    let record_len = 20 + TAG_LEN;
    let fresh = || {
        let records =
            [0, 1, 2].map(|at| Record { start: at * record_len, text_len: 20, counter: 5, done: false });
        let mut buffer = vec![9; 3 * record_len];
        let mut sealing = records;
        key.seal(&mut buffer, &mut sealing);
        (buffer, records)
    };
    for damaged in record_len..2 * record_len {
        let (mut buffer, mut records) = fresh();
        buffer[damaged] ^= 0x10;
        key.open(&mut buffer, &mut records);
        assert_eq!(records.map(|record| record.done), [true, false, true], "{damaged}");
    }
    let (mut buffer, mut records) = fresh();
    records[2].counter = 6;
    key.open(&mut buffer, &mut records);
    assert_eq!(records.map(|record| record.done), [true, true, false]);
}

#[test]
fn records_outside_the_buffer_are_refused() {
    let key = Key::new(&[7; KEY_LEN]);
    let mut buffer = [0; 40];
    for (start, text_len) in
        [(41, 0), (24, 1), (0, 25), (usize::MAX, 1), (1, usize::MAX), (0, usize::MAX - 8)]
    {
        let mut records = [Record { start, text_len, counter: 0, done: true }];
        key.seal(&mut buffer, &mut records);
        assert!(!records[0].done, "{start} {text_len}");
        records[0].done = true;
        key.open(&mut buffer, &mut records);
        assert!(!records[0].done, "{start} {text_len}");
    }
    assert_eq!(buffer, [0; 40]);
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", Key::new(&[0x41; KEY_LEN])), "Key([redacted])");
}
