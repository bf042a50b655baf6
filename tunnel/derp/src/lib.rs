//! DERP frame codec and the client's state machine.
#![forbid(unsafe_code)]
