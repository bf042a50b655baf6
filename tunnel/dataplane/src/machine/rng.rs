//! The random generator of a machine, whichever it is.

use rand_core::{CryptoRng, CryptoRngCore, Error, RngCore};

/// The generator of the operating system, or a seeded one in tests.
pub struct Rng(Box<dyn CryptoRngCore + Send>);

impl Rng {
    /// Any generator.
    pub fn new(rng: impl CryptoRngCore + Send + 'static) -> Self {
        Self(Box::new(rng))
    }
}

impl RngCore for Rng {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill_bytes(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.0.try_fill_bytes(dest)
    }
}

impl CryptoRng for Rng {}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rng")
    }
}
