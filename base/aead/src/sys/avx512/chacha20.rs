//! ChaCha20: a vector holds one word of the states of 16 blocks.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_loadu_si512, _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8,
    _mm512_rol_epi32, _mm512_set1_epi32, _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::sys::{CONSTANTS, DOUBLE_ROUNDS, LANES, Piece, Rows, Tails};

/// A row of the state: four words.
type Quad = [__m512i; 4];

/// The blocks of 16 states that share the key; `tails` are the words 12 to 15 of each.
#[target_feature(enable = "avx512f")]
pub(super) fn keystream(key: &[u32; 8], tails: &Tails, rows: &mut Rows) {
    let [k0, k1, k2, k3, k4, k5, k6, k7] = *key;
    let start = || {
        let last = [load(&tails[0]), load(&tails[1]), load(&tails[2]), load(&tails[3])];
        (broadcast(CONSTANTS), broadcast([k0, k1, k2, k3]), broadcast([k4, k5, k6, k7]), last)
    };
    let (mut a, mut b, mut c, mut d) = start();
    for _ in 0..DOUBLE_ROUNDS {
        (a, b, c, d) = round(a, b, c, d);
        // The second of two rounds works on the diagonals.
        (b, c, d) = (turned::<1>(b), turned::<2>(c), turned::<3>(d));
        (a, b, c, d) = round(a, b, c, d);
        (b, c, d) = (turned::<3>(b), turned::<2>(c), turned::<1>(d));
    }
    let (first, upper, lower, last) = start();
    let a = transposed(sum(a, first));
    let b = transposed(sum(b, upper));
    let c = transposed(sum(c, lower));
    let d = transposed(sum(d, last));
    for lane in 0..4 {
        let blocks = joined([a[lane], b[lane], c[lane], d[lane]]);
        for (group, block) in blocks.into_iter().enumerate() {
            store(&mut rows.0[4 * group + lane], block);
        }
    }
}

/// Adds keystream to the texts, for each piece as far as the rows reach.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn xor(buffer: &mut [u8], pieces: &[Piece], rows: &[[u64; 8]]) {
    for piece in pieces {
        let (whole, rest) = buffer[piece.start..piece.start + piece.len].as_chunks_mut::<64>();
        let rows = &rows[piece.row..];
        for (text, row) in whole.iter_mut().zip(rows) {
            // SAFETY: 64 bytes that are borrowed, and as many exclusively; no alignment is asked for.
            unsafe {
                let sum = _mm512_xor_si512(
                    _mm512_loadu_si512(row.as_ptr().cast()),
                    _mm512_loadu_si512(text.as_ptr().cast()),
                );
                _mm512_storeu_si512(text.as_mut_ptr().cast(), sum);
            }
        }
        if let Some(row) = rows.get(whole.len()) {
            let mask = (1 << rest.len()) - 1;
            // SAFETY: 64 bytes that are borrowed. Of the text, only the bytes of the mask are touched, which are all of it.
            unsafe {
                let sum = _mm512_xor_si512(
                    _mm512_loadu_si512(row.as_ptr().cast()),
                    _mm512_maskz_loadu_epi8(mask, rest.as_ptr().cast()),
                );
                _mm512_mask_storeu_epi8(rest.as_mut_ptr().cast(), mask, sum);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
fn round(mut a: Quad, mut b: Quad, mut c: Quad, mut d: Quad) -> (Quad, Quad, Quad, Quad) {
    a = sum(a, b);
    d = mixed::<16>(d, a);
    c = sum(c, d);
    b = mixed::<12>(b, c);
    a = sum(a, b);
    d = mixed::<8>(d, a);
    c = sum(c, d);
    b = mixed::<7>(b, c);
    (a, b, c, d)
}

#[target_feature(enable = "avx512f")]
fn sum(x: Quad, y: Quad) -> Quad {
    [
        _mm512_add_epi32(x[0], y[0]),
        _mm512_add_epi32(x[1], y[1]),
        _mm512_add_epi32(x[2], y[2]),
        _mm512_add_epi32(x[3], y[3]),
    ]
}

/// The exclusive or, rotated to the left.
#[target_feature(enable = "avx512f")]
fn mixed<const BITS: i32>(x: Quad, y: Quad) -> Quad {
    [
        _mm512_rol_epi32::<BITS>(_mm512_xor_si512(x[0], y[0])),
        _mm512_rol_epi32::<BITS>(_mm512_xor_si512(x[1], y[1])),
        _mm512_rol_epi32::<BITS>(_mm512_xor_si512(x[2], y[2])),
        _mm512_rol_epi32::<BITS>(_mm512_xor_si512(x[3], y[3])),
    ]
}

const fn turned<const BY: usize>(x: Quad) -> Quad {
    [x[BY % 4], x[(BY + 1) % 4], x[(BY + 2) % 4], x[(BY + 3) % 4]]
}

#[target_feature(enable = "avx512f")]
fn broadcast(words: [u32; 4]) -> Quad {
    let [w0, w1, w2, w3] = words.map(u32::cast_signed);
    [_mm512_set1_epi32(w0), _mm512_set1_epi32(w1), _mm512_set1_epi32(w2), _mm512_set1_epi32(w3)]
}

/// Four words of 16 blocks, as four vectors of which the `k`-th holds those of the blocks `k`, `k + 4`, `k + 8` and `k + 12`.
#[target_feature(enable = "avx512f")]
fn transposed(words: Quad) -> Quad {
    let (low01, high01) =
        (_mm512_unpacklo_epi32(words[0], words[1]), _mm512_unpackhi_epi32(words[0], words[1]));
    let (low23, high23) =
        (_mm512_unpacklo_epi32(words[2], words[3]), _mm512_unpackhi_epi32(words[2], words[3]));
    [
        _mm512_unpacklo_epi64(low01, low23),
        _mm512_unpackhi_epi64(low01, low23),
        _mm512_unpacklo_epi64(high01, high23),
        _mm512_unpackhi_epi64(high01, high23),
    ]
}

/// From the quarters of four blocks, the blocks.
#[target_feature(enable = "avx512f")]
fn joined(quarters: Quad) -> Quad {
    let [q0, q1, q2, q3] = quarters;
    let (even01, odd01) = (_mm512_shuffle_i32x4::<0x88>(q0, q1), _mm512_shuffle_i32x4::<0xdd>(q0, q1));
    let (even23, odd23) = (_mm512_shuffle_i32x4::<0x88>(q2, q3), _mm512_shuffle_i32x4::<0xdd>(q2, q3));
    [
        _mm512_shuffle_i32x4::<0x88>(even01, even23),
        _mm512_shuffle_i32x4::<0x88>(odd01, odd23),
        _mm512_shuffle_i32x4::<0xdd>(even01, even23),
        _mm512_shuffle_i32x4::<0xdd>(odd01, odd23),
    ]
}

#[target_feature(enable = "avx512f")]
fn load(words: &[u32; LANES]) -> __m512i {
    // SAFETY: 64 bytes that are borrowed; no alignment is asked for.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn store(row: &mut [u64; 8], block: __m512i) {
    // SAFETY: 64 bytes that are exclusively borrowed; no alignment is asked for.
    unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), block) }
}
