//! Prefixes as the kernel's interval sets want them: sorted ranges that neither overlap nor touch.

use std::collections::BTreeSet;

use ipnet::Ipv4Net;

/// Addresses from `first` up to and including `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    pub(crate) first: u32,
    pub(crate) last: u32,
}

/// A set of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeSet<Range>);

impl Ranges {
    /// The addresses of all these prefixes.
    pub(crate) fn new(prefixes: impl IntoIterator<Item = Ipv4Net>) -> Self {
        let mut sorted: Vec<Range> = prefixes
            .into_iter()
            .map(|prefix| Range { first: prefix.network().into(), last: prefix.broadcast().into() })
            .collect();
        sorted.sort_unstable();
        let mut merged: Vec<Range> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last)
                }
                _ => merged.push(range),
            }
        }
        Self(merged.into_iter().collect())
    }

    /// Ranges that are in `self` and not, in just this form, in `other`.
    pub(crate) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Range> + 'a {
        self.0.difference(&other.0).copied()
    }

    /// All ranges.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(prefixes: &[&str]) -> Vec<(String, String)> {
        Ranges::new(prefixes.iter().map(|text| text.parse().unwrap()))
            .iter()
            .map(|range| {
                let text = |address: u32| std::net::Ipv4Addr::from(address).to_string();
                (text(range.first), text(range.last))
            })
            .collect()
    }

    fn pair(first: &str, last: &str) -> (String, String) {
        (first.into(), last.into())
    }

    #[test]
    fn overlapping_and_touching_prefixes_become_one_range() {
        assert_eq!(
            ranges(&["10.20.0.0/16", "10.20.30.0/24", "10.21.0.0/16", "192.168.7.0/24"]),
            [pair("10.20.0.0", "10.21.255.255"), pair("192.168.7.0", "192.168.7.255")]
        );
        assert_eq!(ranges(&["0.0.0.0/0", "10.0.0.0/8"]), [pair("0.0.0.0", "255.255.255.255")]);
        assert_eq!(
            ranges(&["255.255.255.255/32", "255.255.255.254/32"]),
            [pair("255.255.255.254", "255.255.255.255")]
        );
    }

    #[test]
    fn a_difference_names_ranges_that_changed_their_form() {
        let one = Ranges::new(["10.0.0.0/24".parse().unwrap()]);
        let two = Ranges::new(["10.0.0.0/24".parse().unwrap(), "10.0.1.0/24".parse().unwrap()]);
        assert_eq!(one.without(&two).count(), 1);
        assert_eq!(two.without(&one).count(), 1);
        assert_eq!(one.without(&one).count(), 0);
    }
}
