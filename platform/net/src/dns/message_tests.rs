use super::*;

const ID: u16 = 0x1234;
const NAME: &str = "Control.Example.Test";

/// A response to the query for `NAME`, with `records` as answers.
fn response(flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
    let mut message = query(ID, NAME).unwrap();
    message[2..4].copy_from_slice(&(FLAG_RESPONSE | flags).to_be_bytes());
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message.extend_from_slice(records);
    message
}

/// A record: owner as wire bytes, type, ttl, data.
fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = owner.to_vec();
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&ttl.to_be_bytes());
    out.extend_from_slice(&u16::try_from(data.len()).unwrap().to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// The pointer to the question's name.
const QUESTION: [u8; 2] = [0xc0, 12];

#[test]
fn a_query_is_laid_out_as_rfc_1035_says() {
    let mut expected = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(b"\x07Control\x07Example\x04Test\0\0\x01\0\x01");
    assert_eq!(query(ID, NAME).unwrap(), expected);
    assert_eq!(query(ID, "control.example.test.").unwrap().len(), expected.len());
}

#[test]
fn texts_that_are_no_host_names_are_not_asked() {
    let long_label = "a".repeat(64);
    let long_name = "a.".repeat(127) + "a";
    for name in ["", ".", "a..b", "a b", "münchen.test", &long_label, &long_name] {
        assert_eq!(query(ID, name), None, "{name:?}");
    }
}

#[test]
fn addresses_are_found_behind_aliases() {
    let target = *b"\x04edge\x04Test\0";
    let records = [
        record(&target, TYPE_A, 60, &[192, 0, 2, 2]),
        record(&QUESTION, TYPE_CNAME, 30, &target),
        record(b"\x05other\0", TYPE_A, 1, &[192, 0, 2, 9]),
        record(&target, TYPE_A, 60, &[192, 0, 2, 1]),
    ]
    .concat();
    let expected = Answer::Addresses(
        vec![Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1)],
        Duration::from_secs(30),
    );
    assert_eq!(answer(&response(0, 4, &records), ID, NAME), Some(expected));
}

#[test]
fn other_outcomes_are_told_apart() {
    assert_eq!(answer(&response(3, 0, &[]), ID, NAME), Some(Answer::None));
    assert_eq!(answer(&response(2, 0, &[]), ID, NAME), Some(Answer::Refused(2)));
    assert_eq!(answer(&response(FLAG_TRUNCATED, 0, &[]), ID, NAME), Some(Answer::Truncated));
    assert_eq!(answer(&response(0, 0, &[]), ID, NAME), Some(Answer::None));
    assert_eq!(answer(&response(0, 0, &[]), ID + 1, NAME), None, "another id");
    assert_eq!(answer(&response(0, 0, &[]), ID, "other.test"), None, "another question");
    assert_eq!(answer(&query(ID, NAME).unwrap(), ID, NAME), None, "a query, not a response");
}

#[test]
fn loops_and_truncations_end() {
    let self_alias = record(&QUESTION, TYPE_CNAME, 30, &QUESTION);
    assert_eq!(answer(&response(0, 1, &self_alias), ID, NAME), Some(Answer::None));

    let message = response(0, 1, &record(&QUESTION, TYPE_A, 60, &[192, 0, 2, 2]));
    for len in 0..message.len() {
        assert_eq!(answer(&message[..len], ID, NAME), None, "{len}");
    }
    // A pointer at its own place, a forward pointer, and a reserved label type.
    for bad in [[0xc0, 38], [0xc0, 60], [0x80, 0]] {
        let message = response(0, 1, &record(&bad, TYPE_A, 60, &[192, 0, 2, 2]));
        assert_eq!(answer(&message, ID, NAME), None);
    }
    let short_address = response(0, 1, &record(&QUESTION, TYPE_A, 60, &[192, 0, 2]));
    assert_eq!(answer(&short_address, ID, NAME), None);
}
