//! The one writing connection: drain the queue, run each piece of work in a savepoint, commit once,
//! then answer everybody.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rusqlite::Connection;

use super::deferred::Deferred;
use super::migrations::Schema;
use super::ticket::Reply;
use super::{BUSY_TIMEOUT, DbError, keep_plans, migrations};

/// Pieces of work that share one commit at most; bounds how long the first of them waits.
const BATCH: usize = 64;
/// How long the writer stays awake after a commit for what may ride along with the next one.
pub const LINGER: Duration = Duration::from_millis(250);
/// Page cache of the writer, in KiB.
const WRITER_CACHE_KIB: i64 = 1024;
/// What an emptied write-ahead log keeps of the disk, in bytes: as much as it grows to between two
/// checkpoints. More comes from one large transaction and is given back.
const LOG_KEPT_BYTES: i64 = 4 << 20;
/// Prepared statements kept; about as many as the crate has.
const STATEMENT_CACHE: usize = 64;

/// Stands between work and disk: the simulation's place to inject a crash.
pub trait CommitGate: Send + Sync {
    /// An error here means that the commit did not happen.
    fn before_commit(&self) -> Result<(), DbError>;
    /// An error here means that it did, but nobody was told.
    fn after_commit(&self) -> Result<(), DbError>;
}

pub(super) trait Work: Send {
    fn run(&mut self, connection: &Connection) -> Result<(), DbError>;
    fn finish(self: Box<Self>, outcome: Result<(), DbError>);
    /// It may be lost with the power, and no commit is synced for its sake.
    fn is_lazy(&self) -> bool;
}

pub(super) struct Task<F, T> {
    lazy: bool,
    work: Option<F>,
    value: Option<T>,
    reply: Reply<T>,
}

impl<F, T> Task<F, T> {
    pub(super) fn new(work: F, reply: Reply<T>) -> Self {
        Self { lazy: false, work: Some(work), value: None, reply }
    }

    pub(super) fn lazy(work: F, reply: Reply<T>) -> Self {
        Self { lazy: true, ..Self::new(work, reply) }
    }
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T, DbError> + Send> Work for Task<F, T> {
    fn run(&mut self, connection: &Connection) -> Result<(), DbError> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(connection)?);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, outcome: Result<(), DbError>) {
        let Self { value, reply, .. } = *self;
        reply.send(outcome.and_then(|()| value.ok_or(DbError::Closed)));
    }

    fn is_lazy(&self) -> bool {
        self.lazy
    }
}

pub(super) struct Writer {
    connection: Connection,
    gate: Option<Arc<dyn CommitGate>>,
    /// Commits are synced now.
    synced: bool,
}

impl Writer {
    pub(super) fn open(
        path: &Path,
        schema: Schema,
        gate: Option<Arc<dyn CommitGate>>,
    ) -> Result<Self, DbError> {
        let open =
            |error: rusqlite::Error| DbError::Open { path: path.to_owned(), reason: error.to_string() };
        let mut connection = Connection::open(path).map_err(open)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        // FULL: in WAL mode the log is synced at every commit, so that a commit survives a power cut.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        connection.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        keep_plans(&connection)?;
        migrations::apply(&mut connection, schema)?;
        Ok(Self { connection, gate, synced: true })
    }

    /// Until the last sender is gone; then everything is moved out of the log.
    pub(super) fn run(mut self, queue: &Receiver<Box<dyn Work>>, deferred: &Deferred) {
        loop {
            let first = match queue.recv_timeout(LINGER) {
                Ok(first) => first,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let waiting = deferred.take_or_sleep();
                    if !waiting.is_empty() {
                        self.commit_batch(waiting);
                        continue;
                    }
                    match queue.recv() {
                        Ok(first) => first,
                        Err(_) => break,
                    }
                }
            };
            let mut batch = deferred.take();
            batch.push(first);
            while batch.len() < BATCH
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            self.commit_batch(batch);
        }
        self.close(deferred);
    }

    fn close(mut self, deferred: &Deferred) {
        loop {
            let waiting = deferred.take_or_sleep();
            if waiting.is_empty() {
                // From here on the queue refuses what comes.
                break;
            }
            self.commit_batch(waiting);
        }
        if let Err(error) = self.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE") {
            log::warn!("the write-ahead log was not emptied at the end: {error}");
        }
    }

    pub(super) fn commit_batch(&mut self, mut batch: Vec<Box<dyn Work>>) {
        let mut outcomes = Vec::with_capacity(batch.len());
        let committed = self.run_batch(&mut batch, &mut outcomes);
        outcomes.resize(batch.len(), Err(DbError::Closed));
        for (work, outcome) in batch.into_iter().zip(outcomes) {
            let outcome = match (&committed, outcome) {
                (Err(error), Ok(()) | Err(DbError::Closed)) => Err(error.clone()),
                (_, outcome) => outcome,
            };
            work.finish(outcome);
        }
    }

    fn run_batch(
        &mut self,
        batch: &mut [Box<dyn Work>],
        outcomes: &mut Vec<Result<(), DbError>>,
    ) -> Result<(), DbError> {
        self.sync(!batch.iter().all(|work| work.is_lazy()))?;
        self.execute("BEGIN IMMEDIATE")?;
        let result = self.run_all(batch, outcomes).and_then(|()| self.commit());
        if result.is_err() && !self.connection.is_autocommit() {
            // The first error is the one to report; this one would only repeat it.
            self.execute("ROLLBACK").ok();
        }
        result?;
        self.gate.as_ref().map_or(Ok(()), |gate| gate.after_commit())
    }

    /// Whether the next commit waits for the disk. What an unsynced one has written gets there with the next synced
    /// one, and in the same order; a kill of the process loses nothing of it.
    fn sync(&mut self, synced: bool) -> Result<(), DbError> {
        if self.synced != synced {
            self.connection.pragma_update(None, "synchronous", if synced { "FULL" } else { "NORMAL" })?;
            self.synced = synced;
        }
        Ok(())
    }

    fn run_all(
        &self,
        batch: &mut [Box<dyn Work>],
        outcomes: &mut Vec<Result<(), DbError>>,
    ) -> Result<(), DbError> {
        let alone = batch.len() == 1;
        for work in batch {
            if !alone {
                self.execute("SAVEPOINT work")?;
            }
            let outcome = work.run(&self.connection);
            if self.connection.is_autocommit() {
                // SQLite gave the whole transaction up (a full disk does that): nothing of it holds.
                return Err(outcome.err().unwrap_or(DbError::Full));
            }
            match (&outcome, alone) {
                (Err(error), true) => return Err(error.clone()),
                (Err(_), false) => self.execute("ROLLBACK TO work; RELEASE work")?,
                (Ok(()), false) => self.execute("RELEASE work")?,
                (Ok(()), true) => {}
            }
            outcomes.push(outcome);
        }
        Ok(())
    }

    fn commit(&self) -> Result<(), DbError> {
        if let Some(gate) = &self.gate {
            gate.before_commit()?;
        }
        self.execute("COMMIT")
    }

    fn execute(&self, sql: &str) -> Result<(), DbError> {
        if sql.contains(';') {
            return Ok(self.connection.execute_batch(sql)?);
        }
        self.connection.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
}
