//! Runs the data plane: TUN queues, UDP sockets, DERP connections, timers and the fast-path workers.
//!
//! | thread | what it does | waits for |
//! |---|---|---|
//! | `tsrs-transmit` | TUN → judge, route, seal → socket | epoll: TUN, stop |
//! | `tsrs-receive` | socket and relays → open, filter, join → TUN | epoll: socket, relays, stop |
//! | `tsrs-paths` | handshakes, timers, disco, STUN, relays, commands | its runtime |
//!
//! The first two carry packets to the end without a lock, an allocation or a hand-over per packet; what they cannot
//! finish goes to the third over a bounded queue. The third owns the [`tsrs_tunnel_dataplane::DataPlane`] and publishes
//! the tables that the others read. Nothing wakes up without a packet or a timer.

mod api;
mod clock;
mod derp_map;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod metrics;
pub mod offload;
mod slow;
mod sys;
mod tun;
mod udp;
mod wake;
mod worker;

pub use api::{Engine, EngineConfig, EngineEvent, EngineHandle, Outputs, StartError, Stopped};
pub use derp_map::DerpMap;
pub use metrics::{DirectionMetrics, Metrics};

#[cfg(test)]
mod tests;
