//! What branches and workers write: that they began, how far they are, how they ended.

use super::{
    Also, BranchEnd, Conversations, Record, RunSummary, WorkerEnd, journal, nothing_else, runs, started,
};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::id::{ConversationId, ProcessId, ProcessKind};

impl Conversations {
    /// # Errors
    /// Nothing is stored.
    pub fn begin_branch(
        &self,
        number: u64,
        conversation: &ConversationId,
        description: &str,
        answers: &[String],
    ) -> Result<(), DbError> {
        self.begin_branch_and(number, conversation, description, answers, nothing_else)
    }

    /// As [`Conversations::begin_branch`]; what `also` writes is part of it.
    ///
    /// # Errors
    /// As there.
    pub fn begin_branch_and(
        &self,
        number: u64,
        conversation: &ConversationId,
        description: &str,
        answers: &[String],
        also: impl Also,
    ) -> Result<(), DbError> {
        let now = self.now();
        let (conversation, description, answers) =
            (conversation.clone(), description.to_owned(), answers.to_vec());
        self.db.write(move |connection| {
            if !started::is_announced(connection, ProcessId::new(ProcessKind::Branch, number))? {
                runs::begin_branch(connection, number, &conversation, &description, &answers, now)?;
            }
            also(connection, now)
        })
    }

    /// Writes the terminal state of a branch; the second end of the same branch is refused. What `also`
    /// writes is part of it.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn end_branch(
        &self,
        number: u64,
        end: BranchEnd,
        records: Vec<Record>,
        also: impl Also,
    ) -> Result<(), DbError> {
        let now = self.now();
        self.db.write(move |connection| {
            journal::append(connection, &records, now)?;
            runs::end_branch(connection, number, &end, now)?;
            also(connection, now)
        })
    }

    /// Writes a new worker; what `also` writes is part of it.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn begin_worker(
        &self,
        number: u64,
        conversation: &ConversationId,
        task: &str,
        interactive: bool,
        answers: &[String],
        also: impl Also,
    ) -> Result<(), DbError> {
        let now = self.now();
        let (conversation, task, answers) = (conversation.clone(), task.to_owned(), answers.to_vec());
        self.db.write(move |connection| {
            if !started::is_announced(connection, ProcessId::new(ProcessKind::Worker, number))? {
                runs::begin_worker(connection, number, &conversation, &task, interactive, &answers, now)?;
            }
            also(connection, now)
        })
    }

    /// As [`Conversations::begin_worker`] for one that gets its work from `claim`, in the same
    /// transaction. Where that says that there is none, it does not begin.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn begin_claimed_worker<T: Send + 'static>(
        &self,
        number: u64,
        conversation: &ConversationId,
        task: &str,
        claim: impl FnOnce(&Connection, Timestamp) -> Result<(bool, T), DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (now, conversation, task) = (self.now(), conversation.clone(), task.to_owned());
        self.db.write(move |connection| {
            let (taken, claimed) = claim(connection, now)?;
            if taken {
                runs::begin_worker(connection, number, &conversation, &task, false, &[], now)?;
            }
            Ok(claimed)
        })
    }

    /// An interactive worker has a result and waits, or works again; `records` say so in its journal.
    ///
    /// # Errors
    /// Nothing is stored, also when the state does not allow it.
    pub fn move_worker(
        &self,
        number: u64,
        from: &'static str,
        to: &'static str,
        result: Option<String>,
        records: Vec<Record>,
    ) -> Result<(), DbError> {
        let now = self.now();
        self.db.write(move |connection| {
            journal::append(connection, &records, now)?;
            runs::move_worker(connection, number, from, to, result.as_deref())
        })
    }

    /// Writes the terminal state of a worker; the second end of the same worker is refused. What `also`
    /// writes is part of it.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn end_worker(
        &self,
        number: u64,
        end: WorkerEnd,
        records: Vec<Record>,
        also: impl Also,
    ) -> Result<(), DbError> {
        self.end_worker_with(number, end, records, |connection, _, now| also(connection, now))
    }

    /// As [`Conversations::end_worker`]; `work` may change the end too, and its result is returned.
    ///
    /// # Errors
    /// Nothing is stored, also nothing of `work`.
    pub fn end_worker_with<T: Send + 'static>(
        &self,
        number: u64,
        mut end: WorkerEnd,
        records: Vec<Record>,
        work: impl FnOnce(&Connection, &mut WorkerEnd, Timestamp) -> Result<T, DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let now = self.now();
        self.db.write(move |connection| {
            let done = work(connection, &mut end, now)?;
            journal::append(connection, &records, now)?;
            runs::end_worker(connection, number, &end, now)?;
            Ok(done)
        })
    }

    /// The latest workers of a conversation, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn workers(&self, conversation: &ConversationId, limit: usize) -> Result<Vec<RunSummary>, DbError> {
        self.db.read(|connection| runs::workers(connection, conversation, limit))
    }

    /// One worker of a conversation with its transcript.
    ///
    /// # Errors
    /// [`DbError::NotFound`] when there is none, or the database cannot be read.
    pub fn worker(&self, conversation: &ConversationId, number: u64) -> Result<RunSummary, DbError> {
        self.db.read(|connection| runs::worker(connection, conversation, number))
    }
}
