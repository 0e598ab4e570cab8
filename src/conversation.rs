//! What was said and what ran: inbox, outbox, history, runs and journal of one agent.
//!
//! A channel turn ends in one transaction ([`Conversations::commit_turn`]): the inbox rows are
//! answered, the answers stand in the outbox, the history has grown and the journal is closed, or
//! nothing of that happened.

mod also;
mod history;
mod inbox;
mod journal;
mod outbox;
mod retention;
mod runs;
mod visit;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{SharedClock, Timestamp};
use crate::db::rusqlite::Connection;
use crate::db::{Db, DbError};
use crate::id::{ConversationId, InboxId, InstanceId, OutboxId, ProcessId};
use crate::message::{Content, Delivery, Inbound, Outbound, Outbox, OutboxError, Recorded};
use crate::{error::Fault, event::Received};

pub use also::{Also, nothing_else};
pub use history::{Active, History, Line, NewLine, Role, place};
pub use journal::{Record, Step};
pub use runs::{BranchEnd, CutOff, Outcome, RunSummary, WaitingResult, WorkerEnd};
pub use visit::{SCHEDULED, begin_visit, end_visit, last_written, say};

/// Everything that is stored about the conversations of one agent.
#[derive(Clone)]
pub struct Conversations {
    db: Db,
    clock: SharedClock,
}

/// What a finished channel turn changes.
#[derive(Debug, Default)]
pub struct TurnCommit {
    /// Inbox rows that are answered now; one that already was fails the commit (P2).
    pub answered: Vec<InboxId>,
    /// Branches and workers whose results the model has now seen.
    pub relayed: Vec<ProcessId>,
    pub lines: Vec<NewLine>,
    pub say: Vec<Content>,
    /// Platform ids that `say` answers.
    pub answers: Vec<String>,
    /// Moves the start of the visible history.
    pub window_start: Option<i64>,
    pub journal: Vec<Record>,
}

/// Where a turn takes place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub conversation: ConversationId,
    pub instance: InstanceId,
    pub direct: bool,
    /// For the prompt, such as `libera / #pi`.
    pub name: String,
}

/// A conversation that has something to do after a start.
#[derive(Debug, Clone)]
pub struct Unfinished {
    pub place: Place,
    /// The newest unanswered message, if any.
    pub newest: Option<InboxId>,
    /// Results wait to be relayed.
    pub results: bool,
}

/// What a start found.
#[derive(Debug)]
pub struct Recovered {
    pub unfinished: Vec<Unfinished>,
    /// Answers that were being sent when the daemon stopped.
    pub unknown_sends: usize,
    /// Branches or workers were running then: their commands may still be.
    pub runs_cut_off: bool,
}

impl Conversations {
    pub fn new(db: Db, clock: SharedClock) -> Self {
        Self { db, clock }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Commits an inbound message; `None` when `(instance, platform_id)` is known already (P2).
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn receive(&self, message: Inbound) -> Result<Option<InboxId>, DbError> {
        let now = self.now();
        self.db.write(move |connection| inbox::insert(connection, &message, now))
    }

    /// As [`Conversations::receive`] without waiting; `done` is called once, as [`Db::submit_then`] does.
    pub fn begin_receive(
        &self,
        message: Inbound,
        done: impl FnOnce(Result<Option<InboxId>, DbError>) + Send + 'static,
    ) {
        let now = self.now();
        self.db.submit_then(move |connection| inbox::insert(connection, &message, now), done);
    }

    /// Unanswered messages of one conversation, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unanswered(&self, conversation: &ConversationId, limit: usize) -> Result<Vec<Received>, DbError> {
        self.db.read(|connection| inbox::unanswered(connection, conversation, limit))
    }

    /// Results of branches and workers that the model has not seen yet, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn waiting_results(
        &self,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<WaitingResult>, DbError> {
        self.db.read(|connection| runs::waiting(connection, conversation, limit))
    }

    /// The visible history of a conversation; see [`History`].
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn history(
        &self,
        conversation: &ConversationId,
        max_lines: usize,
        max_tokens: usize,
    ) -> Result<History, DbError> {
        self.db.read(|connection| history::visible(connection, conversation, max_lines, max_tokens))
    }

    /// The lines of a conversation from `first` to `last`, both included: what a turn saw of it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn lines(&self, conversation: &ConversationId, first: i64, last: i64) -> Result<Vec<Line>, DbError> {
        self.db.read(|connection| history::between(connection, conversation, first, last))
    }

    /// The last `limit` lines of any conversation, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn recall(&self, conversation: &ConversationId, limit: usize) -> Result<Vec<Line>, DbError> {
        self.db.read(|connection| history::last(connection, conversation, limit))
    }

    /// Ids of the conversations, the most recently active first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn channels(&self, limit: usize) -> Result<Vec<String>, DbError> {
        self.db.read(|connection| history::channels(connection, limit))
    }

    /// Other conversations than `here` that were active since `since`, the latest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn active(
        &self,
        here: &ConversationId,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<Active>, DbError> {
        self.db.read(|connection| history::active(connection, here, since, limit))
    }

    /// Ends a channel turn: all of `commit`, or nothing.
    ///
    /// # Errors
    /// Nothing is stored; the turn may be tried again.
    pub fn commit_turn(&self, place: &Place, commit: TurnCommit) -> Result<(), DbError> {
        self.commit_turn_and(place, commit, nothing_else)
    }

    /// As [`Conversations::commit_turn`], and what `also` writes is part of it.
    ///
    /// # Errors
    /// As there.
    pub fn commit_turn_and(&self, place: &Place, commit: TurnCommit, also: impl Also) -> Result<(), DbError> {
        let (place, now) = (place.clone(), self.now());
        self.db.write(move |connection| {
            apply_turn(connection, &place, &commit, now)?;
            also(connection, now)
        })
    }

    /// Adds records to the journal behind everything written so far, without waiting for the disk.
    ///
    /// # Errors
    /// The database is closed.
    pub fn journal(&self, records: Vec<Record>) -> Result<(), DbError> {
        let now = self.now();
        self.db.submit(move |connection| journal::append(connection, &records, now)).map(drop)
    }

    /// As [`Conversations::journal`], and waits until the records are on disk.
    ///
    /// # Errors
    /// They are not.
    pub fn journal_durably(&self, records: Vec<Record>) -> Result<(), DbError> {
        let now = self.now();
        self.db.write(move |connection| journal::append(connection, &records, now))
    }

    /// The records of one run in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn records(&self, run: u64) -> Result<Vec<Record>, DbError> {
        self.db.read(|connection| journal::of(connection, run))
    }

    /// # Errors
    /// Nothing is stored.
    pub fn begin_branch(
        &self,
        number: u64,
        conversation: &ConversationId,
        description: &str,
        answers: &[String],
    ) -> Result<(), DbError> {
        let now = self.now();
        let (conversation, description, answers) =
            (conversation.clone(), description.to_owned(), answers.to_vec());
        self.db.write(move |connection| {
            runs::begin_branch(connection, number, &conversation, &description, &answers, now)
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
            runs::begin_worker(connection, number, &conversation, &task, interactive, &answers, now)?;
            also(connection, now)
        })
    }

    /// An interactive worker has a result and waits, or works again.
    ///
    /// # Errors
    /// Nothing is stored, also when the state does not allow it.
    pub fn move_worker(
        &self,
        number: u64,
        from: &'static str,
        to: &'static str,
        result: Option<String>,
    ) -> Result<(), DbError> {
        self.db.write(move |connection| runs::move_worker(connection, number, from, to, result.as_deref()))
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
        let now = self.now();
        self.db.write(move |connection| {
            journal::append(connection, &records, now)?;
            runs::end_worker(connection, number, &end, now)?;
            also(connection, now)
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

    /// The first process number that this database has not seen.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn next_process_number(&self) -> Result<u64, DbError> {
        self.db.read(runs::next_number)
    }

    /// After a start: runs that a crash cut off are marked as interrupted, sends that were under way
    /// as unknown (P2); then every conversation with work to do is listed.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub fn recover(&self, interrupted: &str) -> Result<Recovered, DbError> {
        self.recover_and(interrupted, |_, _, _| Ok(()))
    }

    /// As [`Conversations::recover`]; what `also` writes for each run that was cut off is part of it.
    ///
    /// # Errors
    /// As there.
    pub fn recover_and(
        &self,
        interrupted: &str,
        also: impl Fn(&Connection, &CutOff, Timestamp) -> Result<(), DbError> + Send + 'static,
    ) -> Result<Recovered, DbError> {
        let now = self.now();
        let text = interrupted.to_owned();
        let (runs_cut_off, sends_cut_off) = self
            .db
            .read(|connection| Ok((runs::any_running(connection)?, outbox::any_sending(connection)?)))?;
        let unknown_sends = if runs_cut_off || sends_cut_off {
            self.db.write(move |connection| {
                for cut_off in runs::running(connection)? {
                    also(connection, &cut_off, now)?;
                }
                runs::interrupt(connection, &text, now)?;
                outbox::forget_sending(connection, now)
            })?
        } else {
            0
        };
        Ok(Recovered { unfinished: self.unfinished()?, unknown_sends, runs_cut_off })
    }

    /// Conversations with unanswered messages or results that wait.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, DbError> {
        self.db.read(inbox::unfinished)
    }

    /// Deletes, soon and without waiting, messages, answers, runs and journals that are over and came
    /// longer ago than `keep`.
    ///
    /// # Errors
    /// The database is closed.
    pub fn forget_old(&self, keep: Duration) -> Result<(), DbError> {
        let before = self.now().minus(keep);
        self.db.defer(move |connection| {
            let deleted = retention::forget(connection, before)?;
            if deleted > 0 {
                log::debug!("{deleted} rows from before {} were deleted", before.to_rfc3339());
            }
            Ok(())
        })
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// The adapter's view of the answers.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        Arc::new(self.clone())
    }
}

fn apply_turn(
    connection: &Connection,
    place: &Place,
    commit: &TurnCommit,
    now: Timestamp,
) -> Result<(), DbError> {
    for id in &commit.answered {
        inbox::answer(connection, *id, now)?;
    }
    for process in &commit.relayed {
        runs::relay(connection, *process)?;
    }
    history::append(connection, place, &commit.lines, commit.window_start, now)?;
    for content in &commit.say {
        outbox::insert(connection, place, content, &commit.answers, now)?;
    }
    journal::append(connection, &commit.journal, now)
}

impl Outbox for Conversations {
    fn pending(
        &self,
        instance: &InstanceId,
        conversation: Option<&ConversationId>,
        after: OutboxId,
        limit: usize,
    ) -> Result<Vec<Outbound>, OutboxError> {
        self.db
            .read(|connection| outbox::pending(connection, instance, conversation, after, limit))
            .map_err(outbox_error)
    }

    fn acknowledge(&self, ids: &[OutboxId], _conversation: &ConversationId) -> Result<(), OutboxError> {
        let (ids, now, sent) = (ids.to_vec(), self.now(), Delivery::Sent { platform_id: None });
        match self.db.defer(move |connection| outbox::record(connection, &ids, &sent, now)) {
            // Lost in a crash or for want of room, the answer is offered again under the same id.
            Ok(()) | Err(DbError::QueueFull) => Ok(()),
            Err(error) => Err(outbox_error(error)),
        }
    }

    fn record(
        &self,
        ids: &[OutboxId],
        _conversation: &ConversationId,
        delivery: Delivery,
    ) -> Result<(), OutboxError> {
        let (ids, now) = (ids.to_vec(), self.now());
        self.db
            .write(move |connection| outbox::record(connection, &ids, &delivery, now))
            .map_err(outbox_error)
    }

    fn begin_record(
        &self,
        ids: &[OutboxId],
        _conversation: &ConversationId,
        delivery: Delivery,
        recorded: Recorded,
    ) {
        let (ids, now) = (ids.to_vec(), self.now());
        self.db.submit_then(
            move |connection| outbox::record(connection, &ids, &delivery, now),
            move |result| recorded(result.map_err(outbox_error)),
        );
    }
}

fn outbox_error(error: DbError) -> OutboxError {
    OutboxError { kind: error.kind(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
