//! Longest-prefix lookup of IPv4 addresses.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::persistent::{MapKey, PersistentMap};

/// Network address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network(u32, u32);

impl MapKey for Network {
    fn spread(self) -> u32 {
        (self.0 ^ self.1).spread()
    }
}

/// Map from IPv4 prefixes to values. A clone is cheap, a change after it costs O(1) ([`PersistentMap`]).
///
/// A lookup tries one hash per prefix length in use, longest first: one for a node's own address, and few more for
/// the rest, since a tailnet uses few lengths.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    entries: PersistentMap<Network, V>,
    /// How many entries have each length.
    count_by_length: [u32; 33],
    /// Bit n is set while there is an entry of length n.
    lengths: u64,
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self { entries: PersistentMap::default(), count_by_length: [0; 33], lengths: 0 }
    }
}

impl<V: Clone> PrefixMap<V> {
    /// Number of prefixes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no prefix.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of exactly this prefix.
    pub fn get(&self, prefix: Ipv4Net) -> Option<&V> {
        self.entries.get(network(prefix))
    }

    /// The value of the longest prefix that holds `addr`.
    pub fn lookup(&self, addr: Ipv4Addr) -> Option<&V> {
        let addr = addr.to_bits();
        let mut lengths = self.lengths;
        while lengths != 0 {
            let length = lengths.ilog2();
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            if let Some(value) = self.entries.get(Network(addr & mask, length)) {
                return Some(value);
            }
            lengths ^= 1 << length;
        }
        None
    }

    /// Sets the value of a prefix (host bits are ignored); returns the one before.
    pub fn insert(&mut self, prefix: Ipv4Net, value: V) -> Option<V> {
        let old = self.entries.insert(network(prefix), value);
        if old.is_none() {
            self.count_by_length[usize::from(prefix.prefix_len())] += 1;
            self.lengths |= 1 << prefix.prefix_len();
        }
        old
    }

    /// Removes a prefix; returns its value.
    pub fn remove(&mut self, prefix: Ipv4Net) -> Option<V> {
        let old = self.entries.remove(network(prefix))?;
        let count = &mut self.count_by_length[usize::from(prefix.prefix_len())];
        *count -= 1;
        if *count == 0 {
            self.lengths ^= 1 << prefix.prefix_len();
        }
        Some(old)
    }

    /// Entries that the changes between the two maps have copied.
    #[cfg(test)]
    pub(crate) fn entries_not_shared_with(&self, other: &Self) -> usize {
        self.entries.entries_not_shared_with(&other.entries)
    }
}

fn network(prefix: Ipv4Net) -> Network {
    Network(prefix.network().to_bits(), prefix.prefix_len().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(prefixes: &[&str]) -> PrefixMap<String> {
        let mut map = PrefixMap::default();
        for prefix in prefixes {
            map.insert(prefix.parse().unwrap(), (*prefix).to_owned());
        }
        map
    }

    fn lookup<'a>(map: &'a PrefixMap<String>, addr: &str) -> Option<&'a str> {
        map.lookup(addr.parse().unwrap()).map(String::as_str)
    }

    #[test]
    fn longest_prefix_wins() {
        let map = map(&["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "192.168.0.0/17"]);
        assert_eq!(lookup(&map, "10.1.2.3"), Some("10.1.2.3/32"));
        assert_eq!(lookup(&map, "10.1.2.4"), Some("10.1.0.0/16"));
        assert_eq!(lookup(&map, "10.2.0.0"), Some("10.0.0.0/8"));
        assert_eq!(lookup(&map, "192.168.128.0"), Some("0.0.0.0/0"));
        assert_eq!(lookup(&map, "255.255.255.255"), Some("0.0.0.0/0"));
    }

    #[test]
    fn nothing_is_found_without_a_prefix_that_holds_the_address() {
        let mut map = map(&["10.0.0.0/8", "11.0.0.0/32"]);
        assert_eq!(lookup(&map, "11.0.0.1"), None);
        assert_eq!(map.remove("10.0.0.0/8".parse().unwrap()).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(map.remove("10.0.0.0/8".parse().unwrap()), None);
        assert_eq!(lookup(&map, "10.0.0.1"), None);
        assert_eq!(lookup(&map, "11.0.0.0"), Some("11.0.0.0/32"));
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn host_bits_of_a_prefix_do_not_matter() {
        let map = map(&["10.1.2.3/8"]);
        assert_eq!(lookup(&map, "10.9.9.9"), Some("10.1.2.3/8"));
        assert!(map.get("10.0.0.0/8".parse().unwrap()).is_some());
    }

    #[test]
    fn agrees_with_a_linear_search() {
        let mut map = PrefixMap::default();
        let mut all: Vec<Ipv4Net> = Vec::new();
        let mut state = 7_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        for _ in 0..500 {
            let addr = Ipv4Addr::from_bits(random() << 8);
            let length = u8::try_from(random() % 33).unwrap();
            let prefix = Ipv4Net::new(addr, length).unwrap().trunc();
            all.push(prefix);
            map.insert(prefix, prefix);
        }
        for prefix in all.split_off(300) {
            map.remove(prefix);
            all.retain(|kept| *kept != prefix);
        }
        for _ in 0..5_000 {
            let addr = Ipv4Addr::from_bits((random() << 8) | (random() & 0xff));
            let best =
                all.iter().filter(|prefix| prefix.contains(&addr)).max_by_key(|prefix| prefix.prefix_len());
            assert_eq!(map.lookup(addr), best);
        }
    }
}
