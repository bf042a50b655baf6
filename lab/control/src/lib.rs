//! Embedded control server, DERP and STUN for the demo and the tests; not for production.
#![forbid(unsafe_code)]
