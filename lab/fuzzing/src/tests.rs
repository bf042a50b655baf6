//! Every target takes its seeds, and mutations of them that are the same in each run.

use std::path::{Path, PathBuf};

use rand_core::RngCore;

use crate::TARGETS;
use crate::input::Seeded;

/// Mutations of the seeds of a target.
const MUTATION_COUNT: u64 = 2000;
/// The same for targets that compute key exchanges for each input, which takes milliseconds.
const SLOW_MUTATION_COUNT: u64 = 60;
const SLOW: &[&str] = &[
    "dataplane_inbound",
    "dataplane_outbound",
    "derp_client",
    "derp_greetings",
    "noise_responder",
    "noise_response",
    "path_machine",
    "wireguard_handshake",
    "wireguard_session",
];
/// Longest mutated input.
const MAX_LEN: usize = 8192;

fn seed_folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = seed_folder(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs a target and names the input if it panics.
fn run(target: &str, body: fn(&[u8]), data: &[u8]) {
    let outcome = std::panic::catch_unwind(|| body(data));
    if outcome.is_err() {
        let hex = data_encoding::HEXLOWER.encode(data);
        panic!("{target} panics (see above) at the input {hex}");
    }
}

/// A few changes of a seed: bits, bytes, lengths, pieces moved, pieces of another seed.
fn mutated(seed: &[u8], other: &[u8], rng: &mut Seeded) -> Vec<u8> {
    let mut data = seed.to_vec();
    for _ in 0..1 + rng.next_u32() % 4 {
        let at = below(rng, data.len());
        let len = below(rng, 1 + (data.len() - at).min(64));
        match rng.next_u32() % 8 {
            0 if at < data.len() => data[at] ^= 1 << (rng.next_u32() % 8),
            1 if at < data.len() => data[at] = [0, 1, 0x7f, 0x80, 0xff][below(rng, 5)],
            2 if at < data.len() => {
                data[at] = data[at].wrapping_add(rng.next_u32().to_le_bytes()[0] % 5).wrapping_sub(2)
            }
            3 => data.truncate(at),
            4 => drop(data.drain(at..at + len)),
            5 => {
                let piece = data[at..at + len].to_vec();
                data.splice(at..at, piece);
            }
            6 if !other.is_empty() => {
                let from = below(rng, other.len());
                let piece = &other[from..other.len().min(from + 1 + len)];
                data.splice(at..at + len, piece.iter().copied());
            }
            _ => {
                let piece = rng.next_u64().to_le_bytes();
                data.splice(at..at, piece[..1 + below(rng, 8)].iter().copied());
            }
        }
    }
    data.truncate(MAX_LEN);
    data
}

fn below(rng: &mut Seeded, limit: usize) -> usize {
    usize::try_from(rng.next_u64() % u64::try_from(limit.max(1)).unwrap()).unwrap()
}

#[test]
fn every_target_has_seeds_and_takes_them() {
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "{target} has no seeds");
        for seed in &seeds {
            assert!(seed.len() <= 4096, "{target} has a seed of {} bytes", seed.len());
            run(target, *body, seed);
        }
        run(target, *body, &[]);
    }
}

#[test]
fn every_target_takes_mutations_of_its_seeds() {
    for (target, body) in TARGETS {
        let seeds = seeds(target);
        let mut rng = Seeded(1);
        let count = if SLOW.contains(target) { SLOW_MUTATION_COUNT } else { MUTATION_COUNT };
        for _ in 0..count {
            let (seed, other) = (&seeds[below(&mut rng, seeds.len())], &seeds[below(&mut rng, seeds.len())]);
            run(target, *body, &mutated(seed, other, &mut rng));
        }
    }
}

#[test]
fn targets_are_named_once() {
    let mut names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TARGETS.len());
}
