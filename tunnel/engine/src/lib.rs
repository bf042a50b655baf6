//! Runs the data plane: TUN queues, UDP sockets, DERP connections, timers and the fast-path workers.

mod clock;
mod metrics;
pub mod offload;
mod sys;
mod tun;
mod udp;
mod wake;
mod worker;
