//! Sets of IPv4 addresses as sorted, disjoint ranges.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Addresses from first to last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct V4Range {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

impl From<Ipv4Net> for V4Range {
    fn from(net: Ipv4Net) -> Self {
        Self { first: net.network().into(), last: net.broadcast().into() }
    }
}

/// A set of addresses. Lookup is a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<V4Range>,
}

impl RangeSet {
    /// Whether an address is in the set.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        let after = self.ranges.partition_point(|range| range.first <= address);
        after.checked_sub(1).is_some_and(|index| self.ranges[index].last >= address)
    }

    /// The ranges, sorted, disjoint and not adjacent.
    pub fn ranges(&self) -> &[V4Range] {
        &self.ranges
    }

    /// The addresses that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for range in &self.ranges {
            let mut first = Some(range.first);
            for cut in other.ranges.iter().filter(|cut| cut.last >= range.first && cut.first <= range.last) {
                let Some(start) = first else { break };
                if cut.first > start {
                    left.push(V4Range { first: start, last: cut.first - 1 });
                }
                first = cut.last.checked_add(1);
            }
            if let Some(first) = first.filter(|first| *first <= range.last) {
                left.push(V4Range { first, last: range.last });
            }
        }
        left.into_iter().collect()
    }
}

impl FromIterator<V4Range> for RangeSet {
    fn from_iter<I: IntoIterator<Item = V4Range>>(ranges: I) -> Self {
        let mut sorted: Vec<V4Range> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut merged: Vec<V4Range> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last)
                }
                _ => merged.push(range),
            }
        }
        Self { ranges: merged }
    }
}

impl FromIterator<Ipv4Net> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Ipv4Net>>(nets: I) -> Self {
        nets.into_iter().map(V4Range::from).collect()
    }
}
