//! Exit flows: which destinations a peer may reach through this node, and how its traffic leaves through a proxy.
//!
//! A node that offers itself as exit carries its peers' internet traffic through a proxy or not at all. There is no direct
//! mode: nothing in this crate can open a connection to a destination. [`policy`] decides by destination, and what it admits
//! is a [`policy::Destination`], which nothing else can make.
//!
//! The caller tells the policy this host's own addresses and the proxies' whenever they change.
#![forbid(unsafe_code)]

pub mod policy;
pub mod proxy;

#[cfg(test)]
mod test_support;
