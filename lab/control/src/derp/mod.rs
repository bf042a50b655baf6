//! DERP servers (data-plane sheet §4): one [`Hub`] per region, joined by nothing, as there is one node per region.

mod connection;
mod hub;
mod upgrade;

pub(crate) use connection::serve;
pub use hub::DerpStats;
pub(crate) use hub::{Hub, Queue};
pub(crate) use upgrade::{Upgrade, parse as parse_upgrade};
