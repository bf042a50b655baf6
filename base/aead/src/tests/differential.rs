//! Every implementation against `ring`, and against RustCrypto's.

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use rand_core::RngCore;
use tsrs_lab_vectors::SeededRng;

use super::*;

/// Longest text that is tried alone, in every length.
const MAX_TEXT_LEN: usize = 2100;
/// Batches of random shape.
const BATCH_COUNT: usize = 600;
/// More than a group, and than a run.
const MAX_BATCH: usize = 70;

/// A batch and the buffer that it lies in.
#[derive(Clone)]
struct Batch {
    raw: [u8; KEY_LEN],
    buffer: Vec<u8>,
    records: Vec<Record>,
}

impl Batch {
    /// Texts of these lengths with gaps before them, all filled by the generator.
    fn new(rng: &mut SeededRng, text_lens: &[usize]) -> Self {
        let mut raw = [0; KEY_LEN];
        rng.fill_bytes(&mut raw);
        let mut records = Vec::new();
        let mut end = 0;
        for text_len in text_lens {
            let start = end + below(rng, 40);
            records.push(Record { start, text_len: *text_len, counter: rng.next_u64(), done: false });
            end = start + text_len + TAG_LEN;
        }
        let mut buffer = vec![0; end + below(rng, 40)];
        rng.fill_bytes(&mut buffer);
        Self { raw, buffer, records }
    }

    fn sealed(mut self, implementation: Implementation) -> Self {
        Key::new(&self.raw, implementation).seal(&mut self.buffer, &mut self.records);
        self
    }

    fn opened(mut self, implementation: Implementation) -> Self {
        Key::new(&self.raw, implementation).open(&mut self.buffer, &mut self.records);
        self
    }
}

fn below(rng: &mut SeededRng, limit: usize) -> usize {
    usize::try_from(rng.next_u64() % u64::try_from(limit).unwrap()).unwrap()
}

/// All seal to the same bytes, in the same places and nowhere else, and open what was sealed.
fn assert_all_agree(plain: &Batch) {
    let expected = plain.clone().sealed(Implementation::RING);
    assert!(expected.records.iter().all(|record| record.done));
    for implementation in implementations() {
        let sealed = plain.clone().sealed(implementation);
        assert_eq!(sealed.records, expected.records, "{implementation:?}");
        for record in &sealed.records {
            let range = record.range(sealed.buffer.len()).unwrap();
            assert_eq!(sealed.buffer[range.clone()], expected.buffer[range], "{implementation:?} {record:?}");
        }
        assert!(sealed.buffer == expected.buffer, "{implementation:?} wrote beside the records");
        let opened = sealed.opened(implementation);
        for (record, before) in opened.records.iter().zip(&plain.records) {
            assert!(record.done, "{implementation:?} {record:?}");
            let text = record.start..record.start + record.text_len;
            assert_eq!(opened.buffer[text.clone()], plain.buffer[text], "{implementation:?} {before:?}");
        }
    }
}

#[test]
fn texts_of_every_length_agree_with_ring() {
    let mut rng = SeededRng(1);
    for text_len in 0..=MAX_TEXT_LEN {
        assert_all_agree(&Batch::new(&mut rng, &[text_len]));
    }
}

#[test]
fn even_batches_of_every_size_agree_with_ring() {
    let mut rng = SeededRng(2);
    for count in 1..=MAX_BATCH {
        for text_len in [0, 16, 63, 64, 96, 128, 1280, 1420] {
            assert_all_agree(&Batch::new(&mut rng, &vec![text_len; count]));
            // As a run of segments ends.
            let mut run = vec![text_len; count];
            run[count - 1] = text_len / 3;
            assert_all_agree(&Batch::new(&mut rng, &run));
        }
    }
}

#[test]
fn batches_of_all_shapes_agree_with_ring() {
    let mut rng = SeededRng(3);
    for _ in 0..BATCH_COUNT {
        let most = [20, 100, 600, 2000][below(&mut rng, 4)];
        let count = 1 + below(&mut rng, MAX_BATCH);
        let text_lens: Vec<_> = (0..count).map(|_| below(&mut rng, most)).collect();
        assert_all_agree(&Batch::new(&mut rng, &text_lens));
    }
}

#[test]
fn a_long_text_agrees_with_ring() {
    let mut rng = SeededRng(4);
    assert_all_agree(&Batch::new(&mut rng, &[65_000]));
    assert_all_agree(&Batch::new(&mut rng, &[9_000, 0, 300_000, 9_000]));
}

#[test]
fn damage_of_any_bit_is_found_in_any_batch() {
    let mut rng = SeededRng(5);
    for _ in 0..BATCH_COUNT {
        let count = 1 + below(&mut rng, 20);
        let text_lens: Vec<_> = (0..count).map(|_| below(&mut rng, 300)).collect();
        let mut sealed = Batch::new(&mut rng, &text_lens).sealed(Implementation::RING);
        let mut damaged = vec![false; count];
        for _ in 0..1 + below(&mut rng, 4) {
            let victim = below(&mut rng, count);
            let record = &mut sealed.records[victim];
            if below(&mut rng, 8) == 0 {
                record.counter ^= 1 << below(&mut rng, 64);
            } else {
                let at = record.start + below(&mut rng, record.text_len + TAG_LEN);
                sealed.buffer[at] ^= 1 << below(&mut rng, 8);
            }
            damaged[victim] = true;
        }
        // Two changes may have undone each other: `ring` says which records are damaged.
        let expected = sealed.clone().opened(Implementation::RING);
        for implementation in implementations() {
            let opened = sealed.clone().opened(implementation);
            assert_eq!(opened.records, expected.records, "{implementation:?}");
            for record in opened.records.iter().filter(|record| record.done) {
                let range = record.start..record.start + record.text_len;
                assert_eq!(opened.buffer[range.clone()], expected.buffer[range]);
            }
        }
        for (record, damaged) in expected.records.iter().zip(damaged) {
            assert!(record.done || damaged);
        }
    }
}

#[test]
fn records_that_overlap_or_go_back_are_worked_on_one_after_the_other() {
    let mut rng = SeededRng(6);
    for _ in 0..BATCH_COUNT {
        let count = 2 + below(&mut rng, 20);
        let mut batch = Batch::new(&mut rng, &vec![50; count]);
        for record in &mut batch.records {
            match below(&mut rng, 4) {
                0 => record.start = below(&mut rng, batch.buffer.len() + 20),
                1 => record.text_len = below(&mut rng, batch.buffer.len()),
                2 => record.start = usize::MAX - below(&mut rng, 100),
                _ => {}
            }
        }
        let expected = batch.clone().sealed(Implementation::RING);
        let expected_opened = expected.clone().opened(Implementation::RING);
        for implementation in implementations() {
            let sealed = batch.clone().sealed(implementation);
            assert_eq!(sealed.records, expected.records, "{implementation:?}");
            assert!(sealed.buffer == expected.buffer, "{implementation:?}");
            assert_eq!(sealed.opened(implementation).records, expected_opened.records, "{implementation:?}");
        }
    }
}

#[test]
fn a_batch_equals_an_independent_implementation_record_by_record() {
    let raw = [0x42; KEY_LEN];
    let oracle = ChaCha20Poly1305::new(&raw.into());
    for implementation in implementations() {
        let key = Key::new(&raw, implementation);
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
    }
}
