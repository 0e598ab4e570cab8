//! Whether anything has changed, for whoever keeps something that was made from memories.

use std::sync::atomic::Ordering;

use super::{COMMIT_CHANGES, MemoryError, MemoryStore, store};

impl MemoryStore {
    /// Rises with every change of what is stored; being read is none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn last_change(&self) -> Result<i64, MemoryError> {
        Ok(self.0.db.read(store::last_change)?)
    }

    /// Whether all of these are there and not forgotten.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn are_all_there(&self, ids: &[String]) -> Result<bool, MemoryError> {
        let list = store::id_list(ids.iter().map(String::as_str));
        Ok(self.0.db.read(|connection| store::load(connection, &list))?.len() == ids.len())
    }

    /// Enough has changed for [`MemoryStore::maintain`] to commit the text index once it is quiet.
    pub fn waits_for_quiet(&self) -> bool {
        self.0.uncommitted.load(Ordering::Acquire) >= COMMIT_CHANGES
    }
}
