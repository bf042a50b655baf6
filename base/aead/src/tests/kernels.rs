//! The steps of each implementation put together with what the batches of data packets lack: any nonce, and additional data.

use crate::one_time::OneTimeKey;
use crate::sys::{LANES, Message, Piece, Rows, Simd, Tails};
use crate::{KEY_LEN, TAG_LEN};

/// Key, nonce and additional data of one message.
pub(super) struct Inputs<'a> {
    pub(super) key: [u8; KEY_LEN],
    pub(super) nonce: [u8; 12],
    pub(super) aad: &'a [u8],
}

/// The sealed text with its tag.
pub(super) fn seal(simd: Simd, inputs: &Inputs<'_>, plain: &[u8]) -> Vec<u8> {
    let mut sealed = crypted(simd, inputs, plain);
    let tag = tag(simd, inputs, &sealed);
    sealed.extend_from_slice(&tag);
    sealed
}

/// The text, if it is authentic.
pub(super) fn open(simd: Simd, inputs: &Inputs<'_>, sealed: &[u8]) -> Option<Vec<u8>> {
    let (text, sent) = sealed.split_last_chunk::<TAG_LEN>()?;
    (tag(simd, inputs, text) == *sent).then(|| crypted(simd, inputs, text))
}

fn crypted(simd: Simd, inputs: &Inputs<'_>, text: &[u8]) -> Vec<u8> {
    let mut out = text.to_vec();
    for (pass, start) in (0..text.len()).step_by(64 * LANES).enumerate() {
        let rows = rows(simd, inputs, u32::try_from(1 + pass * LANES).unwrap());
        let piece = Piece { start, len: (text.len() - start).min(64 * LANES), row: 0 };
        simd.xor(&mut out, &[piece], &rows.0);
    }
    out
}

/// The blocks of keystream from `first` on.
fn rows(simd: Simd, inputs: &Inputs<'_>, first: u32) -> Rows {
    let mut tails = Tails::default();
    for (lane, block) in tails[0].iter_mut().zip(first..) {
        *lane = block;
    }
    for (words, bytes) in tails[1..].iter_mut().zip(inputs.nonce.as_chunks().0) {
        *words = [u32::from_le_bytes(*bytes); LANES];
    }
    let mut key = [0; 8];
    for (word, bytes) in key.iter_mut().zip(inputs.key.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let mut rows = Rows::default();
    simd.keystream(&key, &tails, LANES, &mut rows);
    rows
}

fn tag(simd: Simd, inputs: &Inputs<'_>, text: &[u8]) -> [u8; TAG_LEN] {
    let mut message = inputs.aad.to_vec();
    message.resize(message.len().next_multiple_of(16), 0);
    message.extend_from_slice(text);
    let lengths = [inputs.aad.len(), text.len()].map(|len| u64::try_from(len).unwrap());
    let mut keys: [OneTimeKey; LANES] = Default::default();
    keys[0] = OneTimeKey::new(&rows(simd, inputs, 0).0[0]);
    simd.tags(&message, &[Message { start: 0, len: message.len(), lengths }], &keys)[0]
}
