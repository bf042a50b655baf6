//! Request and reply types of the LocalAPI and its access levels.
//!
//! The LocalAPI is HTTP over a Unix socket, wire-compatible with tailscaled's `/localapi/v0/` (client sheet §2). This
//! crate holds the JSON shapes and the table of rights; it opens no socket and decides no policy. Daemon and CLI share
//! it. Bodies that a client sends are read with [`json::from_client`], which is as lenient as Go's decoder; bodies that
//! are written keep Go's field names, field order and its difference between `null`, absent and empty.
#![forbid(unsafe_code)]

pub mod access;
pub mod gate;
pub mod json;
pub mod lock;
pub mod notify;
pub mod prefs;
pub mod profile;
pub mod requests;
pub mod status;

pub use access::{Access, Endpoint, Identity, Right};
pub use notify::{Notify, WatchMask};
pub use prefs::{MaskedPrefs, Prefs};
pub use profile::{LoginProfile, NetworkProfile, UserProfile};
pub use requests::{PingKind, PingResult, StartOptions, WhoIs};
pub use status::{BackendState, PeerStatus, Status};
/// Wire types of the control protocol, which some answers hold as they are.
pub use tsrs_control_tailcfg as tailcfg;

/// What every path of the API begins with.
pub const PATH_PREFIX: &str = "/localapi/v0/";

/// The only non-empty `Host` that a request may carry (client sheet §2.1).
pub const HOST: &str = "local-tailscaled.sock";

#[cfg(test)]
mod tests;
