//! Full text: a tantivy index that is committed rarely, and before each search the rows that changed
//! since (the tail). Everything here is derived from the table `memories` and may be deleted.
//!
//! What makes it right: the commit's payload says up to which `change_seq` the index holds everything,
//! and a row that is changed later gets a higher number and so is in the tail, which overrides. Reading
//! a little less or a little more than one consistent state does no harm.
//!
//! What makes it small: nothing of tantivy is touched before the first search or commit; the writer and
//! its threads live for one commit; the reader has no thread and is put away when nobody searches.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::Duration;

use tantivy::{Searcher, TantivyError};

use super::analysis::{Analyzer, QueryWord};
use super::error::index_kind;
use super::index_files::{self, Opened, Payload};
use super::index_query::{Found, Snapshot};
use super::index_writer::BatchWriter;
use super::record::MemoryType;
use super::tail::Tail;
use super::{MemoryError, store};
use crate::clock::Timestamp;
use crate::config::Language;
use crate::db::Db;
use crate::error::{Fault, Kind, log_line};
use crate::thread::{self, contained};

/// Rows that may wait for a commit before a search makes one: their words take about half a megabyte
/// and a few milliseconds to read again after a start.
pub(super) const TAIL_ROWS: usize = 256;
/// The same, as bytes of content.
const TAIL_BYTES: u64 = 512 << 10;
/// Rows read from the database at a time while committing.
const PAGE_ROWS: usize = 100;
/// After a failed commit, how long searches do not try another.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// The reader and the tail are put away after this time without a search.
const READER_IDLE: Duration = Duration::from_secs(600);

pub(super) struct TextIndex {
    folder: PathBuf,
    language: Language,
    analyzer: OnceLock<Analyzer>,
    /// What searches look at. Held for moments: never while committing.
    view: Mutex<View>,
    /// Held while committing.
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct View {
    /// False until somebody looked what is on disk.
    looked: bool,
    searcher: Option<Searcher>,
    /// The searcher holds everything up to this change.
    committed: i64,
    tail: Arc<Tail>,
    used_at: Timestamp,
}

#[derive(Default)]
struct Writing {
    /// What is on disk was found to be unusable.
    start_over: bool,
    retry_at: Timestamp,
}

/// The state of the files after a commit.
struct Written {
    searcher: Searcher,
    committed: i64,
    /// False when they were up to date before.
    anything: bool,
}

impl TextIndex {
    pub(super) fn new(folder: PathBuf, language: Language) -> Self {
        Self {
            folder,
            language,
            analyzer: OnceLock::new(),
            view: Mutex::default(),
            writing: Mutex::default(),
        }
    }

    pub(super) fn analyzer(&self) -> &Analyzer {
        self.analyzer.get_or_init(|| Analyzer::new(self.language))
    }

    /// The best `limit` memories that have any of these words; forgotten ones and other types do not
    /// count towards the limit.
    pub(super) fn search(
        &self,
        db: &Db,
        query: &[QueryWord],
        memory_type: Option<MemoryType>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Found, MemoryError> {
        let snapshot = self.snapshot(db, now)?;
        let error = match contained(|| snapshot.search(query, memory_type, limit)) {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => self.failed(&error),
            // Bytes that changed after the check at opening.
            Err(panic) => self.error(panic, Kind::Bug),
        };
        log::warn!("{}; it is rebuilt", log_line(&error));
        self.distrust();
        let snapshot = self.snapshot(db, now)?;
        snapshot.search(query, memory_type, limit).map_err(|error| self.failed(&error))
    }

    fn snapshot(&self, db: &Db, now: Timestamp) -> Result<Snapshot, MemoryError> {
        let committed = self.look(db, now);
        let (rows, bytes) = db.read(|connection| store::pending(connection, committed, TAIL_ROWS + 1))?;
        if rows > TAIL_ROWS as u64 || bytes > TAIL_BYTES {
            // Whatever goes wrong: the tail still holds the newest changes.
            if let Err(error) = self.commit_if_due(db, now) {
                log::warn!("{}", log_line(&error));
            }
        }
        let mut view = thread::lock(&self.view);
        let committed = view.committed;
        let tail = Arc::make_mut(&mut view.tail);
        db.read(|connection| tail.catch_up(connection, committed, self.analyzer()))?;
        Ok(Snapshot { searcher: view.searcher.clone(), tail: view.tail.clone() })
    }

    /// Opens what is on disk if nobody has, and says up to which change it goes.
    fn look(&self, db: &Db, now: Timestamp) -> i64 {
        {
            let mut view = thread::lock(&self.view);
            view.used_at = now;
            if view.looked {
                return view.committed;
            }
        }
        // Not while a commit moves the files about. Always in this order: `writing`, then `view`.
        let mut writing = thread::lock(&self.writing);
        let mut view = thread::lock(&self.view);
        if !view.looked && !writing.start_over {
            match contained(|| index_files::open_checked(&self.folder, db, self.analyzer())) {
                Ok(Ok(None)) => {}
                Ok(Ok(Some((searcher, committed)))) => {
                    view.searcher = Some(searcher);
                    view.committed = committed;
                }
                Ok(Err(reason)) | Err(reason) => {
                    log::warn!("the text index in {} is not usable: {reason}", self.folder.display());
                    writing.start_over = true;
                }
            }
        }
        view.looked = true;
        view.committed
    }

    /// Forgets everything that is on disk, until a commit has written it anew.
    fn distrust(&self) {
        *thread::lock(&self.view) = View { looked: true, ..View::default() };
        thread::lock(&self.writing).start_over = true;
    }

    /// For a search: no commit while one runs or soon after one failed. True when one was made.
    pub(super) fn commit_if_due(&self, db: &Db, now: Timestamp) -> Result<bool, MemoryError> {
        match self.try_writing() {
            Some(writing) if writing.retry_at <= now => self.commit(writing, db, now),
            _ => Ok(false),
        }
    }

    /// Up to which change the files go.
    pub(super) fn committed(&self, db: &Db, now: Timestamp) -> i64 {
        self.look(db, now)
    }

    /// Throws away what is on disk and writes it anew.
    pub(super) fn rebuild(&self, db: &Db, now: Timestamp) -> Result<bool, MemoryError> {
        self.distrust();
        self.commit_now(db, now)
    }

    /// Waits for a running commit and makes another one if there is something left.
    pub(super) fn commit_now(&self, db: &Db, now: Timestamp) -> Result<bool, MemoryError> {
        self.commit(thread::lock(&self.writing), db, now)
    }

    fn try_writing(&self) -> Option<MutexGuard<'_, Writing>> {
        match self.writing.try_lock() {
            Ok(writing) => Some(writing),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn commit(
        &self,
        mut writing: MutexGuard<'_, Writing>,
        db: &Db,
        now: Timestamp,
    ) -> Result<bool, MemoryError> {
        let result = contained(|| self.write_index(db, writing.start_over))
            .unwrap_or_else(|panic| Err(self.error(panic, Kind::Bug)));
        let written = match result {
            Ok(written) => written,
            Err(error) => {
                writing.retry_at = now.plus(RETRY_AFTER);
                // A full disk or a busy lock says nothing about what is there.
                writing.start_over |= error.kind() == Kind::Bug;
                return Err(error);
            }
        };
        *writing = Writing::default();
        let Some(Written { searcher, committed, anything }) = written else { return Ok(false) };
        let mut view = thread::lock(&self.view);
        if view.looked {
            view.searcher = Some(searcher);
            view.committed = committed;
            Arc::make_mut(&mut view.tail).drop_through(committed);
        }
        Ok(anything)
    }

    /// Brings the files up to date; `None` when there is nothing to have an index of.
    fn write_index(&self, db: &Db, start_over: bool) -> Result<Option<Written>, MemoryError> {
        let opened = if start_over {
            None
        } else {
            index_files::open_current(&self.folder, db, self.analyzer()).ok().flatten()
        };
        let through = db.read(store::last_change)?;
        let opened = match opened {
            None if through == 0 => return Ok(None),
            None => {
                index_files::create(&self.folder, self.analyzer()).map_err(|error| self.failed(&error))?
            }
            Some(opened) => opened,
        };
        let mut committed = opened.committed();
        if committed < through
            && let Some(change) = self.write_changes(&opened, db, through)?
        {
            committed = change;
        }
        let searcher = index_files::searcher(&opened.index).map_err(|error| self.failed(&error))?;
        Ok(Some(Written { searcher, committed, anything: committed > opened.committed() }))
    }

    /// One commit with everything up to `through`; returns the last change that went in, if any.
    fn write_changes(&self, opened: &Opened, db: &Db, through: i64) -> Result<Option<i64>, MemoryError> {
        let mut writer = BatchWriter::new(opened).map_err(|error| self.failed(&error))?;
        let mut last: Option<Payload> = None;
        loop {
            let after = last.as_ref().map_or(opened.committed(), |payload| payload.change_seq);
            let page = db.read(|connection| store::changes(connection, after, through, PAGE_ROWS))?;
            for memory in &page {
                writer.put(memory).map_err(|error| self.failed(&error))?;
            }
            match page.last() {
                Some(newest) => last = Some(Payload::new(newest, self.analyzer())),
                None => break,
            }
        }
        // Nothing there any more when every one of the rows has changed again since.
        let Some(payload) = last else { return Ok(None) };
        writer.commit(&payload).map_err(|error| self.failed(&error))?;
        Ok(Some(payload.change_seq))
    }

    /// Gives the memory of the reader back when nobody searched for a while.
    pub(super) fn rest(&self, now: Timestamp) {
        let mut view = thread::lock(&self.view);
        if view.looked && now.since(view.used_at) >= READER_IDLE {
            *view = View::default();
        }
    }

    fn failed(&self, error: &TantivyError) -> MemoryError {
        self.error(error.to_string(), index_kind(error))
    }

    fn error(&self, reason: String, kind: Kind) -> MemoryError {
        MemoryError::Index { folder: self.folder.clone(), reason, kind }
    }
}
