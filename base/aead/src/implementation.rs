//! Who does the work.

use std::fmt;

use crate::Record;
use crate::sys::Simd;

/// An implementation of the cipher that this machine can run. All give the same bytes.
#[derive(Clone, Copy)]
pub struct Implementation {
    simd: Option<Simd>,
    /// Whether vector instructions are used for batches, too, that are not worth it.
    always: bool,
}

impl Implementation {
    /// `ring`, one record after the other. Runs on every machine.
    pub const RING: Self = Self { simd: None, always: false };

    /// All that this machine can run, the fastest first.
    pub fn all() -> impl Iterator<Item = Self> {
        Simd::detect().map(|simd| Self { simd: Some(simd), always: false }).chain([Self::RING])
    }

    /// The fastest that this machine can run.
    pub fn fastest() -> Self {
        Self::all().next().unwrap_or(Self::RING)
    }

    /// The same, but batches that `ring` is faster with are not left to it: for tests and measurements.
    #[must_use]
    pub const fn always(self) -> Self {
        Self { always: true, ..self }
    }

    /// Its name: `ring`, or the vector instructions that it uses.
    pub const fn name(self) -> &'static str {
        match self.simd {
            Some(simd) => simd.name(),
            None => "ring",
        }
    }

    /// Which vector instructions are to be used for these records, if any are.
    pub(crate) fn simd_for(self, records: &[Record]) -> Option<Simd> {
        self.simd.filter(|simd| self.always || simd.is_worth(records))
    }
}

impl fmt::Debug for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
