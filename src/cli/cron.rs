//! `spacebot cron …`: what is planned and what has run, read from the database of an agent beside the
//! daemon.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::arguments::CronAction;
use super::database::{self, AgentDatabaseError};
use crate::clock::{SystemClock, Timestamp, Zone};
use crate::config::Config;
use crate::cron::schedule::{ActiveHours, Rhythm};
use crate::cron::{Cron, Execution, Job};
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::text;

/// Longest text in a column, in bytes.
const COLUMN_BYTES: usize = 60;
/// Most runs that are listed.
const MAX_RUNS: usize = 1000;

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("{0}")]
    Agent(#[from] AgentDatabaseError),
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("the output could not be written: {0}")]
    Output(#[from] io::Error),
}

impl Fault for CommandError {
    fn kind(&self) -> Kind {
        match self {
            CommandError::Agent(error) => error.kind(),
            CommandError::Db(error) => error.kind(),
            CommandError::Output(_) => Kind::Invalid,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            CommandError::Agent(error) => error.hint(),
            CommandError::Db(error) => error.hint(),
            CommandError::Output(_) => None,
        }
    }
}

/// Does what the command line asks.
///
/// # Errors
/// There is no such agent, or its database cannot be read.
pub fn run(config: &Config, agent: Option<&str>, action: &CronAction) -> Result<(), CommandError> {
    let (agent, db) = database::open(config, agent)?;
    let cron = Cron::new(db, agent.timezone.clone());
    let now = SystemClock::shared().now();
    let mut out = io::stdout().lock();
    match action {
        CronAction::List { json } => {
            let jobs = cron.jobs()?;
            for job in &jobs {
                let line = if *json { listed(&cron, job, now).to_string() } else { line_of(&cron, job, now) };
                writeln!(out, "{line}")?;
            }
        }
        CronAction::Runs { job, limit, json } => {
            let runs = cron.runs(job.as_deref(), (*limit).min(MAX_RUNS))?;
            for run in &runs {
                let line = if *json { run_value(run).to_string() } else { run_line(cron.zone(), run) };
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(())
}

/// The named agent, or the default one.
fn rhythm(job: &Job) -> String {
    match &job.timing.rhythm {
        Rhythm::Expression(expression) => expression.to_string(),
        Rhythm::Every(interval) => format!("every {} s", interval.as_secs()),
    }
}

fn state(job: &Job) -> &'static str {
    match (job.done, job.enabled) {
        (true, _) => "over",
        (false, true) => "on",
        (false, false) => "off",
    }
}

fn line_of(cron: &Cron, job: &Job, now: Timestamp) -> String {
    let next = cron.next_slot(job, now).map_or_else(|| state(job).to_owned(), |next| cron.local_time(next));
    let prompt = text::one_line(&job.prompt, COLUMN_BYTES);
    format!("{:<20} {:<18} {:<26} {:<24} {prompt}", job.name, rhythm(job), next, job.target.conversation)
}

fn listed(cron: &Cron, job: &Job, now: Timestamp) -> Value {
    let hours = job.timing.active;
    let (expression, interval) = match &job.timing.rhythm {
        Rhythm::Expression(expression) => (Some(expression.to_string()), None),
        Rhythm::Every(interval) => (None, Some(interval.as_secs())),
    };
    json!({
        "id": job.name,
        "prompt": job.prompt,
        "cron_expr": expression,
        "interval_secs": interval,
        "active_hours": (hours != ActiveHours::ALWAYS).then_some([hours.start, hours.end]),
        "run_once": job.timing.once,
        "state": state(job),
        "failures": job.failures,
        "timeout_secs": job.timeout.as_secs(),
        "delivery_target": job.target.conversation.as_str(),
        "next_run": cron.next_slot(job, now).map(Timestamp::to_rfc3339),
        "created_at": job.created_at.to_rfc3339(),
    })
}

fn run_line(zone: &Zone, run: &Execution) -> String {
    let said = run.outcome.as_deref().or(run.error.as_deref()).unwrap_or_default();
    format!(
        "{:<20} {:<18} {:<12} {:<8} {}",
        run.job,
        zone.format(run.slot, "%Y-%m-%d %H:%M"),
        run.state,
        run.delivery,
        text::one_line(said, COLUMN_BYTES)
    )
}

fn run_value(run: &Execution) -> Value {
    json!({
        "id": run.id,
        "job": run.job,
        "slot": run.slot.to_rfc3339(),
        "state": run.state,
        "error": run.error,
        "outcome": run.outcome,
        "delivery": run.delivery,
        "claimed_at": run.claimed_at.to_rfc3339(),
        "ended_at": run.ended_at.map(Timestamp::to_rfc3339),
    })
}
