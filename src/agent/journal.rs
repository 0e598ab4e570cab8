//! The journal of one run: records wait here until something outside of the run is about to happen,
//! then go to the database in order.

use serde_json::Value;

use super::happening;
use crate::clock::Timestamp;
use crate::conversation::{Also, Conversations, Record, Step, append_records};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::working_memory::NewEvent;

pub(super) struct RunJournal<'a> {
    conversations: &'a Conversations,
    run: u64,
    next: u32,
    waiting: Vec<Record>,
}

impl<'a> RunJournal<'a> {
    pub(super) fn new(conversations: &'a Conversations, run: u64) -> Self {
        Self { conversations, run, next: 0, waiting: Vec::new() }
    }

    /// Of a run that has records already; `next` is the number of the next.
    pub(super) fn after(conversations: &'a Conversations, run: u64, next: u32) -> Self {
        Self { next, ..Self::new(conversations, run) }
    }

    pub(super) fn add(&mut self, step: Step, payload: Value) {
        self.waiting.push(Record { run: self.run, number: self.next, step, payload });
        self.next += 1;
    }

    /// Queues what waits behind all earlier writes. The first record alone (what a run was started
    /// with) stays until a step follows: a turn of one step then costs one commit.
    pub(super) fn flush(&mut self) -> Result<(), DbError> {
        if self.waiting.iter().all(|record| record.step == Step::Start) {
            return Ok(());
        }
        self.conversations.journal(self.take())
    }

    /// Queues what waits and returns when it is on disk: before an act that cannot be undone.
    pub(super) fn flush_durably(&mut self) -> Result<(), DbError> {
        self.conversations.journal_durably(self.take())
    }

    /// What was not written yet, for the transaction that ends the run.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.waiting)
    }
}

/// For the transaction that begins a run: its first records, and what is told of it.
pub(super) fn beginning(records: Vec<Record>, event: Option<NewEvent>) -> impl Also {
    let note = happening::note(event);
    move |connection: &Connection, now: Timestamp| {
        append_records(connection, &records, now)?;
        note(connection, now)
    }
}
