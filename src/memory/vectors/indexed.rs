//! The vector index of one store: opened by whoever needs it first, brought to where the database is
//! before it is asked, written when there is time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::rows;
use super::source::{Stored, newest_change};
use crate::db::Db;
use crate::memory::MemoryError;
use crate::memory::record::MemoryType;
use crate::memory::vector_index::{Health, IndexKind, Options, VectorIndex};
use crate::thread::{Cancel, lock};

/// Changes that a search takes in itself, about 10 ms of work; more are left to the background, and the
/// search answers from what is there.
const CHANGES_AT_ONCE: u64 = 2_048;
/// Vectors that are only in memory before an idle moment is used to write them: fewer are read again from
/// the database as fast.
const UNSAVED: usize = 512;

pub(super) struct Indexed {
    folder: PathBuf,
    kind: IndexKind,
    open: Mutex<Option<Arc<VectorIndex>>>,
    typed: Mutex<Option<Typed>>,
    pub(super) cancel: Cancel,
}

/// The vectors of one type of memory, as of one change: who asks for a type asks again for the same one.
#[derive(Clone)]
struct Typed {
    memory_type: MemoryType,
    change: u64,
    keys: Arc<[u64]>,
}

impl Indexed {
    pub(super) fn new(folder: PathBuf, kind: IndexKind) -> Self {
        let (open, typed) = (Mutex::default(), Mutex::default());
        Self { folder, kind, open, typed, cancel: Cancel::new() }
    }

    /// Opens the files if nobody has.
    pub(super) fn open(&self, db: &Db, model: &str) -> Result<Arc<VectorIndex>, MemoryError> {
        let mut open = lock(&self.open);
        if let Some(index) = &*open {
            return Ok(index.clone());
        }
        let source = Arc::new(Stored { db: db.clone(), model: model.to_owned() });
        let options = Options { model: model.to_owned(), kind: self.kind, ..Options::default() };
        let index = Arc::new(VectorIndex::open(&self.folder, source, options)?);
        log::debug!("the vector index in {}: {}", self.folder.display(), index.health());
        *open = Some(index.clone());
        Ok(index)
    }

    /// Opens the files if need be and takes in what has changed since, if that is little. True in the
    /// second place when more is left than a search can wait for.
    pub(super) fn current(&self, db: &Db, model: &str) -> Result<(Arc<VectorIndex>, bool), MemoryError> {
        let index = self.open(db, model)?;
        let newest = db.read(newest_change)?;
        let behind = newest.saturating_sub(index.applied());
        let much = behind > CHANGES_AT_ONCE || index.health().rebuilding;
        if behind > 0 && !much {
            index.catch_up(&self.cancel)?;
        }
        Ok((index, much))
    }

    /// Takes in everything, however much it is, and puts the files in order.
    pub(super) fn bring_up(&self, db: &Db, model: &str) -> Result<(), MemoryError> {
        let index = self.open(db, model)?;
        index.catch_up(&self.cancel)?;
        index.tidy(&self.cancel)?;
        Ok(())
    }

    /// The vectors of all memories of a type.
    pub(super) fn keys_of(&self, db: &Db, memory_type: MemoryType) -> Result<Arc<[u64]>, MemoryError> {
        let mut typed = lock(&self.typed);
        let change = db.read(newest_change)?;
        if let Some(known) = &*typed
            && known.memory_type == memory_type
            && known.change == change
        {
            return Ok(known.keys.clone());
        }
        let keys: Arc<[u64]> = db.read(|connection| rows::keys_of(connection, memory_type))?.into();
        *typed = Some(Typed { memory_type, change, keys: keys.clone() });
        Ok(keys)
    }

    /// Writes what is only in memory, if that is worth it (always when `all`).
    pub(super) fn flush(&self, all: bool) -> Result<(), MemoryError> {
        let Some(index) = lock(&self.open).clone() else { return Ok(()) };
        if all || index.health().unsaved >= UNSAVED {
            index.flush()?;
        }
        Ok(())
    }

    /// None while nobody has opened it.
    pub(super) fn health(&self) -> Option<Health> {
        lock(&self.open).as_ref().map(|index| index.health())
    }
}
