//! WireGuard: handshake, sessions, replay window, cookies and timers, without input or output.
#![forbid(unsafe_code)]
