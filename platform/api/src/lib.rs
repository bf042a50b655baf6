//! What the agent asks of an operating system: wanted-state types, traits and their fakes.
//!
//! Each trait takes the whole wanted state and makes the system match it; applying the same state twice changes
//! nothing, and `close` restores what was there before. Calls block for some milliseconds (netlink, files) up to a
//! few seconds (a name service that does not answer), so an asynchronous caller runs them on a thread of its own.
//! What happens later and unasked (a link change, a rule that somebody removed) is told through an [`EventSink`].
//!
//! The numbers, names and paths of an agent are those of its [`Instance`], all in one file.
//!
//! The caller decides *what* is wanted (`agent/core`), the implementations (`platform/linux`, `platform/macos`) *how*.
//! With the feature `testing` the crate also offers in-memory fakes and the contract that fakes and real
//! implementations both pass.
#![forbid(unsafe_code)]

pub mod advertise;
mod binder;
pub mod dns;
mod error;
pub mod instance;
pub mod link;
mod peer_cred;
pub mod router;
pub mod tun;

#[cfg(any(test, feature = "testing"))]
pub mod contract;
#[cfg(any(test, feature = "testing"))]
pub mod fake;

pub use advertise::{Refusal, advertisable};
pub use binder::{ExitBinder, SocketBinder};
pub use dns::{DnsConfig, DnsConfigurator, DnsEvent, DnsOwner, DnsStatus, MatchDomain};
pub use error::{PlatformError, Result};
pub use instance::{Instance, InstanceRangeError, Marks, RulePriorities};
pub use link::{Change, DefaultRoute, Interface, LinkEvent, LinkMonitor, LinkState};
pub use peer_cred::{PeerCred, PeerCredentials};
pub use router::{NetfilterMode, Router, RouterConfig, RouterEvent};
pub use tun::{TunConfig, TunDevice, TunOffload};

use std::net::Ipv4Addr;
use std::sync::Arc;

/// Address at which every node reaches its own resolver and services; it never leaves the host.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 100);

/// Something that the system did, or that an implementation did on its own.
#[derive(Clone, Debug)]
pub enum PlatformEvent {
    /// Interfaces, addresses, routes, or a wake-up.
    Link(LinkEvent),
    /// Rules, routes or firewall.
    Router(RouterEvent),
    /// The system's name resolution.
    Dns(DnsEvent),
}

/// Where an implementation tells what happened. Called from its own threads; must not block.
#[derive(Clone)]
pub struct EventSink(Arc<dyn Fn(PlatformEvent) + Send + Sync>);

impl EventSink {
    /// A sink that calls `tell` for each event.
    pub fn new(tell: impl Fn(PlatformEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    /// A sink for callers that do not listen.
    pub fn ignore() -> Self {
        Self::new(|_| ())
    }

    /// Passes an event on.
    pub fn tell(&self, event: PlatformEvent) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for EventSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventSink")
    }
}

#[cfg(test)]
mod tests;
