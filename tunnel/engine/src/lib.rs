//! Runs the data plane: TUN queues, UDP sockets, DERP connections, timers and the fast-path workers.
