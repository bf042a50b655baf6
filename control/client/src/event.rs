//! What a control client tells its owner.

use std::sync::Arc;
use std::time::Duration;

use tsrs_control_netmap::{Change, Netmap};
use tsrs_control_tailcfg::{ClientVersion, Login, PingRequest, User};

use crate::config::NodeKeys;
use crate::error::ErrorKind;

/// Something that happened. Events come in order and none is left out; while the owner does not take them, the client
/// stops reading the map stream.
#[derive(Debug)]
pub enum Event {
    /// The user must visit this page to log in; the client waits until that is done. It was checked: its scheme is one
    /// to open, and for Tailscale's own server its host, too.
    AuthUrl(String),
    /// The node is registered. Store the keys before anything else: the server knows only these from now on.
    LoggedIn {
        /// Keys in use now.
        keys: NodeKeys,
        /// Whom the node belongs to.
        user: User,
        /// How the user came.
        login: Login,
    },
    /// The node is logged out, and its keys are worthless. No login follows by itself.
    LoggedOut,
    /// A new netmap.
    Netmap {
        /// The snapshot.
        netmap: Arc<Netmap>,
        /// What differs from the snapshot before.
        changes: Vec<Change>,
    },
    /// An administrator must approve the node (`false`), or has (`true`).
    MachineAuthorized(bool),
    /// The node key has expired: log in again. A later netmap with a later expiry brings the node back, too.
    KeyExpired,
    /// The map stream delivers.
    Online,
    /// The map stream ended; it is opened again. What the last netmap says stays in force.
    Offline,
    /// Something failed.
    Trouble(Trouble),
    /// The server wants the user to see this page; checked like `AuthUrl`.
    OpenPage(String),
    /// What the server knows about newer versions of the official client.
    ClientVersion(Box<ClientVersion>),
    /// The server wants a peer pinged; answer with [`crate::Handle::ping_response`].
    Ping(Box<PingRequest>),
    /// The server wants the program to end with this code.
    ExitWanted(i64),
    /// The server's default for automatic updates; only the first one ever counts.
    DefaultAutoUpdate(bool),
}

/// What failed, and how it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What was being done.
    pub activity: Activity,
    /// The kind of failure.
    pub kind: ErrorKind,
    /// Cause and next step, for the user.
    pub text: String,
    /// When it is tried again by itself; `None`: not before something changes.
    pub retry_in: Option<Duration>,
}

/// The three things a client does at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// Registering the node.
    Login,
    /// Reading the map stream.
    Map,
    /// Telling the server about changes here.
    Update,
}
