//! Services of the agent towards the host and the tailnet, a module each.
//!
//! - [`dns`]: the resolver at 100.100.100.100, with its upstream sockets.
#![forbid(unsafe_code)]

pub mod dns;
