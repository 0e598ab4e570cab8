//! The branch: a fork of the channel's history that thinks with memory tools and leaves one
//! conclusion behind.

use rig_agent::run::{AgentRun, RunSpec};
use rig_core::completion::Message;
use serde_json::json;

use super::driver::{Conduct, Counts, Driver, Ended};
use super::job::Job;
use super::journal::{RunJournal, beginning};
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::rebuild::Rebuilt;
use super::resume::{self, Onward, leave, stays};
use super::room::{self, Room, Trim};
use super::toolbox::{Definitions, Toolbox};
use super::worker::with_notice;
use super::{AgentParts, cortex, happening, persist, transcript};
use crate::config::{MemoryMode, RoutingConfig};
use crate::conversation::{BranchEnd, Record};
use crate::db::DbError;
use crate::error::Fault;
use crate::event::{Fork, How, Origin, StopReason};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::memory::Origin as MemoryOrigin;
use crate::prompts;
use crate::thread::Cancel;
use crate::tools::{
    Tool, channel_recall, memory_delete, memory_recall, memory_save, read_skill, task_create, task_list,
    task_update, worker_inspect,
};

pub(super) fn run(parts: &AgentParts, job: &Job, description: &str, origin: &Origin, link: &Link<'_>) -> How {
    let number = job.process.number;
    let mut prepared = prepare(parts, job, description, origin, link);
    let start = prepared.as_mut().map(|(live, _)| live.driver.journal.take()).unwrap_or_default();
    let begun = persist(link.cancel, || {
        let (conversation, answers) = (&job.place.conversation, &origin.answers);
        let also = beginning(start.clone(), None);
        parts.conversations.begin_branch_and(number, conversation, description, answers, also)
    });
    if begun != How::Finished {
        return begun;
    }
    let (live, mut history) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            log::error!("a branch could not read what it begins with: {error}");
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    history.extend(new_words(&origin.fork.words));
    let task = history.len();
    let onward = Onward { prompt: Message::user(description), recorded: None };
    finish(parts, job, live, history, task, onward)
}

/// Its driver, which has written what it is started with, and the history without the new words.
fn prepare<'a>(
    parts: &'a AgentParts,
    job: &Job,
    description: &str,
    origin: &Origin,
    link: &'a Link<'a>,
) -> Result<(Live<'a>, Vec<Message>), DbError> {
    let (past, history) = forked(parts, job, &origin.fork)?;
    let mut live = live(parts, job, link, RunJournal::new(&parts.conversations, job.process.number))?;
    let mut start = json!({
        "kind": "branch",
        "conversation": job.place.conversation.as_str(),
        "description": description,
        "turn": origin.turn,
        "words": *origin.fork.words,
    });
    if origin.fork.outside {
        start["outside"] = json!(true);
        live.driver.toolbox.read_outside();
    }
    live.driver.begin(start, &past, &history);
    Ok((live, history))
}

/// Goes on with a branch that was cut off.
pub(super) fn go_on(parts: &AgentParts, job: &Job, description: &str, link: &Link<'_>) -> How {
    let interrupted = || close(parts, job, prompts::notice("interrupted"), link);
    let mut run = match resume::read(parts, job, description) {
        Ok(run) => run,
        Err(error) => {
            log::error!("{} cannot go on: {error}", job.process);
            return interrupted();
        }
    };
    let journal = RunJournal::after(&parts.conversations, job.process.number, run.next);
    let mut live = match live(parts, job, link, journal) {
        Ok(live) => live,
        Err(error) => {
            log::error!("a branch could not read what holds in its conversation: {error}");
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    match take_up(&mut live.driver, &mut run) {
        Some(onward) => finish(parts, job, live, run.history, run.task, onward),
        None => interrupted(),
    }
}

/// A branch that was cut off goes on from where this says; `None`: from nowhere.
pub(super) fn take_up(driver: &mut Driver<'_>, run: &mut Rebuilt) -> Option<Onward> {
    resume::take_up(driver, run);
    driver.go_on(json!({}));
    Onward::of(run)
}

/// A branch of a conversation as its settings are at its start.
struct Live<'a> {
    driver: Driver<'a>,
    routing: RoutingConfig,
}

fn live<'a>(
    parts: &'a AgentParts,
    job: &Job,
    link: &'a Link<'a>,
    journal: RunJournal<'a>,
) -> Result<Live<'a>, DbError> {
    let settings = parts.settings(&job.place)?;
    let (memory_mode, routing) = (settings.memory_mode, parts.config.routing.with(&settings.models));
    let limits = &parts.config.limits;
    let model = parts.llm.model_for(&routing, ProcessKind::Branch);
    let driver = Driver {
        link,
        model: Box::new(model.paid_by(job.payer(&parts.config.id))),
        toolbox: Box::new(Toolbox::new(tools(parts, job, memory_mode), definitions(memory_mode).of(parts))),
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
    Ok(Live { driver, routing: routing.into_owned() })
}

/// Thinks to the end and writes it.
fn finish(
    parts: &AgentParts,
    job: &Job,
    Live { mut driver, routing }: Live<'_>,
    history: Vec<Message>,
    task: usize,
    onward: Onward,
) -> How {
    let link = driver.link;
    let fixed = room::fixed_tokens(driver.spec.preamble.as_deref(), driver.toolbox.definitions());
    let mut conduct = Thinking { room: Room::new(parts, (ProcessKind::Branch, routing), fixed, task) };
    let stays = |ended: &Ended| stays(job, ended, link);
    let mut end = match think(&mut driver, onward, history, &mut conduct, &stays) {
        Ok(end) => end,
        Err(how) => return how,
    };
    end.conclusion = parts.llm.scrubber().hide_keys(&end.conclusion).to_string();
    // Where a cortex looks after the memories, it does so when this has ended.
    if !parts.config.limits.cortex.enabled
        && let Err(error) = cortex::tend_memory(parts)
    {
        log::warn!("the memories were not tended: {error}");
    }
    self::end(parts, job, end, driver.journal.take(), link.cancel)
}

/// The run of a branch, from what it is to answer to its conclusion.
pub(super) fn think(
    driver: &mut Driver<'_>,
    onward: Onward,
    history: Vec<Message>,
    conduct: &mut dyn Conduct,
    stays: &dyn Fn(&Ended) -> bool,
) -> Result<BranchEnd, How> {
    let (ended, run) = driver.drive_on(onward.prompt, history, onward.recorded, conduct);
    if stays(&ended) {
        return Err(leave(driver));
    }
    let history = run.full_history();
    let (status, conclusion) = conclusion(ended, run, driver.link);
    driver.end(json!({ "status": status }), &json!({ "status": status, "conclusion": conclusion }), &history);
    Ok(BranchEnd { status, conclusion, tool_calls: driver.counts.tool_calls })
}

/// What the turn saw that asked for this run, but for its new words.
pub(super) fn forked(parts: &AgentParts, job: &Job, fork: &Fork) -> Result<(Past, Vec<Message>), DbError> {
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
static DEFINITIONS: [Definitions; 3] = [const { Definitions::new() }; 3];

fn definitions(memory_mode: MemoryMode) -> &'static Definitions {
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
    tools.extend(skill_tool(parts));
    tools
}

/// Where there are skills, what reads them.
pub(super) fn skill_tool(parts: &AgentParts) -> Option<Box<dyn Tool>> {
    let skills = parts.prompts.skills();
    (!skills.is_empty()).then(|| Box::new(read_skill::ReadSkill::new(skills.clone())) as Box<dyn Tool>)
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
