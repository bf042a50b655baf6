//! The control client: ts2021 handshake, HTTP/2, login and the map session.
//!
//! [`ControlClient::start`] runs one client for one profile on the current tokio runtime. The owner steers it by its
//! [`Handle`] and takes its [`Event`]s: it must store the keys of [`Event::LoggedIn`], show [`Event::AuthUrl`], apply
//! [`Event::Netmap`], and decide when an expired key needs a login. Errors are retried by the client itself and told as
//! [`Event::Trouble`], whose text names the cause and the next step.
//!
//! Not done here: verifying anything under Tailnet Lock (the answers to its calls are given as they come; while the netmap
//! announces a lock, the owner admits nobody unverified; what is signed here is our own new node key), uploading logs (there is no such thing), and the browser's WebSocket variant
//! of the transport.
#![forbid(unsafe_code)]

mod backoff;
mod c2n;
mod calls;
mod config;
mod connection;
mod dial;
mod driver;
mod early;
mod error;
mod event;
mod frames;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod login;
mod machine;
mod map_stream;
pub mod noise;
mod ping;
mod server;

pub use c2n::{C2nHandler, C2nRequest, C2nResponse, StandardC2n};
pub use config::{Config, Endpoint, LocalState, NodeKeys};
pub use driver::ControlClient;
pub use error::{Error, ErrorKind};
pub use event::{Activity, Event, Trouble};
pub use handle::Handle;
pub use server::ServerUrl;

#[cfg(test)]
mod test_server;
