//! A value that is replaced whole while others use it: whoever takes it keeps what was taken.

use std::sync::{Arc, Mutex};

use super::lock;

/// The value in force.
#[derive(Debug, Default)]
pub struct Current<T>(Mutex<Arc<T>>);

impl<T> Current<T> {
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    /// A snapshot: a later [`Current::set`] does not change it.
    pub fn get(&self) -> Arc<T> {
        lock(&self.0).clone()
    }

    pub fn set(&self, value: T) {
        let value = Arc::new(value);
        // The old value may be large: it goes after the lock.
        let old = std::mem::replace(&mut *lock(&self.0), value);
        drop(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_stays_and_the_next_one_gets_the_new_value() {
        let current = Current::new("old");
        let taken = current.get();
        current.set("new");
        assert_eq!((*taken, *current.get()), ("old", "new"));
    }
}
