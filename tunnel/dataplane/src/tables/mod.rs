//! What the fast path reads: published by the machine, read by the workers without locks.

pub mod persistent;
pub mod prefix;
