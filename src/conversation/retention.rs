//! What is deleted after its time: answered messages with their files, answers, ended runs and journals, jobs and
//! tasks that are over, and the plain copy of lines that stand in an archive. The history of a conversation stays.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};

use super::{Conversations, archive, attachments};

/// Rows of one table that one pass deletes at most: some milliseconds of the writing thread. Passes
/// come every `agent::TURNS_PER_TIDYING` processes, which add fewer rows than this.
const ROWS_MAX: usize = 4096;

/// One table: its name, the number of a row, when it came, and which rows may go; `?1` is the time before which.
struct Rule {
    table: &'static str,
    number: &'static str,
    came: &'static str,
    over: &'static str,
}

const RULES: [Rule; 9] = [
    Rule { table: "inbox", number: "id", came: "received_at", over: "answered_at IS NOT NULL" },
    // An answer that nobody came for in all this time goes too.
    Rule { table: "outbox", number: "id", came: "created_at", over: "state <> 'sending'" },
    Rule { table: "branch_runs", number: "id", came: "started_at", over: "relayed = 1" },
    Rule { table: "worker_runs", number: "id", came: "started_at", over: "relayed = 1" },
    Rule { table: "link_requests", number: "id", came: "created_at", over: "relayed = 1" },
    Rule { table: "run_journal", number: "id", came: "at", over: "true" },
    Rule { table: "cron_executions", number: "id", came: "claimed_at", over: "state <> 'running'" },
    Rule { table: "cron_jobs", number: "id", came: "created_at", over: "done = 1" },
    // With its attempts. One that failed may still be taken up again, but hardly after so long.
    Rule {
        table: "tasks",
        number: "number",
        came: "created_at",
        over: "status IN ('done', 'failed') AND updated_at < ?1",
    },
];

impl Conversations {
    /// Deletes, soon and without waiting, messages, answers, runs and journals that are over and came
    /// longer ago than `keep`.
    ///
    /// # Errors
    /// The database is closed.
    pub fn forget_old(&self, keep: Duration) -> Result<(), DbError> {
        let (before, folder) = (self.now().minus(keep), self.attachments());
        self.db.defer(move |connection| {
            let deleted = forget(connection, before)? + attachments::forget(connection, &folder)?;
            if deleted > 0 {
                log::debug!("{deleted} rows from before {} were deleted", before.to_rfc3339());
            }
            Ok(())
        })
    }
}

/// Deletes what came before `before`. The newest row of each table stays: new ids count on from it,
/// and those of the outbox are the cursors of clients.
fn forget(connection: &Connection, before: Timestamp) -> Result<usize, DbError> {
    let mut deleted = archive::forget_plain(connection, before)?;
    for Rule { table, number, came, over } in &RULES {
        let oldest = connection
            .prepare_cached(&format!("SELECT {came} FROM {table} ORDER BY {number} LIMIT 1"))?
            .query_row([], |row| row.get::<_, i64>(0))
            .optional()?;
        if oldest.is_none_or(|came| came >= before.0) {
            continue;
        }
        let sql = format!(
            "DELETE FROM {table} WHERE {number} IN (SELECT {number} FROM {table} ORDER BY {number} LIMIT ?2)
             AND {number} < (SELECT max({number}) FROM {table}) AND {came} < ?1 AND {over}"
        );
        deleted += connection.prepare_cached(&sql)?.execute(params![before.0, ROWS_MAX])?;
    }
    Ok(deleted)
}
