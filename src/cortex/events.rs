//! `cortex_events`: what was out of the ordinary. Only the newest are kept.

use serde_json::Value;

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};
use crate::text;

/// Rows that are kept.
pub const EVENTS_MAX: usize = 1000;
/// Longest summary and longest details, in bytes.
const SUMMARY_BYTES: usize = 500;
const DETAILS_BYTES: usize = 4000;

#[derive(Debug, Clone, PartialEq)]
pub struct NewCortexEvent {
    /// One word, such as `tool_failing`.
    pub event_type: &'static str,
    pub summary: String,
    pub details: Value,
}

impl NewCortexEvent {
    pub fn new(event_type: &'static str, summary: impl Into<String>, details: Value) -> Self {
        Self { event_type, summary: summary.into(), details }
    }

    /// Writes the row in the transaction that is handed in, and deletes the oldest above the bound.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn insert(&self, connection: &Connection, now: Timestamp) -> Result<(), DbError> {
        let details = match &self.details {
            Value::Null => None,
            // Half of a JSON text is none.
            details => Some(details.to_string()).filter(|text| text.len() <= DETAILS_BYTES),
        };
        let sql = "INSERT INTO cortex_events (event_type, summary, details, created_at)
                   VALUES (?1, ?2, ?3, ?4)";
        connection.prepare_cached(sql)?.execute(params![
            self.event_type,
            text::one_line(&self.summary, SUMMARY_BYTES),
            details,
            now.0
        ])?;
        let oldest = connection.last_insert_rowid() - i64::try_from(EVENTS_MAX).unwrap_or(i64::MAX);
        connection.prepare_cached("DELETE FROM cortex_events WHERE id <= ?1")?.execute([oldest])?;
        Ok(())
    }
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CortexEvent {
    pub id: i64,
    pub event_type: String,
    pub summary: String,
    pub details: Option<Value>,
    pub at: String,
}

pub(super) fn newest(connection: &Connection, limit: usize) -> Result<Vec<CortexEvent>, DbError> {
    let sql = "SELECT id, event_type, summary, details, created_at FROM cortex_events
               ORDER BY id DESC LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
        let details: Option<String> = row.get(3)?;
        Ok(CortexEvent {
            id: row.get(0)?,
            event_type: row.get(1)?,
            summary: row.get(2)?,
            details: details.and_then(|text| serde_json::from_str(&text).ok()),
            at: Timestamp(row.get(4)?).to_rfc3339(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
