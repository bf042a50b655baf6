//! Records of one key, side by side.
//!
//! Up to [`LANES`] records make a group. The blocks of keystream that a group needs stand in one line: first the one of each record
//! that its key for Poly1305 is taken from, then those of the texts. The line is cut into passes of [`LANES`] blocks, so that
//! lanes are left over in the last pass only.

use subtle::ConstantTimeEq;

use crate::one_time::OneTimeKey;
use crate::sys::{LANES, Message, Piece, Rows, Simd, Tails};
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
    for record in &*group {
        pass.push_key(record);
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
        simd.xor(buffer, pass.pieces(), &rows.0);
        pass.clear();
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
    /// Which texts the blocks are added to, and how many pieces of texts there are.
    pieces: [Piece; LANES],
    piece_count: usize,
    /// The record in the group that each piece belongs to.
    owners: [usize; LANES],
}

impl Pass {
    fn pieces(&self) -> &[Piece] {
        &self.pieces[..self.piece_count]
    }

    /// Adds the block that the record's key for Poly1305 is taken from. There must be room.
    fn push_key(&mut self, record: &Record) {
        self.push(record, 0, 1);
    }

    /// Adds the blocks for `len` bytes of the record's text that stand behind `before` others. There must be room.
    fn push_text(&mut self, owner: usize, record: &Record, before: usize, len: usize) {
        let count = len.div_ceil(BLOCK_LEN);
        if count == 0 {
            return;
        }
        self.pieces[self.piece_count] = Piece { start: record.start + before, len, row: self.used };
        self.owners[self.piece_count] = owner;
        self.piece_count += 1;
        // The first block of the keystream is not for the text; no buffer holds 2^32.
        self.push(record, u32::try_from(before / BLOCK_LEN + 1).unwrap_or(u32::MAX), count);
    }

    /// The lanes behind are written, too: a loop over all of them is a few vector instructions, one over some is not.
    fn push(&mut self, record: &Record, block: u32, count: usize) {
        let block = block.wrapping_sub(u32::try_from(self.used).unwrap_or(0));
        // The nonce is four zero bytes and the counter.
        let (low, high) = (low_word(record.counter), low_word(record.counter >> 32));
        let [blocks, _, lows, highs] = &mut self.tails;
        for (lane, at) in (0..LANES).zip(0..) {
            if lane >= self.used {
                blocks[lane] = block.wrapping_add(at);
                lows[lane] = low;
                highs[lane] = high;
            }
        }
        self.used += count;
    }

    /// The texts of these records stay as they are.
    fn forget(&mut self, unwanted: impl Fn(usize) -> bool) {
        for (piece, owner) in self.pieces.iter_mut().zip(self.owners).take(self.piece_count) {
            if unwanted(owner) {
                piece.len = 0;
            }
        }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.piece_count = 0;
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
