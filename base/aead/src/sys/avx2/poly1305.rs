//! Poly1305: four lanes of 64 bits in a vector, numbers modulo 2^130 − 5 in five limbs of 26 bits.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi64, _mm256_and_si256, _mm256_blendv_epi8,
    _mm256_castsi128_si256, _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_mul_epu32, _mm256_or_si256,
    _mm256_set1_epi64x, _mm256_setzero_si256, _mm256_slli_epi64, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi64,
};

use crate::one_time::{LOW_44, OneTimeKey};
use crate::sys::stripes::{BLOCK_LEN, Stripes};
use crate::sys::{LANES, Message};

/// Lanes of a vector.
const WIDTH: usize = 4;
/// 26 bits that are set.
const LOW_26: u64 = (1 << 26) - 1;
/// A block has a bit above its 128, which is this one of the fifth limb.
const ABOVE: i32 = 24;

/// A number in each of four lanes. Between steps the limbs have their lengths, but for a carry of a few bits.
type Limbs = [__m256i; 5];

/// A multiplier: its limbs, and five times the upper four, which is what they count where the product passes 2^130.
#[derive(Clone, Copy)]
struct Factor {
    limbs: Limbs,
    wrapped: [__m256i; 4],
}

/// The tag of each message, under the key of the same place.
#[target_feature(enable = "avx2")]
pub(super) fn tags(buffer: &[u8], messages: &[Message], keys: &[OneTimeKey; LANES]) -> [[u8; 16]; LANES] {
    let mut tags = [[0; 16]; LANES];
    let (keys, _) = keys.as_chunks::<WIDTH>();
    for ((messages, keys), tags) in messages.chunks(WIDTH).zip(keys).zip(tags.as_chunks_mut::<WIDTH>().0) {
        four_tags(buffer, messages, keys, tags);
    }
    tags
}

#[target_feature(enable = "avx2")]
fn four_tags(buffer: &[u8], messages: &[Message], keys: &[OneTimeKey; WIDTH], tags: &mut [[u8; 16]; WIDTH]) {
    let stripes = Stripes::<WIDTH>::new(messages);
    let (each, last) = powers(&stripes, keys);
    let mut sum = [_mm256_setzero_si256(); 5];
    let inside = stripes.inside();
    for step in 0..inside.start.min(stripes.steps() - 1) {
        sum = absorbed(sum, outside(buffer, messages, &stripes, step), &each);
    }
    let texts = stripes.texts(buffer);
    let mut at = 0;
    while let Some(blocks) = texts.blocks(at) {
        sum = absorbed(sum, loaded(blocks), &each);
        at += stripes.stride();
    }
    for step in inside.end.max(inside.start)..stripes.steps() - 1 {
        sum = absorbed(sum, outside(buffer, messages, &stripes, step), &each);
    }
    sum = absorbed(sum, outside(buffer, messages, &stripes, stripes.steps() - 1), &last);

    let lanes = sum.map(|limb| store(limb));
    for (message, tag) in tags.iter_mut().take(messages.len()).enumerate() {
        let own = stripes.lanes_of(message);
        let [l0, l1, l2, l3, l4]: [u64; 5] = lanes.each_ref().map(|limb| limb[own.clone()].iter().sum());
        // From limbs of 26 bits, and a few more, to limbs of 44.
        let low = l0 + (l1 << 26);
        let middle = (low >> 44) + (l2 << 8) + (l3 << 34);
        let high = (middle >> 44) + (l4 << 16);
        *tag = keys[message].tag([low & LOW_44, middle & LOW_44, high]);
    }
}

/// What the lanes multiply by in each step and in the last.
#[target_feature(enable = "avx2")]
fn powers(stripes: &Stripes<WIDTH>, keys: &[OneTimeKey; WIDTH]) -> (Factor, Factor) {
    let mut words = [[0; WIDTH]; 5];
    for (lane, message) in stripes.messages().iter().enumerate() {
        for (word, limb) in words.iter_mut().zip(keys[*message].limbs::<26, 5>()) {
            word[lane] = limb;
        }
    }
    let mut each = words.map(|lanes| load(&lanes));
    let mut last = each;
    for bit in 0..stripes.squarings() {
        let mut mask = [0; WIDTH];
        for (lane, mask) in mask.iter_mut().enumerate() {
            *mask = u64::from(stripes.has_bit(lane, bit)).wrapping_neg();
        }
        let mask = load(&mask);
        let factor = Factor::new(each);
        let multiplied = product(last, &factor);
        last = [0, 1, 2, 3, 4].map(|limb| _mm256_blendv_epi8(last[limb], multiplied[limb], mask));
        each = product(each, &factor);
    }
    (Factor::new(each), Factor::new(last))
}

impl Factor {
    #[target_feature(enable = "avx2")]
    fn new(limbs: Limbs) -> Self {
        let [_, r1, r2, r3, r4] = limbs;
        Self { limbs, wrapped: [r1, r2, r3, r4].map(|limb| times_5(limb)) }
    }
}

#[target_feature(enable = "avx2")]
fn times_5(limb: __m256i) -> __m256i {
    _mm256_add_epi64(limb, _mm256_slli_epi64::<2>(limb))
}

#[target_feature(enable = "avx2")]
fn absorbed(sum: Limbs, block: Limbs, factor: &Factor) -> Limbs {
    let [s0, s1, s2, s3, s4] = sum;
    let [b0, b1, b2, b3, b4] = block;
    let sum = [
        _mm256_add_epi64(s0, b0),
        _mm256_add_epi64(s1, b1),
        _mm256_add_epi64(s2, b2),
        _mm256_add_epi64(s3, b3),
        _mm256_add_epi64(s4, b4),
    ];
    product(sum, factor)
}

/// The product, carried. The limbs of `x` may have 28 bits and those of the factor 27: five times that is still below the 32 that
/// are multiplied, and five products below 62.
#[target_feature(enable = "avx2")]
fn product(x: Limbs, factor: &Factor) -> Limbs {
    let Factor { limbs: [r0, r1, r2, r3, r4], wrapped: [w1, w2, w3, w4] } = *factor;
    let d0 = dot(x, [r0, w4, w3, w2, w1]);
    let d1 = dot(x, [r1, r0, w4, w3, w2]);
    let d2 = dot(x, [r2, r1, r0, w4, w3]);
    let d3 = dot(x, [r3, r2, r1, r0, w4]);
    let d4 = dot(x, [r4, r3, r2, r1, r0]);
    // Two chains of carries at once; where they meet, a limb may keep a few bits too many.
    let (d0, d1) = carried(d0, d1);
    let (d3, d4) = carried(d3, d4);
    let (d1, d2) = carried(d1, d2);
    let (d4, over) = carried(d4, _mm256_setzero_si256());
    let d0 = _mm256_add_epi64(d0, times_5(over));
    let (d2, d3) = carried(d2, d3);
    let (d0, d1) = carried(d0, d1);
    let (d3, d4) = carried(d3, d4);
    [d0, d1, d2, d3, d4]
}

#[target_feature(enable = "avx2")]
fn carried(limb: __m256i, next: __m256i) -> (__m256i, __m256i) {
    (_mm256_and_si256(limb, splat(LOW_26)), _mm256_add_epi64(next, _mm256_srli_epi64::<26>(limb)))
}

#[target_feature(enable = "avx2")]
fn dot([x0, x1, x2, x3, x4]: Limbs, [y0, y1, y2, y3, y4]: Limbs) -> __m256i {
    let first = _mm256_add_epi64(_mm256_mul_epu32(x0, y0), _mm256_mul_epu32(x1, y1));
    let second = _mm256_add_epi64(_mm256_mul_epu32(x2, y2), _mm256_mul_epu32(x3, y3));
    _mm256_add_epi64(_mm256_add_epi64(first, second), _mm256_mul_epu32(x4, y4))
}

/// The blocks of four lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn loaded([b0, b1, b2, b3]: [&[u8; BLOCK_LEN]; WIDTH]) -> Limbs {
    // Taken in this order, the halves come out of the pairs in the order of the lanes.
    let (even, odd) = (pair(b0, b2), pair(b1, b3));
    cut(_mm256_unpacklo_epi64(even, odd), _mm256_unpackhi_epi64(even, odd), splat(1 << ABOVE))
}

/// The blocks of all lanes, wherever they lie.
#[target_feature(enable = "avx2")]
fn outside(buffer: &[u8], messages: &[Message], stripes: &Stripes<WIDTH>, step: usize) -> Limbs {
    let blocks: [[u64; 3]; WIDTH] = std::array::from_fn(|lane| stripes.block(buffer, messages, lane, step));
    let words = [0, 1, 2].map(|word| blocks.map(|block| block[word]));
    let [low, high, above] = words.map(|lanes| load(&lanes));
    cut(low, high, _mm256_slli_epi64::<ABOVE>(above))
}

/// Numbers of 128 bits and the bit above, in limbs.
#[target_feature(enable = "avx2")]
fn cut(low: __m256i, high: __m256i, above: __m256i) -> Limbs {
    let low_26 = splat(LOW_26);
    let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
    [
        _mm256_and_si256(low, low_26),
        _mm256_and_si256(_mm256_srli_epi64::<26>(low), low_26),
        _mm256_and_si256(middle, low_26),
        _mm256_and_si256(_mm256_srli_epi64::<14>(high), low_26),
        _mm256_or_si256(_mm256_srli_epi64::<40>(high), above),
    ]
}

#[target_feature(enable = "avx2")]
fn pair(low: &[u8; BLOCK_LEN], high: &[u8; BLOCK_LEN]) -> __m256i {
    _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(load_block(low)), load_block(high))
}

#[target_feature(enable = "avx2")]
fn splat(word: u64) -> __m256i {
    _mm256_set1_epi64x(word.cast_signed())
}

#[target_feature(enable = "avx2")]
fn load_block(block: &[u8; BLOCK_LEN]) -> __m128i {
    // SAFETY: 16 bytes that are borrowed; no alignment is asked for.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn load(lanes: &[u64; WIDTH]) -> __m256i {
    // SAFETY: 32 bytes that are borrowed; no alignment is asked for.
    unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn store(limb: __m256i) -> [u64; WIDTH] {
    let mut lanes = [0; WIDTH];
    // SAFETY: 32 bytes that are exclusively borrowed; no alignment is asked for.
    unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), limb) };
    lanes
}
