//! The run journal: what entered a run from outside (model replies, tool results, nudges, routed
//! messages, failures, stops), step by step, so that the run can be explained and replayed (P10).

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, params};

use super::routed;

/// What the payloads hold; it stands in the first record of each run as `version`. Journals without one
/// are of version 0: they have no state hash, and tell neither effects nor failures.
pub const JOURNAL_VERSION: u64 = 1;

/// Longest payload of one record, in bytes; a longer one is stored as the note that it was too long.
const MAX_PAYLOAD_BYTES: usize = 1 << 20;

/// Records of one run. The longest run, a worker with every nudge and routed message, stays far below.
const STEPS_MAX: u32 = 1 << 16;

/// Runs among which one that was cut off is looked for.
const LATEST_RUNS: u32 = 32;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Kind of process, what it was started with.
    Start,
    /// A model's reply, without its raw copy.
    Model,
    /// A model call that came to nothing, and why.
    Failed,
    /// One tool call's result.
    Tool,
    /// A call that was warned about or refused because the run repeats itself.
    Guard,
    /// Words of ours to the model between two steps.
    Nudge,
    /// A message routed to a worker, or one that came while a turn ran.
    Route,
    /// The oldest messages have left the run's history.
    Trim,
    /// A result is there, and the run waits for more words.
    Wait,
    /// The run goes on, or waits again, after something cut it off.
    Resume,
    /// It was told to stop, and noticed that here.
    Stop,
    /// How it ended.
    End,
}

impl Step {
    /// As it stands in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Start => "start",
            Step::Model => "model",
            Step::Failed => "failed",
            Step::Tool => "tool",
            Step::Guard => "guard",
            Step::Nudge => "nudge",
            Step::Route => "route",
            Step::Trim => "trim",
            Step::Wait => "wait",
            Step::Resume => "resume",
            Step::Stop => "stop",
            Step::End => "end",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        use Step::{End, Failed, Guard, Model, Nudge, Resume, Route, Start, Stop, Tool, Trim, Wait};
        [Start, Model, Failed, Tool, Guard, Nudge, Route, Trim, Wait, Resume, Stop, End]
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

/// Adds records in the transaction that is handed in.
///
/// # Errors
/// The database does not take them.
pub fn append(connection: &Connection, records: &[Record], now: Timestamp) -> Result<(), DbError> {
    if records.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO run_journal (id, kind, payload, at) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = connection.prepare_cached(sql)?;
    for record in records {
        let mut payload = record.payload.to_string();
        if payload.len() > MAX_PAYLOAD_BYTES {
            payload = serde_json::json!({ "too_long": payload.len() }).to_string();
        }
        statement.execute(params![
            row_id(record.run, record.number)?,
            record.step.as_str(),
            payload,
            now.0
        ])?;
        if record.step == Step::Route {
            routed::hear(connection, record.run)?;
        }
    }
    Ok(())
}

/// The records of one run in order.
///
/// # Errors
/// The database cannot be read.
pub fn of(connection: &Connection, run: u64) -> Result<Vec<Record>, DbError> {
    let mut statement = connection
        .prepare_cached("SELECT id, kind, payload FROM run_journal WHERE id BETWEEN ?1 AND ?2 ORDER BY id")?;
    let mut rows = statement.query([row_id(run, 0)?, row_id(run, STEPS_MAX - 1)?])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        let payload: String = row.get(2)?;
        let damaged = || DbError::Corrupt(format!("journal of run {run}: {kind}"));
        records.push(Record {
            run,
            number: u32::try_from(row.get::<_, i64>(0)? % i64::from(STEPS_MAX)).unwrap_or(0),
            step: Step::parse(&kind).ok_or_else(damaged)?,
            payload: serde_json::from_str(&payload).map_err(|_| damaged())?,
        });
    }
    Ok(records)
}

/// Whether the run has come to its end, and that is stored.
///
/// # Errors
/// The database cannot be read.
pub fn has_ended(connection: &Connection, run: u64) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM run_journal WHERE id BETWEEN ?1 AND ?2 AND kind = 'end')";
    let bounds = [row_id(run, 0)?, row_id(run, STEPS_MAX - 1)?];
    Ok(connection.prepare_cached(sql)?.query_row(bounds, |row| row.get(0))?)
}

/// Runs that began at `since` or later, in order, at most `limit`, with what they were started with.
pub(super) fn begun(
    connection: &Connection,
    since: Timestamp,
    limit: usize,
) -> Result<Vec<(u64, serde_json::Value)>, DbError> {
    let sql = "SELECT id, payload FROM run_journal WHERE kind = 'start' AND at >= ?1 ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![since.0, i64::try_from(limit).unwrap_or(i64::MAX)])?;
    let mut begun = Vec::new();
    while let Some(row) = rows.next()? {
        let run = u64::try_from(row.get::<_, i64>(0)? / i64::from(STEPS_MAX)).unwrap_or(0);
        begun.push((run, serde_json::from_str(row.get_ref(1)?.as_str()?).unwrap_or_default()));
    }
    Ok(begun)
}

/// The last turn of this conversation that was to answer one of these messages, if it did not come to its
/// end. Only the latest runs are looked at.
pub(super) fn cut_off_turn(
    connection: &Connection,
    conversation: &str,
    messages: &[&str],
) -> Result<Option<u64>, DbError> {
    let sql = "SELECT id / ?1, payload FROM run_journal WHERE kind = 'start' ORDER BY id DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![STEPS_MAX, LATEST_RUNS])?;
    while let Some(row) = rows.next()? {
        let start: serde_json::Value = serde_json::from_str(row.get_ref(1)?.as_str()?).unwrap_or_default();
        let mut read =
            start["messages"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str);
        if start["conversation"] == conversation && read.any(|id| messages.contains(&id)) {
            let run = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
            return Ok((!has_ended(connection, run)?).then_some(run));
        }
    }
    Ok(None)
}

/// The turn that ran when this message came and heard it; with what it was started with.
pub(super) fn heard(
    connection: &Connection,
    since: Timestamp,
    message: &str,
) -> Result<Option<(u64, serde_json::Value)>, DbError> {
    let sql = "SELECT r.id, s.payload FROM run_journal r JOIN run_journal s ON s.id = r.id - r.id % ?3
               WHERE r.kind = 'route' AND r.at >= ?1
                   AND EXISTS (SELECT 1 FROM json_each(r.payload, '$.messages') WHERE value = ?2)
               ORDER BY r.id DESC LIMIT 1";
    let found = connection
        .prepare_cached(sql)?
        .query_row(params![since.0, message, STEPS_MAX], |row| {
            Ok((row.get::<_, i64>(0)?, row.get_ref(1)?.as_str()?.to_owned()))
        })
        .optional()?;
    Ok(found.map(|(id, start)| {
        let run = u64::try_from(id / i64::from(STEPS_MAX)).unwrap_or(0);
        (run, serde_json::from_str(&start).unwrap_or_default())
    }))
}

/// The row of a record: all steps of a run stand together, and a new record is appended at the end.
fn row_id(run: u64, step: u32) -> Result<i64, DbError> {
    let full = || DbError::Refused(format!("step {step} of run {run} has no place in the journal"));
    if step >= STEPS_MAX {
        return Err(full());
    }
    number(run)?.checked_mul(i64::from(STEPS_MAX)).map(|first| first + i64::from(step)).ok_or_else(full)
}

pub(super) fn number(run: u64) -> Result<i64, DbError> {
    i64::try_from(run).map_err(|_| DbError::Refused(format!("{run} is no process number")))
}
