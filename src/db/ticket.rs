//! The promise of a queued write: one slot, filled once. A channel would do the same, but spins
//! before it sleeps, and a commit takes far longer than a spin.

use std::sync::{Arc, Condvar, Mutex};

use super::DbError;
use crate::thread::lock;

struct Slot<T> {
    result: Mutex<Option<Result<T, DbError>>>,
    filled: Condvar,
}

/// The waiting end.
pub struct Ticket<T>(Arc<Slot<T>>);

/// The writer's end; dropped without an answer, it answers that the database is closed.
pub(super) struct Reply<T>(Arc<Slot<T>>);

pub(super) fn ticket<T>() -> (Reply<T>, Ticket<T>) {
    let slot = Arc::new(Slot { result: Mutex::new(None), filled: Condvar::new() });
    (Reply(slot.clone()), Ticket(slot))
}

impl<T> Reply<T> {
    pub(super) fn send(self, result: Result<T, DbError>) {
        *lock(&self.0.result) = Some(result);
        // The drop wakes whoever waits.
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        lock(&self.0.result).get_or_insert(Err(DbError::Closed));
        self.0.filled.notify_one();
    }
}

impl<T> Ticket<T> {
    /// Waits for the commit.
    ///
    /// # Errors
    /// As [`super::Db::write`].
    pub fn wait(self) -> Result<T, DbError> {
        let mut result = lock(&self.0.result);
        loop {
            if let Some(result) = result.take() {
                return result;
            }
            result = self.0.filled.wait(result).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// The result, if the commit has happened by now.
    pub fn poll(&self) -> Option<Result<T, DbError>> {
        lock(&self.0.result).take()
    }
}
