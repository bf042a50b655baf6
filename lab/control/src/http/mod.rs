//! HTTP: the outer server (keys, upgrade, login pages, DERP's probes) and the one inside Noise.

mod body;
mod head;
mod lock;
mod machine;
mod map_stream;
mod outer;

pub(crate) use head::{Rewind, read_head};
pub(crate) use machine::C2N_PATH;
pub(crate) use outer::{Site, serve};
