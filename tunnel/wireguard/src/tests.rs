//! Two devices, a network that can lose and hold back, and a virtual clock.

mod cookies;
mod handshakes;
mod limits;
mod offload;
mod pair;
mod random;
mod session;
mod timers;
