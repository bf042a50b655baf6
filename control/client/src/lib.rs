//! The control client: ts2021 handshake, HTTP/2, login and the map session.
#![forbid(unsafe_code)]
