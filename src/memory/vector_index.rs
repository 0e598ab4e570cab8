//! Search by meaning over many vectors on a small board.
//!
//! A row takes 56 bytes in memory, a sketch of one bit a number and its key, and 388 in a mapped file, one
//! byte a number. A search looks at all sketches (or, with very many, at those in near lists), then at the
//! codes of the nearest, and asks the database for the numbers of the last forty. The newest rows are in
//! memory until a flush writes them.
//!
//! Everything here is derived: [`VectorSource`] has the truth. What is torn, old or of another model is
//! noticed when the index is opened, and made again by [`VectorIndex::catch_up`]; searches are answered
//! meanwhile from what is there. docs/MEMORY.md has the shape of the files and the figures.

mod bits;
mod bytes;
mod catch_up;
mod code;
mod error;
mod folder;
#[cfg(feature = "hnsw")]
mod graph;
#[cfg(not(feature = "hnsw"))]
#[path = "vector_index/no_graph.rs"]
mod graph;
mod kernels;
mod manifest;
mod mapped;
mod merge;
mod nearest;
mod opening;
mod partition;
mod segment;
mod segment_file;
mod state;
mod store;
mod tail;

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use crate::config::VectorIndexKind as IndexKind;
pub use code::check;
pub use error::VectorError;
pub use folder::Probe;
pub use kernels::DIMENSIONS;

use crate::thread::{Cancel, lock};
use graph::Graphs;
use nearest::{Highest, best_first};
use segment::{Query, Search};
use state::{Prepared, State};
use store::Files;

/// The best, whose exact numbers the database is asked for; those behind them keep what their codes give,
/// which is at most some thousandths away.
const EXACT_ROWS: usize = 40;
/// Most rows that one search returns.
pub const LIMIT_MAX: usize = 10_000;
/// A tail that cannot be written may grow to this many times its size; then changes are refused.
const TAILS_MAX: usize = 4;
/// The same where another process writes: a command beside a daemon, which ends soon.
const READER_TAILS_MAX: usize = 64;

/// One change of the database: a vector that came or was replaced, or (None) went.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Ascending over the whole database.
    pub sequence: u64,
    pub key: u64,
    pub vector: Option<Vec<f32>>,
}

/// What a [`VectorSource`] says about itself, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// The last change that [`VectorSource::changes`] would give; 0 before the first.
    pub newest: u64,
    /// How many vectors there are.
    pub vectors: u64,
}

/// The database as the index sees it.
pub trait VectorSource: Send + Sync {
    /// # Errors
    /// The database's, as [`VectorError::Source`]; so with the others.
    fn summary(&self) -> Result<Summary, VectorError>;

    /// At most `limit` changes after this one, ascending, none left out. A key that changed again since
    /// may come with its last change only.
    ///
    /// # Errors
    /// As above.
    fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, VectorError>;

    /// The last change of a key, None when it is not known.
    ///
    /// # Errors
    /// As above.
    fn change_of(&self, key: u64) -> Result<Option<u64>, VectorError>;

    /// The numbers of these keys in any order; a key without any is passed over.
    ///
    /// # Errors
    /// As above.
    fn vectors(&self, keys: &[u64], each: &mut dyn FnMut(u64, &[f32])) -> Result<(), VectorError>;
}

/// Where the index changes its ways. The defaults are measured (docs/MEMORY.md); tests use smaller ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Rows that are only in memory before they are written.
    pub tail_rows: usize,
    /// Smaller segments have no sketches: all their codes are looked at.
    pub sketch_rows: usize,
    /// Larger segments are sorted into lists.
    pub partition_rows: usize,
    pub lists: usize,
    /// Lists that a search looks into, at least.
    pub probes: usize,
    /// Codes that are looked at, at least, for each row whose exact numbers will be asked for.
    pub candidates: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            tail_rows: 4_096,
            sketch_rows: 4_096,
            partition_rows: 200_000,
            lists: 512,
            probes: 64,
            candidates: 16,
        }
    }
}

/// Of n rows, the codes of this many times the root of n are looked at.
const CANDIDATES_PER_ROOT: f64 = 5.0;

impl Tuning {
    /// Sketches of `rows` whose codes are looked at: 640 of 10,000, 1,600 of 100,000, 5,000 of a million.
    fn candidates(&self, rows: usize, limit: usize) -> usize {
        let by_size = (CANDIDATES_PER_ROOT * (rows as f64).sqrt()) as usize;
        by_size.max(limit.saturating_mul(self.candidates))
    }
}

#[derive(Clone, Default)]
pub struct Options {
    /// The model that made the vectors; those of another are not comparable.
    pub model: String,
    pub kind: IndexKind,
    pub tuning: Tuning,
    /// Asked before every act on the disk, for tests.
    pub probe: Option<Probe>,
}

/// How the index is; [`fmt::Display`] is for the log and the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Vectors that are found.
    pub vectors: usize,
    /// How many there should be, while not all of them are there.
    pub of: Option<u64>,
    /// What was there is not trusted and is being made again.
    pub rebuilding: bool,
    /// Vectors that are only in memory.
    pub unsaved: usize,
    pub segments: usize,
    /// Rows that were no vectors and are not found.
    pub refused: u64,
    /// The instructions that the processor is used with.
    pub instructions: &'static str,
    /// Vectors in the graph, if there is one.
    pub graph: Option<usize>,
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.of {
            Some(of) => {
                let doing = if self.rebuilding { "rebuilding" } else { "catching up" };
                write!(formatter, "{doing}: {} of {}", grouped(self.vectors as u64), grouped(of))?;
            }
            None => write!(formatter, "ready: {} vectors", grouped(self.vectors as u64))?,
        }
        if self.refused > 0 {
            write!(formatter, ", {} are no vectors", grouped(self.refused))?;
        }
        Ok(())
    }
}

/// `3000` as `3,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The vectors of one store, to be shared by all its threads. See the top of this file.
pub struct VectorIndex {
    source: Arc<dyn VectorSource>,
    tuning: Tuning,
    /// Held for moments only: a search copies what it needs, a rewrite exchanges what it made.
    state: RwLock<State>,
    /// One change after the other.
    applying: Mutex<()>,
    files: Mutex<Files>,
    graphs: Graphs,
    /// One catches up for all.
    catching_up: Mutex<()>,
    /// Somebody asked for it since the last look at the source.
    wanted: AtomicBool,
    /// Another process writes the files.
    reads_only: bool,
    /// How many vectors the source has, as last heard, while not all are here; 0 when they are.
    expected: AtomicU64,
    /// Segments written, for tests and figures.
    rewrites: AtomicU64,
}

impl VectorIndex {
    /// Opens what lies in `folder`, which may be nothing, and compares all of it with its checksums and with
    /// the source. [`VectorIndex::catch_up`] brings what is missing.
    ///
    /// # Errors
    /// The folder cannot be used or the source not be read. Files that cannot be used are no error.
    pub fn open(folder: &Path, source: Arc<dyn VectorSource>, options: Options) -> Result<Self, VectorError> {
        opening::open(folder, source, options)
    }

    /// The last change of the source that is in.
    pub fn applied(&self) -> u64 {
        read(&self.state).standing.applied
    }

    /// Vectors that are found; while rebuilding, those that were brought again.
    pub fn len(&self) -> usize {
        read(&self.state).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many segments were written since it was opened.
    pub fn rewrites(&self) -> u64 {
        self.rewrites.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn health(&self) -> Health {
        let expected = self.expected.load(std::sync::atomic::Ordering::Relaxed);
        let state = read(&self.state);
        Health {
            vectors: state.len(),
            of: (expected > 0 || state.rebuilding).then_some(expected),
            rebuilding: state.rebuilding,
            unsaved: state.unsaved(),
            segments: state.views.len(),
            refused: state.standing.refused,
            instructions: kernels::kernels().name,
            graph: self.graphs.len(),
        }
    }

    /// Takes in the changes that follow `after`, in the order of the source and none left out. Each takes
    /// the same short time, however many vectors there are; nothing is synced. False, and nothing is
    /// taken in, when the index does not stand at `after`: [`VectorIndex::catch_up`] brings it there.
    ///
    /// Numbers that are no vector (see [`check`]) take their key out and are counted.
    ///
    /// # Errors
    /// The changes are not ascending; or the disk has failed for so long that memory is full: the changes
    /// are not taken in, and a later call tries again.
    pub fn apply(&self, after: u64, changes: &[Change]) -> Result<bool, VectorError> {
        let sequences = std::iter::once(after).chain(changes.iter().map(|change| change.sequence));
        if !sequences.is_sorted_by(|one, other| one < other) {
            return Err(VectorError::Invalid("changes of vectors are out of order".to_owned()));
        }
        let prepared: Vec<Prepared> = changes.iter().map(prepared).collect();
        let _one_at_a_time = lock(&self.applying);
        self.make_room()?;
        let full = {
            let mut state = write(&self.state);
            if state.standing.applied != after {
                return Ok(false);
            }
            if !prepared.is_empty() {
                state.apply(&prepared);
            }
            state.tail.len() >= self.tuning.tail_rows
        };
        self.graphs.apply(&prepared);
        // Whoever holds the files is writing already; there is room until the next change.
        if full
            && !self.reads_only
            && let Ok(mut files) = self.files.try_lock()
            && let Err(error) = self.save(&mut files)
        {
            log::warn!("{error}; the newest vectors stay in memory");
        }
        Ok(true)
    }

    /// Memory is bounded also when the disk takes nothing.
    fn make_room(&self) -> Result<(), VectorError> {
        let tails = if self.reads_only { READER_TAILS_MAX } else { TAILS_MAX };
        if read(&self.state).unsaved() < tails * self.tuning.tail_rows {
            return Ok(());
        }
        if self.reads_only {
            let reason = "another process keeps the vector index and is far behind the database";
            return Err(VectorError::Invalid(reason.to_owned()));
        }
        self.save(&mut lock(&self.files))
    }

    /// From now on nothing that is there is trusted: the next [`VectorIndex::catch_up`] makes it again.
    pub fn distrust(&self) {
        let id = lock(&self.files).next_id();
        write(&self.state).distrust(id);
    }

    /// The `limit` (at most [`LIMIT_MAX`]) nearest keys with their cosine, which is exact for the best forty, best
    /// first. `filter` says
    /// which keys count, and is asked before anything is ranked; it may be asked often and must be quick.
    /// While not everything is there ([`VectorIndex::health`]), the answer is from what is.
    ///
    /// # Errors
    /// The query is no vector, the source cannot be read, or the stop request came.
    pub fn search(
        &self,
        query: &[f32],
        limit: usize,
        filter: Option<&dyn Fn(u64) -> bool>,
        cancel: &Cancel,
    ) -> Result<Vec<(u64, f32)>, VectorError> {
        let query = Query::new(query)?;
        let limit = limit.min(LIMIT_MAX);
        if limit == 0 {
            return Ok(vec![]);
        }
        let wanted = EXACT_ROWS.max(limit);
        let search = Search { query: &query, filter, limit: wanted, tuning: &self.tuning, cancel };
        let candidates = match self.by_graph(&search, wanted) {
            Some(candidates) => candidates,
            None => self.by_sketches(&search, wanted)?,
        };
        let (nearest, others) = candidates.split_at(candidates.len().min(EXACT_ROWS));
        let mut found = self.rescored(&query, nearest)?;
        if limit > EXACT_ROWS {
            found.extend_from_slice(others);
            found.sort_unstable_by(best_first);
        }
        found.truncate(limit);
        Ok(found)
    }

    fn by_sketches(&self, search: &Search<'_>, wanted: usize) -> Result<Vec<(u64, f32)>, VectorError> {
        let mut best = Highest::new(wanted);
        let views = {
            let state = read(&self.state);
            state.tail.search(search, &mut best)?;
            state.views.clone()
        };
        for view in &views {
            view.search(search, &mut best)?;
        }
        Ok(best.best_first())
    }

    /// The exact cosines. What the source does not know any more is no hit.
    fn rescored(&self, query: &Query, candidates: &[(u64, f32)]) -> Result<Vec<(u64, f32)>, VectorError> {
        let keys: Vec<u64> = candidates.iter().map(|(key, _)| *key).collect();
        let mut found = Vec::with_capacity(keys.len());
        if !keys.is_empty() {
            let mut take = |key: u64, vector: &[f32]| {
                found.extend(code::cosine(&query.unit, vector).map(|cosine| (key, cosine)));
            };
            self.source.vectors(&keys, &mut take)?;
        }
        found.sort_unstable_by(best_first);
        Ok(found)
    }
}

fn prepared(change: &Change) -> Prepared {
    let record =
        change.vector.as_ref().map(|vector| code::unit(vector).map(|unit| Box::new(code::record(&unit))));
    let refused = matches!(record, Some(Err(_)));
    Prepared { sequence: change.sequence, key: change.key, record: record.and_then(Result::ok), refused }
}

/// A panic elsewhere does not poison: what is guarded is whole after every step.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
