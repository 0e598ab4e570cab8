//! Search by meaning: vectors in the database, an index over them, and whoever still lacks one. Everybody
//! who saves or searches does without when there is none.

mod blob;
mod indexed;
mod rows;
mod source;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::MemoryError;
use super::embed::{EmbedError, Embedder};
use super::record::MemoryType;
use super::vector_index::{Health, IndexKind, VectorError};
use crate::config::MemoryUpkeepConfig;
use crate::db::Db;
use crate::error::log_line;
use crate::thread::{self, Current, contained, lock};
pub use blob::encode as encode_vector;
use indexed::Indexed;
use rows::Made;

/// How long a search waits for its vector: a model that has to be loaded first takes a second or two on
/// a board. The words have been searched by then.
const QUERY_WAIT: Duration = Duration::from_secs(4);
/// How long one stored text may take; the longest are cut to 256 pieces.
const DOCUMENT_WAIT: Duration = Duration::from_secs(60);
/// Texts whose vectors are stored in one commit.
const BATCH: usize = 32;

/// Ties that one memory gets by likeness.
const ALIKE_MAX: usize = 10;

pub(super) struct Vectors {
    embedder: Embedder,
    indexed: Indexed,
    /// From which cosine two memories are tied, and one says the same as the other.
    upkeep: Arc<Current<MemoryUpkeepConfig>>,
    /// A thread makes what is missing.
    filling: AtomicBool,
    filler: Mutex<Option<JoinHandle<()>>>,
}

/// What happened on the way through everything that has no vector yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filled {
    pub made: usize,
    /// Those with which it did not work; they are tried again at the next start.
    pub failed: usize,
}

impl Vectors {
    pub(super) fn new(
        embedder: Embedder,
        folder: PathBuf,
        kind: IndexKind,
        upkeep: Arc<Current<MemoryUpkeepConfig>>,
    ) -> Arc<Self> {
        let indexed = Indexed::new(folder, kind);
        Arc::new(Self {
            embedder,
            indexed,
            upkeep,
            filling: AtomicBool::new(false),
            filler: Mutex::default(),
        })
    }

    /// The best `limit` memories by meaning with their cosine to `text`, best first; none when there is
    /// no vector of it in time. While the index is made anew, from what it has.
    pub(super) fn search(
        self: &Arc<Self>,
        db: &Db,
        text: &str,
        memory_type: Option<MemoryType>,
        limit: usize,
    ) -> Result<Vec<(String, f32)>, MemoryError> {
        let query = match self.embedder.query(text, QUERY_WAIT) {
            Ok(query) => query,
            Err(error) => {
                log::debug!("searched by words only: {error}");
                return Ok(Vec::new());
            }
        };
        match self.nearest(db, &query, memory_type, limit) {
            Err(MemoryError::VectorIndex(error)) if !matches!(error, VectorError::Cancelled) => {
                log::warn!("searched by words only: {}", log_line(&error));
                Ok(Vec::new())
            }
            found => found,
        }
    }

    /// Live memories by their cosine to `vector`, best first.
    fn nearest(
        self: &Arc<Self>,
        db: &Db,
        vector: &[f32],
        memory_type: Option<MemoryType>,
        limit: usize,
    ) -> Result<Vec<(String, f32)>, MemoryError> {
        let Ok(model) = self.embedder.model_id() else { return Ok(Vec::new()) };
        let (index, behind) = self.indexed.current(db, model)?;
        if behind {
            self.fill_in_background(db);
        }
        let keys = memory_type.map(|memory_type| self.indexed.keys_of(db, memory_type)).transpose()?;
        let passes = |key: u64| keys.as_ref().is_none_or(|keys| keys.binary_search(&key).is_ok());
        let filter: Option<&dyn Fn(u64) -> bool> = keys.is_some().then_some(&passes);
        let near = index.search(vector, limit, filter, &self.indexed.cancel)?;
        let keys: Vec<u64> = near.iter().map(|(key, _)| *key).collect();
        let mut ids = db.read(|connection| rows::ids_of(connection, &keys))?;
        Ok(near.into_iter().filter_map(|(key, cosine)| Some((ids.remove(&key)?, cosine))).collect())
    }

    /// Memories that have no vector of the present model yet; none when there is no model.
    pub(super) fn missing(&self, db: &Db) -> Result<Option<u64>, MemoryError> {
        let Ok(model) = self.embedder.model_id() else { return Ok(None) };
        Ok(Some(db.read(|connection| rows::missing(connection, model))?))
    }

    /// How the index is, if there is a model. Opens it.
    pub(super) fn health(&self, db: &Db) -> Result<Option<Health>, MemoryError> {
        let Ok(model) = self.embedder.model_id() else { return Ok(None) };
        self.indexed.current(db, model)?;
        Ok(self.indexed.health())
    }

    /// Why a search may not find everything, in one line; none when it does.
    pub(super) fn notice(&self) -> Option<String> {
        let health = self.indexed.health()?;
        health.of.is_some().then(|| format!("vector index: {health}"))
    }

    /// Starts the thread `embed:fill`, if there is something to do and none is at it.
    pub(super) fn fill_in_background(self: &Arc<Self>, db: &Db) {
        let cannot = self.embedder.model_id().is_err() || self.indexed.cancel.is_cancelled();
        if cannot || self.filling.swap(true, Ordering::SeqCst) {
            return;
        }
        let (vectors, db) = (self.clone(), db.clone());
        let body = move || {
            // What was saved while it was about to end is not left behind.
            loop {
                let filled = contained(|| vectors.fill(&db, &mut |_| {}));
                vectors.filling.store(false, Ordering::SeqCst);
                let failed = match filled {
                    Ok(Ok(filled)) => filled.failed,
                    Ok(Err(MemoryError::VectorIndex(VectorError::Cancelled))) => return,
                    Ok(Err(error)) => {
                        return log::warn!("memories wait for their vectors: {}", log_line(&error));
                    }
                    Err(panic) => return log::error!("memories wait for their vectors: {panic}"),
                };
                let more = vectors.missing(&db).is_ok_and(|missing| missing > Some(failed as u64));
                let stopped = vectors.indexed.cancel.is_cancelled();
                if !more || stopped || vectors.filling.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        };
        match thread::spawn("embed:fill", body) {
            Ok(handle) => drop(lock(&self.filler).replace(handle)),
            Err(error) => {
                log::warn!("no thread to make vectors: {error}");
                self.filling.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Brings the index to where the database is and makes every vector that is missing, the newest
    /// memories first; `progress` hears how many are made.
    pub(super) fn fill(
        self: &Arc<Self>,
        db: &Db,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Filled, MemoryError> {
        let model = self.embedder.model_id().map_err(MemoryError::Embedding)?;
        self.indexed.bring_up(db, model)?;
        let number = {
            let model = model.to_owned();
            db.write(move |connection| rows::model_number(connection, &model))?
        };
        let (mut before, mut filled) = (i64::MAX, Filled::default());
        loop {
            // No more than there are: the last statement would look through everything for one more.
            let missing = db.read(|connection| rows::missing(connection, model))?;
            let left = usize::try_from(missing).unwrap_or(usize::MAX).saturating_sub(filled.failed);
            let batch = db.read(|connection| rows::without_vector(connection, number, before, left))?;
            let Some((_, _, last)) = batch.last() else { break };
            before = *last;
            let mut made: Vec<Made> = Vec::with_capacity(batch.len());
            for (id, content, change) in batch {
                if self.indexed.cancel.is_cancelled() {
                    return Ok(filled);
                }
                match self.embedder.document(&content, DOCUMENT_WAIT) {
                    Ok(vector) => made.push((id, change, vector)),
                    Err(EmbedError::Busy) => filled.failed += 1,
                    Err(error) => return Err(MemoryError::Embedding(error)),
                }
            }
            filled.made += made.len();
            let made = db.write(move |connection| {
                made.iter().try_for_each(|one| rows::insert(connection, number, one))?;
                Ok(made)
            })?;
            self.associate(db, &made)?;
            progress(filled.made);
        }
        if filled.made > BATCH {
            self.indexed.bring_up(db, model)?;
        }
        Ok(filled)
    }

    /// Ties each of these to what is like it: very much so, and the newer one brings the older one up to
    /// date.
    fn associate(self: &Arc<Self>, db: &Db, made: &[Made]) -> Result<(), MemoryError> {
        let upkeep = *self.upkeep.get();
        let mut pairs: Vec<(String, String, f64)> = Vec::new();
        for (id, _, vector) in made {
            for (other, cosine) in self.nearest(db, vector, None, ALIKE_MAX + 1)? {
                let cosine = f64::from(cosine);
                if other != *id && cosine >= upkeep.tie_similarity {
                    pairs.push((id.clone(), other, cosine));
                }
            }
        }
        if pairs.is_empty() {
            return Ok(());
        }
        Ok(db.write(move |connection| {
            pairs.iter().try_for_each(|pair| rows::tie(connection, &upkeep, pair))
        })?)
    }

    /// Pairs of live memories that say nearly the same, at most `limit`: for merging.
    pub(super) fn duplicates(&self, db: &Db, limit: usize) -> Result<Vec<(String, String)>, MemoryError> {
        // Every such pair was tied when the second of them got its vector.
        let least = self.upkeep.get().merge_similarity;
        Ok(db.read(|connection| rows::duplicates(connection, least, limit))?)
    }

    /// Writes what is only in memory: everything, or only if it is worth it.
    pub(super) fn flush(&self, all: bool) -> Result<(), MemoryError> {
        self.indexed.flush(all)
    }

    /// Brings the index to where the database is.
    pub(super) fn bring_up(&self, db: &Db) -> Result<(), MemoryError> {
        let Ok(model) = self.embedder.model_id() else { return Ok(()) };
        self.indexed.bring_up(db, model)
    }

    /// Throws the files away and makes them again.
    pub(super) fn reindex(&self, db: &Db) -> Result<(), MemoryError> {
        let Ok(model) = self.embedder.model_id() else { return Ok(()) };
        self.indexed.open(db, model)?.distrust();
        self.indexed.bring_up(db, model)
    }

    /// No more vectors are made. Returns the thread that makes them, which ends after the text in hand.
    pub(super) fn stop(&self) -> Option<JoinHandle<()>> {
        self.indexed.cancel.cancel();
        lock(&self.filler).take()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests;
