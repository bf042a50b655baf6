//! The two verdicts on an Ed25519 signature that Tailnet Lock needs (sheet §6).
//!
//! They differ only for signatures made on purpose, but a node that judges those differently leaves consensus. The group
//! operations are `curve25519-dalek`'s; what stands here is which encodings count and how the equation is compared.

use std::collections::HashMap;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use ring::digest::{Context, SHA512, digest};

/// Which rules a signature is judged by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// Updates, direct and credential signatures: ZIP-215. Encodings of points need not be canonical, and the equation is
    /// multiplied by the cofactor, so that one signature and a batch agree.
    Zip215,
    /// The outer signature of a rotation: RFC 8032 §5.1.7 without the cofactor, R compared as bytes.
    Rfc8032,
}

/// Whether the signature verifies. A key or signature of a wrong length does not.
pub fn verify(rules: Rules, public: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(parts) = Parts::new(public, message, signature) else { return false };
    let Some(key) = decompress(public) else { return false };
    // R' = s·B - h·A
    let r = EdwardsPoint::vartime_double_scalar_mul_basepoint(&parts.challenge, &-key, &parts.s);
    match rules {
        Rules::Rfc8032 => r.compress().as_bytes() == &parts.r,
        Rules::Zip215 => {
            decompress(&parts.r).is_some_and(|claimed| (r - claimed).mul_by_cofactor().is_identity())
        }
    }
}

/// Whether the bytes are a point whose order divides the cofactor. Anybody can sign for such a key under RFC 8032
/// (sheet §21, trap 19).
pub fn is_small_order(public: &[u8]) -> bool {
    decompress(public).is_some_and(|point| point.is_small_order())
}

struct Parts {
    r: [u8; 32],
    s: Scalar,
    /// h = SHA-512(R ‖ A ‖ M) over the bytes as given.
    challenge: Scalar,
}

impl Parts {
    fn new(public: &[u8], message: &[u8], signature: &[u8]) -> Option<Self> {
        let (r, s) = signature.split_first_chunk::<32>()?;
        let s = Option::from(Scalar::from_canonical_bytes(s.try_into().ok()?))?;
        let mut hash = Context::new(&SHA512);
        hash.update(r);
        hash.update(public);
        hash.update(message);
        Some(Self { r: *r, s, challenge: wide(hash.finish().as_ref())? })
    }
}

fn wide(bytes: &[u8]) -> Option<Scalar> {
    Some(Scalar::from_bytes_mod_order_wide(bytes.try_into().ok()?))
}

fn decompress(bytes: &[u8]) -> Option<EdwardsPoint> {
    CompressedEdwardsY(bytes.try_into().ok()?).decompress()
}

/// One signature of a batch, judged by [`Rules::Zip215`].
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) public: [u8; 32],
    pub(crate) message: [u8; 32],
    pub(crate) signature: [u8; 64],
}

/// Signatures per equation. Larger ones gain little, and one bad signature makes its batch be judged one by one.
const BATCH: usize = 256;

/// The verdict of [`Rules::Zip215`] on each, in far less time than one by one when many are good and few keys made them.
pub(crate) fn verify_batch(entries: &[Entry]) -> Vec<bool> {
    let mut verdicts = Vec::with_capacity(entries.len());
    for batch in entries.chunks(BATCH) {
        if batch.len() > 1 && all_verify(batch) {
            verdicts.resize(verdicts.len() + batch.len(), true);
        } else {
            let one = |entry: &Entry| verify(Rules::Zip215, &entry.public, &entry.message, &entry.signature);
            verdicts.extend(batch.iter().map(one));
        }
    }
    verdicts
}

/// 8·(Σ zᵢsᵢ·B − Σ zᵢRᵢ − Σ zᵢhᵢ·Aᵢ) = 0 with 128-bit zᵢ, which fails but for chance in 2¹²⁸ if one of the signatures does.
/// The zᵢ are derived from everything in the batch, so that who makes a signature cannot choose it to fit them.
fn all_verify(batch: &[Entry]) -> bool {
    let mut transcript = Context::new(&SHA512);
    transcript.update(b"tsrs tailnet lock batch");
    for entry in batch {
        transcript.update(&entry.public);
        transcript.update(&entry.message);
        transcript.update(&entry.signature);
    }
    let seed = transcript.finish();
    let (mut scalars, mut points) =
        (Vec::with_capacity(batch.len() + 2), Vec::with_capacity(batch.len() + 2));
    let mut base = Scalar::ZERO;
    let mut keys: HashMap<[u8; 32], Scalar> = HashMap::new();
    for (index, entry) in batch.iter().enumerate() {
        let Some(parts) = Parts::new(&entry.public, &entry.message, &entry.signature) else { return false };
        let Some(r) = decompress(&parts.r) else { return false };
        let z = coefficient(seed.as_ref(), index);
        base += z * parts.s;
        *keys.entry(entry.public).or_insert(Scalar::ZERO) += z * parts.challenge;
        // The point is negated, not the scalar, which would no longer be short.
        scalars.push(z);
        points.push(-r);
    }
    for (key, scalar) in &keys {
        let Some(point) = decompress(key) else { return false };
        scalars.push(*scalar);
        points.push(-point);
    }
    scalars.push(base);
    points.push(curve25519_dalek::constants::ED25519_BASEPOINT_POINT);
    EdwardsPoint::vartime_multiscalar_mul(&scalars, &points).mul_by_cofactor().is_identity()
}

fn coefficient(seed: &[u8], index: usize) -> Scalar {
    let bytes = digest(&SHA512, &[seed, &(index as u64).to_le_bytes()].concat());
    let mut raw = [0; 16];
    raw.iter_mut().zip(bytes.as_ref()).for_each(|(to, from)| *to = *from);
    Scalar::from(u128::from_le_bytes(raw))
}
