//! DERP: packets between nodes by a relay over TLS (data-plane sheet §4).
//!
//! * [`frame`]: the frames in both directions; a server uses the same code.
//! * [`info`]: the sealed greeting of each side.
//! * [`buffer`]: received bytes, cut into frames without copying.
//! * [`client`]: [`ClientMachine`], one connection from the first byte inside TLS on.
//! * [`map`]: regions and nodes, how a node's certificate is verified, and which node is dialled next.
//!
//! The crate is sans-IO. The caller opens TCP and TLS to the node that [`map::RegionDialer`] names, verifies it by its
//! [`map::TlsPolicy`], and moves bytes between the connection and the machine. Mesh frames between servers are left out.
#![forbid(unsafe_code)]

pub mod bucket;
pub mod buffer;
pub mod client;
pub mod frame;
pub mod info;
pub mod map;
pub mod upgrade;

pub use client::{ClientConfig, ClientMachine, Error, Message, Refused, Start};
pub use info::{ClientInfo, ServerInfo};
pub use map::{Dial, Node, NodeAddress, NodeFields, Region, RegionDialer, TlsPolicy};

#[cfg(test)]
mod tests;
