//! What the cortex of an agent has written down: the bulletin, the profile, events out of the ordinary,
//! and its conversation with the operator. It decides nothing.

mod chat;
mod events;

use crate::clock::{SharedClock, Timestamp};
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::db::{Db, DbError, rusqlite};

pub use chat::{CHAT_CONTEXT, ChatMessage, ChatRole};
pub use events::{CortexEvent, EVENTS_MAX, NewCortexEvent};

/// The rows of one agent; clones are the same store.
#[derive(Clone)]
pub struct CortexStore {
    db: Db,
    clock: SharedClock,
}

/// The briefing in the stable part of a channel's prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bulletin {
    /// Fingerprint of what it was made from.
    pub inputs: String,
    /// Ids of the memories in it.
    pub memories: Vec<String>,
    /// Without a model; empty when nothing is known.
    pub rendered: String,
    /// The same in the words of a model.
    pub smoothed: Option<String>,
    /// When its text changed last.
    pub changed_at: Timestamp,
}

impl Bulletin {
    /// What a prompt shows.
    pub fn text(&self) -> &str {
        self.smoothed.as_deref().unwrap_or(&self.rendered)
    }
}

/// How the agent shows itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Profile {
    pub display_name: String,
    /// A few words.
    pub status: String,
    /// A few sentences.
    pub bio: String,
    /// Else it was taken from the identity files.
    pub by_model: bool,
    /// Fingerprint of the identity files.
    #[serde(skip)]
    pub inputs: String,
}

impl CortexStore {
    pub fn new(db: Db, clock: SharedClock) -> Self {
        Self { db, clock }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// None before the first one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn bulletin(&self) -> Result<Option<Bulletin>, DbError> {
        let sql = "SELECT inputs, memories, rendered, smoothed, changed_at FROM bulletin WHERE id = 1";
        self.db
            .read(|connection| Ok(connection.prepare_cached(sql)?.query_row([], bulletin_of).optional()?))
    }

    /// Puts a rendered bulletin in the place of the old one. Where the text is the same, the old words of
    /// a model and the time of the change stay.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn set_bulletin(&self, bulletin: Bulletin) -> Result<(), DbError> {
        self.db.write(move |connection| {
            let memories = serde_json::Value::from(bulletin.memories).to_string();
            connection
                .prepare_cached(
                    "INSERT INTO bulletin (id, inputs, memories, rendered, smoothed, changed_at)
                     VALUES (1, ?1, ?2, ?3, NULL, ?4)
                     ON CONFLICT (id) DO UPDATE SET inputs = ?1, memories = ?2,
                         smoothed = CASE WHEN rendered = ?3 THEN smoothed END,
                         changed_at = CASE WHEN rendered = ?3 THEN changed_at ELSE ?4 END,
                         rendered = ?3",
                )?
                .execute(params![bulletin.inputs, memories, bulletin.rendered, bulletin.changed_at.0])?;
            Ok(())
        })
    }

    /// A model's words for exactly this rendered text; false when it is another one by now.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn smooth_bulletin(&self, rendered: String, smoothed: String) -> Result<bool, DbError> {
        self.db.write(move |connection| {
            let sql = "UPDATE bulletin SET smoothed = ?2 WHERE id = 1 AND rendered = ?1";
            Ok(connection.prepare_cached(sql)?.execute([rendered, smoothed])? > 0)
        })
    }

    /// None before the first one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn profile(&self) -> Result<Option<Profile>, DbError> {
        let sql = "SELECT display_name, status, bio, by_model, inputs FROM agent_profile WHERE id = 1";
        let profile = |row: &Row<'_>| {
            Ok(Profile {
                display_name: row.get(0)?,
                status: row.get(1)?,
                bio: row.get(2)?,
                by_model: row.get(3)?,
                inputs: row.get(4)?,
            })
        };
        self.db.read(|connection| Ok(connection.prepare_cached(sql)?.query_row([], profile).optional()?))
    }

    /// # Errors
    /// The database does not take it.
    pub fn set_profile(&self, profile: Profile) -> Result<(), DbError> {
        let now = self.now();
        self.db.write(move |connection| {
            let Profile { display_name, status, bio, by_model, inputs } = profile;
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO agent_profile
                         (id, inputs, display_name, status, bio, by_model, made_at)
                     VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![inputs, display_name, status, bio, by_model, now.0])?;
            Ok(())
        })
    }

    /// Notes what was out of the ordinary.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn note(&self, events: Vec<NewCortexEvent>) -> Result<(), DbError> {
        let now = self.now();
        self.db.write(move |connection| events.iter().try_for_each(|event| event.insert(connection, now)))
    }

    /// The last `limit` events, newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn events(&self, limit: usize) -> Result<Vec<CortexEvent>, DbError> {
        self.db.read(|connection| events::newest(connection, limit))
    }

    /// The last `limit` messages of a thread, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn chat(&self, thread: &str, limit: usize) -> Result<Vec<ChatMessage>, DbError> {
        self.db.read(|connection| chat::last(connection, thread, (0, i64::MAX), limit))
    }

    /// Those messages of a thread that an answer saw, by the ids of the first and the last.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn chat_between(&self, thread: &str, first: i64, last: i64) -> Result<Vec<ChatMessage>, DbError> {
        self.db.read(|connection| chat::last(connection, thread, (first, last), CHAT_CONTEXT))
    }

    /// Threads with the number of their messages, the latest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn threads(&self) -> Result<Vec<(String, u64)>, DbError> {
        self.db.read(chat::threads)
    }

    /// Writes one message, and whatever `also` writes with it.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn say(
        &self,
        message: ChatMessage,
        also: impl FnOnce(&Connection, Timestamp) -> Result<(), DbError> + Send + 'static,
    ) -> Result<i64, DbError> {
        let now = self.now();
        self.db.write(move |connection| {
            let id = chat::insert(connection, &message, now)?;
            also(connection, now)?;
            Ok(id)
        })
    }
}

fn bulletin_of(row: &Row<'_>) -> rusqlite::Result<Bulletin> {
    let memories = row.get_ref(1)?.as_str().unwrap_or_default();
    Ok(Bulletin {
        inputs: row.get(0)?,
        memories: serde_json::from_str(memories).unwrap_or_default(),
        rendered: row.get(2)?,
        smoothed: row.get(3)?,
        changed_at: Timestamp(row.get(4)?),
    })
}

#[cfg(test)]
mod tests;
