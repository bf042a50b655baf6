//! What the tests of all crates share: reference cases, made by running the reference implementation, with their loader, and a
//! seeded generator.
//!
//! The files lie in `data/` beside a README that describes each; those above 64 KiB are compressed with zstd. This crate
//! is a dev-dependency only: a file that is missing or damaged is a defect of the checkout and panics.
#![forbid(unsafe_code)]

mod rng;

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

pub use rng::SeededRng;

/// The folder that holds the files.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data")
}

/// The bytes of a file, named as in the README (`filter/rule-parse.json`), decompressed where it is stored so.
pub fn bytes(name: &str) -> Vec<u8> {
    let plain = folder().join(name);
    let packed = folder().join(format!("{name}.zst"));
    if plain.exists() {
        return std::fs::read(&plain).unwrap_or_else(|error| panic!("{}: {error}", plain.display()));
    }
    let file = std::fs::File::open(&packed).unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(file)
        .unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    let mut out = Vec::new();
    decoder.read_to_end(&mut out).unwrap_or_else(|error| panic!("{}: {error}", packed.display()));
    out
}

/// A file as a typed value.
pub fn load<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A file as JSON.
pub fn json(name: &str) -> serde_json::Value {
    load(name)
}

/// Bytes from the lower-case hex that the files use.
pub fn hex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap_or_else(|error| panic!("not hex: {error}"))
}
