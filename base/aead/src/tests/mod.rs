//! Every implementation that this machine can run, against vectors, against `ring` and against an independent one.

mod differential;
mod kernels;
mod polynomial;
mod vectors;

use tsrs_lab_vectors::hex;

use crate::*;

/// All implementations, each used whatever the batch.
fn implementations() -> impl Iterator<Item = Implementation> {
    Implementation::all().map(Implementation::always)
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// Text of any length that differs from byte to byte.
fn text(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn damage_in_one_record_leaves_the_others() {
    for implementation in implementations() {
        let key = Key::new(&[7; KEY_LEN], implementation);
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
            assert_eq!(
                records.map(|record| record.done),
                [true, false, true],
                "{implementation:?} {damaged}"
            );
            assert_eq!(buffer[..20], [9; 20]);
            assert_eq!(buffer[2 * record_len..][..20], [9; 20]);
        }
        let (mut buffer, mut records) = fresh();
        records[2].counter = 6;
        key.open(&mut buffer, &mut records);
        assert_eq!(records.map(|record| record.done), [true, true, false]);
    }
}

#[test]
fn the_text_of_a_forged_record_is_not_released() {
    for implementation in implementations() {
        let key = Key::new(&[7; KEY_LEN], implementation);
        for text_len in [1, 16, 63, 64, 200, 1420, 3000] {
            let mut records = [0, 1].map(|at| Record {
                start: at * (text_len + TAG_LEN),
                text_len,
                counter: 5,
                done: false,
            });
            let mut buffer = vec![9; 2 * (text_len + TAG_LEN)];
            key.seal(&mut buffer, &mut records);
            buffer[text_len] ^= 1;
            key.open(&mut buffer, &mut records);
            assert_eq!(records.map(|record| record.done), [false, true]);
            let equal = buffer[..text_len].iter().filter(|byte| **byte == 9).count();
            // Chance alone makes one byte in 256 equal.
            assert!(
                equal <= 1 + text_len / 32,
                "{implementation:?}: {equal} of {text_len} bytes are as they were"
            );
        }
    }
}

#[test]
fn records_outside_the_buffer_are_refused() {
    for implementation in implementations() {
        let key = Key::new(&[7; KEY_LEN], implementation);
        let mut buffer = [0; 40];
        for (start, text_len) in
            [(41, 0), (24, 1), (0, 25), (usize::MAX, 1), (1, usize::MAX), (0, usize::MAX - 8)]
        {
            let mut records = [Record { start, text_len, counter: 0, done: true }];
            key.seal(&mut buffer, &mut records);
            assert!(!records[0].done, "{implementation:?} {start} {text_len}");
            records[0].done = true;
            key.open(&mut buffer, &mut records);
            assert!(!records[0].done, "{implementation:?} {start} {text_len}");
        }
        assert_eq!(buffer, [0; 40]);
        key.seal(&mut buffer, &mut []);
        key.open(&mut buffer, &mut []);
    }
}

#[test]
fn all_implementations_have_names_of_their_own_and_ring_is_the_last() {
    let names: Vec<_> = Implementation::all().map(Implementation::name).collect();
    assert_eq!(names.last(), Some(&"ring"));
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
    assert_eq!(Implementation::fastest().name(), names[0]);
}

#[test]
fn debug_shows_no_key() {
    assert_eq!(format!("{:?}", Key::new(&[0x41; KEY_LEN], Implementation::fastest())), "Key([redacted])");
}
