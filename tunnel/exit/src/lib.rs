//! Exit flows: which destinations a peer may reach through this node, and how its traffic leaves through a proxy.
//!
//! A node that offers itself as exit carries its peers' internet traffic through a proxy or not at all. There is no direct
//! mode: nothing in this crate can open a connection to a destination. [`policy`] decides by destination, and what it admits
//! is a [`policy::Destination`], which nothing else can make. [`proxy`] says what is spoken to a proxy, without input and output.
//! [`flow::FlowStack`] ends the connections of peers, and holds each SYN until a proxy said yes.
//! [`dial::RealDialer`] is the only type that opens sockets: to proxies and their relays, IPv4 only, each with the exit mark.
//! [`relay::ExitRelay`] joins them: packets of peers in, packets for peers out.
//!
//! The caller tells policy and dialer this host's own addresses whenever they change ([`dial::RealDialer::refresh`], also now and then
//! for the names of the proxies), and the policy the addresses of the proxies that the dialer found. It calls
//! [`dial::RealDialer::check_health`] every [`dial::HEALTH_INTERVAL`]. Packets that it brings come from the peers whose addresses they
//! bear. IPv6 and DNS of clients are no part of this crate.
#![forbid(unsafe_code)]

pub mod dial;
pub mod flow;
pub mod policy;
pub mod proxy;
pub mod relay;

#[cfg(test)]
mod test_support;
#[cfg(test)]
mod tests;
