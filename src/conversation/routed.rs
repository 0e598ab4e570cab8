//! Messages for workers. They are written with the end of the turn that routed them, and go in the transaction that
//! has the worker's `route` record, so each is heard once, whatever crashes. What is left when a worker
//! ends stands in its result.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};
use crate::prompts;
use crate::text;

use super::Conversations;
use super::journal::number;

/// Messages that wait for one worker at most; who writes more is told that it is busy.
pub const ROUTED_MAX: usize = 8;
/// Bytes of an unheard message that stand in the worker's result.
const NAMED_BYTES: usize = 2000;

/// A message that a turn has for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed {
    pub worker: u64,
    pub message: String,
}

/// Written with the turn. For a worker that has ended meanwhile it comes too late, and its result is told once
/// more, with that.
pub(super) fn insert(connection: &Connection, routed: &Routed, now: Timestamp) -> Result<(), DbError> {
    let worker = number(routed.worker)?;
    let sql = "SELECT result FROM worker_runs WHERE id = ?1 AND status IN ('done', 'failed')";
    let ended: Option<Option<String>> =
        connection.prepare_cached(sql)?.query_row([worker], |row| row.get(0)).optional()?;
    if let Some(result) = ended {
        let result = named(result.as_deref().unwrap_or_default(), &[&routed.message]);
        let sql = "UPDATE worker_runs SET result = ?2, relayed = 0 WHERE id = ?1";
        connection.prepare_cached(sql)?.execute(params![worker, result])?;
        return Ok(());
    }
    let sql = "INSERT INTO worker_messages (worker, message, created_at) VALUES (?1, ?2, ?3)";
    connection.prepare_cached(sql)?.execute(params![worker, routed.message, now.0])?;
    Ok(())
}

/// The worker's journal has it: the oldest is heard. Of a run that is no worker there is none.
pub(super) fn hear(connection: &Connection, run: u64) -> Result<(), DbError> {
    let sql =
        "DELETE FROM worker_messages WHERE id = (SELECT min(id) FROM worker_messages WHERE worker = ?1)";
    connection.prepare_cached(sql)?.execute([number(run)?])?;
    Ok(())
}

/// Takes what the worker has not heard and names it behind `result`; `None`: it has heard everything.
pub(super) fn take(connection: &Connection, worker: u64, result: &str) -> Result<Option<String>, DbError> {
    let messages = of(connection, worker, 0)?;
    if messages.is_empty() {
        return Ok(None);
    }
    connection.prepare_cached("DELETE FROM worker_messages WHERE worker = ?1")?.execute([number(worker)?])?;
    let messages: Vec<&str> = messages.iter().map(|(_, message)| message.as_str()).collect();
    Ok(Some(named(result, &messages)))
}

fn named(result: &str, messages: &[&str]) -> String {
    let lines = messages.iter().map(|message| format!("- {}", text::shorten(message, NAMED_BYTES)));
    let lines: Vec<String> = lines.collect();
    format!("{result}\n{}\n{}", prompts::notice("worker_unheard"), lines.join("\n")).trim().to_owned()
}

fn of(connection: &Connection, worker: u64, after: i64) -> Result<Vec<(i64, String)>, DbError> {
    let sql = "SELECT id, message FROM worker_messages WHERE worker = ?1 AND id > ?2 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([number(worker)?, after], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Conversations {
    /// How many messages wait for the worker; `None`: it has not begun yet, and a crash could still take it away
    /// without a trace.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn waiting_for(&self, worker: u64) -> Result<Option<usize>, DbError> {
        self.db.read(|connection| {
            let sql = "SELECT (SELECT count(*) FROM worker_messages WHERE worker = ?1) FROM worker_runs WHERE id = ?1";
            Ok(connection.prepare_cached(sql)?.query_row([number(worker)?], |row| row.get(0)).optional()?)
        })
    }

    /// What the worker has not heard, oldest first, behind this row.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn routed(&self, worker: u64, after: i64) -> Result<Vec<(i64, String)>, DbError> {
        self.db.read(|connection| of(connection, worker, after))
    }
}
