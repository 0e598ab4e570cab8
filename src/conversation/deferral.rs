//! Messages that no model could be asked about: they stay unanswered, and their sender was told so once.

use super::{Conversations, Place, outbox};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::params;
use crate::id::{ConversationId, InboxId};
use crate::message::Content;

/// The first time counts.
const MARK: &str = "UPDATE inbox SET deferred_at = ?2
    WHERE conversation_id = ?1 AND answered_at IS NULL AND command = FALSE AND deferred_at IS NULL";

impl Conversations {
    /// Notes that what is unanswered here waits for a model, and tells that.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn defer(&self, place: &Place, say: Option<Content>) -> Result<(), DbError> {
        let (place, now) = (place.clone(), self.now());
        self.db.write(move |connection| {
            connection.prepare_cached(MARK)?.execute(params![place.conversation.as_str(), now.0])?;
            say.iter().try_for_each(|content| outbox::insert(connection, &place, content, &[], now).map(drop))
        })
    }

    /// Whether messages here wait for a model, and whether there are unanswered ones that are not noted yet.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn deferral(&self, conversation: &ConversationId) -> Result<(bool, bool), DbError> {
        let sql = "SELECT count(deferred_at) > 0, count(*) > count(deferred_at) FROM inbox
                   WHERE conversation_id = ?1 AND answered_at IS NULL AND command = FALSE";
        self.db.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row([conversation.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?)
        })
    }

    /// Unanswered messages that wait for a model, oldest first, each with the time since when.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn deferred(
        &self,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<(InboxId, Timestamp)>, DbError> {
        let sql = "SELECT id, deferred_at FROM inbox WHERE conversation_id = ?1 AND answered_at IS NULL
                   AND command = FALSE AND deferred_at IS NOT NULL ORDER BY id LIMIT ?2";
        self.db.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map(params![conversation.as_str(), limit], |row| {
                Ok((InboxId(row.get(0)?), Timestamp(row.get(1)?)))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}
