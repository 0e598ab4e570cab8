//! What leaves the window of a conversation: read first, then swapped for its summary in one transaction,
//! or not at all. The exact words go to the archive in the same transaction.

use crate::db::DbError;
use crate::id::ConversationId;

use super::archive::{self, Found, Packed, Search};
use super::window::{self, Summary, Window};
use super::{Conversations, Line, Record, journal};

/// The oldest lines of a window, read in order to leave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Of the window that they were read from.
    pub generation: i64,
    pub lines: Vec<Line>,
    pub(super) packed: Vec<Packed>,
}

/// What stands in the prompt for lines that have left the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InPlace {
    Summary(String),
    /// Nothing but the note that there were some.
    Marker {
        /// A summary may still follow.
        awaited: bool,
    },
}

/// A change of what stands in front of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The lines leave. `unread`: memories are to be taken from them.
    Swap { leaving: Leaving, in_place: InPlace, unread: bool },
    /// The summary that a marker has waited for.
    Fill { generation: i64, summary: i64, text: String },
    /// One summary of the next tier for several.
    Roll { generation: i64, several: Vec<i64>, text: String },
}

/// Lines from which memories are still to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    pub archive: i64,
    pub lines: Vec<Line>,
}

impl Conversations {
    /// What stands in front of the window, and the weight of each of its lines.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn window(&self, conversation: &ConversationId) -> Result<Window, DbError> {
        self.db.read(|connection| window::window(connection, conversation))
    }

    /// The oldest `count` lines of a window; compressed here and not by the thread that writes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn leaving(
        &self,
        conversation: &ConversationId,
        window: &Window,
        count: usize,
    ) -> Result<Leaving, DbError> {
        let start = window.lines.first().map_or(i64::MAX, |line| line.id);
        let (lines, packed) =
            self.db.read(|connection| archive::leaving(connection, conversation, start, count))?;
        Ok(Leaving { generation: window.generation, lines, packed })
    }

    /// Makes the change, all of it in one transaction; the records go with it either way. False when the
    /// window is no longer the one that the change was made for: then it is as it was.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn change_window(
        &self,
        conversation: &ConversationId,
        change: Change,
        records: Vec<Record>,
    ) -> Result<bool, DbError> {
        let (conversation, now) = (conversation.clone(), self.now());
        self.db.write(move |connection| {
            journal::append(connection, &records, now)?;
            match &change {
                Change::Swap { leaving, in_place, unread } => {
                    window::swap(connection, &conversation, leaving, in_place, *unread, now)
                }
                Change::Fill { generation, summary, text } => {
                    window::fill(connection, &conversation, *generation, *summary, text)
                }
                Change::Roll { generation, several, text } => {
                    window::roll(connection, &conversation, *generation, several, text, now)
                }
            }
        })
    }

    /// These summaries, oldest first, also when they no longer stand in front of a window.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn summaries(&self, ids: &[i64]) -> Result<Vec<Summary>, DbError> {
        self.db.read(|connection| window::summaries_of(connection, ids))
    }

    /// The oldest lines of a conversation that memories are still to be taken from.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unread(&self, conversation: &ConversationId) -> Result<Option<Unread>, DbError> {
        self.db.read(|connection| archive::unread(connection, conversation))
    }

    /// Whether there are any.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn any_unread(&self, conversation: &ConversationId) -> Result<bool, DbError> {
        self.db.read(|connection| archive::any_unread(connection, conversation))
    }

    /// Memories were taken from an archive, or could not be; after some failures it is left as it is.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn end_reading(&self, archive: i64, taken: bool, records: Vec<Record>) -> Result<(), DbError> {
        let now = self.now();
        self.db.write(move |connection| {
            journal::append(connection, &records, now)?;
            archive::read(connection, archive, taken)
        })
    }

    /// The last `limit` lines of any conversation, before a line if one is given, and only those that hold
    /// all `words`, whatever their case. Finds what has left the window as well.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn find(
        &self,
        conversation: &ConversationId,
        words: &[String],
        before: Option<i64>,
        limit: usize,
    ) -> Result<Found, DbError> {
        let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).collect();
        let matches = |line: &Line| {
            words.is_empty() || {
                let text = line.content.to_lowercase();
                words.iter().all(|word| text.contains(word.as_str()))
            }
        };
        let before = before.unwrap_or(i64::MAX);
        let search = Search { conversation, before, limit, matches: &matches };
        self.db.read(|connection| search.run(connection))
    }

    /// The lines of a conversation from `first` to `last`, both included: what a turn saw of it.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn lines(&self, conversation: &ConversationId, first: i64, last: i64) -> Result<Vec<Line>, DbError> {
        self.db.read(|connection| archive::between(connection, conversation, first, last))
    }
}

#[cfg(test)]
mod tests;
