//! What was said and what ran: inbox, outbox, history, runs and journal of one agent.
//!
//! A channel turn ends in one transaction ([`Conversations::commit_turn`]): the inbox rows are
//! answered, the answers stand in the outbox, the history has grown and the journal is closed, or
//! nothing of that happened.

mod also;
mod archive;
mod attachments;
mod compaction;
mod day;
mod deferral;
mod delegations;
mod earlier;
mod explain;
mod history;
mod inbox;
mod journal;
mod outbox;
mod processes;
mod recovery;
mod remember;
mod requests;
mod retention;
mod routed;
mod runs;
mod settings;
mod started;
mod visit;
mod window;

use std::sync::Arc;

use crate::clock::{SharedClock, Timestamp};
use crate::config::ChannelConfig;
use crate::db::rusqlite::Connection;
use crate::db::{Db, DbError};
use crate::id::{ConversationId, InboxId, InstanceId, OutboxId, ProcessId};
use crate::message::{Content, Delivery, Earlier, Inbound, Lane, Outbound, Outbox, OutboxError, Recorded};
use crate::{error::Fault, event::Received};

pub use crate::message::Place;
pub use also::{Also, nothing_else};
pub use archive::{Found, read as end_reading};
pub use attachments::{AttachmentFolder, FILES_BYTES_MAX};
pub use compaction::{Change, InPlace, Leaving, Unread};
pub use day::{Day, DayRun, DayTalk};
pub use delegations::{DELEGATION_RESULT_BYTES, Delegation, LINK_WINDOW, NewDelegation};
pub use earlier::EarlierRoom;
pub use explain::{Answer, Explanation, Run};
pub use history::{Active, History, Line, NewLine, Participant, Role, place};
pub use journal::{JOURNAL_VERSION, Record, Step, append as append_records, has_ended, of as records_of};
pub use remember::{REMEMBER_TRIES, Remembered, Unremembered, remember};
pub use requests::Request;
pub use routed::{ROUTED_MAX, Routed};
pub use runs::{BranchEnd, CutOff, Outcome, RunSummary, Verdict, WaitingResult, WorkerEnd, relay};
pub use settings::{Known, change_settings};
pub use started::{Started, insert as announce};
pub use visit::{SCHEDULED, begin_visit, end_visit, last_written, say};
pub use window::{Summary, Weight, Window};

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
    pub journal: Vec<Record>,
    /// What it asks of other agents.
    pub delegations: Vec<NewDelegation>,
    /// Branches and workers that it has started.
    pub started: Vec<Started>,
    pub routed: Vec<Routed>,
}

/// A conversation that has something to do after a start.
#[derive(Debug, Clone)]
pub struct Unfinished {
    pub place: Place,
    pub lane: Lane,
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
    /// Those of them that go on.
    pub resumed: Vec<Resumed>,
}

/// A run that goes on after a start.
#[derive(Debug, Clone)]
pub struct Resumed {
    pub run: CutOff,
    pub place: Place,
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

    /// As [`Conversations::receive`]; where it begins its conversation, what was said before is part of the
    /// commit, as far as it has room.
    ///
    /// # Errors
    /// As there.
    pub fn receive_after(
        &self,
        message: Inbound,
        earlier: Vec<Earlier>,
        room: EarlierRoom,
    ) -> Result<Option<InboxId>, DbError> {
        let now = self.now();
        let before = earlier::content(earlier, room)?;
        self.db.write(move |connection| {
            let is_new = earlier::begun(connection, &message.conversation)?.is_none();
            let received = inbox::insert(connection, &message, now)?;
            if received.is_some() && is_new && message.lane() == Lane::Talk {
                earlier::insert(connection, &message, before, now)?;
            }
            Ok(received)
        })
    }

    /// When the first message of a conversation came; none before that. Commands begin none.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn begun(&self, conversation: &ConversationId) -> Result<Option<Timestamp>, DbError> {
        self.db.read(|connection| earlier::begun(connection, conversation))
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

    /// Unanswered messages of one conversation that are no commands, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unanswered(&self, conversation: &ConversationId, limit: usize) -> Result<Vec<Received>, DbError> {
        self.db.read(|connection| inbox::unanswered(connection, conversation, Lane::Talk, limit))
    }

    /// Unanswered commands of one conversation, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn commands(&self, conversation: &ConversationId, limit: usize) -> Result<Vec<Received>, DbError> {
        self.db.read(|connection| inbox::unanswered(connection, conversation, Lane::Commands, limit))
    }

    /// Answers a command in one transaction with what it changes: `work` runs in it and returns the
    /// words to say. A command is no part of the history.
    ///
    /// # Errors
    /// Nothing is stored, neither the change nor the answer.
    pub fn commit_command<T: Send + 'static>(
        &self,
        place: &Place,
        command: &Received,
        work: impl FnOnce(&Connection) -> Result<(String, T), DbError> + Send + 'static,
    ) -> Result<T, DbError> {
        let (place, now, id) = (place.clone(), self.now(), command.id);
        let answers = vec![command.message.platform_id.clone()];
        self.db.write(move |connection| {
            let (text, done) = work(connection)?;
            let say = vec![Content::Text { text }];
            let commit = TurnCommit { answered: vec![id], say, answers, ..TurnCommit::default() };
            apply_turn(connection, &place, &commit, now)?;
            Ok(done)
        })
    }

    /// What is set for a conversation.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn settings(&self, conversation: &ConversationId) -> Result<ChannelConfig, DbError> {
        self.db.read(|connection| settings::of(connection, conversation))
    }

    /// Every conversation, the last active first, with what is set there.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn known(&self) -> Result<Vec<Known>, DbError> {
        self.db.read(settings::all)
    }

    /// What happened since `since`, in one conversation or in all.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn day(&self, since: Timestamp, conversation: Option<&ConversationId>) -> Result<Day, DbError> {
        self.db.read(|connection| day::since(connection, since, conversation))
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
    pub fn history(&self, conversation: &ConversationId, max_lines: usize) -> Result<History, DbError> {
        self.db.read(|connection| history::visible(connection, conversation, max_lines))
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

    /// Who wrote in a conversation lately, the latest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn participants(
        &self,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Participant>, DbError> {
        self.db.read(|connection| history::participants(connection, conversation, limit))
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

    /// What became of the message with this platform id (its end is enough), or of the last one. None when
    /// there is no such message (any more).
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn explain(&self, id: Option<&str>) -> Result<Option<Explanation>, DbError> {
        self.db.read(|connection| explain::explain(connection, id))
    }

    /// The records of one run in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn records(&self, run: u64) -> Result<Vec<Record>, DbError> {
        self.db.read(|connection| journal::of(connection, run))
    }

    /// The records of the last turn that was to answer one of these messages (platform ids), if it did not
    /// come to its end.
    ///
    /// # Errors
    /// The database cannot be read, or a record is damaged.
    pub fn cut_off_turn(
        &self,
        conversation: &ConversationId,
        messages: &[&str],
    ) -> Result<Option<Vec<Record>>, DbError> {
        self.db.read(|connection| {
            let run = journal::cut_off_turn(connection, conversation.as_str(), messages)?;
            run.map(|run| journal::of(connection, run)).transpose()
        })
    }

    /// Runs that began at `since` or later, in order, at most `limit`, with what they were started with.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn runs_begun(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<(u64, serde_json::Value)>, DbError> {
        self.db.read(|connection| journal::begun(connection, since, limit))
    }

    /// The first process number that this database has not seen.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn next_process_number(&self) -> Result<u64, DbError> {
        self.db.read(runs::next_number)
    }

    /// Conversations with unanswered messages or results that wait.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unfinished(&self) -> Result<Vec<Unfinished>, DbError> {
        self.db.read(inbox::unfinished)
    }

    pub fn clock(&self) -> &SharedClock {
        &self.clock
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
    history::append(connection, place, &commit.lines, now)?;
    for content in &commit.say {
        outbox::insert(connection, place, content, &commit.answers, now)?;
    }
    for run in &commit.started {
        started::insert(connection, &place.conversation, run, now)?;
    }
    for delegation in &commit.delegations {
        delegations::insert(connection, place, delegation, now)?;
    }
    for routed in &commit.routed {
        routed::insert(connection, routed, now)?;
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
