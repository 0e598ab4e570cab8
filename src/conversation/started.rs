//! Branches and workers that a turn has started, in the turn's own commit: a kill between that and their
//! first write leaves a run that is told as interrupted, and not nothing.

use super::runs;
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension};
use crate::id::{ConversationId, ProcessId, ProcessKind};

use super::journal::number;

/// A run as its turn knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    pub process: ProcessId,
    pub task: String,
    pub interactive: bool,
    /// Platform ids of the messages that ask for it.
    pub answers: Vec<String>,
}

/// Writes the run if it has not begun by itself. It has as a rule.
///
/// # Errors
/// The database cannot be read or written.
pub fn insert(
    connection: &Connection,
    conversation: &ConversationId,
    started: &Started,
    now: Timestamp,
) -> Result<(), DbError> {
    let Started { process, task, interactive, answers } = started;
    if status(connection, *process)?.is_some() {
        return Ok(());
    }
    match process.kind {
        ProcessKind::Branch => {
            runs::begin_branch(connection, process.number, conversation, task, answers, now)
        }
        _ => runs::begin_worker(connection, process.number, conversation, task, *interactive, answers, now),
    }
}

/// For a run that begins: true when its turn has written it and it has not begun before.
pub(super) fn is_announced(connection: &Connection, process: ProcessId) -> Result<bool, DbError> {
    let sql = "SELECT NOT EXISTS (SELECT 1 FROM run_journal WHERE id >= ?1 << 16 AND id < (?1 + 1) << 16)";
    let is_new =
        |number: i64| connection.prepare_cached(sql)?.query_row([number], |row| row.get::<_, bool>(0));
    Ok(status(connection, process)?.as_deref() == Some("running") && is_new(number(process.number)?)?)
}

fn status(connection: &Connection, process: ProcessId) -> Result<Option<String>, DbError> {
    let sql = match process.kind {
        ProcessKind::Branch => "SELECT status FROM branch_runs WHERE id = ?1",
        _ => "SELECT status FROM worker_runs WHERE id = ?1",
    };
    let found = connection.prepare_cached(sql)?.query_row([number(process.number)?], |row| row.get(0));
    Ok(found.optional()?)
}
