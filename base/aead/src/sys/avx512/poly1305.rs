//! Poly1305: 16 lanes of 64 bits in two vectors, numbers modulo 2^130 − 5 in limbs of 44, 44 and 42 bits.
//!
//! The two vectors do not depend on each other, so that one multiplies while the other carries.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm512_add_epi64, _mm512_and_si512, _mm512_castsi128_si512,
    _mm512_inserti32x4, _mm512_loadu_si512, _mm512_madd52hi_epu64, _mm512_madd52lo_epu64,
    _mm512_mask_mov_epi64, _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64,
    _mm512_srli_epi64, _mm512_storeu_si512, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use crate::one_time::{LOW_42, LOW_44, OneTimeKey};
use crate::sys::stripes::{BLOCK_LEN, Stripes};
use crate::sys::{LANES, Message};

/// Lanes of a vector.
const WIDTH: usize = 8;
/// A block has a bit above its 128, which is this one of the third limb.
const ABOVE: u32 = 40;

/// A number in each of eight lanes. Between steps the limbs have their lengths, but for a carry of a few bits.
type Limbs = [__m512i; 3];

/// A multiplier: its limbs, and 20 times the upper two, which is what they count where the product passes 2^132.
#[derive(Clone, Copy)]
struct Factor {
    limbs: Limbs,
    wrapped: [__m512i; 2],
}

/// The tag of each message, under the key of the same place.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn tags(buffer: &[u8], messages: &[Message], keys: &[OneTimeKey; LANES]) -> [[u8; 16]; LANES] {
    let stripes = Stripes::<LANES>::new(messages);
    let (each, last) = powers(&stripes, keys);
    let mut sum = [[_mm512_setzero_si512(); 3]; 2];
    let at_the_ends = |sum: &mut [Limbs; 2], step, factors: &[Factor; 2]| {
        let blocks = outside(buffer, messages, &stripes, step);
        *sum = [absorbed(sum[0], blocks[0], factors[0]), absorbed(sum[1], blocks[1], factors[1])];
    };
    let inside = stripes.inside();
    for step in 0..inside.start.min(stripes.steps() - 1) {
        at_the_ends(&mut sum, step, &each);
    }
    let texts = stripes.texts(buffer);
    let mut at = 0;
    while let Some([b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3, c4, c5, c6, c7]) = texts.blocks(at) {
        sum[0] = absorbed(sum[0], loaded([b0, b1, b2, b3, b4, b5, b6, b7]), each[0]);
        sum[1] = absorbed(sum[1], loaded([c0, c1, c2, c3, c4, c5, c6, c7]), each[1]);
        at += stripes.stride();
    }
    for step in inside.end.max(inside.start)..stripes.steps() - 1 {
        at_the_ends(&mut sum, step, &each);
    }
    at_the_ends(&mut sum, stripes.steps() - 1, &last);

    let limbs = [0, 1, 2].map(|limb| {
        let mut lanes = [0; LANES];
        store(&mut lanes, [sum[0][limb], sum[1][limb]]);
        lanes
    });
    let mut tags = [[0; 16]; LANES];
    for (message, tag) in tags.iter_mut().take(messages.len()).enumerate() {
        let lanes = stripes.lanes_of(message);
        *tag = keys[message].tag(limbs.each_ref().map(|limb| limb[lanes.clone()].iter().sum()));
    }
    tags
}

/// What the lanes multiply by in each step and in the last.
#[target_feature(enable = "avx512f,avx512ifma")]
fn powers(stripes: &Stripes<LANES>, keys: &[OneTimeKey; LANES]) -> ([Factor; 2], [Factor; 2]) {
    let mut words = [[0; LANES]; 3];
    for (lane, message) in stripes.messages().iter().enumerate() {
        let limbs = keys[*message].limbs::<44, 3>();
        for (word, limb) in words.iter_mut().zip(limbs) {
            word[lane] = limb;
        }
    }
    let [first, second] = numbers(&words);
    let mut each = [first, second];
    let mut last = each;
    for bit in 0..stripes.squarings() {
        let mask = (0..LANES).fold(0_u16, |mask, lane| mask | u16::from(stripes.has_bit(lane, bit)) << lane);
        for (half, mask) in mask.to_le_bytes().into_iter().enumerate() {
            let factor = Factor::new(each[half]);
            let multiplied = product(last[half], factor);
            last[half] =
                [0, 1, 2].map(|limb| _mm512_mask_mov_epi64(last[half][limb], mask, multiplied[limb]));
            each[half] = product(each[half], factor);
        }
    }
    ([Factor::new(each[0]), Factor::new(each[1])], [Factor::new(last[0]), Factor::new(last[1])])
}

impl Factor {
    #[target_feature(enable = "avx512f")]
    fn new(limbs: Limbs) -> Self {
        Self { limbs, wrapped: [times_20(limbs[1]), times_20(limbs[2])] }
    }
}

#[target_feature(enable = "avx512f")]
fn times_20(limb: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb))
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn absorbed(sum: Limbs, block: Limbs, factor: Factor) -> Limbs {
    let [s0, s1, s2] = sum;
    let [b0, b1, b2] = block;
    product([_mm512_add_epi64(s0, b0), _mm512_add_epi64(s1, b1), _mm512_add_epi64(s2, b2)], factor)
}

/// The product, carried. The limbs of `x` may have 47 bits and those of the factor 45: 20 times that is still below the 52 that
/// are multiplied, and three products and their carries below 64.
#[target_feature(enable = "avx512f,avx512ifma")]
fn product([x0, x1, x2]: Limbs, factor: Factor) -> Limbs {
    let Factor { limbs: [r0, r1, r2], wrapped: [w1, w2] } = factor;
    let (low0, high0) = dot([x0, x1, x2], [r0, w2, w1]);
    let (low1, high1) = dot([x0, x1, x2], [r1, r0, w2]);
    let (low2, high2) = dot([x0, x1, x2], [r2, r1, r0]);
    let (low_44, low_42) = (splat(LOW_44), splat(LOW_42));

    // The high parts begin at bit 52 of their limb, which is bit 8 of the next, or bit 10 behind the limb of 42.
    let limb0 = _mm512_and_si512(low0, low_44);
    let sum1 = _mm512_add_epi64(
        _mm512_add_epi64(low1, _mm512_slli_epi64::<8>(high0)),
        _mm512_srli_epi64::<44>(low0),
    );
    let limb1 = _mm512_and_si512(sum1, low_44);
    let sum2 = _mm512_add_epi64(
        _mm512_add_epi64(low2, _mm512_slli_epi64::<8>(high1)),
        _mm512_srli_epi64::<44>(sum1),
    );
    let limb2 = _mm512_and_si512(sum2, low_42);
    let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(high2), _mm512_srli_epi64::<42>(sum2));
    // 2^130 counts 5.
    let sum0 = _mm512_add_epi64(limb0, _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over)));
    [_mm512_and_si512(sum0, low_44), _mm512_add_epi64(limb1, _mm512_srli_epi64::<44>(sum0)), limb2]
}

/// The sum of three products: what is below bit 52 of each, and what is above.
#[target_feature(enable = "avx512f,avx512ifma")]
fn dot([x0, x1, x2]: Limbs, [y0, y1, y2]: Limbs) -> (__m512i, __m512i) {
    let zero = _mm512_setzero_si512();
    let low =
        _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, x0, y0), x1, y1), x2, y2);
    let high =
        _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, x0, y0), x1, y1), x2, y2);
    (low, high)
}

/// The blocks of eight lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn loaded([b0, b1, b2, b3, b4, b5, b6, b7]: [&[u8; BLOCK_LEN]; WIDTH]) -> Limbs {
    // Taken in this order, the halves come out of the pairs in the order of the lanes.
    let even = quarters([b0, b2, b4, b6]);
    let odd = quarters([b1, b3, b5, b7]);
    cut(_mm512_unpacklo_epi64(even, odd), _mm512_unpackhi_epi64(even, odd), splat(1 << ABOVE))
}

/// The blocks of all lanes, wherever they lie.
#[target_feature(enable = "avx512f")]
fn outside(buffer: &[u8], messages: &[Message], stripes: &Stripes<LANES>, step: usize) -> [Limbs; 2] {
    let blocks: [[u64; 3]; LANES] = std::array::from_fn(|lane| stripes.block(buffer, messages, lane, step));
    let words = [0, 1, 2].map(|word| blocks.map(|block| block[word]));
    numbers(&words).map(|[low, high, above]| cut(low, high, _mm512_slli_epi64::<ABOVE>(above)))
}

/// Numbers of 128 bits and the bit above, in limbs.
#[target_feature(enable = "avx512f")]
fn cut(low: __m512i, high: __m512i, above: __m512i) -> Limbs {
    let low_44 = splat(LOW_44);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [
        _mm512_and_si512(low, low_44),
        _mm512_and_si512(middle, low_44),
        _mm512_or_si512(_mm512_srli_epi64::<24>(high), above),
    ]
}

#[target_feature(enable = "avx512f")]
fn quarters(blocks: [&[u8; BLOCK_LEN]; 4]) -> __m512i {
    let [b0, b1, b2, b3] = blocks.map(|block| load_block(block));
    let pair = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(b0), b1);
    _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(pair, b2), b3)
}

#[target_feature(enable = "avx512f")]
fn numbers(words: &[[u64; LANES]; 3]) -> [Limbs; 2] {
    let [a, b, c] = words.each_ref().map(|lanes| load(lanes));
    [[a[0], b[0], c[0]], [a[1], b[1], c[1]]]
}

#[target_feature(enable = "avx512f")]
fn splat(word: u64) -> __m512i {
    _mm512_set1_epi64(word.cast_signed())
}

#[target_feature(enable = "avx512f")]
fn load_block(block: &[u8; BLOCK_LEN]) -> __m128i {
    // SAFETY: 16 bytes that are borrowed; no alignment is asked for.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn load(lanes: &[u64; LANES]) -> [__m512i; 2] {
    let (low, high) = lanes.split_at(WIDTH);
    // SAFETY: 64 bytes that are borrowed, twice; no alignment is asked for.
    unsafe { [_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast())] }
}

#[target_feature(enable = "avx512f")]
fn store(lanes: &mut [u64; LANES], [first, second]: [__m512i; 2]) {
    let (low, high) = lanes.split_at_mut(WIDTH);
    // SAFETY: 64 bytes that are exclusively borrowed, twice; no alignment is asked for.
    unsafe {
        _mm512_storeu_si512(low.as_mut_ptr().cast(), first);
        _mm512_storeu_si512(high.as_mut_ptr().cast(), second);
    }
}
