//! What processes leave in the working memory: the events that are written together with their starts
//! and ends. A turn that only answers leaves none.

use super::AgentParts;
use super::job::{Job, Work};
use crate::clock::Timestamp;
use crate::conversation::{BranchEnd, CutOff, Outcome, Started, WorkerEnd};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::error::Kind;
use crate::id::ProcessKind;
use crate::prompts;
use crate::working_memory::{Asked, EventKind, NewEvent};

/// Writes the event, if there is one, in the transaction that is handed in.
pub(super) fn note(
    event: Option<NewEvent>,
) -> impl FnOnce(&Connection, Timestamp) -> Result<(), DbError> + Send + 'static {
    move |connection, now| event.map_or(Ok(()), |event| event.insert(connection, now))
}

pub(super) fn worker_spawned(parts: &AgentParts, job: &Job) -> Option<NewEvent> {
    placed(parts, job, NewEvent::new(EventKind::WorkerSpawned, job.work.task()))
}

/// The same, from the turn that has started it.
pub(super) fn spawned(parts: &AgentParts, job: &Job, started: &Started) -> Option<NewEvent> {
    if started.process.kind != ProcessKind::Worker {
        return None;
    }
    let event = placed(parts, job, NewEvent::new(EventKind::WorkerSpawned, &started.task))?;
    let asked = Asked { messages: started.answers.clone(), ..event.asked };
    let message = started.answers.last().cloned();
    Some(NewEvent { run: Some(started.process), message, asked, ..event })
}

pub(super) fn branch_ended(parts: &AgentParts, job: &Job, end: &BranchEnd) -> Option<NewEvent> {
    let kind = if end.status == "failed" { EventKind::Error } else { EventKind::BranchCompleted };
    placed(parts, job, NewEvent::of_task(kind, job.work.task(), &end.conclusion))
}

pub(super) fn worker_ended(parts: &AgentParts, job: &Job, end: &WorkerEnd) -> Option<NewEvent> {
    let kind = match end.outcome {
        Outcome::Success | Outcome::Partial | Outcome::Cancelled => EventKind::WorkerCompleted,
        Outcome::Failed | Outcome::Timeout => EventKind::Error,
    };
    // The worker's own sentence on a success; else the result begins with what went wrong.
    let words = end.summary.as_ref().filter(|_| end.outcome == Outcome::Success).unwrap_or(&end.result);
    placed(parts, job, NewEvent::of_task(kind, job.work.task(), words))
}

/// A turn that could not be answered; one that somebody stopped is none.
pub(super) fn turn_failed(
    parts: &AgentParts,
    job: &Job,
    kind: Kind,
    messages: Vec<String>,
) -> Option<NewEvent> {
    if kind == Kind::Cancelled {
        return None;
    }
    let event = NewEvent::new(EventKind::Error, prompts::notice(kind.notice()));
    let event = placed(parts, job, event)?;
    let asked = Asked { messages, ..event.asked };
    Some(NewEvent { message: asked.messages.last().cloned(), asked, ..event })
}

/// For a memory that this branch saves; the text comes with it.
pub(super) fn memory_saved(parts: &AgentParts, job: &Job) -> Option<NewEvent> {
    placed(parts, job, NewEvent::new(EventKind::MemorySaved, ""))
}

/// A run that had no end when the daemon stopped.
pub(super) fn cut_off(run: &CutOff) -> NewEvent {
    NewEvent {
        conversation: Some(run.conversation.clone()),
        direct: run.direct,
        run: Some(run.process),
        message: run.answers.last().cloned(),
        asked: Asked { messages: run.answers.clone(), ..Asked::default() },
        ..NewEvent::of_task(EventKind::Error, &run.task, prompts::notice("interrupted"))
    }
}

fn placed(parts: &AgentParts, job: &Job, event: NewEvent) -> Option<NewEvent> {
    parts.config.working_memory.enabled.then(|| NewEvent {
        conversation: Some(job.place.conversation.clone()),
        direct: job.place.direct,
        run: Some(job.process),
        message: job.work.answers().last().cloned(),
        asked: Asked { instance: Some(job.place.instance.clone()), messages: job.work.answers().to_vec() },
        ..event
    })
}

impl Work {
    pub(super) fn task(&self) -> &str {
        match self {
            Work::Branch { description: task, .. } | Work::Worker { task, .. } => task,
            Work::Task { what, .. } | Work::GoOn { what, .. } => what,
            Work::Turn(_)
            | Work::Apology { .. }
            | Work::Commands { .. }
            | Work::RunEnd { .. }
            | Work::Chunk { .. }
            | Work::Cortex { .. }
            | Work::CortexChat(_)
            | Work::Compaction { .. }
            | Work::Extraction
            | Work::Persistence => "",
        }
    }

    fn answers(&self) -> &[String] {
        match self {
            Work::Branch { origin, .. } | Work::Worker { origin, .. } => &origin.answers,
            Work::GoOn { answers, .. } => answers,
            Work::Turn(_)
            | Work::Apology { .. }
            | Work::Commands { .. }
            | Work::Task { .. }
            | Work::RunEnd { .. }
            | Work::Chunk { .. }
            | Work::Cortex { .. }
            | Work::CortexChat(_)
            | Work::Compaction { .. }
            | Work::Extraction
            | Work::Persistence => &[],
        }
    }
}
