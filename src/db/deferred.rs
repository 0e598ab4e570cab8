//! Writes that nobody waits for and that may ride along with the next commit: one fsync less each.
//! They are lost in a crash that comes before, so what they say must be safe to find out again.

use std::sync::{Arc, Mutex};

use super::writer::Work;
use crate::thread::lock;

/// Writes that wait to ride along; beyond it they go through the queue like any other.
const WAITING_MAX: usize = 64;

#[derive(Default)]
struct State {
    waiting: Vec<Box<dyn Work>>,
    /// The writer will look here within `writer::LINGER`, without being told.
    awake: bool,
}

#[derive(Clone, Default)]
pub(super) struct Deferred(Arc<Mutex<State>>);

impl Deferred {
    /// Gives the work back when it has to go through the queue.
    pub(super) fn put(&self, work: Box<dyn Work>) -> Result<(), Box<dyn Work>> {
        let mut state = lock(&self.0);
        if !state.awake || state.waiting.len() >= WAITING_MAX {
            return Err(work);
        }
        state.waiting.push(work);
        Ok(())
    }

    /// For the start of a batch: everything that waits.
    pub(super) fn take(&self) -> Vec<Box<dyn Work>> {
        let mut state = lock(&self.0);
        state.awake = true;
        std::mem::take(&mut state.waiting)
    }

    /// As [`Deferred::take`]; when nothing waits, the writer may sleep until it gets a message.
    pub(super) fn take_or_sleep(&self) -> Vec<Box<dyn Work>> {
        let mut state = lock(&self.0);
        state.awake = !state.waiting.is_empty();
        std::mem::take(&mut state.waiting)
    }
}
