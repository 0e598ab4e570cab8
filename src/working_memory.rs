//! The working memory: what happened lately in all conversations of an agent, as one row each, and
//! the few lines of it that a channel's prompt shows. No model is asked.
//!
//! An event is written by whoever writes the thing that happened, in the same transaction
//! ([`NewEvent::insert`]). A message that is only answered makes none.

mod event;
mod render;
mod store;

pub use event::{Event, EventKind, NewEvent, TEXT_BYTES_MAX};
pub use render::{Other, View, render};

use crate::clock::{Timestamp, Zone};
use crate::config::WorkingMemoryConfig;
use crate::db::{Db, DbError};
use crate::id::ConversationId;

/// Events of yesterday, and of the days before, that are looked at; the budgets show fewer.
pub const PAST_EVENTS_MAX: usize = 50;
/// Days before yesterday that count as lately.
const EARLIER_DAYS: i64 = 5;

/// The events of one agent; clones are the same store.
#[derive(Clone)]
pub struct WorkingMemory {
    db: Db,
}

/// When the days of interest begin, in the agent's time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days {
    pub earlier: Timestamp,
    pub yesterday: Timestamp,
    pub today: Timestamp,
    pub tomorrow: Timestamp,
}

impl Days {
    pub fn of(now: Timestamp, zone: &Zone) -> Self {
        Self {
            earlier: zone.day_start(now, -1 - EARLIER_DAYS),
            yesterday: zone.day_start(now, -1),
            today: zone.day_start(now, 0),
            tomorrow: zone.day_start(now, 1),
        }
    }
}

/// Events by the day that they fell on, in no order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    pub today: Vec<Event>,
    pub yesterday: Vec<Event>,
    pub earlier: Vec<Event>,
}

impl Recent {
    /// What is older than [`Days::earlier`] or not from before [`Days::tomorrow`] (a clock that was
    /// wrong) is left out.
    pub fn split(events: impl IntoIterator<Item = Event>, days: &Days) -> Self {
        let mut recent = Self::default();
        for event in events {
            match event.created_at {
                at if at >= days.tomorrow || at < days.earlier => {}
                at if at >= days.today => recent.today.push(event),
                at if at >= days.yesterday => recent.yesterday.push(event),
                _ => recent.earlier.push(event),
            }
        }
        recent
    }

    pub fn is_empty(&self) -> bool {
        self.today.is_empty() && self.yesterday.is_empty() && self.earlier.is_empty()
    }
}

/// What the reader of a prompt sees already: a conversation, from this time on.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    pub conversation: &'a ConversationId,
    pub from: Timestamp,
}

impl WorkingMemory {
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// The events that [`render`] chooses from: it chooses the same from all of them.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn recent(
        &self,
        days: &Days,
        seen: Option<Seen<'_>>,
        config: &WorkingMemoryConfig,
    ) -> Result<Recent, DbError> {
        let events = self.db.read(|connection| store::recent(connection, days, seen, config))?;
        Ok(Recent::split(events, days))
    }

    /// The last `limit` events, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(&self, limit: usize) -> Result<Vec<Event>, DbError> {
        self.db.read(|connection| store::newest(connection, limit))
    }

    /// How much happened in a conversation since `since`, saved memories not counted.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn happened(&self, conversation: &ConversationId, since: Timestamp) -> Result<usize, DbError> {
        self.db.read(|connection| store::happened(connection, conversation, since))
    }

    /// Deletes, soon and without waiting, what happened before `before`.
    ///
    /// # Errors
    /// The database is closed.
    pub fn forget_old(&self, before: Timestamp) -> Result<(), DbError> {
        self.db.defer(move |connection| {
            let deleted = store::forget(connection, before)?;
            if deleted > 0 {
                log::debug!("{deleted} events from before {} were deleted", before.to_rfc3339());
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
