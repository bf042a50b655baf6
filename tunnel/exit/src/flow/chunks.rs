//! Buffers that grow with need and give back what they no longer need.

use std::collections::VecDeque;

/// Bytes of one piece of memory: what a wake-up moves, and little enough for a flow that only holds a request.
pub(super) const CHUNK_LEN: usize = 16 * 1024;

/// Bytes in a row of which the first ones are taken away, and behind which others are written, perhaps with gaps. Only pieces that hold
/// something have memory.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    chunks: VecDeque<Option<Box<[u8]>>>,
    /// Where the row begins in the first piece.
    head: usize,
    allocated: usize,
}

impl Chunks {
    /// Pieces that have memory.
    pub(super) const fn allocated(&self) -> usize {
        self.allocated
    }

    /// Writes at a place behind the beginning.
    pub(super) fn write_at(&mut self, offset: usize, mut data: &[u8]) {
        let mut at = self.head + offset;
        while !data.is_empty() {
            let index = at / CHUNK_LEN;
            while self.chunks.len() <= index {
                self.chunks.push_back(None);
            }
            let Some(slot) = self.chunks.get_mut(index) else { return };
            let chunk = slot.get_or_insert_with(|| {
                self.allocated += 1;
                vec![0; CHUNK_LEN].into_boxed_slice()
            });
            let free = &mut chunk[at % CHUNK_LEN..];
            let len = free.len().min(data.len());
            free[..len].copy_from_slice(&data[..len]);
            data = &data[len..];
            at += len;
        }
    }

    /// Copies from a place behind the beginning. What was never written is left as it is in `out`.
    pub(super) fn copy_at(&self, offset: usize, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let slice = self.slice_at(offset + done, out.len() - done);
            if slice.is_empty() {
                return;
            }
            out[done..done + slice.len()].copy_from_slice(slice);
            done += slice.len();
        }
    }

    /// As many bytes as lie in one piece of memory, at most `max_len`.
    pub(super) fn slice_at(&self, offset: usize, max_len: usize) -> &[u8] {
        let at = self.head + offset;
        let Some(Some(chunk)) = self.chunks.get(at / CHUNK_LEN) else { return &[] };
        let start = at % CHUNK_LEN;
        &chunk[start..start + max_len.min(CHUNK_LEN - start)]
    }

    /// Takes the first bytes away. `is_empty` tells that nothing is behind them.
    pub(super) fn discard(&mut self, len: usize, is_empty: bool) {
        if is_empty {
            // The list of pieces is memory too.
            *self = Self::default();
            return;
        }
        self.head += len;
        while self.head >= CHUNK_LEN {
            self.head -= CHUNK_LEN;
            if let Some(Some(_)) = self.chunks.pop_front() {
                self.allocated -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_across_pieces() {
        let data: Vec<u8> = (0..100_000_u32).map(|index| (index % 253).to_le_bytes()[0]).collect();
        let mut chunks = Chunks::default();
        let mut written = 0;
        for piece in data.chunks(777) {
            chunks.write_at(written, piece);
            written += piece.len();
        }
        assert_eq!(chunks.allocated(), 100_000_usize.div_ceil(CHUNK_LEN));
        let mut taken = 0;
        while taken < data.len() {
            let mut out = vec![0; 5000.min(data.len() - taken)];
            chunks.copy_at(0, &mut out);
            assert!(out == data[taken..taken + out.len()]);
            taken += out.len();
            chunks.discard(out.len(), taken == data.len());
            assert!(chunks.allocated() <= (data.len() - taken) / CHUNK_LEN + 2);
        }
        assert_eq!((chunks.allocated(), chunks.chunks.capacity()), (0, 0));
    }

    #[test]
    fn a_gap_costs_nothing() {
        let mut chunks = Chunks::default();
        chunks.write_at(50 * CHUNK_LEN, b"far");
        assert_eq!(chunks.allocated(), 1);
        assert_eq!(chunks.slice_at(0, 10), b"");
        assert_eq!(chunks.slice_at(50 * CHUNK_LEN, 3), b"far");
        chunks.discard(49 * CHUNK_LEN, false);
        let mut out = [0; 3];
        chunks.copy_at(CHUNK_LEN, &mut out);
        assert_eq!(&out, b"far");
    }
}
