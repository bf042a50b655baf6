//! The reference's cases, a model that shares no code with the crate, and hostile input.

mod bytes;
mod chains;
mod decoding;
mod exchange;
mod model;
mod peers;
mod signatures;
mod support;
