//! What the agent remembers: typed memories in SQLite, found again by their words.
//!
//! The table is the only truth; the text index beside it is derived, and a save does not touch it.

mod analysis;
mod changes;
mod draft;
pub mod embed;
mod error;
mod fusion;
mod graph;
mod index_files;
mod index_query;
mod index_writer;
mod locality;
mod options;
mod proposals;
mod record;
mod search;
mod store;
mod tail;
mod temporal;
mod text_index;
pub mod transfer;
mod upkeep;
pub mod vector_index;
mod vectors;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub use draft::{Draft, DraftEnd, Drafted};
pub use error::MemoryError;
pub use options::{SearchOptions, Statistics};
pub use proposals::{Decision, Proposal};
pub use record::{
    ASSOCIATIONS_MAX, Association, CONTENT_BYTES_MAX, Hit, LIMIT_DEFAULT, LIMIT_MAX, Memory, MemoryType,
    Mode, NewAssociation, NewMemory, Origin, Parts, RelationType, SearchQuery, Sort, Source, WEIGHT_DEFAULT,
    Who,
};

use crate::clock::{SharedClock, Timestamp};
use crate::config::MemoryUpkeepConfig;
use crate::db::rusqlite::Connection;
use crate::db::{Db, DbError};
use crate::text;
use crate::thread::Current;
use text_index::TextIndex;
use transfer::Imported;
pub use vector_index::{Health, IndexKind};
use vectors::Vectors;
pub use vectors::{Filled, encode_vector};

/// Changes worth a commit of the text index at idle; fewer are as well off in its tail.
const COMMIT_CHANGES: usize = 32;
/// Changes that are committed even when more keep coming.
const COMMIT_CHANGES_BUSY: usize = text_index::TAIL_ROWS;
/// How long nothing was saved when it counts as idle.
const QUIET: Duration = Duration::from_secs(30);
/// Longest reason for forgetting that is kept, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// What one round of upkeep merges (spec 2.5).
const MERGES_MAX: usize = 500;
/// What a round of [`MemoryStore::tend`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tended {
    pub pruned: usize,
    pub archived: usize,
    pub merged: usize,
}

/// The vector index, in the folder of the text index.
const VECTORS: &str = "vectors";
/// Memories read at a time for an export.
const EXPORT_ROWS: usize = 200;

/// The memories of one agent; clones are the same store.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    db: Db,
    clock: SharedClock,
    text_index: TextIndex,
    upkeep: Arc<Current<MemoryUpkeepConfig>>,
    /// None: no embedding, search goes by words.
    vectors: Option<Arc<Vectors>>,
    /// Changes by this process since the last commit of the index.
    uncommitted: AtomicUsize,
    /// When the last of them was, in the clock's milliseconds.
    changed_at: AtomicI64,
    /// When upkeep ran last, in the clock's milliseconds; 0 before the first.
    tended_at: AtomicI64,
}

impl MemoryStore {
    /// Opens nothing yet: the index in `index_folder` is looked at by the first hybrid search.
    ///
    /// # Errors
    /// There is something at `index_folder` that is no folder.
    pub fn open(db: Db, index_folder: PathBuf, clock: SharedClock) -> Result<Self, MemoryError> {
        Self::open_with(db, index_folder, clock, SearchOptions::default())
    }

    /// As [`MemoryStore::open`], with search by meaning and in another language.
    ///
    /// # Errors
    /// As there.
    pub fn open_with(
        db: Db,
        index_folder: PathBuf,
        clock: SharedClock,
        options: SearchOptions,
    ) -> Result<Self, MemoryError> {
        if index_folder.exists() && !index_folder.is_dir() {
            return Err(MemoryError::Invalid(format!("{} is no folder", index_folder.display())));
        }
        let (uncommitted, changed_at) = (AtomicUsize::new(0), AtomicI64::new(0));
        let SearchOptions { language, index, embedder } = options;
        let upkeep = Arc::new(Current::new(MemoryUpkeepConfig::default()));
        let vectors = embedder
            .map(|embedder| Vectors::new(embedder, index_folder.join(VECTORS), index, upkeep.clone()));
        let text_index = TextIndex::new(index_folder, language);
        Ok(Self(Arc::new(Inner {
            db,
            clock,
            text_index,
            upkeep,
            vectors,
            uncommitted,
            changed_at,
            tended_at: AtomicI64::new(0),
        })))
    }

    /// From now on memories fade and are tied, pruned and merged by these numbers.
    pub fn set_upkeep(&self, config: MemoryUpkeepConfig) {
        self.0.upkeep.set(config);
    }

    /// Returns after the memory is on disk with its associations; it is found from then on.
    ///
    /// # Errors
    /// The content is empty or too long, a number is out of range, an association points nowhere (then
    /// nothing is stored), or the database does not take it.
    pub fn save(&self, new: NewMemory) -> Result<Memory, MemoryError> {
        self.save_and(new, |_, _| Ok(()))
    }

    /// As [`MemoryStore::save`]; what `also` writes is stored with the memory, or neither is.
    ///
    /// # Errors
    /// As there, or what `also` returned.
    pub fn save_and(
        &self,
        new: NewMemory,
        also: impl FnOnce(&Connection, &Memory) -> Result<(), DbError> + Send + 'static,
    ) -> Result<Memory, MemoryError> {
        let now = self.0.clock.now();
        let (mut memory, associations) = record::checked(new, now)?;
        let saved = self.0.db.write(move |connection| {
            memory.change_seq = store::insert(connection, &memory, &associations)?;
            also(connection, &memory)?;
            Ok(memory)
        })?;
        self.changed(now);
        if let Some(vectors) = &self.0.vectors {
            vectors.fill_in_background(&self.0.db);
        }
        Ok(saved)
    }

    /// Stores many memories in one commit; each that was imported before is passed over. For each it
    /// says whether it is new, or why it was refused.
    ///
    /// # Errors
    /// The database does not take it; then nothing is stored.
    pub fn import(&self, batch: Vec<Imported>) -> Result<Vec<Result<bool, MemoryError>>, MemoryError> {
        let now = self.0.clock.now();
        let checked: Vec<_> =
            batch.into_iter().map(|one| Ok((one.key, record::checked(one.memory, now)?))).collect();
        let stored = self.0.db.write(move |connection| {
            checked
                .into_iter()
                .map(|one: Result<_, MemoryError>| match one {
                    Ok((key, (memory, _))) => store::import(connection, key, &memory).map(Ok),
                    Err(error) => Ok(Err(error)),
                })
                .collect::<Result<Vec<_>, _>>()
        })?;
        if stored.iter().any(|one| matches!(one, Ok(true))) {
            self.changed(now);
        }
        Ok(stored)
    }

    /// Hands every memory to `take`, in the order of their last changes; forgotten ones only if asked.
    ///
    /// # Errors
    /// The database cannot be read, or what `take` returned.
    pub fn export<E: From<MemoryError>>(
        &self,
        forgotten: bool,
        mut take: impl FnMut(&Memory) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut after = 0;
        loop {
            let read = self.0.db.read(|connection| store::changes(connection, after, i64::MAX, EXPORT_ROWS));
            let page = read.map_err(MemoryError::from)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.change_seq;
            page.iter().filter(|memory| forgotten || !memory.forgotten).try_for_each(&mut take)?;
        }
    }

    /// Makes the text index and the vector index anew.
    ///
    /// # Errors
    /// One could not be written; searches do without it.
    pub fn reindex(&self) -> Result<(), MemoryError> {
        self.0.text_index.rebuild(&self.0.db, self.0.clock.now())?;
        self.0.vectors.as_ref().map_or(Ok(()), |vectors| vectors.reindex(&self.0.db))
    }

    /// Waits until both indexes are where the database is; for a command that asks once and ends.
    ///
    /// # Errors
    /// The vector index cannot be read or made; searches go by words.
    pub fn await_indexes(&self) -> Result<(), MemoryError> {
        self.0.vectors.as_ref().map_or(Ok(()), |vectors| vectors.bring_up(&self.0.db))
    }

    /// Why a search may not find everything at the moment, in one line; none when it does.
    pub fn notice(&self) -> Option<String> {
        self.0.vectors.as_ref().and_then(|vectors| vectors.notice())
    }

    /// What is stored and how far the index has come.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn statistics(&self) -> Result<Statistics, MemoryError> {
        let now = self.0.clock.now();
        let indexed = self.0.text_index.committed(&self.0.db, now);
        let (without_vector, vector_index) = match &self.0.vectors {
            Some(vectors) => (vectors.missing(&self.0.db)?, vectors.health(&self.0.db)?),
            None => (None, None),
        };
        Ok(self.0.db.read(|connection| {
            Ok(Statistics {
                by_type: store::count_by_type(connection)?,
                forgotten: store::count_forgotten(connection)?,
                associations: store::count_associations(connection)?,
                changes: store::last_change(connection)?,
                indexed,
                without_vector,
                vector_index,
            })
        })?)
    }

    /// Searches, and counts an access for every hit.
    ///
    /// # Errors
    /// As [`MemoryStore::search`].
    pub fn recall(&self, query: &SearchQuery) -> Result<Vec<Hit>, MemoryError> {
        let hits = self.search(query)?;
        if !hits.is_empty() {
            let now = self.0.clock.now();
            let ids = store::id_list(hits.iter().map(|hit| hit.memory.id.as_str()));
            // Not waited for: the answer does not depend on it. A closed database counts no more.
            self.0.db.submit(move |connection| store::touch(connection, &ids, now)).ok();
        }
        Ok(hits)
    }

    /// Searches without a trace, for renderings that would otherwise count as reading.
    ///
    /// # Errors
    /// The query asks for something impossible, or the database cannot be read.
    pub fn search(&self, query: &SearchQuery) -> Result<Vec<Hit>, MemoryError> {
        let Inner { db, text_index, vectors, upkeep, .. } = &*self.0;
        let decay = upkeep.get().decay_per_day;
        let sources = search::Sources { db, decay, text_index, vectors: vectors.as_ref() };
        search::search(&sources, query, self.0.clock.now())
    }

    /// Hides a memory from every search; the row stays. True when it was there until now. This is an
    /// explicit act and works for [`MemoryType::Identity`] too, which no maintenance may touch.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn forget(&self, id: &str, reason: Option<&str>) -> Result<bool, MemoryError> {
        let now = self.0.clock.now();
        let id = id.to_owned();
        let reason = reason.map(|reason| text::shorten(reason, REASON_BYTES_MAX).into_owned());
        let forgotten =
            self.0.db.write(move |connection| store::forget(connection, &id, reason.as_deref(), now))?;
        if forgotten {
            self.changed(now);
        }
        Ok(forgotten)
    }

    /// One memory, forgotten or not.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<Memory>, MemoryError> {
        Ok(self.0.db.read(|connection| store::get(connection, id))?)
    }

    /// The associations that begin or end at this memory.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn associations(&self, id: &str) -> Result<Vec<Association>, MemoryError> {
        Ok(self.0.db.read(|connection| store::associations(connection, id))?)
    }

    /// How many memories of each type there are, without the forgotten ones and empty types.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn count_by_type(&self) -> Result<Vec<(MemoryType, u64)>, MemoryError> {
        Ok(self.0.db.read(store::count_by_type)?)
    }

    /// To be called now and then, on a thread that may block for a moment: commits the text index when
    /// enough has changed and nothing changes any more, and puts an unused one away. True after a commit.
    ///
    /// # Errors
    /// The index could not be written; nothing is lost, a later call tries again.
    pub fn maintain(&self, now: Timestamp) -> Result<bool, MemoryError> {
        self.0.text_index.rest(now);
        if let Some(vectors) = &self.0.vectors {
            vectors.flush(false)?;
        }
        let changes = self.0.uncommitted.load(Ordering::Acquire);
        let quiet = now.since(Timestamp(self.0.changed_at.load(Ordering::Acquire))) >= QUIET;
        if changes < COMMIT_CHANGES || (changes < COMMIT_CHANGES_BUSY && !quiet) {
            return Ok(false);
        }
        let committed = self.0.text_index.commit_if_due(&self.0.db, now)?;
        self.committed(changes, committed);
        Ok(committed)
    }

    /// Commits the text index if this process changed anything since; for an orderly end. True after a
    /// commit.
    ///
    /// # Errors
    /// The index could not be written; nothing is lost, the next start catches up.
    pub fn flush(&self) -> Result<bool, MemoryError> {
        if let Some(vectors) = &self.0.vectors {
            vectors.flush(true)?;
        }
        let changes = self.0.uncommitted.load(Ordering::Acquire);
        if changes == 0 {
            return Ok(false);
        }
        let committed = self.0.text_index.commit_now(&self.0.db, self.0.clock.now())?;
        self.committed(changes, true);
        Ok(committed)
    }

    /// Makes every vector that is missing; `progress` hears how many are made.
    ///
    /// # Errors
    /// There is no model, or the database does not take them.
    pub fn fill_vectors(&self, progress: &mut dyn FnMut(usize)) -> Result<Filled, MemoryError> {
        match &self.0.vectors {
            Some(vectors) => vectors.fill(&self.0.db, progress),
            None => Ok(Filled::default()),
        }
    }

    /// Prunes what has faded out, archives what was pruned long ago, merges near duplicates; at most once in
    /// the configured interval. None when it is not due.
    ///
    /// # Errors
    /// The database does not take it; each step is whole or not done.
    pub fn tend(&self, now: Timestamp) -> Result<Option<Tended>, MemoryError> {
        let config = *self.0.upkeep.get();
        let last = self.0.tended_at.load(Ordering::Acquire);
        if last != 0 && now.since(Timestamp(last)) < config.interval {
            return Ok(None);
        }
        self.0.tended_at.store(now.0, Ordering::Release);
        let (pruned, archived) =
            self.0.db.write(move |connection| upkeep::prune(connection, &config, now))?;
        let mut tended = Tended { pruned, archived, merged: 0 };
        if let Some(vectors) = &self.0.vectors {
            for (one, other) in vectors.duplicates(&self.0.db, MERGES_MAX)? {
                let merged =
                    self.0.db.write(move |connection| upkeep::merge(connection, &one, &other, now))?;
                tended.merged += usize::from(merged);
            }
            if tended.merged > 0 {
                vectors.fill_in_background(&self.0.db);
            }
        }
        if tended != Tended::default() {
            self.changed(now);
        }
        Ok(Some(tended))
    }

    /// Makes missing vectors in the background, if there are any; for a start.
    pub fn catch_up(&self) {
        if let Some(vectors) = &self.0.vectors
            && vectors.missing(&self.0.db).is_ok_and(|missing| missing > Some(0))
        {
            vectors.fill_in_background(&self.0.db);
        }
    }

    /// Pairs of memories that may contradict each other, at most `limit`, the longest waiting first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn proposals(&self, limit: usize) -> Result<Vec<Proposal>, MemoryError> {
        Ok(self.0.db.read(|connection| proposals::open(connection, limit))?)
    }

    /// How many such pairs wait.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn proposals_open(&self) -> Result<u64, MemoryError> {
        Ok(self.0.db.read(proposals::count)?)
    }

    /// Ties such a pair as decided. False when there is no such proposal any more.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn decide(&self, proposal: i64, decision: Decision) -> Result<bool, MemoryError> {
        let now = self.0.clock.now();
        Ok(self.0.db.write(move |connection| proposals::decide(connection, proposal, decision, now))?)
    }

    /// Asks what runs in the background to end; returns its thread, if there is one, to be joined.
    pub fn stop(&self) -> Option<JoinHandle<()>> {
        self.0.vectors.as_ref().and_then(|vectors| vectors.stop())
    }

    fn changed(&self, now: Timestamp) {
        self.0.changed_at.store(now.0, Ordering::Release);
        self.0.uncommitted.fetch_add(1, Ordering::AcqRel);
    }

    fn committed(&self, changes: usize, done: bool) {
        if done {
            self.0.uncommitted.fetch_sub(changes, Ordering::AcqRel);
        }
    }
}
