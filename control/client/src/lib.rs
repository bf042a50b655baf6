//! The control client: ts2021 handshake, HTTP/2, login and the map session.
#![forbid(unsafe_code)]

mod backoff;
mod early;
mod error;
pub mod noise;
mod server;

pub use error::{Error, ErrorKind};
pub use server::ServerUrl;
