//! Names of the tailnet's nodes and the records that control adds, in both directions.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::name::Name;

/// Host table. A change of one host costs the same whatever the number of hosts.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    addresses: HashMap<Name, Vec<IpAddr>>,
    names: HashMap<IpAddr, Name>,
    with_subdomains: HashSet<Name>,
}

impl Hosts {
    /// Sets the addresses of a host, in the order in which they are preferred. Of two hosts with one address, the
    /// first keeps the reverse name.
    pub fn insert(&mut self, name: Name, addresses: Vec<IpAddr>, with_subdomains: bool) {
        self.remove(&name);
        for address in &addresses {
            self.names.entry(*address).or_insert_with(|| name.clone());
        }
        if with_subdomains {
            self.with_subdomains.insert(name.clone());
        }
        self.addresses.insert(name, addresses);
    }

    /// Forgets a host.
    pub fn remove(&mut self, name: &Name) {
        for address in self.addresses.remove(name).unwrap_or_default() {
            if self.names.get(&address) == Some(name) {
                self.names.remove(&address);
            }
        }
        self.with_subdomains.remove(name);
    }

    /// The addresses of a host, or of the nearest host above it whose subdomains resolve to it. An empty list is a host
    /// without address.
    pub fn lookup(&self, name: &Name) -> Option<&[IpAddr]> {
        if let Some(addresses) = self.addresses.get(name) {
            return Some(addresses);
        }
        if self.with_subdomains.is_empty() {
            return None;
        }
        let host = name.ancestors().skip(1).find(|above| self.with_subdomains.contains(above))?;
        self.addresses.get(&host).map(Vec::as_slice)
    }

    /// The host that has an address.
    pub fn reverse(&self, address: IpAddr) -> Option<&Name> {
        self.names.get(&address)
    }

    /// How many hosts there are.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}
