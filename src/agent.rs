//! The LLM processes: one file per kind, one [`run`] for the thread that the hub starts.

mod aloud;
mod bound_task;
mod branch;
mod channel;
mod commands;
mod compactor;
mod company;
mod cortex;
mod delegation;
mod digest;
mod driver;
mod happening;
mod ingestion;
mod job;
mod journal;
mod link;
mod outside;
mod past;
mod prompt;
mod pulse;
mod reading;
mod rebuild;
mod recent;
mod replay;
mod resume;
mod room;
mod schedule;
mod stage;
mod status;
mod toolbox;
mod transcript;
mod worker;
mod worker_log;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

pub use cortex::introduce;
pub use delegation::{PostNews, carry, has_post};
pub use job::{Chat, Job, RunEnd, Running, Troubles, Turn, Work};
pub use link::Link;
pub use prompt::AgentPrompts;
pub use pulse::Pulse;
pub use rebuild::{RebuildError, Rebuilt, RebuiltCounts, rebuild};
pub use replay::{ReplayError, Replayed, Verdict, replay};
pub use resume::CONTINUATIONS_MAX;
pub use schedule::{Look, Run, end_cut_off_runs, look};
pub use stage::Stage;
pub use worker::WorkerState;

use crate::config::{AgentConfig, ChannelSettings, LimitsConfig, RoutingConfig, WorkingMemoryConfig};
use crate::conversation::{self, Conversations, Place, Recovered};
use crate::db::DbError;
use crate::error::Fault;
use crate::event::How;
use crate::exec::Sandbox;
use crate::id::ProcessKind;
use crate::llm::LlmManager;
use crate::memory::MemoryStore;
use crate::prompts;
use crate::tasks::{self, Tasks};
use crate::thread::Cancel;
use crate::tools::workspace::Workspace;

/// First wait before the last state of a process is written again; doubles up to the second.
const PERSIST_RETRY_BASE: Duration = Duration::from_secs(1);
const PERSIST_RETRY_MAX: Duration = Duration::from_secs(60);

/// Processes between two looks for rows that are older than `keep_days`.
const TURNS_PER_TIDYING: u64 = 64;

/// What the processes of one agent are made of; shared by all of them.
pub struct AgentParts {
    /// The agent's resolved values; a process sees them as they were at its start.
    pub config: AgentConfig,
    pub prompts: AgentPrompts,
    pub conversations: Conversations,
    pub memory: MemoryStore,
    pub llm: Arc<LlmManager>,
    pub workspace: Arc<Workspace>,
    pub sandbox: Arc<Sandbox>,
}

impl AgentParts {
    /// What holds in a conversation now: what is set for it, else for its binding, else for the agent.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn settings(&self, place: &Place) -> Result<ChannelSettings, DbError> {
        let set = self.conversations.settings(&place.conversation)?;
        let known = |model: &str| self.llm.knows(model, &place.conversation);
        let configured = self.config.channel_of(&place.instance, &place.conversation);
        Ok(set.with_models(known).or(configured.with_models(known)).into())
    }

    /// The models of the processes of a conversation.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn routing(&self, place: &Place) -> Result<Cow<'_, RoutingConfig>, DbError> {
        Ok(self.config.routing.with(&self.settings(place)?.models))
    }

    /// The board, which lies in the agent's database too.
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.conversations.db().clone(), self.conversations.clock().clone())
    }
}

/// After a start: sets right what a crash or a stop cut off, and tells what goes on and what there is to do.
///
/// # Errors
/// The database cannot be read or written.
pub fn recover(
    conversations: &Conversations,
    limits: &LimitsConfig,
    working_memory: &WorkingMemoryConfig,
) -> Result<Recovered, DbError> {
    let (recorded, retries) = (working_memory.enabled, bound_task::retries(limits));
    conversations.recover_and(prompts::notice("interrupted"), move |connection, cut_off, now| {
        let mut go_on = Vec::new();
        for run in cut_off {
            if resume::goes_on(connection, run)? {
                go_on.push(run.process);
            } else if recorded {
                happening::cut_off(run).insert(connection, now)?;
            }
        }
        Ok(conversation::Verdict { go_on, quiet: tasks::interrupt(connection, retries, now)? })
    })
}

/// After a start: conversations from which memories are still to be taken, and after which time.
///
/// # Errors
/// The database cannot be read.
pub fn unremembered(parts: &AgentParts) -> Result<Vec<(Place, Duration)>, DbError> {
    compactor::unremembered(parts)
}

/// Runs one process to its end. The terminal state is in the database when this returns, except
/// for [`How::Failed`] and [`How::Cancelled`] of a channel turn and of the compactor, which change nothing.
pub fn run(parts: &AgentParts, job: &Job, link: &Link<'_>) -> How {
    match &job.work {
        Work::Turn(turn) => {
            let how = channel::turn(parts, job, turn, link);
            // The channel of a job is gone when its run is over.
            if matches!(how, How::Turned { .. }) && turn.execution.is_none() {
                compactor::check(parts, job, link);
            }
            if job.process.number.is_multiple_of(TURNS_PER_TIDYING)
                && let Err(error) = tidy(parts)
            {
                log::warn!("old rows were not deleted: {error}");
            }
            how
        }
        Work::Apology { kind, single } => channel::apologise(parts, job, *kind, *single),
        Work::Commands { running, troubles, apology } => {
            commands::run(parts, job, (running, troubles), *apology, link)
        }
        Work::Branch { description, origin } => branch::run(parts, job, description, origin, link),
        Work::Worker { task, interactive, task_type, origin } => {
            worker::run(parts, job, (task, task_type.as_deref()), *interactive, origin, link)
        }
        Work::GoOn { what, interactive, waits, .. } => match job.process.kind {
            ProcessKind::Worker => worker::go_on(parts, job, what, *interactive, *waits, link),
            _ => branch::go_on(parts, job, what, link),
        },
        Work::Task { number, revision, what } => worker::run_task(parts, job, *number, *revision, what, link),
        Work::Compaction { tries } => compactor::run(parts, job, *tries, link),
        Work::Extraction => compactor::extract(parts, job, link),
        Work::Persistence => compactor::remember(parts, job, link),
        Work::Chunk { file } => ingestion::run(parts, job, file, link),
        Work::RunEnd { execution, end } => schedule::finish(parts, job, *execution, end, link),
        Work::CortexChat(chat) => cortex::chat::run(parts, job, chat, link),
        Work::Cortex { errand, notes } => cortex::run(parts, job, *errand, notes, link),
    }
}

fn tidy(parts: &AgentParts) -> Result<(), DbError> {
    parts.conversations.forget_old(parts.config.limits.keep)?;
    let before = parts.conversations.now().minus(parts.config.working_memory.retention);
    parts.working_memory().forget_old(before)
}

/// Writes the end of a branch or worker whose thread panicked, so that its channel hears of it.
pub fn close_after_panic(parts: &AgentParts, job: &Job, link: &Link<'_>) -> How {
    let sentence = prompts::notice("process_broke");
    match job.process.kind {
        ProcessKind::Channel | ProcessKind::Delegation => How::Panicked(sentence.to_owned()),
        ProcessKind::Cortex => match &job.work {
            Work::CortexChat(chat) => cortex::chat::close(parts, job, chat, sentence, link),
            _ => How::Panicked(sentence.to_owned()),
        },
        ProcessKind::Branch => branch::close(parts, job, sentence, link),
        ProcessKind::Worker => worker::close(parts, job, sentence, link),
        ProcessKind::Compactor => match &job.work {
            Work::Extraction => compactor::close_extraction(parts, job, sentence),
            Work::Persistence => compactor::close_remembering(parts, job, sentence),
            _ => How::Panicked(sentence.to_owned()),
        },
        ProcessKind::Ingestion => ingestion::close(parts, job, sentence, link),
    }
}

/// Writes a terminal state, again and again while the disk is full or busy, until the daemon stops.
fn persist(cancel: &Cancel, mut write: impl FnMut() -> Result<(), DbError>) -> How {
    let mut wait = PERSIST_RETRY_BASE;
    loop {
        match write() {
            Ok(()) => return How::Finished,
            Err(error) if error.kind().is_retryable() && !cancel.wait(wait) => {
                log::warn!("the end of a process waits to be stored: {error}");
                wait = (wait * 2).min(PERSIST_RETRY_MAX);
            }
            Err(error) => return How::Failed(error.kind(), error.to_string()),
        }
    }
}
