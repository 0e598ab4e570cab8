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
use super::past::Past;
use super::toolbox::Toolbox;
use super::worker::with_notice;
use super::{AgentParts, happening, persist, transcript};
use crate::config::MemoryMode;
use crate::conversation::{BranchEnd, Record};
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
    let (past, mut history) = match forked(parts, job, &origin.fork) {
        Ok(forked) => forked,
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
    let start = json!({
        "kind": "branch",
        "conversation": job.place.conversation.as_str(),
        "description": description,
        "words": *origin.fork.words,
    });
    let limits = &parts.config.limits;
    let mut driver = Driver {
        link,
        model: Box::new(parts.llm.model_for(&parts.config.routing, ProcessKind::Branch)),
        toolbox: Box::new(toolbox),
        desk: ProcessDesk::new(link, Origin::default()),
        journal: RunJournal::new(&parts.conversations, number),
        spec: RunSpec {
            preamble: Some(parts.prompts.branch()),
            max_turns: Some(limits.branch_max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: limits.branch_max_turns, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Branch)),
    };
    driver.begin(start, &past, &history);
    history.extend(new_words(&origin.fork.words));
    let mut end = think(&mut driver, description, history, &mut Thinking);
    end.conclusion = parts.llm.scrubber().hide_keys(&end.conclusion).to_string();
    if let Err(error) = parts.memory.maintain(parts.conversations.now()) {
        log::warn!("the memory index was not tended: {error}");
    }
    match parts.memory.tend(parts.conversations.now()) {
        Ok(None) => {}
        Ok(Some(tended)) => log::debug!("memories tended: {tended:?}"),
        Err(error) => log::warn!("the memories were not tended: {error}"),
    }
    self::end(parts, job, end, driver.journal.take(), link.cancel)
}

/// The run of a branch, from what it was started with to its conclusion.
pub(super) fn think(
    driver: &mut Driver<'_>,
    description: &str,
    history: Vec<Message>,
    conduct: &mut dyn Conduct,
) -> BranchEnd {
    let (ended, run) = driver.drive(Message::user(description), history, conduct);
    let history = run.full_history();
    let (status, conclusion) = conclusion(ended, run, driver.link);
    driver.end(json!({ "status": status }), &json!({ "status": status, "conclusion": conclusion }), &history);
    BranchEnd { status, conclusion, tool_calls: driver.counts.tool_calls }
}

/// What the turn saw that asked for this branch, but for its new words.
fn forked(parts: &AgentParts, job: &Job, fork: &Fork) -> Result<(Past, Vec<Message>), DbError> {
    let past = Past::of(&parts.conversations.summaries(&fork.summaries)?, fork.lines);
    let history = past.messages(&parts.conversations, &job.place.conversation)?;
    Ok((past, history))
}

/// The new words of the turn as the model reads them.
pub(super) fn new_words(words: &str) -> Option<Message> {
    (!words.is_empty()).then(|| Message::user(words))
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

pub(super) struct Thinking;

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
