//! Path finding: how this node reaches each peer, by UDP or over a DERP relay (data-plane sheet §2, §3, §5).
//!
//! [`PathMachine`] is the whole of it: disco messages, STUN and netcheck, own endpoints, the state of each peer's paths,
//! the home region. It is sans-IO: the caller hands in datagrams, facts and the time, then drains
//! [`PathMachine::poll_transmit`] and [`PathMachine::poll_event`] and sleeps until [`PathMachine::poll_timeout`].
//!
//! The caller must
//! * sort UDP datagrams by [`classify()`] and hand in those that are STUN or disco;
//! * send what `poll_transmit` gives, on the same socket that carries WireGuard, and report failed sends;
//! * say when it sends data to a peer ([`PathMachine::note_sent`]): nothing is ever probed for a peer without traffic;
//! * run the DERP connections that the events ask for, and report their fate.
//!
//! Left out: sockets, DNS, HTTPS probes (asked for by events), WireGuard itself, IPv6 underlays (IPv6 candidates are
//! dropped when they are learned), peer relays (paths leave room for them; [`geneve`] has their header) and port mapping
//! (a future source of endpoints).
#![forbid(unsafe_code)]

mod classify;
pub mod disco;
pub mod geneve;
pub mod machine;
pub mod netcheck;
pub mod stun;

pub use classify::{Datagram, classify};
pub use machine::{
    Config, DerpChange, Destination, Endpoint, EndpointKind, Event, LinkChange, PathMachine, PeerConfig,
    PeerPatch, PeerStatus, PingError, PingId, PongVia, SendError, SendPath, Source, Transmit,
};
pub use netcheck::NetInfo;
