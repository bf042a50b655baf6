//! Records of one key, side by side.
//!
//! Up to [`LANES`] records make a group. The blocks of keystream that a group needs stand in one line: first the one of each record
//! that its key for Poly1305 is taken from, then those of the texts. The line is cut into passes of [`LANES`] blocks, so that
//! lanes are left over in the last pass only.

use subtle::ConstantTimeEq;

use crate::one_time::OneTimeKey;
use crate::sys::{LANES, Message, Rows, Simd, Span, Tails};
use crate::{Record, TAG_LEN};

/// Bytes of a block of keystream.
const BLOCK_LEN: usize = 64;

/// What is done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Seal,
    Open,
}

/// Whether the records that lie in the buffer follow one another without overlap: only then may they be worked on together.
pub(crate) fn is_in_order(buffer_len: usize, records: &[Record]) -> bool {
    let mut free = 0;
    records.iter().filter_map(|record| record.range(buffer_len)).all(|range| {
        let follows = range.start >= free;
        free = range.end;
        follows
    })
}

/// Seals or opens records that are in order.
pub(crate) fn run(
    simd: Simd,
    key: &[u32; 8],
    direction: Direction,
    buffer: &mut [u8],
    records: &mut [Record],
) {
    let mut rows = Rows::default();
    for group in records.chunks_mut(LANES) {
        for record in &mut *group {
            record.done = record.range(buffer.len()).is_some();
        }
        run_group(simd, key, direction, buffer, group, &mut rows);
    }
}

fn run_group(
    simd: Simd,
    key: &[u32; 8],
    direction: Direction,
    buffer: &mut [u8],
    group: &mut [Record],
    rows: &mut Rows,
) {
    let mut pass = Pass::default();
    for (index, record) in group.iter().enumerate() {
        pass.push_key(index, record);
    }
    let mut texts = Texts::default();
    texts.fill(group, &mut pass);
    simd.keystream(key, &pass.tails, pass.used, rows);
    let mut keys: [OneTimeKey; LANES] = Default::default();
    for (key, row) in keys.iter_mut().zip(&rows.0).take(group.len()) {
        *key = OneTimeKey::new(row);
    }
    if direction == Direction::Open {
        // What does not authenticate is not decrypted: from here on it is passed over.
        let tags = tags(simd, buffer, group, &keys);
        for (record, tag) in group.iter_mut().zip(&tags) {
            let text_end = record.start.saturating_add(record.text_len);
            let sent = buffer.get(text_end..).and_then(<[u8]>::first_chunk::<TAG_LEN>);
            record.done &= sent.is_some_and(|sent| sent.ct_eq(tag).into());
        }
        pass.forget(|index| !group[index].done);
    }
    while pass.used > 0 {
        simd.xor(buffer, &pass.spans[..pass.used], &rows.0);
        pass.used = 0;
        texts.fill(group, &mut pass);
        if pass.used > 0 {
            simd.keystream(key, &pass.tails, pass.used, rows);
        }
    }
    if direction == Direction::Seal {
        let tags = tags(simd, buffer, group, &keys);
        for (record, tag) in group.iter().zip(tags).filter(|(record, _)| record.done) {
            let text_end = record.start + record.text_len;
            buffer[text_end..text_end + TAG_LEN].copy_from_slice(&tag);
        }
    }
}

fn tags(simd: Simd, buffer: &[u8], group: &[Record], keys: &[OneTimeKey; LANES]) -> [[u8; TAG_LEN]; LANES] {
    let mut messages = [Message::default(); LANES];
    for (message, record) in messages.iter_mut().zip(group).filter(|(_, record)| record.done) {
        let len = record.text_len;
        *message = Message { start: record.start, len, lengths: [0, u64::try_from(len).unwrap_or(u64::MAX)] };
    }
    simd.tags(buffer, &messages[..group.len()], keys)
}

/// Blocks of keystream that are made together.
#[derive(Default)]
struct Pass {
    used: usize,
    tails: Tails,
    /// What each block is for; empty if it is not added to a text.
    spans: [Span; LANES],
    /// The record in the group that it is for.
    owners: [usize; LANES],
}

impl Pass {
    /// Adds the block that the record's key for Poly1305 is taken from. There must be room.
    fn push_key(&mut self, owner: usize, record: &Record) {
        self.spans[self.used] = Span::default();
        self.push(owner, record, 0, 1);
    }

    /// Adds the blocks for `len` bytes of the record's text that stand behind `before` others. There must be room.
    fn push_text(&mut self, owner: usize, record: &Record, before: usize, len: usize) {
        let count = len.div_ceil(BLOCK_LEN);
        for (span, at) in self.spans[self.used..].iter_mut().zip((0..len).step_by(BLOCK_LEN)) {
            *span = Span { start: record.start + before + at, len: (len - at).min(BLOCK_LEN) };
        }
        // The first block of the keystream is not for the text; no buffer holds 2^32.
        let block = u32::try_from(before / BLOCK_LEN + 1).unwrap_or(u32::MAX);
        self.push(owner, record, block, count);
    }

    fn push(&mut self, owner: usize, record: &Record, block: u32, count: usize) {
        let lanes = self.used..self.used + count;
        let [blocks, zeros, low, high] = &mut self.tails;
        for (lane, block) in blocks[lanes.clone()].iter_mut().zip(block..) {
            *lane = block;
        }
        // The nonce is four zero bytes and the counter.
        zeros[lanes.clone()].fill(0);
        low[lanes.clone()].fill(low_word(record.counter));
        high[lanes.clone()].fill(low_word(record.counter >> 32));
        self.owners[lanes.clone()].fill(owner);
        self.used = lanes.end;
    }

    fn forget(&mut self, unwanted: impl Fn(usize) -> bool) {
        for (span, owner) in self.spans.iter_mut().zip(self.owners).take(self.used) {
            if unwanted(owner) {
                span.len = 0;
            }
        }
    }
}

/// What follows of the texts in the line.
#[derive(Default)]
struct Texts {
    record: usize,
    /// Bytes of its text before.
    before: usize,
}

impl Texts {
    /// Fills what is left of a pass.
    fn fill(&mut self, group: &[Record], pass: &mut Pass) {
        while let Some(record) = group.get(self.record) {
            if record.done {
                let len = (record.text_len - self.before).min((LANES - pass.used) * BLOCK_LEN);
                pass.push_text(self.record, record, self.before, len);
                self.before += len;
                if self.before < record.text_len {
                    return;
                }
            }
            self.record += 1;
            self.before = 0;
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low word is what is wanted")]
const fn low_word(wide: u64) -> u32 {
    wide as u32
}
