//! WireGuard: handshake, sessions, replay window, cookies and timers, without input or output.
//!
//! [`Device`] is the slow machine. It knows peers by their node keys and never an address: what it sends goes to a peer by the
//! path that the caller chose, or back to the [`Source`] of a message. It never roams. Its caller feeds it the handshake
//! messages, packets for peers that have no session, and time; after each call it drains [`Device::poll_transmit`] and
//! [`Device::poll_event`], and calls [`Device::handle_timeout`] at [`Device::poll_timeout`].
//!
//! [`Session`] is the fast path. The events of the device say which sessions receive and which one sends for a peer; workers
//! share them and seal and open whole batches in place. When a session returns [`Notice::Wake`] the worker passes its local index
//! to [`Device::handle_notice`]; nothing else is said per packet.
//!
//! Peers need not be configured: a packet or an initiation makes them, the latter only if the caller admits the key. The preshared
//! key is zero for every peer, but its step is performed (data-plane sheet §1.1).
//!
//! Left out: which inner addresses belong to a peer, paths, and the queues between workers and the device.
#![forbid(unsafe_code)]

mod activity;
mod cookie;
mod device;
mod handshake;
pub mod limits;
mod peers;
mod rate;
mod replay;
mod session;
mod tai64n;
pub mod wire;

pub use activity::Notice;
pub use cookie::Source;
pub use device::{Destination, Device, Event, PeerStatus, TooManyPeers, Transmit};
pub use replay::{ReplayWindow, WINDOW};
pub use session::{Incoming, Outcome, Outgoing, Reserved, Role, Session};

#[cfg(test)]
mod tests;
