//! The run journal: what entered a run from outside (model replies, tool results, nudges, routed
//! messages), step by step, so that the run can be explained, and later replayed (P10).

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};

/// Longest payload of one record, in bytes; a longer one is stored as the note that it was too long.
const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Kind of process, what it was started with.
    Start,
    /// A model's reply, without its raw copy.
    Model,
    /// One tool call's result.
    Tool,
    /// Words of ours to the model between two steps.
    Nudge,
    /// A message routed to a running worker.
    Route,
    /// How it ended.
    End,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Step::Start => "start",
            Step::Model => "model",
            Step::Tool => "tool",
            Step::Nudge => "nudge",
            Step::Route => "route",
            Step::End => "end",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Step::Start, Step::Model, Step::Tool, Step::Nudge, Step::Route, Step::End]
            .into_iter()
            .find(|step| step.as_str() == text)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The process number.
    pub run: u64,
    /// From 0, without gaps.
    pub number: u32,
    pub step: Step,
    pub payload: serde_json::Value,
}

pub(super) fn append(connection: &Connection, records: &[Record], now: Timestamp) -> Result<(), DbError> {
    if records.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO run_journal (run, step, kind, payload, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let mut statement = connection.prepare_cached(sql)?;
    for record in records {
        let mut payload = record.payload.to_string();
        if payload.len() > MAX_PAYLOAD_BYTES {
            payload = serde_json::json!({ "too_long": payload.len() }).to_string();
        }
        statement.execute(params![
            number(record.run)?,
            record.number,
            record.step.as_str(),
            payload,
            now.0
        ])?;
    }
    Ok(())
}

pub(super) fn of(connection: &Connection, run: u64) -> Result<Vec<Record>, DbError> {
    let mut statement = connection
        .prepare_cached("SELECT step, kind, payload FROM run_journal WHERE run = ?1 ORDER BY step")?;
    let mut rows = statement.query([number(run)?])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let payload: String = row.get(2)?;
        let damaged = || DbError::Corrupt(format!("journal of run {run}: {kind}"));
        records.push(Record {
            run,
            number: row.get(0)?,
            step: Step::parse(&kind).ok_or_else(damaged)?,
            payload: serde_json::from_str(&payload).map_err(|_| damaged())?,
        });
    }
    Ok(records)
}

pub(super) fn number(run: u64) -> Result<i64, DbError> {
    i64::try_from(run).map_err(|_| DbError::Refused(format!("{run} is no process number")))
}
