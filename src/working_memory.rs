//! The working memory: what happened lately in all conversations of an agent, as one row each, and
//! the few lines of it that a channel's prompt shows. No model is asked for that; what one has put together
//! of many events beforehand ([`Synthesis`]) stands in their place.
//!
//! An event is written by whoever writes the thing that happened, in the same transaction
//! ([`NewEvent::insert`]). A message that is only answered makes none.

mod due;
mod event;
mod render;
mod store;
mod synthesis;

pub use due::{DAY_EVENTS_MIN, FALLBACK_EVENTS_MIN, PARAGRAPHS_MAX, Pending, Waits, waits};
pub use event::{Asked, Event, EventKind, NewEvent, TEXT_BYTES_MAX};
pub use render::{Other, View, render, words};
pub use synthesis::{BATCH_EVENTS_MAX, Batch, Synthesis};

use synthesis::Marks;

use crate::clock::{Timestamp, Zone};
use crate::config::WorkingMemoryConfig;
use crate::db::{Db, DbError};
use crate::id::ConversationId;

/// Events of yesterday, and of the days before, that are looked at; the budgets show fewer.
pub const PAST_EVENTS_MAX: usize = 50;
/// Days before yesterday that count as lately.
const EARLIER_DAYS: i64 = 5;
/// Days of interest: today, yesterday, and those.
const DAYS: usize = 7;

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
    /// Today first.
    begins: [Timestamp; DAYS],
}

impl Days {
    pub fn of(now: Timestamp, zone: &Zone) -> Self {
        Self {
            earlier: zone.day_start(now, -1 - EARLIER_DAYS),
            yesterday: zone.day_start(now, -1),
            today: zone.day_start(now, 0),
            tomorrow: zone.day_start(now, 1),
            begins: std::array::from_fn(|ago| zone.day_start(now, -i64::try_from(ago).unwrap_or_default())),
        }
    }

    /// How many days ago that was; none before and after the days of interest.
    fn day_of(&self, at: Timestamp) -> Option<usize> {
        if at >= self.tomorrow {
            return None;
        }
        self.begins.iter().position(|begin| at >= *begin)
    }

    /// When that day began and when the next one did.
    fn bounds(&self, ago: usize) -> (Timestamp, Timestamp) {
        let end = ago.checked_sub(1).map_or(self.tomorrow, |next| self.begins[next]);
        (self.begins[ago], end)
    }
}

/// Events by the day that they fell on, in no order, and what stands in the place of others, oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Recent {
    pub today: Vec<Event>,
    pub yesterday: Vec<Event>,
    pub earlier: Vec<Event>,
    /// Paragraphs.
    pub of_today: Vec<Synthesis>,
    /// Summaries.
    pub of_yesterday: Vec<Synthesis>,
    pub of_earlier: Vec<Synthesis>,
}

impl Recent {
    /// What is older than [`Days::earlier`] or not from before [`Days::tomorrow`] (a clock that was
    /// wrong) is left out, and so is each event that a synthesis of its day covers.
    pub fn split(events: impl IntoIterator<Item = Event>, syntheses: Vec<Synthesis>, days: &Days) -> Self {
        let marks = Marks::of(&syntheses, days);
        let mut recent = Self::default();
        for event in events.into_iter().filter(|event| !marks.cover(event, days)) {
            match days.day_of(event.created_at) {
                Some(0) => recent.today.push(event),
                Some(1) => recent.yesterday.push(event),
                Some(_) => recent.earlier.push(event),
                None => {}
            }
        }
        for synthesis in syntheses {
            match synthesis::shown_on(&synthesis, days) {
                Some(0) => recent.of_today.push(synthesis),
                Some(1) => recent.of_yesterday.push(synthesis),
                Some(_) => recent.of_earlier.push(synthesis),
                None => {}
            }
        }
        recent
    }

    pub fn is_empty(&self) -> bool {
        let events = [&self.today, &self.yesterday, &self.earlier];
        let syntheses = [&self.of_today, &self.of_yesterday, &self.of_earlier];
        events.iter().all(|part| part.is_empty()) && syntheses.iter().all(|part| part.is_empty())
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
        let (events, syntheses) = self.db.read(|connection| {
            let syntheses = synthesis::shown(connection, days)?;
            let marks = Marks::of(&syntheses, days);
            Ok((store::recent(connection, days, marks, seen, config)?, syntheses))
        })?;
        Ok(Recent::split(events, syntheses, days))
    }

    /// What is not put together yet.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn pending(&self, days: &Days) -> Result<Pending, DbError> {
        self.db.read(|connection| synthesis::pending(connection, days))
    }

    /// What the next paragraph of today is made from.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unread(&self, days: &Days) -> Result<Option<Batch>, DbError> {
        self.db.read(|connection| synthesis::of_today(connection, days))
    }

    /// What the summary of a day is made from, by how many days ago it was; none when it has one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn past(&self, days: &Days, ago: usize) -> Result<Option<Batch>, DbError> {
        if ago == 0 || ago >= DAYS {
            return Ok(None);
        }
        self.db.read(|connection| synthesis::of_past(connection, days, ago))
    }

    /// Stores what a model made of a batch, together with how far it goes. False, and nothing is stored,
    /// when that was done already.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn put_together(&self, batch: Batch, text: String, now: Timestamp) -> Result<bool, DbError> {
        self.db.write(move |connection| synthesis::insert(connection, &batch, &text, now))
    }

    /// The last `limit` events, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn newest(&self, limit: usize) -> Result<Vec<Event>, DbError> {
        self.db.read(|connection| store::newest(connection, limit))
    }

    /// The latest `limit` events that are about each of these people, newest first: those that they alone have
    /// asked for, in company. What happened where one person writes alone stays there. A person is known by all
    /// of these names, `<instance>:<sender>` each.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn of_people(&self, people: &[Vec<String>], limit: usize) -> Result<Vec<Vec<Event>>, DbError> {
        let found = self.db.read(|connection| store::of_people(connection, people, limit))?;
        let mut events: Vec<Vec<Event>> = vec![Vec::new(); people.len()];
        for (person, event) in found {
            if let Some(events) = events.get_mut(person).filter(|events| events.len() < limit) {
                events.push(event);
            }
        }
        Ok(events)
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
            let deleted = store::forget(connection, before)? + synthesis::forget(connection, before)?;
            if deleted > 0 {
                log::debug!(
                    "{deleted} events and what was made of them from before {} were deleted",
                    before.to_rfc3339()
                );
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
