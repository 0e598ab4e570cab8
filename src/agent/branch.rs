//! The branch: a fork of the channel's history that thinks with memory tools and leaves one
//! conclusion behind.

use std::sync::OnceLock;

use rig_agent::run::{AgentRun, RunSpec};
use rig_core::completion::{Message, ToolDefinition};
use serde_json::json;

use super::driver::{Conduct, Counts, Driver, Ended};
use super::job::Job;
use super::journal::{RunJournal, beginning};
use super::link::{Link, ProcessDesk};
use super::resume::{self, Onward, leave, stays};
use super::room::{self, Room, Trim};
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
use crate::tools::{
    Tool, channel_recall, memory_delete, memory_recall, memory_save, task_create, task_list, task_update,
    worker_inspect,
};

pub(super) fn run(parts: &AgentParts, job: &Job, description: &str, origin: &Origin, link: &Link<'_>) -> How {
    let number = job.process.number;
    let mut journal = RunJournal::new(&parts.conversations, number);
    let fork = &origin.fork;
    journal.add(
        Step::Start,
        json!({
            "kind": "branch", "description": description, "turn": origin.turn,
            "summaries": *fork.summaries, "lines": fork.lines, "words": *fork.words,
        }),
    );
    let start = journal.take();
    let begun = persist(link.cancel, || {
        let (conversation, answers) = (&job.place.conversation, &origin.answers);
        let also = beginning(start.clone(), None);
        parts.conversations.begin_branch_and(number, conversation, description, answers, also)
    });
    if begun != How::Finished {
        return begun;
    }
    let history = match forked(parts, job, fork) {
        Ok(history) => history,
        Err(error) => {
            log::error!("a branch could not read its history: {error}");
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    let task = history.len();
    let onward = Onward { prompt: Message::user(description), recorded: None };
    let driver = match driver(parts, job, link, journal) {
        Ok(driver) => driver,
        Err(how) => return how,
    };
    think(parts, job, link, driver, history, task, onward)
}

/// Goes on with a branch that was cut off.
pub(super) fn go_on(parts: &AgentParts, job: &Job, description: &str, link: &Link<'_>) -> How {
    let read = resume::read(parts, job, description);
    let (mut run, onward) = match read.map(|mut run| (Onward::of(&mut run), run)) {
        Ok((Some(onward), run)) => (run, onward),
        Ok((None, _)) => return close(parts, job, prompts::notice("interrupted"), link),
        Err(error) => {
            log::error!("{} cannot go on: {error}", job.process);
            return close(parts, job, prompts::notice("interrupted"), link);
        }
    };
    let mut journal = RunJournal::after(&parts.conversations, job.process.number, run.next);
    journal.add(Step::Resume, json!({}));
    let mut driver = match driver(parts, job, link, journal) {
        Ok(driver) => driver,
        Err(how) => return how,
    };
    driver.counts.model_calls = run.counts.model_calls;
    driver.counts.tool_calls = run.counts.tool_calls;
    driver.toolbox.remember(resume::called(&run.history));
    let history = std::mem::take(&mut run.history);
    think(parts, job, link, driver, history, run.task, onward)
}

fn driver<'a>(
    parts: &AgentParts,
    job: &Job,
    link: &'a Link<'a>,
    journal: RunJournal<'a>,
) -> Result<Driver<'a>, How> {
    let memory_mode = match parts.settings(&job.place) {
        Ok(settings) => settings.memory_mode,
        Err(error) => {
            log::error!("a branch could not read what holds in its conversation: {error}");
            return Err(close(parts, job, prompts::notice(error.kind().notice()), link));
        }
    };
    let limits = &parts.config.limits;
    Ok(Driver {
        link,
        model: parts.llm.model_for(&parts.config.routing, ProcessKind::Branch),
        toolbox: Toolbox::new(tools(parts, job, memory_mode), definitions(memory_mode)),
        desk: ProcessDesk::new(link, Origin::default()),
        journal,
        spec: RunSpec {
            preamble: Some(parts.prompts.branch()),
            max_turns: Some(limits.branch_max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: limits.branch_max_turns, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Branch)),
    })
}

fn think(
    parts: &AgentParts,
    job: &Job,
    link: &Link<'_>,
    mut driver: Driver<'_>,
    history: Vec<Message>,
    task: usize,
    onward: Onward,
) -> How {
    let fixed = room::fixed_tokens(driver.spec.preamble.as_deref(), driver.toolbox.definitions());
    let mut conduct = Thinking { room: Room::new(parts, ProcessKind::Branch, fixed, task) };
    let (ended, run) = driver.drive_on(onward.prompt, history, onward.recorded, &mut conduct);
    if stays(job, &ended, link) {
        return leave(parts, &mut driver);
    }
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
pub(super) fn forked(parts: &AgentParts, job: &Job, fork: &Fork) -> Result<Vec<Message>, DbError> {
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

struct Thinking<'a> {
    room: Room<'a>,
}

impl Conduct for Thinking<'_> {
    fn before_model(&mut self, messages: &[&Message]) -> Option<Trim> {
        self.room.preflight(messages)
    }

    fn too_long(&mut self, messages: &[&Message]) -> Option<Trim> {
        self.room.overflow(messages)
    }
}

/// See [`Toolbox::new`]: with all of the memory, what reads it, none of it.
static DEFINITIONS: [OnceLock<Vec<ToolDefinition>>; 3] = [const { OnceLock::new() }; 3];

fn definitions(memory_mode: MemoryMode) -> &'static OnceLock<Vec<ToolDefinition>> {
    match memory_mode {
        MemoryMode::Full => &DEFINITIONS[0],
        MemoryMode::Ambient => &DEFINITIONS[1],
        MemoryMode::Off => &DEFINITIONS[2],
    }
}

pub(super) fn tools(parts: &AgentParts, job: &Job, memory_mode: MemoryMode) -> Vec<Box<dyn Tool>> {
    let conversations = &parts.conversations;
    let (board, place) = (parts.tasks(), job.place.clone());
    let mut tools = memory_tools(parts, job, memory_mode);
    tools.push(Box::new(channel_recall::ChannelRecall::new(
        conversations.clone(),
        job.place.conversation.clone(),
    )));
    tools.push(Box::new(worker_inspect::WorkerInspect::new(
        conversations.clone(),
        job.place.conversation.clone(),
    )));
    tools.push(Box::new(task_create::TaskCreate::new(board.clone(), job.process, place)));
    tools.push(Box::new(task_list::TaskList::new(board.clone())));
    tools.push(Box::new(task_update::TaskUpdate::new(board, job.process)));
    tools
}

/// What a process of this conversation may do with the memory.
pub(super) fn memory_tools(parts: &AgentParts, job: &Job, memory_mode: MemoryMode) -> Vec<Box<dyn Tool>> {
    let origin = MemoryOrigin { conversation: job.place.conversation.clone(), process: job.process };
    let mut tools: Vec<Box<dyn Tool>> = Vec::new();
    if memory_mode.writes() {
        let save = memory_save::MemorySave::new(parts.memory.clone(), origin.clone());
        tools.push(Box::new(save.with_event(happening::memory_saved(parts, job))));
    }
    if memory_mode.reads() {
        tools.push(Box::new(memory_recall::MemoryRecall::new(parts.memory.clone())));
    }
    if memory_mode.writes() {
        tools.push(Box::new(memory_delete::MemoryDelete::new(parts.memory.clone(), origin)));
    }
    tools
}
