//! What conversations have asked of other agents: a row with the turn that asks, taken to the other agent's
//! database afterwards, and its result, which waits like that of a worker.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::id::{AgentId, ConversationId, ProcessId, ProcessKind};

use super::{Conversations, Place, history};

/// Messages over one link are counted within this time.
pub const LINK_WINDOW: Duration = Duration::from_secs(3600);
/// Longest result that comes back, in bytes: a page. The rest stands on the other agent's board.
pub const DELEGATION_RESULT_BYTES: usize = 4000;

/// A message to another agent, told by a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelegation {
    pub target: AgentId,
    pub message: String,
    /// Platform ids of the messages that asked for it.
    pub answers: Vec<String>,
    pub depth: u32,
    /// Messages to this agent within [`LINK_WINDOW`].
    pub limit: usize,
}

/// One that has not reached the other agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    pub id: i64,
    pub conversation: ConversationId,
    pub target: AgentId,
    pub message: String,
    pub answers: Vec<String>,
    pub created_at: Timestamp,
    /// It came over the limit and is not taken there.
    pub refused: bool,
}

impl Delegation {
    /// Names it within this agent for ever, also if its database is begun anew.
    pub fn key(&self) -> String {
        key(self.id, self.created_at)
    }
}

pub(super) fn key(id: i64, created_at: Timestamp) -> String {
    format!("{id}@{}", created_at.0)
}

/// Written with the turn. Two turns may have looked at the count at the same time: who comes second hears
/// it as the result.
pub(super) fn insert(
    connection: &Connection,
    place: &Place,
    new: &NewDelegation,
    now: Timestamp,
) -> Result<(), DbError> {
    let refused = count(connection, &new.target, now)? >= new.limit;
    let sql =
        "INSERT INTO link_requests (conversation_id, target, message, answers, depth, state, created_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    connection.prepare_cached(sql)?.execute(params![
        place.conversation.as_str(),
        new.target.as_str(),
        new.message,
        serde_json::Value::from(new.answers.as_slice()).to_string(),
        new.depth,
        if refused { "refused" } else { "pending" },
        now.0,
    ])?;
    Ok(())
}

fn count(connection: &Connection, target: &AgentId, now: Timestamp) -> Result<usize, DbError> {
    let sql = "SELECT count(*) FROM link_requests WHERE target = ?1 AND created_at > ?2";
    let since = now.minus(LINK_WINDOW).0;
    Ok(connection.prepare_cached(sql)?.query_row(params![target.as_str(), since], |row| row.get(0))?)
}

fn waiting(connection: &Connection, after: i64, limit: usize) -> Result<Vec<Delegation>, DbError> {
    let sql = "SELECT id, conversation_id, target, message, answers, created_at, state = 'refused' FROM link_requests
               WHERE state IN ('pending', 'refused') AND id > ?1 ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![after, limit], |row| {
        Ok(Delegation {
            id: row.get(0)?,
            conversation: ConversationId::new(row.get_ref(1)?.as_str()?),
            target: AgentId::new(row.get_ref(2)?.as_str()?),
            message: row.get(3)?,
            answers: serde_json::from_str(row.get_ref(4)?.as_str()?).unwrap_or_default(),
            created_at: Timestamp(row.get(5)?),
            refused: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Writes the result of a request, if it is there and has none. Returns where it is to be told.
fn answer(
    connection: &Connection,
    key: &str,
    result: &str,
    now: Timestamp,
) -> Result<Option<Place>, DbError> {
    let sql = "UPDATE link_requests SET state = 'answered', result = ?2, answered_at = ?3
               WHERE id || '@' || created_at = ?1 AND id = CAST(?1 AS INTEGER) AND state <> 'answered'
               RETURNING conversation_id";
    let found: Option<String> = connection
        .prepare_cached(sql)?
        .query_row(params![key, result, now.0], |row| row.get(0))
        .optional()?;
    found.map_or(Ok(None), |conversation| history::place(connection, &ConversationId::new(conversation)))
}

impl Conversations {
    /// Messages to this agent within [`LINK_WINDOW`].
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn delegated_lately(&self, target: &AgentId) -> Result<usize, DbError> {
        let now = self.now();
        self.db.read(|connection| count(connection, target, now))
    }

    /// What has not reached other agents, oldest first, behind this row.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn undelivered(&self, after: i64, limit: usize) -> Result<Vec<Delegation>, DbError> {
        self.db.read(|connection| waiting(connection, after, limit))
    }

    /// It has become a task of the other agent.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn delivered(&self, id: i64) -> Result<(), DbError> {
        self.db.write(move |connection| {
            let sql = "UPDATE link_requests SET state = 'delivered' WHERE id = ?1 AND state = 'pending'";
            connection.prepare_cached(sql)?.execute([id])?;
            Ok(())
        })
    }

    /// The result of the request with this [`Delegation::key`]; the second one changes nothing. Returns
    /// where it is to be told, if it is new.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn answer_delegation(&self, key: &str, result: &str) -> Result<Option<Place>, DbError> {
        let (key, result, now) = (key.to_owned(), result.to_owned(), self.now());
        self.db.write(move |connection| answer(connection, &key, &result, now))
    }

    /// How many questions stand before these results; 0 if none of them is another agent's.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn delegation_depth(&self, results: &[ProcessId]) -> Result<u32, DbError> {
        self.db.read(|connection| {
            let sql = "SELECT depth FROM link_requests WHERE id = ?1";
            let mut deepest = 0;
            for result in results.iter().filter(|result| result.kind == ProcessKind::Delegation) {
                let id = super::journal::number(result.number)?;
                let depth = connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?;
                deepest = deepest.max(depth.unwrap_or(0));
            }
            Ok(deepest)
        })
    }
}
