//! The promise of a queued write: one slot, filled once, or a call for those who do not wait on a thread.
//! A channel would do the same as the slot, but spins before it sleeps, and a commit takes far longer
//! than a spin.

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
pub(super) struct Reply<T>(To<T>);

enum To<T> {
    Slot(Arc<Slot<T>>),
    Call(Box<dyn FnOnce(Result<T, DbError>) + Send>),
    Answered,
}

pub(super) fn ticket<T>() -> (Reply<T>, Ticket<T>) {
    let slot = Arc::new(Slot { result: Mutex::new(None), filled: Condvar::new() });
    (Reply(To::Slot(slot.clone())), Ticket(slot))
}

impl<T> Reply<T> {
    /// `done` is called on the thread of the writer and must not wait for it.
    pub(super) fn call(done: impl FnOnce(Result<T, DbError>) + Send + 'static) -> Self {
        Self(To::Call(Box::new(done)))
    }

    pub(super) fn send(mut self, result: Result<T, DbError>) {
        self.give(result);
    }

    fn give(&mut self, result: Result<T, DbError>) {
        match std::mem::replace(&mut self.0, To::Answered) {
            To::Slot(slot) => {
                *lock(&slot.result) = Some(result);
                slot.filled.notify_one();
            }
            To::Call(done) => done(result),
            To::Answered => {}
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        self.give(Err(DbError::Closed));
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
