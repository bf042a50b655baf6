//! A hash map whose copies share what did not change.

use std::sync::Arc;

/// Children of each of the two inner levels: 64 × 64 leaves, so that a leaf holds about 25 of 100,000 entries.
const FANOUT: usize = 64;

/// A key that can be spread over the leaves.
///
/// Keys come from control (addresses) or from our own random generator (session indices), never from a peer, so the
/// spreading needs no secret.
pub trait MapKey: Copy + Eq {
    /// A number whose upper 12 bits differ between keys.
    fn spread(self) -> u32;
}

/// 2^32 divided by the golden ratio: spreads runs of neighbouring numbers evenly (Knuth, TAOCP 3, §6.4).
const GOLDEN: u32 = 0x9e37_79b9;

impl MapKey for u32 {
    fn spread(self) -> u32 {
        self.wrapping_mul(GOLDEN)
    }
}

type Leaf<K, V> = Arc<Vec<(K, V)>>;
type Branch<K, V> = Arc<[Option<Leaf<K, V>>; FANOUT]>;

/// Hash map of fixed depth. A clone costs one reference count; a change after it copies two inner nodes and one leaf.
///
/// The owner keeps one copy, changes it and publishes clones; readers use a clone without any lock. Several changes
/// between two publications copy each node at most once.
#[derive(Debug)]
pub struct PersistentMap<K, V> {
    root: Arc<[Option<Branch<K, V>>; FANOUT]>,
    len: usize,
}

impl<K, V> Clone for PersistentMap<K, V> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root), len: self.len }
    }
}

impl<K, V> Default for PersistentMap<K, V> {
    fn default() -> Self {
        Self { root: Arc::new([const { None }; FANOUT]), len: 0 }
    }
}

impl<K: MapKey, V: Clone> PersistentMap<K, V> {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of `key`.
    pub fn get(&self, key: K) -> Option<&V> {
        let (upper, lower) = position(key);
        let leaf = self.root[upper].as_ref()?[lower].as_ref()?;
        leaf.iter().find(|(found, _)| *found == key).map(|(_, value)| value)
    }

    /// Sets the value of `key`; returns the one before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (upper, lower) = position(key);
        let branch =
            Arc::make_mut(&mut self.root)[upper].get_or_insert_with(|| Arc::new([const { None }; FANOUT]));
        let leaf = Arc::make_mut(Arc::make_mut(branch)[lower].get_or_insert_default());
        if let Some((_, old)) = leaf.iter_mut().find(|(found, _)| *found == key) {
            return Some(std::mem::replace(old, value));
        }
        leaf.push((key, value));
        self.len += 1;
        None
    }

    /// Removes `key`; returns its value.
    pub fn remove(&mut self, key: K) -> Option<V> {
        self.get(key)?;
        let (upper, lower) = position(key);
        let branch = Arc::make_mut(Arc::make_mut(&mut self.root)[upper].as_mut()?);
        let leaf = Arc::make_mut(branch[lower].as_mut()?);
        let index = leaf.iter().position(|(found, _)| *found == key)?;
        let (_, value) = leaf.swap_remove(index);
        if leaf.is_empty() {
            branch[lower] = None;
        }
        self.len -= 1;
        Some(value)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        let branches = self.root.iter().flatten();
        branches.flat_map(|branch| branch.iter().flatten()).flat_map(|leaf| leaf.iter())
    }

    /// Entries in leaves that the two maps do not share: what the changes between them have copied.
    #[cfg(test)]
    pub(crate) fn entries_not_shared_with(&self, other: &Self) -> usize {
        let mut count = 0;
        for (mine, theirs) in self.root.iter().zip(other.root.iter()) {
            let Some(mine) = mine else { continue };
            for (index, leaf) in mine.iter().enumerate() {
                let Some(leaf) = leaf else { continue };
                let shared = theirs
                    .as_ref()
                    .and_then(|theirs| theirs[index].as_ref())
                    .is_some_and(|theirs| Arc::ptr_eq(leaf, theirs));
                count += if shared { 0 } else { leaf.len() };
            }
        }
        count
    }
}

fn position(key: impl MapKey) -> (usize, usize) {
    let spread = key.spread();
    // Six bits each, so both fit the fan-out of 64.
    ((spread >> 26) as usize % FANOUT, (spread >> 20) as usize % FANOUT)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn behaves_like_the_standard_map() {
        let mut map = PersistentMap::default();
        let mut model = HashMap::new();
        let mut state = 1_u32;
        for step in 0..20_000_u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = state >> 22;
            if step % 3 == 0 {
                assert_eq!(map.remove(key), model.remove(&key));
            } else {
                assert_eq!(map.insert(key, step), model.insert(key, step));
            }
            assert_eq!(map.len(), model.len());
        }
        assert!((0..1024).all(|key| map.get(key) == model.get(&key)));
        assert_eq!(map.iter().copied().collect::<HashMap<_, _>>(), model);
    }

    #[test]
    fn clone_keeps_its_content_when_the_original_changes() {
        let mut map = PersistentMap::default();
        map.insert(1_u32, "a");
        map.insert(2, "b");
        let published = map.clone();
        map.insert(1, "c");
        map.remove(2);
        assert_eq!((published.get(1), published.get(2), published.len()), (Some(&"a"), Some(&"b"), 2));
        assert_eq!((map.get(1), map.get(2), map.len()), (Some(&"c"), None, 1));
    }

    #[test]
    fn change_copies_one_leaf_however_many_entries_there_are() {
        for count in [1_000_u32, 10_000, 100_000] {
            let mut map: PersistentMap<u32, u32> = PersistentMap::default();
            for key in 0..count {
                map.insert(0x6440_0000 + key, key);
            }
            let published = map.clone();
            map.insert(0x6440_0000 + count, 0);
            let copied = map.entries_not_shared_with(&published);
            assert!((1..=64).contains(&copied), "{copied} entries copied at {count}");
        }
    }
}
