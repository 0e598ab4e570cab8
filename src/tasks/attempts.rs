//! Who works on a task: claims, ends, and what a crash cut off. These run inside the transactions that
//! begin and end the worker's run.

use super::lifecycle::AttemptEnd;
use super::rows::{get, save};
use super::{Changed, Filter, RESULT_BYTES_MAX, Retries, Status, Task, retry};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, params};
use crate::effect::TaskNews;
use crate::text;

/// Longest summary of an attempt, in bytes.
const SUMMARY_BYTES_MAX: usize = 280;
/// Tasks in progress that one start sets right; a worker's limit is far below.
const INTERRUPTED_MAX: usize = 200;

#[derive(Debug, Clone, serde::Serialize)]
pub struct Attempt {
    /// Number of the worker.
    pub worker: u64,
    pub attempt: usize,
    pub started_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub outcome: Option<String>,
    pub summary: Option<String>,
}

/// What came of the wish to work on a task.
#[derive(Debug, Clone)]
pub enum Claim {
    Taken(Box<Task>),
    /// It pauses after a failure. The news says for how long still.
    Early(TaskNews),
    /// Somebody was quicker.
    Gone,
}

/// Binds a ready task at this revision to a worker, once its pause is over.
///
/// # Errors
/// The database cannot be read or written.
pub fn claim(
    connection: &Connection,
    number: u64,
    revision: u64,
    worker: u64,
    now: Timestamp,
) -> Result<Claim, DbError> {
    let Some(mut task) = get(connection, number)? else { return Ok(Claim::Gone) };
    if task.revision != revision || task.status != Status::Ready {
        return Ok(Claim::Gone);
    }
    // The clock may have been set back since the hub began to wait.
    if !retry::wait(task.retry_at, now).is_zero() {
        return Ok(Claim::Early(TaskNews::Ready(task.ready(now))));
    }
    task.status = Status::InProgress;
    task.retry_at = None;
    task.attempts += 1;
    task.worker = Some(worker);
    save(connection, &mut task, revision, now)?;
    let sql = "INSERT INTO task_attempts (worker, task, attempt, started_at) VALUES (?1, ?2, ?3, ?4)";
    connection.prepare_cached(sql)?.execute(params![worker, number, task.attempts, now.0])?;
    Ok(Claim::Taken(Box::new(task)))
}

/// What a worker leaves behind.
#[derive(Debug, Clone)]
pub struct Conclusion {
    pub end: AttemptEnd,
    pub summary: Option<String>,
    pub result: String,
    pub retries: Retries,
}

/// What became of the task of a worker that ended.
#[derive(Debug, Clone)]
pub struct Concluded {
    /// None: it was taken from the worker before.
    pub task: Option<Task>,
    pub news: Vec<TaskNews>,
}

/// Ends the attempt of `worker` and moves its task on, if it still is this worker's.
///
/// # Errors
/// The database cannot be read or written.
pub fn conclude(
    connection: &Connection,
    number: u64,
    worker: u64,
    conclusion: &Conclusion,
    now: Timestamp,
) -> Result<Concluded, DbError> {
    let bound = |task: &Task| task.status == Status::InProgress && task.worker == Some(worker);
    let Some(mut task) = get(connection, number)?.filter(bound) else {
        return Ok(Concluded { task: None, news: Vec::new() });
    };
    let summary = conclusion.summary.as_deref();
    end_live(connection, number, conclusion.end, summary, now)?;
    task.status = conclusion.end.leads_to(task.attempts, conclusion.retries.attempts);
    task.retry_at = conclusion.retries.next(conclusion.end, &task, now);
    if conclusion.end == AttemptEnd::Interrupted {
        task.attempts = task.attempts.saturating_sub(1);
    }
    task.worker = None;
    if !matches!(conclusion.end, AttemptEnd::Cancelled | AttemptEnd::Interrupted) {
        task.result = Some(text::shorten(&conclusion.result, RESULT_BYTES_MAX).into_owned());
    }
    let revision = task.revision;
    save(connection, &mut task, revision, now)?;
    // Nobody works on it any more; what the hub may have to do is to start it again.
    let news = Changed::between(Status::Backlog, task.clone(), now).news;
    Ok(Concluded { task: Some(task), news })
}

/// After a start: what was in progress was cut off. It is tried again, or has failed for good. Returns
/// the workers whose end is no news, because their task is tried again or nobody waits for it.
///
/// # Errors
/// The database cannot be read or written.
pub fn interrupt(connection: &Connection, retries: Retries, now: Timestamp) -> Result<Vec<u64>, DbError> {
    let filter = Filter { status: Some(Status::InProgress), limit: INTERRUPTED_MAX, ..Filter::default() };
    let mut quiet = Vec::new();
    for mut task in super::rows::list(connection, &filter)? {
        end_live(connection, task.number, AttemptEnd::Interrupted, None, now)?;
        // Unlike an orderly stop this counts: it may be the task that brings the daemon down.
        task.status = AttemptEnd::Failed.leads_to(task.attempts, retries.attempts);
        task.retry_at = retries.next(AttemptEnd::Failed, &task, now);
        if task.status == Status::Ready || task.place.is_none() {
            quiet.extend(task.worker);
        }
        task.worker = None;
        let revision = task.revision;
        save(connection, &mut task, revision, now)?;
    }
    Ok(quiet)
}

/// Whether this worker works, or worked, on a task.
///
/// # Errors
/// The database cannot be read.
pub fn has_attempt(connection: &Connection, worker: u64) -> Result<bool, DbError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM task_attempts WHERE worker = ?1)";
    Ok(connection.prepare_cached(sql)?.query_row([worker], |row| row.get(0))?)
}

pub(super) fn end_live(
    connection: &Connection,
    task: u64,
    end: AttemptEnd,
    summary: Option<&str>,
    now: Timestamp,
) -> Result<(), DbError> {
    let sql = "UPDATE task_attempts SET ended_at = ?2, outcome = ?3, summary = ?4 WHERE task = ?1 AND ended_at IS NULL";
    let summary = summary.map(|summary| text::one_line(summary, SUMMARY_BYTES_MAX));
    connection.prepare_cached(sql)?.execute(params![task, now.0, end.as_str(), summary])?;
    Ok(())
}

pub(super) fn of(connection: &Connection, task: u64) -> Result<Vec<Attempt>, DbError> {
    let sql = "SELECT worker, attempt, started_at, ended_at, outcome, summary FROM task_attempts
               WHERE task = ?1 ORDER BY worker";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([task], |row| {
        Ok(Attempt {
            worker: row.get(0)?,
            attempt: row.get(1)?,
            started_at: Timestamp(row.get(2)?),
            ended_at: row.get::<_, Option<i64>>(3)?.map(Timestamp),
            outcome: row.get(4)?,
            summary: row.get(5)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}
