//! How many sends wait for their commit at once. The threads of the server are few: a slow disk must
//! not take all of them, or nobody could even ask whether the daemon is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The key under which sends park that have to wait for their turn.
pub(super) const KEY: &str = "commits";

/// Shared by all mailboxes of one server.
#[derive(Debug, Clone)]
pub struct Commits {
    under_way: Arc<AtomicUsize>,
    most: usize,
}

impl Commits {
    /// At most `most` at once; less than the server has threads.
    pub fn new(most: usize) -> Self {
        Self { under_way: Arc::default(), most }
    }

    /// A turn, if there is one.
    pub(super) fn begin(&self) -> Option<Turn> {
        let more = |count: usize| (count < self.most).then_some(count + 1);
        self.under_way.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Turn(self.under_way.clone()))
    }
}

/// Ends when it is dropped.
pub(super) struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
