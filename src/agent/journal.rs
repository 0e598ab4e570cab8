//! The journal of one run: records wait here until something outside of the run is about to happen,
//! then go to the database in order.

use serde_json::{Value, json};

use crate::conversation::{Conversations, Record, Step};
use crate::cortex::NewCortexEvent;
use crate::db::DbError;
use crate::event::{DriveEnd, Observation};

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

    /// Notes what was out of the ordinary in the run. It may be lost in a crash.
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
        let now = self.conversations.now();
        if let Err(error) = self.conversations.db().defer(move |connection| event.insert(connection, now)) {
            log::warn!("an event of the cortex was not noted: {error}");
        }
    }

    /// What was not written yet, for the transaction that ends the run.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.waiting)
    }
}
