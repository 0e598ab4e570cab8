//! Jobs that run at their time, as processes: a look claims what is due and begins its visit in the same
//! transaction, and the end of a run hands on what it had to say in the transaction that ends it.

use std::time::Duration;

use super::job::{Job, RunEnd};
use super::link::Link;
use super::{AgentParts, persist};
use crate::clock::Timestamp;
use crate::conversation::{self, Place};
use crate::cron::{self, Cron, Due, Ended, State, store};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::event::How;
use crate::id::{ConversationId, InboxId, InstanceId};
use crate::message::Inbound;
use crate::prompts;
use crate::working_memory::{EventKind, NewEvent};

/// While the clock is not trusted and there are jobs, it is looked at again after this time: the system
/// may learn that it is right without setting it.
const DISTRUST_WAIT: Duration = Duration::from_secs(60);

/// Where a process rings: an adapter, and which of its conversations has something new.
type Ring = (InstanceId, ConversationId);

/// A run whose slot is claimed and whose visit has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub execution: i64,
    pub place: Place,
    pub inbox: InboxId,
    pub timeout: Duration,
}

/// What a look found.
#[derive(Debug, Default)]
pub struct Look {
    pub runs: Vec<Run>,
    /// When to look again; none while no job waits.
    pub next: Option<Duration>,
}

impl AgentParts {
    /// The agent's jobs.
    pub fn cron(&self) -> Cron {
        Cron::new(self.conversations.db().clone(), self.config.timezone.clone())
    }
}

/// Claims what is due.
///
/// # Errors
/// The database cannot be read or written; then nothing is claimed.
pub fn look(parts: &AgentParts) -> Result<Look, DbError> {
    let (cron, now) = (parts.cron(), parts.conversations.now());
    let jobs = cron.watched(now)?;
    if jobs.is_empty() {
        return Ok(Look::default());
    }
    let written = cron
        .db()
        .read(|connection| Ok(conversation::last_written(connection)?.max(store::last_claim(connection)?)))?;
    if !cron::is_trusted(now, written) {
        log::warn!("no job runs: the clock says {now:?}, which is before the last thing that was written");
        return Ok(Look { runs: Vec::new(), next: Some(DISTRUST_WAIT) });
    }
    let due = cron::due(&jobs, now, parts.config.schedule.missed, cron.zone());
    let runs = if due.is_empty() {
        Vec::new()
    } else {
        cron.db().write(move |connection| claim(connection, &due, now))?
    };
    Ok(Look { runs, next: cron::wait(&jobs, now, cron.zone()) })
}

fn claim(connection: &Connection, due: &[Due], now: Timestamp) -> Result<Vec<Run>, DbError> {
    let mut runs = Vec::with_capacity(due.len());
    for due in due {
        let Some(execution) = store::claim(connection, due, now)? else { continue };
        let job = &due.job;
        let place = place(job);
        let message = Inbound {
            instance: place.instance.clone(),
            platform_id: format!("{}:{}", job.id, due.slot.0),
            conversation: place.conversation.clone(),
            agent: None,
            sender_id: cron::PLATFORM.to_owned(),
            sender_name: job.name.clone(),
            content: job.prompt.clone(),
            sent_at: due.slot,
            direct: false,
            addressed: true,
            place: place.name.clone(),
        };
        let inbox = conversation::begin_visit(connection, &place, &message, now)?;
        runs.push(Run { execution, place, inbox, timeout: job.timeout });
    }
    Ok(runs)
}

fn place(job: &cron::Job) -> Place {
    Place {
        conversation: job.conversation(),
        instance: InstanceId::new(conversation::SCHEDULED),
        direct: false,
        name: format!("{} / {}", conversation::SCHEDULED, job.name),
    }
}

/// Why a run did not succeed.
#[derive(Debug, Clone)]
struct Reason {
    /// For the operator.
    recorded: String,
    /// For whoever waits for it.
    told: &'static str,
}

impl Reason {
    fn plain(notice: &str) -> Self {
        let told = prompts::notice(notice);
        Self { recorded: told.to_owned(), told }
    }
}

/// Ends a run and puts what it has to say into the outbox of its target.
pub(super) fn finish(parts: &AgentParts, job: &Job, execution: i64, end: &RunEnd, link: &Link<'_>) -> How {
    let (state, reason) = match end {
        RunEnd::Done => (State::Succeeded, None),
        RunEnd::Failed(kind, reason) => {
            let ours = prompts::notice("job_turn_limit");
            let told = if reason == ours { ours } else { prompts::notice(kind.notice()) };
            (State::Failed, Some(Reason { recorded: reason.clone(), told }))
        }
        RunEnd::TimedOut => (State::TimedOut, Some(Reason::plain("job_timed_out"))),
    };
    let mut ring = None;
    let how = persist(link.cancel, || {
        ring = end_run(parts, &job.place.conversation, execution, state, reason.clone())?;
        Ok(())
    });
    if how == How::Finished { How::Delivered(ring) } else { how }
}

/// Ends the runs that the daemon was in the middle of when it stopped. They are not run again; a job for
/// one time says so, because nobody will come again for it.
///
/// # Errors
/// The database cannot be read or written.
pub fn end_cut_off_runs(parts: &AgentParts) -> Result<usize, DbError> {
    let running = parts.cron().db().read(store::running)?;
    for (execution, job) in &running {
        let channel = ConversationId::new(format!("{}:{job}", cron::PLATFORM));
        let reason = Reason::plain("job_interrupted");
        end_run(parts, &channel, *execution, State::Interrupted, Some(reason))?;
    }
    Ok(running.len())
}

fn end_run(
    parts: &AgentParts,
    channel: &ConversationId,
    execution: i64,
    state: State,
    reason: Option<Reason>,
) -> Result<Option<Ring>, DbError> {
    let (now, channel) = (parts.conversations.now(), channel.clone());
    let told_of = parts.config.working_memory.enabled;
    parts.conversations.db().write(move |connection| {
        let (recorded, told) = (
            reason.as_ref().map(|reason| reason.recorded.as_str()),
            reason.as_ref().map(|reason| reason.told),
        );
        let ended = store::end(connection, execution, state, recorded, now)?;
        conversation::end_visit(connection, &channel, now)?;
        if told_of {
            event(&channel, &ended, told).insert(connection, now)?;
        }
        let Some((job, text)) = ended.job.as_ref().zip(last_words(&ended, state, told)) else {
            return Ok(None);
        };
        let target = &job.target;
        let place = Place {
            conversation: target.conversation.clone(),
            instance: target.instance.clone(),
            direct: target.direct,
            name: target.name.clone(),
        };
        let answer = conversation::say(connection, &place, &text, now)?;
        store::queued(connection, execution, answer.0)?;
        Ok(Some((place.instance, place.conversation)))
    })
}

/// What the target hears: the outcome, and plain sentences of ours where something will not come.
fn last_words(ended: &Ended, state: State, reason: Option<&str>) -> Option<String> {
    let job = ended.job.as_ref()?;
    let sentence = |key: &str| {
        let text = prompts::notice(key).replace("{job}", &job.name);
        text.replace("{reason}", reason.unwrap_or_default()).replace("{prompt}", &job.prompt)
    };
    let mut words: Vec<String> = ended.outcome.iter().cloned().collect();
    if job.timing.once && ended.outcome.is_none() && state != State::Succeeded {
        words.push(sentence("job_lost"));
    }
    if ended.switched_off {
        words.push(sentence("job_switched_off"));
    }
    (!words.is_empty()).then(|| words.join("\n\n"))
}

/// Told of as happening where the job reports to, with the discretion of that place.
fn event(channel: &ConversationId, ended: &Ended, reason: Option<&str>) -> NewEvent {
    let kind = if reason.is_some() { EventKind::Error } else { EventKind::CronExecuted };
    let task = ended.job.as_ref().map_or(channel.as_str(), |job| job.prompt.as_str());
    let words = reason.or(ended.outcome.as_deref()).unwrap_or(prompts::notice("job_silent"));
    let target = ended.job.as_ref().map(|job| &job.target);
    NewEvent {
        conversation: Some(target.map_or(channel, |target| &target.conversation).clone()),
        direct: target.is_none_or(|target| target.direct),
        ..NewEvent::of_task(kind, task, words)
    }
}
