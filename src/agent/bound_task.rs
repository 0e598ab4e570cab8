//! What is different for a worker that is bound to a task of the board: its words, its tools, and that
//! its end moves the task on.

use serde_json::json;

use super::AgentParts;
use super::job::Job;
use super::toolbox::Definitions;
use super::worker::{with_notice, worker_tools};
use crate::config::LimitsConfig;
use crate::conversation::{Outcome, WorkerEnd};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::effect::TaskNews;
use crate::prompts::{self, PromptError, Template};
use crate::tasks::{self, AttemptEnd, Conclusion, Retries, Status, Task};
use crate::text;
use crate::tools::{self, Tool};

/// Of what the attempt before has left, in bytes.
const LAST_RESULT_BYTES: usize = 2000;

/// See `Toolbox::new`.
pub(super) static DEFINITIONS: Definitions = Definitions::new();

pub(super) fn tools(parts: &AgentParts, job: &Job, task: u64) -> Vec<Box<dyn Tool>> {
    let mut all = worker_tools(parts);
    all.push(Box::new(tools::task_update::OwnTaskUpdate::new(parts.tasks(), task, job.process)));
    all
}

/// What the worker reads.
pub(super) fn prompt(task: &Task, attempts: usize) -> Result<String, PromptError> {
    let metadata = if task.metadata.is_empty() { String::new() } else { json!(task.metadata).to_string() };
    prompts::render(
        Template::Task,
        &json!({
            "number": task.number, "title": task.title, "description": task.description,
            "subtasks": task.subtasks, "metadata": metadata, "attempt": task.attempts, "attempts": attempts,
            "last_result": text::shorten(task.result.as_deref().unwrap_or_default(), LAST_RESULT_BYTES),
        }),
    )
}

/// For the transaction that ends the worker's run. The result is told when it is final: an attempt that
/// is followed by another is no news, and neither is the end of a worker whose task was taken back.
pub(super) fn conclude(
    parts: &AgentParts,
    task: u64,
    worker: u64,
    end: &WorkerEnd,
    shutdown: bool,
) -> impl FnOnce(&Connection, &mut WorkerEnd) -> Result<Vec<TaskNews>, DbError> + Send + 'static {
    let conclusion = Conclusion {
        end: attempt_end(end.outcome, shutdown),
        summary: end.summary.clone(),
        result: end.result.clone(),
        retries: retries(&parts.config.limits),
    };
    let now = parts.conversations.now();
    move |connection, end| {
        let concluded = tasks::conclude(connection, task, worker, &conclusion, now)?;
        let is_final = |task: &Task| task.status != Status::Ready && task.place.is_some();
        end.tell = concluded.task.as_ref().is_some_and(is_final);
        if concluded.task.is_some_and(|task| task.status == Status::Failed) {
            end.result = with_notice("task_gave_up", &end.result);
        }
        Ok(concluded.news)
    }
}

pub(super) fn retries(limits: &LimitsConfig) -> Retries {
    Retries { attempts: limits.task_max_attempts, pause: limits.task_retry }
}

fn attempt_end(outcome: Outcome, shutdown: bool) -> AttemptEnd {
    match outcome {
        Outcome::Success => AttemptEnd::Success,
        Outcome::Partial => AttemptEnd::Partial,
        Outcome::Failed => AttemptEnd::Failed,
        Outcome::Timeout => AttemptEnd::Timeout,
        Outcome::Cancelled if shutdown => AttemptEnd::Interrupted,
        Outcome::Cancelled => AttemptEnd::Cancelled,
    }
}
