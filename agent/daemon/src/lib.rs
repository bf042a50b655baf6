//! The privileged agent: start-up, state store, LocalAPI server, wiring and shutdown.
#![forbid(unsafe_code)]

mod ask;
mod flags;
mod store;
