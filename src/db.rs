//! One SQLite file: a single writing thread with group commit, and a few read-only connections.
//!
//! The SQL itself lives in the modules that own the tables; they hand closures in. A write returns
//! after the fsync of the commit that holds it.

mod deferred;
mod error;
mod migrations;
mod ticket;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender, TrySendError, bounded};
use rusqlite::{Connection, OpenFlags};

pub use error::DbError;
pub use migrations::Schema;
pub use rusqlite;
pub use ticket::Ticket;
pub use writer::{CommitGate, LINGER};

use crate::thread;
use deferred::Deferred;
use ticket::{Reply, ticket};
use writer::{Task, Work, Writer};

/// Writes that wait for the writer thread; a full queue makes the sender wait, or refuses where the
/// sender has no time for that.
const WRITE_QUEUE: usize = 256;
/// Read-only connections kept open between reads. More readers at once open more, and close them.
const IDLE_READERS: usize = 4;
/// How long a connection waits for a lock that another process holds (`spacebot memory …`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page cache of a reading connection, in KiB: what one search reads, inner pages of the trees included.
/// No more, because the kernel caches the file already.
const READER_CACHE_KIB: i64 = 1024;

/// Handle to one database; clones are the same database.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    path: PathBuf,
    mode: Mode,
    idle_readers: (Sender<Connection>, Receiver<Connection>),
}

enum Mode {
    /// Writes go to the thread `db:<name>`. The sender is taken by [`Db::close`].
    Thread { queue: Mutex<Option<Sender<Box<dyn Work>>>>, deferred: Deferred },
    /// Writes run on the caller's thread: one-shot commands and the simulation.
    Inline(Mutex<Writer>),
}

impl Db {
    /// Opens (or makes) the database, brings its schema up to date and starts `db:<name>`.
    /// The thread ends after [`Db::close`].
    ///
    /// # Errors
    /// The file cannot be opened, a migration fails or was changed after it had been applied.
    pub fn open(path: &Path, name: &str) -> Result<(Self, JoinHandle<()>), DbError> {
        Self::open_as(path, name, Schema::Agent)
    }

    /// As [`Db::open`] with the tables of `schema`.
    ///
    /// # Errors
    /// As there.
    pub fn open_as(path: &Path, name: &str, schema: Schema) -> Result<(Self, JoinHandle<()>), DbError> {
        let writer = Writer::open(path, schema, None)?;
        let (sender, receiver) = bounded(WRITE_QUEUE);
        let deferred = Deferred::default();
        let riding = deferred.clone();
        let handle = thread::spawn(format!("db:{name}"), move || writer.run(&receiver, &riding))
            .map_err(|error| DbError::Open { path: path.to_owned(), reason: error.to_string() })?;
        let mode = Mode::Thread { queue: Mutex::new(Some(sender)), deferred };
        Ok((Self::with_mode(path, mode), handle))
    }

    /// Opens the database without a thread. `gate` is asked before and after each commit.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub fn open_inline(path: &Path, gate: Option<Arc<dyn CommitGate>>) -> Result<Self, DbError> {
        Self::open_inline_as(path, Schema::Agent, gate)
    }

    /// As [`Db::open_inline`] with the tables of `schema`.
    ///
    /// # Errors
    /// As there.
    pub fn open_inline_as(
        path: &Path,
        schema: Schema,
        gate: Option<Arc<dyn CommitGate>>,
    ) -> Result<Self, DbError> {
        let writer = Writer::open(path, schema, gate)?;
        Ok(Self::with_mode(path, Mode::Inline(Mutex::new(writer))))
    }

    fn with_mode(path: &Path, mode: Mode) -> Self {
        Self(Arc::new(Inner { path: path.to_owned(), mode, idle_readers: bounded(IDLE_READERS) }))
    }

    /// Runs `work` in a transaction and returns after it is on disk. Work of several callers may
    /// share one commit; each has its own savepoint, so that one failure undoes only itself.
    ///
    /// # Errors
    /// What `work` returned, or why the commit failed; then nothing of it is stored.
    pub fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        self.submit(work)?.wait()
    }

    /// Queues `work` behind everything queued before and returns at once; the order of commits is
    /// the order of calls. The ticket may be dropped.
    ///
    /// # Errors
    /// The database is closed.
    pub fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
    ) -> Result<Ticket<T>, DbError> {
        let (reply, ticket) = ticket();
        self.queue(Box::new(Task::new(work, reply)))?;
        Ok(ticket)
    }

    /// As [`Db::submit`], never waits, and calls `done` exactly once: after the commit on the thread of
    /// the writer, which it must not wait for, or at once when the queue is full.
    pub fn submit_then<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, DbError> + Send + 'static,
        done: impl FnOnce(Result<T, DbError>) + Send + 'static,
    ) {
        let task = Task::new(work, Reply::call(done));
        if let Err((error, task)) = self.try_queue(Box::new(task)) {
            task.finish(Err(error));
        }
    }

    /// As [`Db::submit`] for what may be lost in a crash (it can be found out again): it rides along
    /// with the next commit, at the latest after [`LINGER`], and is not synced for its own sake: a kill does not lose it
    /// then, a power cut may. It may overtake writes still in the queue.
    /// Never waits.
    ///
    /// # Errors
    /// The queue is full, or the database is closed.
    pub fn defer(
        &self,
        work: impl FnOnce(&Connection) -> Result<(), DbError> + Send + 'static,
    ) -> Result<(), DbError> {
        let (reply, _) = ticket();
        let task: Box<dyn Work> = Box::new(Task::lazy(work, reply));
        match &self.0.mode {
            Mode::Thread { deferred, .. } => {
                deferred.put(task).or_else(|task| self.try_queue(task)).map_err(|(error, _)| error)
            }
            Mode::Inline(_) => self.queue(task),
        }
    }

    fn queue(&self, task: Box<dyn Work>) -> Result<(), DbError> {
        match &self.0.mode {
            Mode::Thread { queue, .. } => {
                let queue = thread::lock(queue).clone().ok_or(DbError::Closed)?;
                queue.send(task).map_err(|SendError(_)| DbError::Closed)
            }
            Mode::Inline(writer) => {
                thread::lock(writer).commit_batch(vec![task]);
                Ok(())
            }
        }
    }

    fn try_queue(&self, task: Box<dyn Work>) -> Result<(), (DbError, Box<dyn Work>)> {
        match &self.0.mode {
            Mode::Thread { queue, .. } => {
                let Some(queue) = thread::lock(queue).clone() else { return Err((DbError::Closed, task)) };
                queue.try_send(task).map_err(|error| match error {
                    TrySendError::Full(task) => (DbError::QueueFull, task),
                    TrySendError::Disconnected(task) => (DbError::Closed, task),
                })
            }
            Mode::Inline(writer) => {
                thread::lock(writer).commit_batch(vec![task]);
                Ok(())
            }
        }
    }

    /// Runs `work` on a read-only connection, which sees everything committed before the call and nothing
    /// that comes while it runs: all of its statements are one transaction.
    ///
    /// # Errors
    /// What `work` returned, or why no connection could be opened.
    pub fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, DbError>) -> Result<T, DbError> {
        let connection = match self.0.idle_readers.1.try_recv() {
            Ok(connection) => connection,
            Err(_) => self.open_reader()?,
        };
        // Of its own, each statement would take and give back the locks of the file.
        let result = match connection.unchecked_transaction() {
            Ok(transaction) => work(&transaction),
            Err(error) => Err(error.into()),
        };
        // A full pool closes the connection: that is its bound.
        self.0.idle_readers.0.try_send(connection).ok();
        result
    }

    fn open_reader(&self) -> Result<Connection, DbError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.0.path, flags)
            .map_err(|error| DbError::Open { path: self.0.path.clone(), reason: error.to_string() })?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.pragma_update(None, "query_only", true)?;
        keep_plans(&connection)?;
        Ok(connection)
    }

    /// Returns after everything queued so far is on disk: the proof of life for the watchdog.
    ///
    /// # Errors
    /// The writer does not work any more.
    pub fn ping(&self) -> Result<(), DbError> {
        self.write(|_| Ok(()))
    }

    /// Asks the writer for a sign of life without waiting; `None` when its queue is full or it is gone.
    pub fn probe(&self) -> Option<Ticket<()>> {
        let (reply, ticket) = ticket();
        let task = Box::new(Task::new(|_: &Connection| Ok(()), reply));
        match &self.0.mode {
            Mode::Thread { queue, .. } => thread::lock(queue).as_ref()?.try_send(task).ok()?,
            Mode::Inline(writer) => thread::lock(writer).commit_batch(vec![task]),
        }
        Some(ticket)
    }

    /// Takes no more writes; the thread drains its queue, checkpoints and ends.
    pub fn close(&self) {
        if let Mode::Thread { queue, .. } = &self.0.mode {
            thread::lock(queue).take();
        }
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }
}

/// Plans do not depend on bound values: otherwise a partial index makes SQLite prepare the statement
/// anew at every call, which cost a tenth of the CPU of a message.
fn keep_plans(connection: &Connection) -> Result<(), DbError> {
    connection.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

#[cfg(test)]
mod tests;
