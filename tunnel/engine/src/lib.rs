//! Runs the data plane: TUN queues, UDP sockets, DERP connections, timers and the fast-path workers.

mod clock;
pub mod offload;
mod sys;
mod udp;
mod wake;
