//! Bringing the index to where the database is, after a start, a save or a loss.

use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use super::segment::look;
use super::{VectorError, VectorIndex, read, write};
use crate::thread::{Cancel, lock};

/// Changes that are read at a time: 1.5 MB of numbers.
const BATCH: usize = 1_024;

impl VectorIndex {
    /// Takes in everything that the source has and the index has not, however far behind or wrong it is.
    /// One caller does it for all: who finds another at it returns at once, and that one goes on until
    /// nothing is left, what came before this call included.
    ///
    /// # Errors
    /// The source's, the disk's when memory is full, or the stop request came: a later call goes on.
    pub fn catch_up(&self, cancel: &Cancel) -> Result<(), VectorError> {
        self.wanted.store(true, Ordering::SeqCst);
        while self.wanted.load(Ordering::SeqCst) {
            let _only_one = match self.catching_up.try_lock() {
                Ok(guard) => guard,
                Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
                Err(TryLockError::WouldBlock) => return Ok(()),
            };
            while self.wanted.swap(false, Ordering::SeqCst) {
                self.to_the_end(cancel).inspect_err(|_| self.wanted.store(true, Ordering::SeqCst))?;
            }
        }
        Ok(())
    }

    fn to_the_end(&self, cancel: &Cancel) -> Result<(), VectorError> {
        self.replay(cancel)?;
        if self.is_what_the_source_says()? {
            return Ok(());
        }
        log::warn!("the vector index does not hold what the database has; it is made again");
        self.distrust();
        self.replay(cancel)?;
        if !self.is_what_the_source_says()? {
            log::warn!("the vector index holds another number of vectors than the database");
        }
        Ok(())
    }

    fn replay(&self, cancel: &Cancel) -> Result<(), VectorError> {
        loop {
            look(cancel)?;
            let after = self.applied();
            let changes = self.source.changes(after, BATCH)?;
            if changes.is_empty() {
                break;
            }
            if changes.len() == BATCH {
                self.expected.store(self.source.summary()?.vectors, Ordering::Relaxed);
            }
            // False: somebody else has taken them in.
            self.apply(after, &changes)?;
        }
        self.finish()
    }

    /// Everything has come; what did not come again after a loss is gone.
    fn finish(&self) -> Result<(), VectorError> {
        self.expected.store(0, Ordering::Relaxed);
        if !read(&self.state).rebuilding {
            return Ok(());
        }
        let mut files = lock(&self.files);
        let stale = write(&self.state).trust();
        files.drop_later(&stale);
        log::info!("the vector index is made again");
        if let Err(error) = self.save(&mut files) {
            log::warn!("{error}; it is only in memory");
        }
        Ok(())
    }

    /// Whether as many vectors are here as there, as far as can be told while others go on saving.
    fn is_what_the_source_says(&self) -> Result<bool, VectorError> {
        let summary = self.source.summary()?;
        let state = read(&self.state);
        let comparable = summary.newest == state.standing.applied;
        let here = state.len() as u64;
        // Who was refused may be gone since; that many may be missing.
        let fits = here <= summary.vectors && here + state.standing.refused >= summary.vectors;
        Ok(!comparable || fits)
    }
}
