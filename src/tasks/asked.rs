//! Tasks that another agent has asked for: each is made once, and its result goes back once.

use super::rows::{create, get};
use super::{Changed, NewTask, Status, Task, TaskError, Tasks};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::id::AgentId;

/// Who asked for a task, and by which key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Asked {
    #[serde(serialize_with = "name")]
    pub by: AgentId,
    pub key: String,
}

fn name<S: serde::Serializer>(agent: &AgentId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(agent.as_str())
}

fn number_of(connection: &Connection, by: &AgentId, key: &str) -> Result<Option<u64>, DbError> {
    let sql = "SELECT number FROM tasks WHERE asked_by = ?1 AND asked_key = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    Ok(statement.query_row(params![by.as_str(), key], |row| row.get(0)).optional()?)
}

/// Puts a task onto the board that another agent asks for; one that is there already stays as it is.
///
/// # Errors
/// Outer: the database; inner: what the board says.
pub fn take(
    connection: &Connection,
    new: NewTask,
    now: Timestamp,
) -> Result<Result<Changed, TaskError>, DbError> {
    if let Some(asked) = &new.asked
        && let Some(number) = number_of(connection, &asked.by, &asked.key)?
        && let Some(task) = get(connection, number)?
    {
        // The news may not have reached the hub.
        return Ok(Ok(Changed::between(Status::PendingApproval, task, now)));
    }
    create(connection, new, now)
}

impl Tasks {
    /// What became of a request of this agent.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn asked_for(&self, by: &AgentId, key: &str) -> Result<Option<Task>, DbError> {
        self.db.read(|connection| match number_of(connection, by, key)? {
            Some(number) => get(connection, number),
            None => Ok(None),
        })
    }

    /// What this agent or any has asked for, the newest `limit`, oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn asked_by_others(&self, by: Option<&AgentId>, limit: usize) -> Result<Vec<Task>, DbError> {
        self.db.read(|connection| {
            let sql = "SELECT number FROM tasks WHERE asked_by IS NOT NULL AND (?1 IS NULL OR asked_by = ?1)
                       ORDER BY number DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let mut numbers = statement
                .query_map(params![by.map(AgentId::as_str), limit], |row| row.get(0))?
                .collect::<Result<Vec<u64>, _>>()?;
            numbers.reverse();
            numbers.into_iter().filter_map(|number| get(connection, number).transpose()).collect()
        })
    }

    /// Tasks that are over and whose result has not gone back, behind this number.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unreturned(&self, after: u64, limit: usize) -> Result<Vec<Task>, DbError> {
        self.db.read(|connection| {
            let sql = "SELECT number FROM tasks WHERE asked_by IS NOT NULL AND returned = 0
                       AND status IN ('done', 'failed') AND number > ?1 ORDER BY number LIMIT ?2";
            let mut statement = connection.prepare_cached(sql)?;
            let after = i64::try_from(after).unwrap_or(i64::MAX);
            let numbers = statement
                .query_map(params![after, limit], |row| row.get(0))?
                .collect::<Result<Vec<u64>, _>>()?;
            numbers.into_iter().filter_map(|number| get(connection, number).transpose()).collect()
        })
    }

    /// Its result is in the database of the agent that asked.
    ///
    /// # Errors
    /// Nothing is stored.
    pub fn returned(&self, number: u64) -> Result<(), DbError> {
        self.db.write(move |connection| {
            connection
                .prepare_cached("UPDATE tasks SET returned = 1 WHERE number = ?1")?
                .execute([number])?;
            Ok(())
        })
    }
}
