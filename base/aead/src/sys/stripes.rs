//! How messages are dealt out to the lanes of Poly1305.
//!
//! Every message gets `per_message` lanes, a power of two. Lane `j` of them takes the blocks `j`, `j + per_message`, … and in each
//! step multiplies by the power `per_message` of `r`, in the last step by the power that its last block has in the polynomial;
//! the sum of the lanes is the value of the polynomial (RFC 8439 §2.5). Blocks of zeros in front do not change it, so messages
//! of any lengths are lined up at their ends.

use std::marker::PhantomData;
use std::ops::Range;

use super::Message;

/// Bytes of a block.
pub(super) const BLOCK_LEN: usize = 16;

/// The plan for up to `LANES` messages.
pub(super) struct Stripes<const LANES: usize> {
    per_message: usize,
    steps: usize,
    inside: Range<usize>,
    /// Which message the lane belongs to. Lanes that are left over repeat the last one, and nobody looks at them.
    message: [usize; LANES],
    /// The number of the lane's block in step 0; below zero for blocks in front.
    first: [isize; LANES],
    /// Where that block begins in the buffer, wrapping for blocks in front.
    origins: [usize; LANES],
}

impl<const LANES: usize> Stripes<LANES> {
    /// For at least one message.
    pub(super) fn new(messages: &[Message]) -> Self {
        let per_message = LANES / messages.len().next_power_of_two().clamp(1, LANES);
        let most = messages.iter().map(Message::blocks).max().unwrap_or(1);
        let least = messages.iter().map(Message::blocks).min().unwrap_or(1);
        let steps = most.div_ceil(per_message);
        // Behind the whole blocks come the lengths, and before those what is left of the text.
        let behind =
            messages.iter().map(|message| message.blocks() - message.len / BLOCK_LEN).max().unwrap_or(1);
        let mut plan = Self {
            per_message,
            steps,
            inside: steps - least / per_message..steps - behind.div_ceil(per_message),
            message: [0; LANES],
            first: [0; LANES],
            origins: [0; LANES],
        };
        for lane in 0..LANES {
            let message = (lane >> per_message.ilog2()).min(messages.len() - 1);
            let in_front = (steps * per_message - messages[message].blocks()).cast_signed();
            let first = (lane & (per_message - 1)).cast_signed() - in_front;
            plan.message[lane] = message;
            plan.first[lane] = first;
            plan.origins[lane] = messages[message].start.wrapping_add_signed(first * BLOCK_LEN.cast_signed());
        }
        plan
    }

    /// How often each lane multiplies; at least once.
    pub(super) const fn steps(&self) -> usize {
        self.steps
    }

    /// The steps in which every lane takes a whole block of its text.
    pub(super) fn inside(&self) -> Range<usize> {
        self.inside.clone()
    }

    /// What the lanes read in the steps [`Self::inside`]; in each of them, [`Self::stride`] bytes behind the last.
    pub(super) fn texts<'b>(&self, buffer: &'b [u8]) -> Texts<'b, LANES> {
        let begin = self.inside.start * self.stride();
        let len = match self.inside.len() {
            0 => 0,
            count => (count - 1) * self.stride() + BLOCK_LEN,
        };
        Texts::new(self.origins.map(|origin| {
            let start = if len == 0 { 0 } else { origin.wrapping_add(begin) };
            &buffer[start..start + len]
        }))
    }

    /// Bytes from a lane's block to its next.
    pub(super) const fn stride(&self) -> usize {
        self.per_message * BLOCK_LEN
    }

    /// The lane's block in any step: low half, high half, and 1 for the bit above, or 0 in front of the message.
    pub(super) fn block(&self, buffer: &[u8], messages: &[Message], lane: usize, step: usize) -> [u64; 3] {
        let message = &messages[self.message[lane]];
        let Ok(number) = usize::try_from(self.first[lane] + (step * self.per_message).cast_signed()) else {
            return [0; 3];
        };
        let text = &buffer[message.start..message.start + message.len];
        let Some(rest) = text.get(number * BLOCK_LEN..).filter(|rest| !rest.is_empty()) else {
            return [message.lengths[0], message.lengths[1], 1];
        };
        let mut block = [0; BLOCK_LEN];
        let len = rest.len().min(BLOCK_LEN);
        block[..len].copy_from_slice(&rest[..len]);
        let block = u128::from_le_bytes(block);
        [low_half(block), low_half(block >> 64), 1]
    }

    /// The lanes of a message.
    pub(super) const fn lanes_of(&self, message: usize) -> Range<usize> {
        message * self.per_message..(message + 1) * self.per_message
    }

    /// The message of each lane.
    pub(super) const fn messages(&self) -> &[usize; LANES] {
        &self.message
    }

    /// How often the power of `r` has to be squared.
    pub(super) const fn squarings(&self) -> u32 {
        self.per_message.ilog2()
    }

    /// Whether the power of `r` in the lane's last step has that bit, when counted from the power 1.
    pub(super) const fn has_bit(&self, lane: usize, bit: u32) -> bool {
        let power = self.per_message - (lane & (self.per_message - 1));
        (power - 1) >> bit & 1 == 1
    }
}

/// A text for each lane, all of the same length, so that one look at the length is enough for a block of each.
pub(super) struct Texts<'b, const LANES: usize> {
    starts: [*const u8; LANES],
    /// Bytes that may be read from each of the starts, as long as the buffer is borrowed.
    len: usize,
    buffer: PhantomData<&'b [u8]>,
}

impl<'b, const LANES: usize> Texts<'b, LANES> {
    fn new(texts: [&'b [u8]; LANES]) -> Self {
        let len = texts.iter().map(|text| text.len()).min().unwrap_or(0);
        Self { starts: texts.map(<[u8]>::as_ptr), len, buffer: PhantomData }
    }

    /// The blocks that begin there; none behind the end.
    #[inline]
    pub(super) fn blocks(&self, at: usize) -> Option<[&'b [u8; BLOCK_LEN]; LANES]> {
        let within = self.len.checked_sub(BLOCK_LEN).is_some_and(|last| at <= last);
        // SAFETY: the 16 bytes end within the `len` that are borrowed behind each start, for as long as the reference lives.
        within.then(|| self.starts.map(|start| unsafe { &*start.add(at).cast() }))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low_half(wide: u128) -> u64 {
    wide as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_with_the_shortest_text() {
        let buffer: Vec<u8> = (0..100).collect();
        for len in 0..40 {
            let texts = Texts::new([&buffer[..40], &buffer[50..50 + len], &buffer[60..]]);
            for at in (0..50).chain([usize::MAX]) {
                let blocks = texts.blocks(at);
                assert_eq!(blocks.is_some(), len >= BLOCK_LEN && at <= len - BLOCK_LEN, "{len} {at}");
                for (block, start) in blocks.into_iter().flatten().zip([0, 50, 60]) {
                    assert_eq!(block, &buffer[start + at..][..BLOCK_LEN]);
                }
            }
        }
    }
}
