//! Runs the data plane: TUN queues, UDP sockets, DERP connections, timers and the fast-path workers.

#[cfg_attr(not(test), expect(dead_code, reason = "the workers that call this follow"))]
mod sys;
