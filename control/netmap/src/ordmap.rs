//! An ordered map whose copies share their entries.
//!
//! Snapshots need a map that is copied in constant time and changed in logarithmic time without disturbing the copies.
//! This is an AVL tree whose nodes are counted references: a change copies the nodes on its path and shares all others.

use std::cmp::Ordering;
use std::sync::Arc;

type Link<K, V> = Option<Arc<Entry<K, V>>>;

/// An ordered map; `clone` takes constant time and shares everything.
#[derive(Debug)]
pub(crate) struct OrdMap<K, V> {
    root: Link<K, V>,
    len: usize,
}

#[derive(Debug, Clone)]
struct Entry<K, V> {
    key: K,
    value: V,
    /// Longest way down to a leaf, counted in entries.
    height: u8,
    left: Link<K, V>,
    right: Link<K, V>,
}

impl<K, V> Default for OrdMap<K, V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

impl<K, V> Clone for OrdMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: self.root.clone(), len: self.len }
    }
}

impl<K, V> OrdMap<K, V> {
    /// Whether this is an unchanged copy of the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }
}

impl<K: Ord, V> OrdMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let mut link = &self.root;
        while let Some(entry) = link {
            link = match key.cmp(&entry.key) {
                Ordering::Less => &entry.left,
                Ordering::Greater => &entry.right,
                Ordering::Equal => return Some(&entry.value),
            };
        }
        None
    }

    /// All entries in the order of their keys.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        let mut iter = Iter { ahead: Vec::new() };
        iter.descend_left(&self.root);
        iter
    }

    /// The entries from `key` on.
    pub(crate) fn range_from(&self, key: &K) -> Iter<'_, K, V> {
        let mut ahead = Vec::new();
        let mut link = &self.root;
        while let Some(entry) = link {
            if entry.key < *key {
                link = &entry.right;
            } else {
                ahead.push(entry.as_ref());
                link = &entry.left;
            }
        }
        Iter { ahead }
    }
}

impl<K: Ord + Clone, V: Clone> OrdMap<K, V> {
    /// Builds the map from entries that are sorted by key and free of duplicates.
    pub(crate) fn from_sorted(entries: Vec<(K, V)>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| a.0 < b.0));
        let len = entries.len();
        Self { root: build(&mut entries.into_iter(), len), len }
    }

    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let before = insert(&mut self.root, key, value);
        self.len += usize::from(before.is_none());
        before
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        // Looking first keeps a removal without effect from copying the path.
        self.get(key)?;
        let before = remove(&mut self.root, key);
        self.len -= usize::from(before.is_some());
        before
    }
}

fn build<K, V>(entries: &mut impl Iterator<Item = (K, V)>, len: usize) -> Link<K, V> {
    if len == 0 {
        return None;
    }
    let left = build(entries, len / 2);
    let (key, value) = entries.next()?;
    let right = build(entries, len - len / 2 - 1);
    let mut entry = Entry { key, value, height: 0, left, right };
    entry.measure();
    Some(Arc::new(entry))
}

fn insert<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>, key: K, value: V) -> Option<V> {
    let Some(entry) = link else {
        *link = Some(Arc::new(Entry { key, value, height: 1, left: None, right: None }));
        return None;
    };
    let entry = Arc::make_mut(entry);
    let before = match key.cmp(&entry.key) {
        Ordering::Less => insert(&mut entry.left, key, value),
        Ordering::Greater => insert(&mut entry.right, key, value),
        Ordering::Equal => return Some(std::mem::replace(&mut entry.value, value)),
    };
    balance(link);
    before
}

fn remove<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>, key: &K) -> Option<V> {
    let entry = Arc::make_mut(link.as_mut()?);
    let before = match key.cmp(&entry.key) {
        Ordering::Less => remove(&mut entry.left, key),
        Ordering::Greater => remove(&mut entry.right, key),
        Ordering::Equal => {
            let value = entry.value.clone();
            match (entry.left.take(), entry.right.take()) {
                (None, only) | (only, None) => *link = only,
                (left, mut right) => {
                    entry.left = left;
                    if let Some((key, value)) = remove_first(&mut right) {
                        (entry.key, entry.value) = (key, value);
                    }
                    entry.right = right;
                }
            }
            Some(value)
        }
    };
    balance(link);
    before
}

fn remove_first<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>) -> Option<(K, V)> {
    let entry = Arc::make_mut(link.as_mut()?);
    if entry.left.is_none() {
        let first = (entry.key.clone(), entry.value.clone());
        *link = entry.right.take();
        return Some(first);
    }
    let first = remove_first(&mut entry.left);
    balance(link);
    first
}

/// Restores the height of an entry and the balance of its two sides, of which one has changed by one step.
fn balance<K: Clone, V: Clone>(link: &mut Link<K, V>) {
    let Some(entry) = link else { return };
    let entry = Arc::make_mut(entry);
    entry.measure();
    match height(&entry.left).cmp(&height(&entry.right)) {
        Ordering::Greater if height(&entry.left) > height(&entry.right) + 1 => {
            if entry.left.as_ref().is_some_and(|left| height(&left.right) > height(&left.left)) {
                rotate_left(&mut entry.left);
            }
            rotate_right(link);
        }
        Ordering::Less if height(&entry.right) > height(&entry.left) + 1 => {
            if entry.right.as_ref().is_some_and(|right| height(&right.left) > height(&right.right)) {
                rotate_right(&mut entry.right);
            }
            rotate_left(link);
        }
        Ordering::Less | Ordering::Equal | Ordering::Greater => {}
    }
}

fn rotate_right<K: Clone, V: Clone>(link: &mut Link<K, V>) {
    let Some(mut top) = link.take() else { return };
    let entry = Arc::make_mut(&mut top);
    let Some(mut left) = entry.left.take() else {
        *link = Some(top);
        return;
    };
    let new_top = Arc::make_mut(&mut left);
    entry.left = new_top.right.take();
    entry.measure();
    new_top.right = Some(top);
    new_top.measure();
    *link = Some(left);
}

fn rotate_left<K: Clone, V: Clone>(link: &mut Link<K, V>) {
    let Some(mut top) = link.take() else { return };
    let entry = Arc::make_mut(&mut top);
    let Some(mut right) = entry.right.take() else {
        *link = Some(top);
        return;
    };
    let new_top = Arc::make_mut(&mut right);
    entry.right = new_top.left.take();
    entry.measure();
    new_top.left = Some(top);
    new_top.measure();
    *link = Some(right);
}

fn height<K, V>(link: &Link<K, V>) -> u8 {
    link.as_ref().map_or(0, |entry| entry.height)
}

impl<K, V> Entry<K, V> {
    fn measure(&mut self) {
        self.height = height(&self.left).max(height(&self.right)) + 1;
    }
}

/// Iterator over entries in the order of their keys.
pub(crate) struct Iter<'a, K, V> {
    /// Entries that are still to come and whose left sides are done; the next one is last.
    ahead: Vec<&'a Entry<K, V>>,
}

impl<'a, K, V> Iter<'a, K, V> {
    fn descend_left(&mut self, mut link: &'a Link<K, V>) {
        while let Some(entry) = link {
            self.ahead.push(entry);
            link = &entry.left;
        }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.ahead.pop()?;
        self.descend_left(&entry.right);
        Some((&entry.key, &entry.value))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Small generator of test numbers (xorshift), so that a failure repeats.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % below
        }
    }

    /// Wants every height right and every pair of sides balanced; returns the height.
    fn check_balance(link: &Link<u64, u64>) -> u8 {
        let Some(entry) = link else { return 0 };
        let (left, right) = (check_balance(&entry.left), check_balance(&entry.right));
        assert!(left.abs_diff(right) <= 1);
        assert_eq!(entry.height, left.max(right) + 1);
        entry.height
    }

    fn assert_same(map: &OrdMap<u64, u64>, model: &BTreeMap<u64, u64>) {
        assert!(map.iter().eq(model.iter()));
        assert_eq!(map.len(), model.len());
        check_balance(&map.root);
    }

    #[test]
    fn random_changes_agree_with_a_tree_map_and_leave_copies_alone() {
        let mut numbers = Numbers(0x5eed);
        let (mut map, mut model) = (OrdMap::default(), BTreeMap::new());
        let mut copies = Vec::new();
        for step in 0..6000 {
            let (key, value) = (numbers.next(300), numbers.next(1000));
            // Phases of growth and of shrinking.
            if numbers.next(10) < if step / 1000 % 2 == 0 { 7 } else { 3 } {
                assert_eq!(map.insert(key, value), model.insert(key, value));
            } else {
                assert_eq!(map.remove(&key), model.remove(&key));
            }
            assert_eq!(map.get(&key), model.get(&key));
            if step % 500 == 0 {
                copies.push((map.clone(), model.clone()));
            }
            if step % 50 == 0 {
                assert_same(&map, &model);
                assert!(map.range_from(&key).eq(model.range(key..)));
            }
        }
        for (copy, model) in &copies {
            assert_same(copy, model);
        }
    }

    #[test]
    fn a_map_from_sorted_entries_is_balanced_for_every_length() {
        for len in 0..200 {
            let model: BTreeMap<u64, u64> = (0..len).map(|key| (key * 2, key)).collect();
            assert_same(&OrdMap::from_sorted(model.clone().into_iter().collect()), &model);
        }
    }

    #[test]
    fn emptying_a_map_in_both_directions_keeps_it_balanced() {
        for backwards in [false, true] {
            let mut map = OrdMap::from_sorted((0..500).map(|key| (key, key)).collect());
            for step in 0..500 {
                let key = if backwards { 499 - step } else { step };
                assert_eq!(map.remove(&key), Some(key));
                check_balance(&map.root);
            }
            assert_eq!(map.iter().count(), 0);
        }
    }

    #[test]
    fn a_change_copies_only_its_path() {
        let map = OrdMap::from_sorted((0..10_000).map(|key| (key, key)).collect());
        let mut changed = map.clone();
        changed.insert(5, 0);
        fn shared(a: &Link<u64, u64>, b: &Link<u64, u64>, fresh: &mut usize) {
            if let (Some(a), Some(b)) = (a, b)
                && !Arc::ptr_eq(a, b)
            {
                *fresh += 1;
                shared(&a.left, &b.left, fresh);
                shared(&a.right, &b.right, fresh);
            }
        }
        let mut fresh = 0;
        shared(&map.root, &changed.root, &mut fresh);
        assert!((1..=15).contains(&fresh), "{fresh}");
    }
}
