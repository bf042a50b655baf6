//! Batches of data packets in any layout.

use tsrs_base_aead::{Implementation, KEY_LEN, Key, Record};

use crate::input::Input;

/// Bytes of the buffer: room for ten of the longest texts.
const BUFFER_LEN: usize = 20_480;

/// Every implementation does with a batch what `ring` does, whatever the places and lengths of its records; and opens no more of what
/// was changed.
pub fn batch(data: &[u8]) {
    let mut input = Input::new(data);
    let raw: [u8; KEY_LEN] = input.array();
    let (changed_at, change) = (usize::from(u16::from_le_bytes(input.array())), input.byte());
    let mut records = Vec::new();
    let mut free = 0;
    for (kind, layout) in input.records() {
        let number = |at: usize| layout.get(at).copied().map_or(0, usize::from);
        // Mostly in order, as batches are; with the high bit set anywhere.
        let gap = usize::from(kind & 0x1f);
        let start = if kind & 0x80 == 0 { free + gap } else { number(2) << 5 | gap };
        let text_len = number(0) << (kind >> 5 & 3) | number(1);
        records.push(Record { start, text_len, counter: u64::from(kind), done: false });
        free = start + text_len + 16;
    }
    let plain: Vec<u8> = data.iter().copied().chain([0x5a]).cycle().take(BUFFER_LEN).collect();

    let ring = Key::new(&raw, Implementation::RING);
    let (mut sealed, mut sealed_records) = (plain.clone(), records.clone());
    ring.seal(&mut sealed, &mut sealed_records);
    let (mut opened, mut opened_records) = (changed(&sealed, changed_at, change), records.clone());
    ring.open(&mut opened, &mut opened_records);
    for implementation in Implementation::all().map(Implementation::always) {
        let key = Key::new(&raw, implementation);
        let (mut buffer, mut batch) = (plain.clone(), records.clone());
        key.seal(&mut buffer, &mut batch);
        assert_eq!(batch, sealed_records, "{implementation:?}");
        assert!(buffer == sealed, "{implementation:?} seals to other bytes");
        let (mut buffer, mut batch) = (changed(&sealed, changed_at, change), records.clone());
        key.open(&mut buffer, &mut batch);
        assert_eq!(batch, opened_records, "{implementation:?}");
        for record in batch.iter().filter(|record| record.done) {
            let text = record.start..record.start + record.text_len;
            assert!(buffer[text.clone()] == opened[text], "{implementation:?} opens to other bytes");
        }
    }
}

fn changed(sealed: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut changed = sealed.to_vec();
    if let Some(byte) = changed.get_mut(at) {
        *byte ^= mask;
    }
    changed
}
