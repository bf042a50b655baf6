//! What the fast path reads: published by the machine, read by the workers without locks.
//!
//! Two tables are swapped as a whole, [`Routes`] and the sessions by receiver index; their copies share what did not
//! change. What changes often and concerns one peer, its session and its path, lies in its [`PeerSlot`].

mod path_cell;
pub mod persistent;
pub mod prefix;
mod slot;
mod stamp;

use std::net::Ipv4Addr;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tsrs_base_types::DiscoPublic;
use tsrs_tunnel_wireguard::Session;

pub use persistent::PersistentMap;
pub use prefix::PrefixMap;
pub use slot::PeerSlot;
pub use stamp::{Epoch, Stamp};

use crate::config::TunnelConfig;
use crate::policy::Policy;

/// Where packets go and what is allowed, at one point in time.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Our side.
    pub config: Arc<TunnelConfig>,
    /// Our own disco key: datagrams that begin with it must not travel inside the tunnel.
    pub disco_key: DiscoPublic,
    /// What may come in and go out.
    pub policy: Policy,
    /// Peers by what is routed to them.
    pub peers: PrefixMap<Arc<PeerSlot>>,
}

impl Routes {
    /// Whether the address is one of ours.
    pub fn is_own(&self, addr: Ipv4Addr) -> bool {
        self.config.addresses.contains(&addr)
    }
}

/// A session under which packets may arrive.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Opens them.
    pub session: Arc<Session>,
    /// Who sends them.
    pub peer: Arc<PeerSlot>,
}

/// Sessions by our own index.
pub type Receivers = PersistentMap<u32, Receiver>;

/// The published tables.
#[derive(Debug)]
pub struct Tables {
    routes: ArcSwap<Routes>,
    receivers: ArcSwap<Receivers>,
}

impl Tables {
    pub(crate) fn new(routes: Routes) -> Self {
        Self { routes: ArcSwap::from_pointee(routes), receivers: ArcSwap::default() }
    }

    /// Routes and policy as they are now. Hold it for a batch, not longer.
    pub fn routes(&self) -> Guard<Arc<Routes>> {
        self.routes.load()
    }

    /// Sessions as they are now. Hold it for a batch, not longer.
    pub fn receivers(&self) -> Guard<Arc<Receivers>> {
        self.receivers.load()
    }

    pub(crate) fn publish_routes(&self, routes: &Routes) {
        self.routes.store(Arc::new(routes.clone()));
    }

    pub(crate) fn publish_receivers(&self, receivers: &Receivers) {
        self.receivers.store(Arc::new(receivers.clone()));
    }
}
