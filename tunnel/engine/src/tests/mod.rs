//! Whole engines on loopback. A pair of sockets stands for the TUN, so that no privilege is needed; such a TUN has no
//! offload headers.

mod host;
mod relayed;
mod steady;
mod tunnel;
