//! One response at a time per key: who reads rows, sends them and then marks them as sent holds a
//! lease all the while, so that no second response carries the same rows.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use crate::thread::lock;

/// Keys that are leased or have something left; more than the server has connections.
const MAX_KEYS: usize = 4096;

type Map<K, T> = Arc<Mutex<HashMap<K, Option<Vec<T>>>>>;

/// `T` is what a holder may leave for the next one, such as rows that were sent but could not be
/// marked.
pub struct Leases<K, T>(Map<K, T>);

impl<K: Clone + Eq + Hash, T> Default for Leases<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash, T> Leases<K, T> {
    /// None when somebody holds the key, or too many keys are in use.
    pub fn acquire(&self, key: &K) -> Option<Lease<K, T>> {
        let mut map = lock(&self.0);
        if !map.contains_key(key) && map.len() >= MAX_KEYS {
            return None;
        }
        let free = map.entry(key.clone()).or_insert_with(|| Some(Vec::new()));
        let left = free.take()?;
        Some(Lease { map: self.0.clone(), key: key.clone(), left })
    }
}

/// Given back when dropped.
pub struct Lease<K: Eq + Hash, T> {
    map: Map<K, T>,
    key: K,
    left: Vec<T>,
}

impl<K: Eq + Hash, T> Lease<K, T> {
    /// What the holder before left.
    pub fn left(&self) -> &[T] {
        &self.left
    }

    /// Leaves this, and nothing else, to the next holder.
    pub fn leave(&mut self, items: Vec<T>) {
        self.left = items;
    }
}

impl<K: Eq + Hash, T> Drop for Lease<K, T> {
    fn drop(&mut self) {
        let mut map = lock(&self.map);
        if self.left.is_empty() {
            map.remove(&self.key);
        } else if let Some(slot) = map.get_mut(&self.key) {
            *slot = Some(std::mem::take(&mut self.left));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn one_holder_per_key_and_the_left_over_goes_to_the_next() {
        let leases: Leases<&str, u8> = Leases::default();
        let mut first = leases.acquire(&"a").unwrap();
        assert!(leases.acquire(&"a").is_none());
        assert!(leases.acquire(&"b").is_some());
        first.leave(vec![7]);
        drop(first);
        let mut second = leases.acquire(&"a").unwrap();
        assert_eq!(second.left(), [7]);
        assert!(leases.acquire(&"a").is_none());
        second.leave(Vec::new());
        drop(second);
        assert!(lock(&leases.0).is_empty());
    }

    #[test]
    fn the_number_of_keys_is_bounded() {
        let leases: Leases<usize, u8> = Leases::default();
        let held: Vec<_> = (0..MAX_KEYS).map(|key| leases.acquire(&key).unwrap()).collect();
        assert!(leases.acquire(&MAX_KEYS).is_none());
        drop(held);
        assert!(leases.acquire(&MAX_KEYS).is_some());
    }
}
