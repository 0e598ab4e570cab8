//! Jobs that run at their time: when they are due, which of their slots were claimed, how each run ended
//! and whether its outcome went out.
//!
//! [`schedule`] decides and knows no clock and no database; [`store`] remembers. Whoever runs a job claims
//! its slot first, in a transaction with what makes the run begin: a slot is run at most once, also across
//! crashes.

pub mod expression;
pub mod schedule;
pub mod store;
mod trust;

use std::time::Duration;

use crate::clock::{Timestamp, Zone};
use crate::config::MissedSlots;
use crate::db::{Db, DbError};
use crate::error::{Fault, Kind};
use crate::id::{ConversationId, InstanceId};

use self::expression::{Expression, ExpressionError};
use self::schedule::{ActiveHours, Rhythm, TOLERANCE_MAX, Timing, Verdict};

pub use self::store::{Ended, Execution, State};
pub use self::trust::is_trusted;

/// Jobs of one agent that are switched on: what a person keeps an eye on.
pub const MAX_JOBS: usize = 256;
/// Longest prompt, in characters.
pub const MAX_PROMPT_CHARACTERS: usize = 10_000;
/// Longest name, in bytes: it is a part of a conversation's id.
const MAX_NAME_BYTES: usize = 64;
/// A job that runs again and again leaves this long between.
pub const INTERVAL_MIN: Duration = Duration::from_secs(60);
/// A year and a day: the next 29 February is a cron expression's business.
const INTERVAL_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Bounds of a job's own time-out, in seconds.
const TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 10..=86_400;
/// So many failures in a row switch a job off.
pub const MAX_FAILURES: u32 = 3;

/// The platform of the conversations in which jobs run.
pub const PLATFORM: &str = "cron";

/// A conversation that hears what comes of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub conversation: ConversationId,
    pub instance: InstanceId,
    pub direct: bool,
    pub name: String,
}

/// A stored job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub id: i64,
    pub name: String,
    pub prompt: String,
    pub timing: Timing,
    pub target: Target,
    pub enabled: bool,
    /// A job for one time whose slot was claimed.
    pub done: bool,
    pub timeout: Duration,
    pub failures: u32,
    pub created_at: Timestamp,
}

impl Job {
    /// It has failed too often in a row, and nobody has switched it on again.
    pub fn is_switched_off(&self) -> bool {
        !self.enabled && !self.done && self.failures >= MAX_FAILURES
    }

    /// Where its runs take place.
    pub fn conversation(&self) -> ConversationId {
        ConversationId::new(format!("{PLATFORM}:{}", self.name))
    }
}

/// A job to be made.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Given by us when absent.
    pub name: Option<String>,
    pub prompt: String,
    /// Exactly one of these two.
    pub expression: Option<String>,
    pub interval: Option<Duration>,
    pub active: ActiveHours,
    pub once: bool,
    pub target: Target,
    pub timeout: Duration,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CronError {
    #[error("{0}")]
    Db(#[from] DbError),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Expression(#[from] ExpressionError),
    #[error("there is no job {0:?}")]
    NotFound(String),
    #[error("there is a job {0:?} already; delete it first, or take another id")]
    Exists(String),
    #[error("there are {MAX_JOBS} jobs already, which is the limit")]
    Full,
}

impl Fault for CronError {
    fn kind(&self) -> Kind {
        match self {
            CronError::Db(error) => error.kind(),
            CronError::Invalid(_) | CronError::Expression(_) | CronError::Exists(_) => Kind::Invalid,
            CronError::NotFound(_) => Kind::NotFound,
            CronError::Full => Kind::Full,
        }
    }

    fn hint(&self) -> Option<&str> {
        match self {
            CronError::Db(error) => error.hint(),
            _ => None,
        }
    }
}

/// A job whose slot is to be run now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    pub job: Job,
    pub slot: Timestamp,
}

/// A job with its slots of the last hours that were claimed.
pub type Watched = (Job, Vec<Timestamp>);

/// The jobs that are due at `now`.
pub fn due(jobs: &[Watched], now: Timestamp, missed: MissedSlots, zone: &Zone) -> Vec<Due> {
    let mut due = Vec::new();
    for (job, claimed) in jobs.iter().filter(|(job, _)| job.enabled) {
        match schedule::look(&job.timing, now, claimed, missed, zone.rules()) {
            Verdict::Run { slot } => due.push(Due { job: job.clone(), slot }),
            Verdict::Missed { slot } => {
                log::info!("job {} missed its slot of {slot:?}, which is not made up for", job.name);
            }
            Verdict::Rest => {}
        }
    }
    due
}

/// How long until the next slot of any job; none when there is none.
pub fn wait(jobs: &[Watched], now: Timestamp, zone: &Zone) -> Option<Duration> {
    let next = |(job, _): &Watched| schedule::next_slot(&job.timing, now, zone.rules());
    jobs.iter().filter(|(job, _)| job.enabled).filter_map(next).min().map(|slot| slot.since(now))
}

/// The jobs of one agent.
#[derive(Clone)]
pub struct Cron {
    db: Db,
    zone: Zone,
}

impl Cron {
    pub fn new(db: Db, zone: Zone) -> Self {
        Self { db, zone }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Makes a job; its first slot is behind `now`.
    ///
    /// # Errors
    /// It is not valid, there are too many, or it cannot be stored.
    pub fn create(&self, new: NewJob, now: Timestamp) -> Result<Job, CronError> {
        let timing = new.check(now, &self.zone)?;
        let stored = self.db.write(move |connection| store::create(connection, &new, &timing, now))?;
        stored?.ok_or_else(|| CronError::NotFound(String::new()))
    }

    /// # Errors
    /// There is none, or the database cannot be written.
    pub fn delete(&self, name: &str) -> Result<(), CronError> {
        let wanted = name.to_owned();
        let found = self.db.write(move |connection| store::delete(connection, &wanted))?;
        if found { Ok(()) } else { Err(CronError::NotFound(name.to_owned())) }
    }

    /// Switches a job on or off. Switched on, it forgets its failures, and slots before `now` are not missed.
    ///
    /// # Errors
    /// There is none, there are too many, or the database cannot be written.
    pub fn toggle(&self, name: &str, enabled: bool, now: Timestamp) -> Result<Job, CronError> {
        let wanted = name.to_owned();
        self.db.write(move |connection| store::toggle(connection, &wanted, enabled, now))?
    }

    /// All jobs by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn jobs(&self) -> Result<Vec<Job>, DbError> {
        self.db.read(store::jobs)
    }

    /// The latest runs, newest first, of one job if it is named.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn runs(&self, job: Option<&str>, limit: usize) -> Result<Vec<Execution>, DbError> {
        self.db.read(|connection| store::runs(connection, job, limit))
    }

    /// The jobs that are switched on, with what was claimed of them lately.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn watched(&self, now: Timestamp) -> Result<Vec<Watched>, DbError> {
        self.db.read(|connection| store::watched(connection, now.minus(TOLERANCE_MAX)))
    }

    /// When the job runs next; none when it is switched off or over.
    pub fn next_slot(&self, job: &Job, now: Timestamp) -> Option<Timestamp> {
        schedule::next_slot(&job.timing, now, self.zone.rules()).filter(|_| job.enabled)
    }

    /// The wall clock of the agent, for people.
    pub fn local_time(&self, time: Timestamp) -> String {
        self.zone.format(time, "%A %Y-%m-%d %H:%M")
    }
}

impl NewJob {
    fn check(&self, now: Timestamp, zone: &Zone) -> Result<Timing, CronError> {
        let invalid = |reason: String| Err(CronError::Invalid(reason));
        let plain = |character: char| {
            character.is_ascii_lowercase() || character.is_ascii_digit() || matches!(character, '-' | '_')
        };
        if let Some(name) = &self.name
            && (name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain))
        {
            return invalid(format!("the id {name:?} must be 1 to {MAX_NAME_BYTES} of a-z, 0-9, - and _"));
        }
        if self.prompt.trim().is_empty() || self.prompt.chars().count() > MAX_PROMPT_CHARACTERS {
            return invalid(format!("the prompt must be 1 to {MAX_PROMPT_CHARACTERS} characters"));
        }
        if self.active.start > 23 || self.active.end > 23 {
            return invalid("active hours must be from 0 to 23".to_owned());
        }
        if !TIMEOUT_SECONDS.contains(&self.timeout.as_secs()) {
            let (least, most) = (TIMEOUT_SECONDS.start(), TIMEOUT_SECONDS.end());
            return invalid(format!("timeout_secs must be from {least} to {most}"));
        }
        let rhythm = match (&self.expression, self.interval) {
            (Some(expression), None) => Rhythm::Expression(Expression::parse(expression)?),
            (None, Some(interval)) => {
                let least = if self.once { Duration::from_secs(1) } else { INTERVAL_MIN };
                if !(least..=INTERVAL_MAX).contains(&interval) {
                    let (least, most) = (least.as_secs(), INTERVAL_MAX.as_secs());
                    return invalid(format!("interval_secs must be from {least} to {most}"));
                }
                Rhythm::Every(interval)
            }
            _ => return invalid("a job needs either cron_expr or interval_secs".to_owned()),
        };
        let timing = Timing { rhythm, active: self.active, anchor: now, once: self.once };
        if schedule::next_slot(&timing, now, zone.rules()).is_none() {
            return invalid("this job would never run: its times lie outside of its active hours, or on a day that does not come".to_owned());
        }
        Ok(timing)
    }
}

#[cfg(test)]
mod tests;
