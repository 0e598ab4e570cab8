//! The journal of one run: records wait here until something outside of the run is about to happen,
//! then go to the database in order.

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::conversation::{Also, Conversations, Record, Step, append_records};
use crate::cortex::NewCortexEvent;
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::event::{DriveEnd, Observation};
use crate::working_memory::NewEvent;

/// Where the records of a run go.
pub(super) trait Ledger {
    /// The record is made and not yet written.
    fn noted(&self, _record: &Record) {}

    /// Words of ours that the model is to read now, as they are; a replay has them as they were.
    fn wording(&self, words: String) -> String {
        words
    }

    /// Something for the cortex to see; a replay has nothing to tell it.
    fn observed(&self, _event: NewCortexEvent) {}

    /// Behind all earlier writes, without waiting.
    fn write(&self, records: Vec<Record>) -> Result<(), DbError>;

    /// They are on disk when this returns.
    fn write_durably(&self, records: Vec<Record>) -> Result<(), DbError>;
}

impl Ledger for Conversations {
    /// It may be lost in a crash.
    fn observed(&self, event: NewCortexEvent) {
        let now = self.now();
        if let Err(error) = self.db().defer(move |connection| event.insert(connection, now)) {
            log::warn!("an event of the cortex was not noted: {error}");
        }
    }

    fn write(&self, records: Vec<Record>) -> Result<(), DbError> {
        self.journal(records)
    }

    fn write_durably(&self, records: Vec<Record>) -> Result<(), DbError> {
        self.journal_durably(records)
    }
}

pub(super) struct RunJournal<'a> {
    ledger: &'a dyn Ledger,
    run: u64,
    next: u32,
    waiting: Vec<Record>,
}

impl<'a> RunJournal<'a> {
    pub(super) fn new(ledger: &'a dyn Ledger, run: u64) -> Self {
        Self { ledger, run, next: 0, waiting: Vec::new() }
    }

    /// Of a run that has records already; `next` is the number of the next.
    pub(super) fn after(ledger: &'a dyn Ledger, run: u64, next: u32) -> Self {
        Self { next, ..Self::new(ledger, run) }
    }

    pub(super) fn add(&mut self, step: Step, payload: Value) {
        let record = Record { run: self.run, number: self.next, step, payload };
        self.ledger.noted(&record);
        self.waiting.push(record);
        self.next += 1;
    }

    /// Adds words of ours to the model, and gives them back as the model is to read them.
    pub(super) fn nudge(&mut self, words: String) -> String {
        let words = self.wording(words);
        self.add(Step::Nudge, json!({ "text": words }));
        words
    }

    pub(super) fn wording(&self, words: String) -> String {
        self.ledger.wording(words)
    }

    /// Queues what waits behind all earlier writes. The first record alone (what a run was started
    /// with) stays until a step follows: a turn of one step then costs one commit.
    pub(super) fn flush(&mut self) -> Result<(), DbError> {
        if self.waiting.iter().all(|record| record.step == Step::Start) {
            return Ok(());
        }
        self.ledger.write(self.take())
    }

    /// Queues what waits and returns when it is on disk: before an act that cannot be undone.
    pub(super) fn flush_durably(&mut self) -> Result<(), DbError> {
        self.ledger.write_durably(self.take())
    }

    /// Notes what was out of the ordinary in the run.
    pub(super) fn note(&self, seen: &Observation) {
        let details = json!({ "run": self.run, "model_calls": seen.model_calls, "tokens": seen.tokens });
        let event = match (seen.end, seen.provider_error) {
            (_, Some(kind)) => {
                NewCortexEvent::new("provider_failed", format!("no model answered: {kind:?}"), details)
            }
            (DriveEnd::Limit, _) => {
                NewCortexEvent::new("run_limit", "a run was ended by the limit of model calls", details)
            }
            (DriveEnd::Repeating, _) => {
                NewCortexEvent::new("run_repeating", "a run was ended because it repeated itself", details)
            }
            _ => return,
        };
        self.ledger.observed(event);
    }

    /// What was not written yet, for the transaction that ends the run.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.waiting)
    }
}

/// For the transaction that begins a run: its first records, and what is told of it.
pub(super) fn beginning(records: Vec<Record>, event: Option<NewEvent>) -> impl Also {
    move |connection: &Connection, now: Timestamp| {
        append_records(connection, &records, now)?;
        event.map_or(Ok(()), |event| event.insert_once(connection, now))
    }
}
