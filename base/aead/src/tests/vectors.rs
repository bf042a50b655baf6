//! RFC 8439, Wycheproof, and the reference's data packets.

use tsrs_lab_vectors::json;

use super::kernels::{self, Inputs};
use super::*;
use crate::sys::Simd;

/// Every implementation makes `sealed` of `plain`, and `plain` of `sealed` if that is `valid`.
fn assert_case(inputs: &Inputs<'_>, plain: &[u8], sealed: &[u8], valid: bool, name: &str) {
    for simd in Simd::detect() {
        assert_eq!(
            kernels::open(simd, inputs, sealed),
            valid.then(|| plain.to_vec()),
            "{name} {}",
            simd.name()
        );
        assert_eq!(kernels::seal(simd, inputs, plain) == sealed, valid, "{name} {}", simd.name());
    }
    let key = Key::new(&inputs.key, Implementation::RING);
    let mut buffer = plain.to_vec();
    let tag = key.seal_in_place(inputs.nonce, inputs.aad, &mut buffer).unwrap();
    buffer.extend_from_slice(&tag);
    assert_eq!(buffer == sealed, valid, "{name} ring");
    let mut buffer = sealed.to_vec();
    let opened = key.open_in_place(inputs.nonce, inputs.aad, &mut buffer);
    assert_eq!(opened.map(|()| &buffer[..plain.len()]), valid.then_some(plain), "{name} ring");
    // Where the case is one of ours, through the face, too.
    let ([0, 0, 0, 0, counter @ ..], []) = (inputs.nonce, inputs.aad) else { return };
    for implementation in implementations() {
        let mut records =
            [Record { start: 0, text_len: plain.len(), counter: u64::from_le_bytes(counter), done: false }];
        let mut buffer = sealed.to_vec();
        Key::new(&inputs.key, implementation).open(&mut buffer, &mut records);
        assert_eq!(records[0].done, valid, "{name} {implementation:?}");
    }
}

#[test]
fn rfc_8439_section_2_8_2_and_appendix_a_5() {
    let assert = |key: &str, nonce: &str, aad: &str, plain: &[u8], sealed: &str| {
        let inputs = Inputs { key: array(key), nonce: array(nonce), aad: &hex(aad) };
        assert_case(&inputs, plain, &hex(sealed), true, "RFC 8439");
    };
    assert(
        "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
        "070000004041424344454647",
        "50515253c0c1c2c3c4c5c6c7",
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
          sunscreen would be it.",
        "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b\
         1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc\
         3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691",
    );
    assert(
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
fn wycheproof() {
    let file = json("aead/chacha20-poly1305.json");
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(Some(cases.len()), file["count"].as_u64().and_then(|count| count.try_into().ok()));
    for case in cases {
        let bytes = |name: &str| hex(case[name].as_str().unwrap());
        let inputs = Inputs {
            key: bytes("key").try_into().unwrap(),
            nonce: bytes("nonce").try_into().unwrap(),
            aad: &bytes("aad"),
        };
        let valid = case["valid"].as_bool().unwrap();
        assert_case(&inputs, &bytes("plain"), &bytes("sealed"), valid, &format!("case {}", case["id"]));
    }
}

#[test]
fn data_packets_of_the_reference_agree() {
    for case in json("wire/wireguard.json")["cases"].as_array().unwrap() {
        for implementation in implementations() {
            let key = Key::new(&array(case["key_initiator_to_responder"].as_str().unwrap()), implementation);
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
}
