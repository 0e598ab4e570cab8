//! The branch: a fork of the channel's history that thinks with memory tools and leaves one
//! conclusion behind.

use std::sync::OnceLock;

use rig_agent::run::{AgentRun, RunSpec};
use rig_core::completion::{Message, ToolDefinition};
use serde_json::json;

use super::driver::{Conduct, Counts, Driver, Ended};
use super::job::Job;
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::toolbox::Toolbox;
use super::worker::with_notice;
use super::{AgentParts, happening, persist, prompt, transcript};
use crate::config::MemoryMode;
use crate::conversation::{BranchEnd, Record, Step};
use crate::db::DbError;
use crate::error::Fault;
use crate::event::{Fork, How, Origin, StopReason};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::memory::Origin as MemoryOrigin;
use crate::prompts;
use crate::thread::Cancel;
use crate::tools::{self, Tool};

pub(super) fn run(parts: &AgentParts, job: &Job, description: &str, origin: &Origin, link: &Link<'_>) -> How {
    let number = job.process.number;
    let begun = persist(link.cancel, || {
        parts.conversations.begin_branch(number, &job.place.conversation, description, &origin.answers)
    });
    if begun != How::Finished {
        return begun;
    }
    let history = match forked(parts, job, &origin.fork) {
        Ok(history) => history,
        Err(error) => {
            log::error!("a branch could not read its history: {error}");
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    let memory_mode = match parts.settings(&job.place) {
        Ok(settings) => settings.memory_mode,
        Err(error) => {
            log::error!("a branch could not read what holds in its conversation: {error}");
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    let toolbox = Toolbox::new(branch_tools(parts, job, memory_mode), definitions(memory_mode));
    let mut journal = RunJournal::new(&parts.conversations, number);
    journal.add(
        Step::Start,
        json!({ "kind": "branch", "description": description, "summaries": *origin.fork.summaries, "lines": origin.fork.lines, "words": *origin.fork.words }),
    );
    let limits = &parts.config.limits;
    let mut driver = Driver {
        link,
        model: parts.llm.model_for(&parts.config.routing, ProcessKind::Branch),
        toolbox,
        desk: ProcessDesk::new(link, Origin::default()),
        journal,
        spec: RunSpec {
            preamble: Some(parts.prompts.branch()),
            max_turns: Some(limits.branch_max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: limits.branch_max_turns, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Branch)),
    };
    let (ended, run) = driver.drive(Message::user(description), history, &mut Thinking);
    let (status, conclusion) = conclusion(ended, run, link);
    let conclusion = parts.llm.scrubber().hide_keys(&conclusion);
    driver.journal.add(Step::End, json!({ "status": status, "model_calls": driver.counts.model_calls }));
    if let Err(error) = parts.memory.maintain(parts.conversations.now()) {
        log::warn!("the memory index was not tended: {error}");
    }
    match parts.memory.tend(parts.conversations.now()) {
        Ok(None) => {}
        Ok(Some(tended)) => log::debug!("memories tended: {tended:?}"),
        Err(error) => log::warn!("the memories were not tended: {error}"),
    }
    end(
        parts,
        job,
        BranchEnd { status, conclusion, tool_calls: driver.counts.tool_calls },
        driver.journal.take(),
        link.cancel,
    )
}

/// What the turn saw that asked for this branch.
fn forked(parts: &AgentParts, job: &Job, fork: &Fork) -> Result<Vec<Message>, DbError> {
    let lines = match fork.lines {
        Some((first, last)) => parts.conversations.lines(&job.place.conversation, first, last)?,
        None => Vec::new(),
    };
    let summaries = parts.conversations.summaries(&fork.summaries)?;
    let words = (!fork.words.is_empty()).then(|| Message::user(&*fork.words));
    Ok(summaries.iter().map(prompt::summary).chain(lines.iter().map(prompt::line)).chain(words).collect())
}

pub(super) fn close(parts: &AgentParts, job: &Job, sentence: &str, link: &Link<'_>) -> How {
    let conclusion = sentence.to_owned();
    end(parts, job, BranchEnd { status: "failed", conclusion, tool_calls: 0 }, Vec::new(), link.cancel)
}

fn end(parts: &AgentParts, job: &Job, end: BranchEnd, records: Vec<Record>, cancel: &Cancel) -> How {
    persist(cancel, || {
        let event = happening::note(happening::branch_ended(parts, job, &end));
        parts.conversations.end_branch(job.process.number, end.clone(), records.clone(), event)
    })
}

fn conclusion(ended: Ended, run: AgentRun, link: &Link<'_>) -> (&'static str, String) {
    match ended {
        Ended::Text(text) if !text.trim().is_empty() => ("done", text.trim().to_owned()),
        Ended::Text(_) | Ended::Tools => ("failed", prompts::notice("branch_empty").to_owned()),
        Ended::Limit => {
            let last = transcript::last_words(&run.full_history());
            ("done", last.unwrap_or_else(|| prompts::notice("branch_empty").to_owned()))
        }
        Ended::Repeating => {
            let last = transcript::last_words(&run.full_history()).unwrap_or_default();
            ("failed", with_notice("branch_loop", &last))
        }
        Ended::Cancelled => match link.stop_reason() {
            StopReason::Timeout => ("failed", prompts::notice("branch_timeout").to_owned()),
            StopReason::Asked(reason) => {
                ("cancelled", format!("{} {reason}", prompts::notice("process_cancelled")).trim().to_owned())
            }
            StopReason::Shutdown => ("cancelled", prompts::notice("interrupted").to_owned()),
        },
        Ended::Failed(kind, reason) => {
            log::error!("a branch failed: {reason}");
            ("failed", prompts::notice(kind.notice()).to_owned())
        }
    }
}

struct Thinking;

impl Conduct for Thinking {}

/// See [`Toolbox::new`]: with all of the memory, what reads it, none of it.
static DEFINITIONS: [OnceLock<Vec<ToolDefinition>>; 3] = [const { OnceLock::new() }; 3];

fn definitions(memory_mode: MemoryMode) -> &'static OnceLock<Vec<ToolDefinition>> {
    match memory_mode {
        MemoryMode::Full => &DEFINITIONS[0],
        MemoryMode::Ambient => &DEFINITIONS[1],
        MemoryMode::Off => &DEFINITIONS[2],
    }
}

fn branch_tools(parts: &AgentParts, job: &Job, memory_mode: MemoryMode) -> Vec<Box<dyn Tool>> {
    let conversations = &parts.conversations;
    let (board, place) = (parts.tasks(), job.place.clone());
    let mut tools = memory_tools(parts, job, memory_mode);
    tools.push(Box::new(tools::channel_recall::ChannelRecall::new(
        conversations.clone(),
        job.place.conversation.clone(),
    )));
    tools.push(Box::new(tools::worker_inspect::WorkerInspect::new(
        conversations.clone(),
        job.place.conversation.clone(),
    )));
    tools.push(Box::new(tools::task_create::TaskCreate::new(board.clone(), job.process, place)));
    tools.push(Box::new(tools::task_list::TaskList::new(board.clone())));
    tools.push(Box::new(tools::task_update::TaskUpdate::new(board, job.process)));
    tools
}

/// What a process of this conversation may do with the memory.
pub(super) fn memory_tools(parts: &AgentParts, job: &Job, memory_mode: MemoryMode) -> Vec<Box<dyn Tool>> {
    let origin = MemoryOrigin { conversation: job.place.conversation.clone(), process: job.process };
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    if memory_mode.writes() {
        let save = tools::memory_save::MemorySave::new(parts.memory.clone(), origin.clone());
        tools.push(Box::new(save.with_event(happening::memory_saved(parts, job))));
    }
    if memory_mode.reads() {
        tools.push(Box::new(tools::memory_recall::MemoryRecall::new(parts.memory.clone())));
    }
    if memory_mode.writes() {
        tools.push(Box::new(tools::memory_delete::MemoryDelete::new(parts.memory.clone(), origin)));
    }
    tools
}
