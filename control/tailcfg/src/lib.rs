//! Wire types of the control protocol, in the protocol's own names.
#![forbid(unsafe_code)]
