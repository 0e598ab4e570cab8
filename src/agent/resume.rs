//! Runs that a crash or a stop has cut off: which of them go on after the next start, and from where.
//!
//! A run goes on when its journal tells where it was: its last reply is whole, and no call of a tool was
//! begun that changes something and has no result, because nobody knows what became of it. It goes on a few
//! times only, so that a run which brings the daemon down does not do so for ever. All others are told as
//! interrupted, once. A turn is not gone on with; its message is still unanswered and starts another.

use rig_core::completion::{CompletionResponse, Message};
use rig_core::message::AssistantContent;
use serde_json::Value;

use super::AgentParts;
use super::branch::new_words;
use super::driver::{Driver, Ended};
use super::job::{Job, Work};
use super::link::Link;
use super::past::Past;
use super::rebuild::{RebuildError, Rebuilt, rebuild};
use crate::conversation::{self, CutOff, Record, SCHEDULED, Step};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::error::{Fault, Kind};
use crate::event::{How, StopReason};
use crate::id::ProcessKind;
use crate::tasks;

/// Times that one run goes on. It may be what brings the daemon down.
pub const CONTINUATIONS_MAX: u32 = 3;

/// Conversations that are runs of jobs.
const JOBS: &str = "cron:";

/// Tools of branches and workers that may be called again when nobody knows whether they were.
const REPEATABLE: [&str; 7] = [
    "memory_recall",
    "channel_recall",
    "worker_inspect",
    "task_list",
    "file_read",
    "file_list",
    "set_status",
];

#[derive(Debug, thiserror::Error)]
pub(super) enum ResumeError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("{0}")]
    Journal(#[from] RebuildError),
    #[error("there is no record of how it began")]
    NoStart,
}

impl Fault for ResumeError {
    fn kind(&self) -> Kind {
        match self {
            ResumeError::Database(error) => error.kind(),
            ResumeError::Journal(error) => error.kind(),
            ResumeError::NoStart => Kind::Invalid,
        }
    }
}

/// Whether this run goes on.
pub(super) fn goes_on(connection: &Connection, run: &CutOff) -> Result<bool, DbError> {
    // What a job has started ends with its run, and a task is given to another worker.
    let is_of_job = run.conversation.as_str().starts_with(JOBS);
    if is_of_job || (run.continuations >= CONTINUATIONS_MAX && !run.waiting) {
        return Ok(false);
    }
    if run.process.kind == ProcessKind::Worker && tasks::has_attempt(connection, run.process.number)? {
        return Ok(false);
    }
    let records = match conversation::records_of(connection, run.process.number) {
        Err(DbError::Corrupt(_)) => return Ok(false),
        records => records?,
    };
    let Some(start) = start(&records) else { return Ok(false) };
    // A turn that did not come to its end begins anew, and so does what it asks for.
    match start["turn"].as_u64() {
        Some(turn) if !conversation::has_ended(connection, turn)? => return Ok(false),
        _ => {}
    }
    let rebuilt = rebuild(Vec::new(), Message::user(""), &records);
    Ok(rebuilt.is_ok_and(|rebuilt| can_go_on(&rebuilt, run.waiting)))
}

fn can_go_on(run: &Rebuilt, waiting: bool) -> bool {
    let mut unanswered = run.unanswered();
    let safe = unanswered.all(|call| REPEATABLE.contains(&call.function.name.as_str()));
    !run.ended && run.results.is_empty() && run.waits == waiting && safe
}

/// What a run was started with.
fn start(records: &[Record]) -> Option<&Value> {
    let first = records.first().filter(|record| record.step == Step::Start && record.number == 0)?;
    Some(&first.payload)
}

/// A run as it was when it was cut off.
pub(super) fn read(parts: &AgentParts, job: &Job, prompt: &str) -> Result<Rebuilt, ResumeError> {
    let records = parts.conversations.records(job.process.number)?;
    let start = start(&records).ok_or(ResumeError::NoStart)?;
    let mut before = Past::read(start).messages(&parts.conversations, &job.place.conversation)?;
    before.extend(new_words(start["words"].as_str().unwrap_or_default()));
    Ok(rebuild(before, Message::user(prompt), &records)?)
}

/// The type of the task that the run was started with, if it had one.
pub(super) fn task_type(parts: &AgentParts, job: &Job) -> Option<String> {
    let records = parts.conversations.records(job.process.number).ok()?;
    start(&records)?["task_type"].as_str().map(str::to_owned)
}

/// What the run has used up and read counts for the driver that goes on with it.
pub(super) fn take_up(driver: &mut Driver<'_>, run: &Rebuilt) {
    driver.counts.model_calls = run.counts.model_calls;
    driver.counts.tool_calls = run.counts.tool_calls;
    driver.toolbox.remember(&mut called(&run.history));
    if run.outside {
        driver.toolbox.read_outside();
    }
}

/// Where to go on: the message that the model is to answer or has answered.
pub(super) struct Onward {
    pub(super) prompt: Message,
    pub(super) recorded: Option<CompletionResponse>,
}

impl Onward {
    /// Takes both from the run; the rest of its history stays.
    pub(super) fn of(run: &mut Rebuilt) -> Option<Self> {
        let prompt = run.history.pop()?;
        let mut recorded = run.pending.take();
        if let Some(reply) = &mut recorded {
            reply.raw = Value::Null;
        }
        Some(Self { prompt, recorded })
    }
}

/// A run that an orderly stop cuts off goes on after the next start, as one that a crash cuts off.
pub(super) fn stays(job: &Job, ended: &Ended, link: &Link<'_>) -> bool {
    let is_stopped = matches!(ended, Ended::Cancelled) && link.stop_reason() == StopReason::Shutdown;
    is_stopped && !matches!(job.work, Work::Task { .. }) && job.place.instance.as_str() != SCHEDULED
}

/// Leaves the run as it is, with all that it has done so far on disk.
pub(super) fn leave(driver: &mut Driver<'_>) -> How {
    match driver.journal.flush_durably() {
        Ok(()) => How::Cancelled,
        Err(error) => How::Failed(error.kind(), error.to_string()),
    }
}

/// The tools that were called in these messages.
fn called(history: &[Message]) -> impl Iterator<Item = &str> {
    let said = history.iter().filter_map(|message| match message {
        Message::Assistant(said) => Some(&said.content),
        _ => None,
    });
    said.flatten().filter_map(|content| match content {
        AssistantContent::ToolCall(call) => Some(call.function.name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
