//! The rows of jobs and of their runs.

use std::time::Duration;

use super::expression::Expression;
use super::schedule::{ActiveHours, Rhythm, Timing};
use super::{CronError, Due, Job, MAX_FAILURES, MAX_JOBS, NewJob, Target, Watched};
use crate::clock::Timestamp;
use crate::db::DbError;
use crate::db::rusqlite::{Connection, OptionalExtension, Row, params};
use crate::id::{ConversationId, InstanceId};

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running,
    Succeeded,
    Failed,
    TimedOut,
    /// The daemon stopped in the middle of it.
    Interrupted,
    /// The run before had not ended.
    Skipped,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::TimedOut => "timed_out",
            State::Interrupted => "interrupted",
            State::Skipped => "skipped",
        }
    }

    /// Counts towards switching the job off. An interruption is not the job's fault.
    fn is_failure(self) -> bool {
        matches!(self, State::Failed | State::TimedOut)
    }
}

/// One run as it is told to people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Execution {
    pub id: i64,
    pub job: String,
    pub slot: Timestamp,
    pub state: String,
    pub error: Option<String>,
    pub outcome: Option<String>,
    /// `none`, or how far the outcome has come: `pending`, `sending`, `sent`, `refused`, `unknown`.
    pub delivery: String,
    pub claimed_at: Timestamp,
    pub ended_at: Option<Timestamp>,
}

/// What whoever ends a run has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub outcome: Option<String>,
    /// The job, unless somebody has deleted it.
    pub job: Option<Job>,
    /// This failure has switched the job off.
    pub switched_off: bool,
}

const JOB: &str = "SELECT id, name, prompt, cron_expr, interval_secs, active_start_hour, active_end_hour,
    delivery_target, target_instance, target_direct, target_name, enabled, run_once, timeout_secs, failures,
    anchor, created_at, done FROM cron_jobs";

fn job(row: &Row<'_>) -> Result<Job, DbError> {
    let (expression, interval) = (row.get::<_, Option<String>>(3)?, row.get::<_, Option<u64>>(4)?);
    let rhythm = match (expression, interval) {
        (Some(expression), _) => Rhythm::Expression(
            Expression::parse(&expression).map_err(|error| DbError::Corrupt(error.to_string()))?,
        ),
        (None, interval) => Rhythm::Every(Duration::from_secs(interval.unwrap_or_default())),
    };
    Ok(Job {
        id: row.get(0)?,
        name: row.get(1)?,
        prompt: row.get(2)?,
        timing: Timing {
            rhythm,
            active: ActiveHours { start: row.get(5)?, end: row.get(6)? },
            anchor: Timestamp(row.get(15)?),
            once: row.get(12)?,
        },
        target: Target {
            conversation: ConversationId::new(row.get_ref(7)?.as_str()?),
            instance: InstanceId::new(row.get_ref(8)?.as_str()?),
            direct: row.get(9)?,
            name: row.get(10)?,
        },
        enabled: row.get(11)?,
        done: row.get(17)?,
        timeout: Duration::from_secs(row.get(13)?),
        failures: row.get(14)?,
        created_at: Timestamp(row.get(16)?),
    })
}

fn jobs_where(connection: &Connection, rest: &str) -> Result<Vec<Job>, DbError> {
    let mut statement = connection.prepare_cached(&format!("{JOB} {rest}"))?;
    let mut rows = statement.query([])?;
    let mut jobs = Vec::new();
    while let Some(row) = rows.next()? {
        jobs.push(job(row)?);
    }
    Ok(jobs)
}

fn one(
    connection: &Connection,
    column: &str,
    key: &dyn crate::db::rusqlite::ToSql,
) -> Result<Option<Job>, DbError> {
    let mut statement = connection.prepare_cached(&format!("{JOB} WHERE {column} = ?1"))?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(job).transpose()
}

pub(super) fn jobs(connection: &Connection) -> Result<Vec<Job>, DbError> {
    jobs_where(connection, "ORDER BY name")
}

pub(super) fn watched(connection: &Connection, since: Timestamp) -> Result<Vec<Watched>, DbError> {
    let jobs = jobs_where(connection, "WHERE enabled = 1 ORDER BY id")?;
    let mut statement =
        connection.prepare_cached("SELECT slot FROM cron_executions WHERE job_id = ?1 AND slot >= ?2")?;
    let mut watched = Vec::with_capacity(jobs.len());
    for job in jobs {
        // A job for one time may come any time late.
        let since = if job.timing.once { i64::MIN } else { since.0 };
        let slots = statement.query_map([job.id, since], |row| row.get(0).map(Timestamp))?;
        let slots = slots.collect::<Result<Vec<_>, _>>()?;
        watched.push((job, slots));
    }
    Ok(watched)
}

fn is_full(connection: &Connection) -> Result<bool, DbError> {
    let count = "SELECT count(*) FROM cron_jobs WHERE enabled = 1";
    Ok(connection.query_row(count, [], |row| row.get::<_, usize>(0))? >= MAX_JOBS)
}

/// The inner error is one of the words for whoever asked; nothing is stored then.
pub(super) fn create(
    connection: &Connection,
    new: &NewJob,
    timing: &Timing,
    now: Timestamp,
) -> Result<Result<Option<Job>, CronError>, DbError> {
    if is_full(connection)? {
        return Ok(Err(CronError::Full));
    }
    if let Some(name) = &new.name {
        // One that is over makes room.
        connection.execute("DELETE FROM cron_jobs WHERE name = ?1 AND done = 1 AND enabled = 0", [name])?;
        if one(connection, "name", name)?.is_some() {
            return Ok(Err(CronError::Exists(name.clone())));
        }
    }
    let (expression, interval) = match &timing.rhythm {
        Rhythm::Expression(expression) => (Some(expression.to_string()), None),
        Rhythm::Every(interval) => (None, Some(interval.as_secs())),
    };
    let sql = "INSERT INTO cron_jobs (name, prompt, cron_expr, interval_secs, active_start_hour, active_end_hour,
                   delivery_target, target_instance, target_direct, target_name, run_once, timeout_secs, anchor, created_at)
               VALUES (coalesce(?1, '#' || (SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'cron_jobs')),
                   ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?13)";
    let target = &new.target;
    connection.prepare_cached(sql)?.execute(params![
        new.name,
        new.prompt.trim(),
        expression,
        interval,
        timing.active.start,
        timing.active.end,
        target.conversation.as_str(),
        target.instance.as_str(),
        target.direct,
        target.name,
        timing.once,
        new.timeout.as_secs(),
        now.0,
    ])?;
    let id = connection.last_insert_rowid();
    if new.name.is_none() {
        name_it(connection, id, now)?;
    }
    Ok(Ok(one(connection, "id", &id)?))
}

/// `job-7`; with the time where somebody has taken that name.
fn name_it(connection: &Connection, id: i64, now: Timestamp) -> Result<(), DbError> {
    let sql = "UPDATE OR IGNORE cron_jobs SET name = ?2 WHERE id = ?1";
    for name in [format!("job-{id}"), format!("job-{id}-{}", now.0)] {
        if connection.prepare_cached(sql)?.execute(params![id, name])? == 1 {
            break;
        }
    }
    Ok(())
}

pub(super) fn delete(connection: &Connection, name: &str) -> Result<bool, DbError> {
    Ok(connection.execute("DELETE FROM cron_jobs WHERE name = ?1", [name])? == 1)
}

/// The inner error is for whoever asked; nothing is stored then.
pub(super) fn toggle(
    connection: &Connection,
    name: &str,
    enabled: bool,
    now: Timestamp,
) -> Result<Result<Job, CronError>, DbError> {
    let before = one(connection, "name", &name)?;
    if enabled && before.is_some_and(|job| !job.enabled) && is_full(connection)? {
        return Ok(Err(CronError::Full));
    }
    let sql = "UPDATE cron_jobs SET enabled = ?2,
                   anchor = CASE WHEN ?2 AND NOT enabled THEN ?3 ELSE anchor END,
                   failures = CASE WHEN ?2 THEN 0 ELSE failures END,
                   done = CASE WHEN ?2 THEN 0 ELSE done END
               WHERE name = ?1";
    connection.execute(sql, params![name, enabled, now.0])?;
    Ok(one(connection, "name", &name)?.ok_or_else(|| CronError::NotFound(name.to_owned())))
}

pub(super) fn runs(
    connection: &Connection,
    job: Option<&str>,
    limit: usize,
) -> Result<Vec<Execution>, DbError> {
    let sql =
        "SELECT e.id, job, slot, e.state, error, outcome, coalesce(o.state, delivery), claimed_at, ended_at
               FROM cron_executions e LEFT JOIN outbox o ON o.id = e.outbox_id
               WHERE ?1 IS NULL OR job = ?1 ORDER BY e.id DESC LIMIT ?2";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![job, limit], |row| {
        Ok(Execution {
            id: row.get(0)?,
            job: row.get(1)?,
            slot: Timestamp(row.get(2)?),
            state: row.get(3)?,
            error: row.get(4)?,
            outcome: row.get(5)?,
            delivery: row.get(6)?,
            claimed_at: Timestamp(row.get(7)?),
            ended_at: row.get::<_, Option<i64>>(8)?.map(Timestamp),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Claims the slot of a job that is still as it was seen. `None` when it was claimed before, when the job
/// has changed, or when its last run goes on still: that is recorded as skipped. A job for one time is
/// switched off by its claim.
///
/// # Errors
/// Nothing is stored.
pub fn claim(connection: &Connection, due: &Due, now: Timestamp) -> Result<Option<i64>, DbError> {
    let sql = "INSERT INTO cron_executions (job_id, job, slot, state, claimed_at, ended_at)
               SELECT id, name, ?2, CASE WHEN busy THEN 'skipped' ELSE 'running' END, ?4, CASE WHEN busy THEN ?4 END
               FROM (SELECT id, name, EXISTS (SELECT 1 FROM cron_executions WHERE job_id = ?1 AND state = 'running') AS busy
                     FROM cron_jobs WHERE id = ?1 AND enabled = 1 AND anchor = ?3)
               WHERE true ON CONFLICT (job_id, slot) DO NOTHING RETURNING id, state";
    let job = &due.job;
    let claimed = connection
        .prepare_cached(sql)?
        .query_row(params![job.id, due.slot.0, job.timing.anchor.0, now.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    let Some((id, state)) = claimed else { return Ok(None) };
    if state == State::Skipped.as_str() {
        log::warn!("job {} is skipped at {:?}: its last run goes on still", job.name, due.slot);
        return Ok(None);
    }
    if job.timing.once {
        connection.execute("UPDATE cron_jobs SET enabled = 0, done = 1 WHERE id = ?1", [job.id])?;
    }
    Ok(Some(id))
}

/// Notes what `set_outcome` said; the last call wins.
///
/// # Errors
/// Nothing is stored.
pub fn set_outcome(connection: &Connection, execution: i64, outcome: &str) -> Result<(), DbError> {
    let sql = "UPDATE cron_executions SET outcome = ?2 WHERE id = ?1 AND state = 'running'";
    connection.prepare_cached(sql)?.execute(params![execution, outcome])?;
    Ok(())
}

/// Ends a run, once, and counts the job's failures.
///
/// # Errors
/// Nothing is stored; [`DbError::Refused`] when the run has ended before.
pub fn end(
    connection: &Connection,
    execution: i64,
    state: State,
    error: Option<&str>,
    now: Timestamp,
) -> Result<Ended, DbError> {
    let sql = "UPDATE cron_executions SET state = ?2, error = ?3, ended_at = ?4
               WHERE id = ?1 AND state = 'running' RETURNING job_id, outcome";
    let row = connection
        .prepare_cached(sql)?
        .query_row(params![execution, state.as_str(), error, now.0], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
        })
        .optional()?;
    let (job_id, outcome) =
        row.ok_or_else(|| DbError::Refused(format!("run {execution} has ended already")))?;
    let before = one(connection, "id", &job_id)?;
    if state.is_failure() {
        let sql = "UPDATE cron_jobs SET failures = failures + 1,
                       enabled = CASE WHEN failures + 1 >= ?2 THEN 0 ELSE enabled END WHERE id = ?1";
        connection.prepare_cached(sql)?.execute(params![job_id, MAX_FAILURES])?;
    } else if state == State::Succeeded {
        let sql = "UPDATE cron_jobs SET failures = 0 WHERE id = ?1 AND failures > 0";
        connection.prepare_cached(sql)?.execute([job_id])?;
    }
    let job = one(connection, "id", &job_id)?;
    let was_on = before.is_some_and(|job| job.enabled);
    let switched_off = was_on && job.as_ref().is_some_and(|job| !job.enabled);
    Ok(Ended { outcome, job, switched_off })
}

/// Notes that what the run had to say stands in the outbox.
///
/// # Errors
/// Nothing is stored.
pub fn queued(connection: &Connection, execution: i64, outbox: i64) -> Result<(), DbError> {
    let sql = "UPDATE cron_executions SET delivery = 'queued', outbox_id = ?2 WHERE id = ?1";
    connection.prepare_cached(sql)?.execute([execution, outbox])?;
    Ok(())
}

/// Runs that have no end, with the job's name: after a start, what a crash cut off.
///
/// # Errors
/// The database cannot be read.
pub fn running(connection: &Connection) -> Result<Vec<(i64, String)>, DbError> {
    let sql = "SELECT id, job FROM cron_executions WHERE state = 'running' ORDER BY id";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// When a run was last claimed: a sign of how late it is at least.
///
/// # Errors
/// The database cannot be read.
pub fn last_claim(connection: &Connection) -> Result<Timestamp, DbError> {
    let sql = "SELECT claimed_at FROM cron_executions ORDER BY id DESC LIMIT 1";
    let last = connection.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
    Ok(Timestamp(last.unwrap_or_default()))
}
