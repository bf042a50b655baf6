//! ChaCha20: a vector holds one word of the states of eight blocks.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_loadu_si256, _mm256_or_si256, _mm256_permute2x128_si256,
    _mm256_set1_epi32, _mm256_setr_epi8, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_storeu_si256, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32,
    _mm256_unpacklo_epi64, _mm256_xor_si256,
};

use crate::sys::{CONSTANTS, DOUBLE_ROUNDS, Piece, Rows, Tails};

/// Blocks of a vector.
const WIDTH: usize = 8;

/// A row of the state: four words.
type Quad = [__m256i; 4];

/// The first `used` blocks, or a few more, of the states that share the key; `tails` are the words 12 to 15 of each.
#[target_feature(enable = "avx2")]
pub(super) fn keystream(key: &[u32; 8], tails: &Tails, used: usize, rows: &mut Rows) {
    let (rows, _) = rows.0.as_chunks_mut::<WIDTH>();
    for (half, rows) in rows.iter_mut().enumerate().take(used.div_ceil(WIDTH)) {
        let tails = tails.each_ref().map(|words| load(&words.as_chunks::<WIDTH>().0[half]));
        eight_blocks(key, tails, rows);
    }
}

#[target_feature(enable = "avx2")]
fn eight_blocks(key: &[u32; 8], last: Quad, rows: &mut [[u64; 8]; WIDTH]) {
    let [k0, k1, k2, k3, k4, k5, k6, k7] = *key;
    let (first, upper, lower) =
        (broadcast(CONSTANTS), broadcast([k0, k1, k2, k3]), broadcast([k4, k5, k6, k7]));
    let (mut a, mut b, mut c, mut d) = (first, upper, lower, last);
    for _ in 0..DOUBLE_ROUNDS {
        (a, b, c, d) = round(a, b, c, d);
        // The second of two rounds works on the diagonals.
        (b, c, d) = (turned::<1>(b), turned::<2>(c), turned::<3>(d));
        (a, b, c, d) = round(a, b, c, d);
        (b, c, d) = (turned::<3>(b), turned::<2>(c), turned::<1>(d));
    }
    let a = transposed(sum(a, first));
    let b = transposed(sum(b, upper));
    let c = transposed(sum(c, lower));
    let d = transposed(sum(d, last));
    for lane in 0..4 {
        store(&mut rows[lane], [low_halves(a[lane], b[lane]), low_halves(c[lane], d[lane])]);
        store(&mut rows[lane + 4], [high_halves(a[lane], b[lane]), high_halves(c[lane], d[lane])]);
    }
}

/// Adds keystream to the texts, for each piece as far as the rows reach.
#[target_feature(enable = "avx2")]
pub(super) fn xor(buffer: &mut [u8], pieces: &[Piece], rows: &[[u64; 8]]) {
    for piece in pieces {
        let keys = rows[piece.row..].as_flattened();
        let (halves, rest) = buffer[piece.start..piece.start + piece.len].as_chunks_mut::<32>();
        let (key_halves, _) = keys.as_chunks::<4>();
        for (text, key) in halves.iter_mut().zip(key_halves) {
            // SAFETY: 32 bytes that are borrowed, and as many exclusively; no alignment is asked for.
            unsafe {
                let sum = _mm256_xor_si256(
                    _mm256_loadu_si256(key.as_ptr().cast()),
                    _mm256_loadu_si256(text.as_ptr().cast()),
                );
                _mm256_storeu_si256(text.as_mut_ptr().cast(), sum);
            }
        }
        let Some(last) = key_halves.get(halves.len()) else { continue };
        for (bytes, key) in rest.chunks_mut(8).zip(last) {
            for (byte, key) in bytes.iter_mut().zip(key.to_le_bytes()) {
                *byte ^= key;
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn round(mut a: Quad, mut b: Quad, mut c: Quad, mut d: Quad) -> (Quad, Quad, Quad, Quad) {
    // Rotations by whole bytes are shuffles: within each word the bytes come from these places.
    let by_16 = bytes_of_words([2, 3, 0, 1]);
    let by_8 = bytes_of_words([3, 0, 1, 2]);
    a = sum(a, b);
    d = shuffled(difference(d, a), by_16);
    c = sum(c, d);
    b = rotated::<12, 20>(difference(b, c));
    a = sum(a, b);
    d = shuffled(difference(d, a), by_8);
    c = sum(c, d);
    b = rotated::<7, 25>(difference(b, c));
    (a, b, c, d)
}

#[target_feature(enable = "avx2")]
fn sum(x: Quad, y: Quad) -> Quad {
    [
        _mm256_add_epi32(x[0], y[0]),
        _mm256_add_epi32(x[1], y[1]),
        _mm256_add_epi32(x[2], y[2]),
        _mm256_add_epi32(x[3], y[3]),
    ]
}

#[target_feature(enable = "avx2")]
fn difference(x: Quad, y: Quad) -> Quad {
    [
        _mm256_xor_si256(x[0], y[0]),
        _mm256_xor_si256(x[1], y[1]),
        _mm256_xor_si256(x[2], y[2]),
        _mm256_xor_si256(x[3], y[3]),
    ]
}

#[target_feature(enable = "avx2")]
fn shuffled(x: Quad, places: __m256i) -> Quad {
    [
        _mm256_shuffle_epi8(x[0], places),
        _mm256_shuffle_epi8(x[1], places),
        _mm256_shuffle_epi8(x[2], places),
        _mm256_shuffle_epi8(x[3], places),
    ]
}

/// Rotated to the left by `LEFT`; `RIGHT` is what that lacks of 32.
#[target_feature(enable = "avx2")]
fn rotated<const LEFT: i32, const RIGHT: i32>(x: Quad) -> Quad {
    [
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x[0]), _mm256_srli_epi32::<RIGHT>(x[0])),
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x[1]), _mm256_srli_epi32::<RIGHT>(x[1])),
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x[2]), _mm256_srli_epi32::<RIGHT>(x[2])),
        _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x[3]), _mm256_srli_epi32::<RIGHT>(x[3])),
    ]
}

const fn turned<const BY: usize>(x: Quad) -> Quad {
    [x[BY % 4], x[(BY + 1) % 4], x[(BY + 2) % 4], x[(BY + 3) % 4]]
}

#[target_feature(enable = "avx2")]
fn broadcast(words: [u32; 4]) -> Quad {
    let [w0, w1, w2, w3] = words.map(u32::cast_signed);
    [_mm256_set1_epi32(w0), _mm256_set1_epi32(w1), _mm256_set1_epi32(w2), _mm256_set1_epi32(w3)]
}

#[target_feature(enable = "avx2")]
fn bytes_of_words([p, q, r, s]: [i8; 4]) -> __m256i {
    _mm256_setr_epi8(
        p,
        q,
        r,
        s,
        p + 4,
        q + 4,
        r + 4,
        s + 4,
        p + 8,
        q + 8,
        r + 8,
        s + 8,
        p + 12,
        q + 12,
        r + 12,
        s + 12,
        p,
        q,
        r,
        s,
        p + 4,
        q + 4,
        r + 4,
        s + 4,
        p + 8,
        q + 8,
        r + 8,
        s + 8,
        p + 12,
        q + 12,
        r + 12,
        s + 12,
    )
}

/// Four words of eight blocks, as four vectors of which the `k`-th holds those of the blocks `k` and `k + 4`.
#[target_feature(enable = "avx2")]
fn transposed(words: Quad) -> Quad {
    let (low01, high01) =
        (_mm256_unpacklo_epi32(words[0], words[1]), _mm256_unpackhi_epi32(words[0], words[1]));
    let (low23, high23) =
        (_mm256_unpacklo_epi32(words[2], words[3]), _mm256_unpackhi_epi32(words[2], words[3]));
    [
        _mm256_unpacklo_epi64(low01, low23),
        _mm256_unpackhi_epi64(low01, low23),
        _mm256_unpacklo_epi64(high01, high23),
        _mm256_unpackhi_epi64(high01, high23),
    ]
}

#[target_feature(enable = "avx2")]
fn low_halves(x: __m256i, y: __m256i) -> __m256i {
    _mm256_permute2x128_si256::<0x20>(x, y)
}

#[target_feature(enable = "avx2")]
fn high_halves(x: __m256i, y: __m256i) -> __m256i {
    _mm256_permute2x128_si256::<0x31>(x, y)
}

#[target_feature(enable = "avx2")]
fn load(words: &[u32; WIDTH]) -> __m256i {
    // SAFETY: 32 bytes that are borrowed; no alignment is asked for.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn store(row: &mut [u64; 8], [low, high]: [__m256i; 2]) {
    let (first, second) = row.split_at_mut(4);
    // SAFETY: 32 bytes that are exclusively borrowed, twice; no alignment is asked for.
    unsafe {
        _mm256_storeu_si256(first.as_mut_ptr().cast(), low);
        _mm256_storeu_si256(second.as_mut_ptr().cast(), high);
    }
}
