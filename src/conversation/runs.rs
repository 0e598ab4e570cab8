//! Branches and workers: their rows, from start to the relay of their result.

use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::{ConversationId, ProcessId, ProcessKind};

use super::journal::number;
use super::routed;

/// How a branch ended.
#[derive(Debug, Clone)]
pub struct BranchEnd {
    /// `done`, `failed` or `cancelled`.
    pub status: &'static str,
    pub conclusion: String,
    pub tool_calls: usize,
}

/// What a worker's work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    Partial,
    Cancelled,
    Timeout,
    Failed,
}

impl Outcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Partial => "partial",
            Outcome::Cancelled => "cancelled",
            Outcome::Timeout => "timeout",
            Outcome::Failed => "failed",
        }
    }
}

#[derive(Debug, Clone)]
pub struct WorkerEnd {
    pub outcome: Outcome,
    pub result: String,
    pub summary: Option<String>,
    /// JSON list of steps.
    pub transcript: String,
    pub tool_calls: usize,
    /// False when the result was relayed before and the end is no news.
    pub tell: bool,
}

/// A result that the channel has to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingResult {
    pub process: ProcessId,
    pub task: String,
    pub text: String,
    /// Platform ids of the messages that asked for it.
    pub answers: Vec<String>,
}

/// A run that a crash or power cut left without an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    pub process: ProcessId,
    pub conversation: ConversationId,
    /// With one person.
    pub direct: bool,
    pub task: String,
    /// Platform ids of the messages that asked for it.
    pub answers: Vec<String>,
    /// A worker that takes more messages after its first result.
    pub interactive: bool,
    /// It had a result and waited for more messages.
    pub waiting: bool,
    /// How often it was gone on with before.
    pub continuations: u32,
}

/// What becomes of runs that were cut off.
#[derive(Debug, Default)]
pub struct Verdict {
    /// They go on; the others are marked as interrupted.
    pub go_on: Vec<ProcessId>,
    /// Workers whose end is no news.
    pub quiet: Vec<u64>,
}

/// One worker as `worker_inspect` shows it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct RunSummary {
    pub id: u64,
    pub task: String,
    pub status: String,
    pub outcome: Option<String>,
    pub result: Option<String>,
    pub tool_calls: usize,
    #[serde(skip)]
    pub transcript: Option<String>,
}

pub(super) fn begin_branch(
    connection: &Connection,
    id: u64,
    conversation: &ConversationId,
    description: &str,
    answers: &[String],
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT INTO branch_runs (id, channel_id, description, answers, started_at) VALUES (?1, ?2, ?3, ?4, ?5)";
    let answers = serde_json::Value::from(answers).to_string();
    connection.prepare_cached(sql)?.execute(params![
        number(id)?,
        conversation.as_str(),
        description,
        answers,
        now.0
    ])?;
    Ok(())
}

pub(super) fn begin_worker(
    connection: &Connection,
    id: u64,
    conversation: &ConversationId,
    task: &str,
    interactive: bool,
    answers: &[String],
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "INSERT INTO worker_runs (id, channel_id, task, interactive, answers, started_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let answers = serde_json::Value::from(answers).to_string();
    let values = params![number(id)?, conversation.as_str(), task, interactive, answers, now.0];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

pub(super) fn end_branch(
    connection: &Connection,
    id: u64,
    end: &BranchEnd,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "UPDATE branch_runs SET status = ?2, conclusion = ?3, tool_calls = ?4, completed_at = ?5
               WHERE id = ?1 AND status = 'running'";
    let changed = connection.prepare_cached(sql)?.execute(params![
        number(id)?,
        end.status,
        end.conclusion,
        end.tool_calls,
        now.0
    ])?;
    once(changed, ProcessKind::Branch, id)
}

pub(super) fn move_worker(
    connection: &Connection,
    id: u64,
    from: &str,
    to: &str,
    result: Option<&str>,
) -> Result<(), DbError> {
    let sql = "UPDATE worker_runs SET status = ?3, result = coalesce(?4, result),
                   relayed = CASE WHEN ?4 IS NULL THEN relayed ELSE 0 END
               WHERE id = ?1 AND status = ?2";
    let changed = connection.prepare_cached(sql)?.execute(params![number(id)?, from, to, result])?;
    once(changed, ProcessKind::Worker, id)
}

pub(super) fn end_worker(
    connection: &Connection,
    id: u64,
    end: &WorkerEnd,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "UPDATE worker_runs SET status = ?2, outcome_kind = ?3, outcome_summary = ?4, result = ?5, transcript = ?6,
                   tool_calls = ?7, completed_at = ?8, relayed = CASE WHEN ?9 THEN 0 ELSE 1 END
               WHERE id = ?1 AND status IN ('running', 'waiting_for_input')";
    let status = if matches!(end.outcome, Outcome::Success | Outcome::Partial) { "done" } else { "failed" };
    let unheard = routed::take(connection, id, &end.result)?;
    let tell = end.tell || unheard.is_some();
    let changed = connection.prepare_cached(sql)?.execute(params![
        number(id)?,
        status,
        end.outcome.as_str(),
        end.summary,
        unheard.as_ref().unwrap_or(&end.result),
        end.transcript,
        end.tool_calls,
        now.0,
        tell,
    ])?;
    once(changed, ProcessKind::Worker, id)
}

/// A process ends once, whoever comes first.
fn once(changed: usize, kind: ProcessKind, id: u64) -> Result<(), DbError> {
    if changed == 1 {
        return Ok(());
    }
    Err(DbError::Refused(format!("{} is not in the state that this change needs", ProcessId::new(kind, id))))
}

/// Runs that have something to tell: in a terminal state, or waiting for input with a result.
pub(super) fn waiting(
    connection: &Connection,
    conversation: &ConversationId,
    limit: usize,
) -> Result<Vec<WaitingResult>, DbError> {
    let sql = "SELECT 'branch', id, description, coalesce(conclusion, ''), answers FROM branch_runs
                   WHERE channel_id = ?1 AND relayed = 0 AND status <> 'running'
               UNION ALL
               SELECT 'worker', id, task, coalesce(result, ''), answers FROM worker_runs
                   WHERE channel_id = ?1 AND relayed = 0 AND status <> 'running'
               UNION ALL
               SELECT 'delegation', id, target || ': ' || substr(message, 1, 500), coalesce(result, ''), answers FROM link_requests
                   WHERE conversation_id = ?1 AND relayed = 0 AND state = 'answered'
               ORDER BY 2 LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![conversation.as_str(), limit], |row| {
        Ok(WaitingResult {
            process: ProcessId::new(kind_of(row)?, row.get(1)?),
            task: row.get(2)?,
            text: row.get(3)?,
            answers: answers_of(row, 4)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first column of a row that may be of either kind.
fn kind_of(row: &Row<'_>) -> Result<ProcessKind, crate::db::rusqlite::Error> {
    Ok(match row.get_ref(0)?.as_str()? {
        "branch" => ProcessKind::Branch,
        "delegation" => ProcessKind::Delegation,
        _ => ProcessKind::Worker,
    })
}

fn answers_of(row: &Row<'_>, column: usize) -> Result<Vec<String>, crate::db::rusqlite::Error> {
    Ok(serde_json::from_str(row.get_ref(column)?.as_str()?).unwrap_or_default())
}

/// Its result was told; a second time is refused.
///
/// # Errors
/// Nothing is stored.
pub fn relay(connection: &Connection, process: ProcessId) -> Result<(), DbError> {
    let sql = match process.kind {
        ProcessKind::Branch => "UPDATE branch_runs SET relayed = 1 WHERE id = ?1 AND relayed = 0",
        ProcessKind::Worker => "UPDATE worker_runs SET relayed = 1 WHERE id = ?1 AND relayed = 0",
        ProcessKind::Delegation => "UPDATE link_requests SET relayed = 1 WHERE id = ?1 AND relayed = 0",
        ProcessKind::Channel | ProcessKind::Ingestion | ProcessKind::Compactor | ProcessKind::Cortex => {
            return Ok(());
        }
    };
    let changed = connection.prepare_cached(sql)?.execute([number(process.number)?])?;
    once(changed, process.kind, process.number)
}

pub(super) fn any_running(connection: &Connection) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM branch_runs WHERE relayed = 0 AND status = 'running')
                   OR EXISTS (SELECT 1 FROM worker_runs WHERE status IN ('running', 'waiting_for_input'))";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

/// The runs that have no end; read at the start, when nothing can be running.
pub(super) fn running(connection: &Connection) -> Result<Vec<CutOff>, DbError> {
    let sql = "SELECT kind, runs.id, channel_id, coalesce(direct, 0), task, answers, interactive,
                      status = 'waiting_for_input', continuations FROM (
                   SELECT 'branch' AS kind, id, channel_id, description AS task, answers, 0 AS interactive, status,
                       continuations FROM branch_runs WHERE status = 'running'
                   UNION ALL
                   SELECT 'worker', id, channel_id, task, answers, interactive, status, continuations
                       FROM worker_runs WHERE status IN ('running', 'waiting_for_input')) runs
               LEFT JOIN channels ON channels.id = channel_id ORDER BY runs.id";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(CutOff {
            process: ProcessId::new(kind_of(row)?, row.get(1)?),
            conversation: ConversationId::new(row.get_ref(2)?.as_str()?),
            direct: row.get(3)?,
            task: row.get(4)?,
            answers: answers_of(row, 5)?,
            interactive: row.get(6)?,
            waiting: row.get(7)?,
            continuations: row.get(8)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Counts that the run goes on; one that waits does nothing and is not counted.
pub(super) fn go_on(connection: &Connection, run: &CutOff) -> Result<(), DbError> {
    let sql = match run.process.kind {
        _ if run.waiting => return Ok(()),
        ProcessKind::Branch => "UPDATE branch_runs SET continuations = continuations + 1 WHERE id = ?1",
        _ => "UPDATE worker_runs SET continuations = continuations + 1 WHERE id = ?1",
    };
    connection.execute(sql, [number(run.process.number)?])?;
    Ok(())
}

/// Marks what a crash cut off; its channel hears of it once. True when it names messages that it has not read.
pub(super) fn interrupt(
    connection: &Connection,
    run: &CutOff,
    text: &str,
    now: Timestamp,
) -> Result<bool, DbError> {
    let sql = match run.process.kind {
        ProcessKind::Branch => {
            "UPDATE branch_runs SET status = 'failed', conclusion = ?2, completed_at = ?3
             WHERE id = ?1 AND status = 'running'"
        }
        _ => {
            "UPDATE worker_runs SET status = 'failed', outcome_kind = 'failed', relayed = 0, completed_at = ?3,
                 result = CASE WHEN status = 'waiting_for_input' THEN coalesce(result || char(10), '') ELSE '' END || ?2
             WHERE id = ?1 AND status IN ('running', 'waiting_for_input')"
        }
    };
    let unheard = match run.process.kind {
        ProcessKind::Worker => routed::take(connection, run.process.number, text)?,
        _ => None,
    };
    let told = unheard.as_deref().unwrap_or(text);
    connection.execute(sql, params![number(run.process.number)?, told, now.0])?;
    Ok(unheard.is_some())
}

/// Takes the end of a run off the news.
pub(super) fn hush(connection: &Connection, worker: u64) -> Result<(), DbError> {
    let sql = "UPDATE worker_runs SET relayed = 1 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([number(worker)?])?;
    Ok(())
}

const SUMMARY: &str = "SELECT id, task, status, outcome_kind, result, tool_calls, transcript FROM worker_runs WHERE channel_id = ?1";

fn summary(row: &Row<'_>) -> Result<RunSummary, crate::db::rusqlite::Error> {
    Ok(RunSummary {
        id: row.get(0)?,
        task: row.get(1)?,
        status: row.get(2)?,
        outcome: row.get(3)?,
        result: row.get(4)?,
        tool_calls: row.get(5)?,
        transcript: row.get(6)?,
    })
}

pub(super) fn workers(
    connection: &Connection,
    conversation: &ConversationId,
    limit: usize,
) -> Result<Vec<RunSummary>, DbError> {
    let mut statement = connection.prepare(&format!("{SUMMARY} ORDER BY id DESC LIMIT ?2"))?;
    Ok(statement.query_map(params![conversation.as_str(), limit], summary)?.collect::<Result<_, _>>()?)
}

pub(super) fn worker(
    connection: &Connection,
    conversation: &ConversationId,
    id: u64,
) -> Result<RunSummary, DbError> {
    connection
        .query_row(&format!("{SUMMARY} AND id = ?2"), params![conversation.as_str(), number(id)?], summary)
        .optional()?
        .ok_or_else(|| DbError::NotFound(ProcessId::new(ProcessKind::Worker, id).to_string()))
}

pub(super) fn next_number(connection: &Connection) -> Result<u64, DbError> {
    let sql = "SELECT max(coalesce((SELECT max(id) / 65536 FROM run_journal), 0), coalesce((SELECT max(id) FROM branch_runs), 0),
                   coalesce((SELECT max(id) FROM worker_runs), 0)) + 1";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}
