//! The LocalAPI server: HTTP/1.1 over a Unix socket, as tailscaled serves it (client sheet §2).
//!
//! Who may call what is decided by the table in `tsrs_agent_localapi::access` and by the credentials that the kernel
//! vouches for; a connection whose peer is unknown may read. Reads are answered from the snapshot, everything else by the
//! backend through [`crate::ask`]. Nothing that a client sends can make a socket that bypasses the tunnel, and nothing
//! but addresses of the tailnet is ever dialled for a client.

mod bugreport;
mod debug;
mod dial;
mod dns;
mod features;
mod icmp;
mod listener;
mod lookup;
mod metrics;
mod ping;
mod query;
mod redact;
mod request;
mod response;
mod routes;
mod server;
mod settings;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use tsrs_platform_api::PeerCredentials;

use crate::ask::AskSender;

pub(crate) use listener::{ListenError, OFFICIAL_SOCKET, bind, bind_if_free};
pub(crate) use server::serve;

/// What the server is made of.
pub(crate) struct Api {
    /// The way to the backend.
    pub(crate) asks: AskSender,
    /// Reads who is at the other end of a connection.
    pub(crate) credentials: Arc<dyn PeerCredentials>,
    /// The user the daemon runs as.
    pub(crate) daemon_uid: u32,
    /// The user who may fetch certificates (`TS_PERMIT_CERT_UID`).
    pub(crate) cert_uid: Option<u32>,
    /// Where bug reports are kept.
    pub(crate) state_dir: PathBuf,
}

#[cfg(test)]
mod tests;
