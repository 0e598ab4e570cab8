//! The worker: a task, a fresh context and tools that act. It ends only after it has said what came
//! of it, or somebody stopped it.

mod berth;
mod gate;
mod work;

use rig_agent::run::RunSpec;
use rig_core::completion::Message;
use serde_json::json;

use super::branch::{forked, new_words, skill_tool};
use super::driver::{Counts, Driver};
use super::job::{Job, Work};
use super::journal::{RunJournal, beginning};
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::toolbox::{Definitions, Toolbox};
use super::{AgentParts, bound_task, happening, persist, resume, worker_log};
use crate::config::{RoutingConfig, WorkerContext};
use crate::conversation::{Outcome, Record, WorkerEnd};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::error::Fault;
use crate::event::{Fork, How, Origin, StopReason, What};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::prompts;
use crate::tasks::{self, Claim};
use crate::tools::{self, Tool};
use berth::Live;

pub(super) use berth::Berth;
pub(super) use work::{Next, Worker, take_up};

/// The states of a worker as `worker_runs.status` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    Running,
    WaitingForInput,
    Done,
    Failed,
}

impl WorkerState {
    pub fn as_str(self) -> &'static str {
        match self {
            WorkerState::Running => "running",
            WorkerState::WaitingForInput => "waiting_for_input",
            WorkerState::Done => "done",
            WorkerState::Failed => "failed",
        }
    }

    pub fn can_become(self, next: WorkerState) -> bool {
        use WorkerState::{Done, Failed, Running, WaitingForInput};
        matches!(
            (self, next),
            (Running, WaitingForInput | Done | Failed) | (WaitingForInput, Running | Done | Failed)
        )
    }
}

pub(super) fn run(
    parts: &AgentParts,
    job: &Job,
    (task, task_type): (&str, Option<&str>),
    interactive: bool,
    origin: &Origin,
    link: &Link<'_>,
) -> How {
    let number = job.process.number;
    let mut prepared = prepare(parts, job, (task, task_type), interactive, origin, link);
    let start = prepared.as_mut().map(|(driver, ..)| driver.journal.take()).unwrap_or_default();
    let begun = persist(link.cancel, || {
        let also = beginning(start.clone(), happening::worker_spawned(parts, job));
        let (conversation, answers) = (&job.place.conversation, &origin.answers);
        parts.conversations.begin_worker(number, conversation, task, interactive, answers, also)
    });
    if begun != How::Finished {
        return begun;
    }
    let (driver, history, routing) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            log::error!("{} could not read what it begins with: {error}", job.process);
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    let berth = Live::new(parts, job, link, (&driver, routing), history.len(), WorkerState::Running);
    let worker = Worker::new(driver, parts.config.limits.worker_max_turns, history);
    finish(parts, job, worker, Next::Words(task.to_owned()), interactive, berth)
}

/// Its driver, which has written what it is started with, the history that it knows, and its models.
fn prepare<'a>(
    parts: &'a AgentParts,
    job: &Job,
    (task, task_type): (&str, Option<&str>),
    interactive: bool,
    origin: &Origin,
    link: &'a Link<'a>,
) -> Result<(Driver<'a>, Vec<Message>, RoutingConfig), DbError> {
    let settings = parts.settings(&job.place)?;
    let routing = parts.config.routing.with(&settings.models).of_task(task_type).into_owned();
    let forks = settings.worker_context == WorkerContext::Fork;
    let fork = if forks { origin.fork.clone() } else { Fork::default() };
    let (past, mut history) = forked(parts, job, &fork)?;
    let journal = RunJournal::new(&parts.conversations, job.process.number);
    let mut driver = driver(parts, job, link, (Of::Turn, &routing), journal);
    let start = json!({
        "kind": "worker",
        "conversation": job.place.conversation.as_str(),
        "task": task,
        "interactive": interactive,
        "task_type": task_type,
        "turn": origin.turn,
        "words": *fork.words,
        "budget": parts.config.limits.worker_max_turns,
    });
    driver.begin(start, &past, &history);
    history.extend(new_words(&fork.words));
    Ok((driver, history, routing))
}

/// Goes on with a worker that was cut off, or waits again for what it waited for.
pub(super) fn go_on(
    parts: &AgentParts,
    job: &Job,
    task: &str,
    interactive: bool,
    waits: bool,
    link: &Link<'_>,
) -> How {
    let interrupted = || close(parts, job, prompts::notice("interrupted"), link);
    let run = match resume::read(parts, job, task) {
        Ok(run) if run.waits == waits => run,
        Ok(_) => return interrupted(),
        Err(error) => {
            log::error!("{} cannot go on: {error}", job.process);
            return interrupted();
        }
    };
    let routing = match parts.routing(&job.place) {
        Ok(routing) => routing.of_task(resume::task_type(parts, job).as_deref()).into_owned(),
        Err(error) => {
            log::error!("{} could not read what holds in its conversation: {error}", job.process);
            return interrupted();
        }
    };
    let journal = RunJournal::after(&parts.conversations, job.process.number, run.next);
    let driver = driver(parts, job, link, (Of::Turn, &routing), journal);
    let state = if waits { WorkerState::WaitingForInput } else { WorkerState::Running };
    let berth = Live::new(parts, job, link, (&driver, routing), run.task, state);
    match take_up(driver, parts.config.limits.worker_max_turns, run) {
        Some((worker, next)) => finish(parts, job, worker, next, interactive, berth),
        None => interrupted(),
    }
}

/// A worker for a task of the board: it begins only if the task still is as the hub knew it.
pub(super) fn run_task(
    parts: &AgentParts,
    job: &Job,
    task: u64,
    revision: u64,
    what: &str,
    link: &Link<'_>,
) -> How {
    let number = job.process.number;
    let mut claimed = Claim::Gone;
    let begun = persist(link.cancel, || {
        let note = happening::note(happening::worker_spawned(parts, job));
        let claim = move |connection: &Connection, now| {
            let claimed = tasks::claim(connection, task, revision, number, now)?;
            let taken = matches!(claimed, Claim::Taken(_));
            if taken {
                note(connection, now)?;
            }
            Ok((taken, claimed))
        };
        claimed = parts.conversations.begin_claimed_worker(number, &job.place.conversation, what, claim)?;
        Ok(())
    });
    match claimed {
        _ if begun != How::Finished => begun,
        Claim::Gone => How::Idle,
        Claim::Early(news) => {
            (link.up)(What::Task(news));
            How::Idle
        }
        Claim::Taken(task) => {
            let prompt = bound_task::prompt(&task, parts.config.limits.task_max_attempts).map_err(boxed);
            match prompt.and_then(|prompt| Ok((prompt, parts.routing(&job.place).map_err(boxed)?))) {
                Ok((prompt, routing)) => {
                    work_on_task(parts, job, link, (task.number, prompt), routing.into_owned())
                }
                Err(error) => {
                    log::error!("{} cannot begin: {error}", job.process);
                    close(parts, job, prompts::notice("process_broke"), link)
                }
            }
        }
    }
}

fn boxed(fault: impl Fault + 'static) -> Box<dyn Fault> {
    Box::new(fault)
}

fn work_on_task(
    parts: &AgentParts,
    job: &Job,
    link: &Link<'_>,
    (task, prompt): (u64, String),
    routing: RoutingConfig,
) -> How {
    let journal = RunJournal::new(&parts.conversations, job.process.number);
    let mut driver = driver(parts, job, link, (Of::Board(task), &routing), journal);
    let budget = parts.config.limits.worker_max_turns;
    let start = json!({ "kind": "worker", "task": prompt, "interactive": false, "budget": budget });
    driver.begin(start, &Past::default(), &[]);
    let berth = Live::new(parts, job, link, (&driver, routing), 0, WorkerState::Running);
    finish(parts, job, Worker::new(driver, budget, Vec::new()), Next::Words(prompt), false, berth)
}

/// Works to the end and writes it.
fn finish(
    parts: &AgentParts,
    job: &Job,
    mut worker: Worker<'_>,
    next: Next,
    interactive: bool,
    mut berth: Live<'_>,
) -> How {
    let mut end = match worker.work(next, interactive, &mut berth) {
        Ok(end) => end,
        Err(how) => return how,
    };
    let scrubber = parts.llm.scrubber();
    end.result = scrubber.hide_keys(&end.result).to_string();
    end.summary = end.summary.map(|summary| scrubber.hide_keys(&summary).to_string());
    worker_log::write(parts, job, job.work.task(), &end);
    write_end(parts, job, &end, &worker.driver.journal.take(), worker.driver.link)
}

/// Who wants the work.
enum Of {
    Turn,
    /// The board: the number of the task.
    Board(u64),
}

fn driver<'a>(
    parts: &AgentParts,
    job: &Job,
    link: &'a Link<'a>,
    (work, routing): (Of, &RoutingConfig),
    journal: RunJournal<'a>,
) -> Driver<'a> {
    let toolbox = match work {
        Of::Board(task) => {
            Toolbox::new(bound_task::tools(parts, job, task), bound_task::DEFINITIONS.of(parts))
        }
        Of::Turn => Toolbox::new(worker_tools(parts), DEFINITIONS.of(parts)),
    };
    Driver {
        link,
        model: Box::new(
            parts.llm.model_for(routing, ProcessKind::Worker).paid_by(job.payer(&parts.config.id)),
        ),
        toolbox: Box::new(toolbox),
        desk: ProcessDesk::new(link, Origin::default()),
        journal,
        spec: RunSpec {
            preamble: Some(parts.prompts.worker()),
            max_turns: Some(parts.config.limits.worker_max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts::default(),
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Worker)),
    }
}

pub(super) fn close(parts: &AgentParts, job: &Job, sentence: &str, link: &Link<'_>) -> How {
    let end = WorkerEnd {
        outcome: Outcome::Failed,
        result: sentence.to_owned(),
        summary: None,
        transcript: "[]".to_owned(),
        tool_calls: 0,
        tell: true,
    };
    write_end(parts, job, &end, &[], link)
}

/// The end of the run, and in the same transaction of its attempt at a task.
fn write_end(parts: &AgentParts, job: &Job, end: &WorkerEnd, records: &[Record], link: &Link<'_>) -> How {
    let number = job.process.number;
    let event = || happening::note(happening::worker_ended(parts, job, end));
    let Work::Task { number: task, .. } = job.work else {
        let write = || parts.conversations.end_worker(number, end.clone(), records.to_vec(), event());
        return persist(link.cancel, write);
    };
    let shutdown = matches!(link.reason.get(), Some(StopReason::Shutdown));
    let mut news = Vec::new();
    let written = persist(link.cancel, || {
        let (note, conclude) = (event(), bound_task::conclude(parts, task, number, end, shutdown));
        let work = move |connection: &Connection, end: &mut WorkerEnd, now| {
            note(connection, now)?;
            conclude(connection, end)
        };
        news = parts.conversations.end_worker_with(number, end.clone(), records.to_vec(), work)?;
        Ok(())
    });
    if written == How::Finished {
        news.into_iter().for_each(|news| (link.up)(What::Task(news)));
    }
    written
}

pub(super) fn with_notice(notice: &str, words: &str) -> String {
    format!("{}\n{words}", prompts::notice(notice)).trim().to_owned()
}

/// See [`Toolbox::new`].
static DEFINITIONS: Definitions = Definitions::new();

pub(super) fn worker_tools(parts: &AgentParts) -> Vec<Box<dyn Tool>> {
    let workspace = &parts.workspace;
    let mut tools: Vec<Box<dyn Tool>> = vec![
        Box::new(tools::shell::Shell::new(parts.sandbox.clone())),
        Box::new(tools::file_read::FileRead::new(workspace.clone())),
        Box::new(tools::file_write::FileWrite::new(workspace.clone())),
        Box::new(tools::file_edit::FileEdit::new(workspace.clone())),
        Box::new(tools::file_list::FileList::new(workspace.clone())),
        Box::new(tools::set_status::SetStatus),
    ];
    tools.extend(skill_tool(parts));
    tools
}

#[cfg(test)]
mod tests {
    use super::WorkerState::{self, Done, Failed, Running, WaitingForInput};

    #[test]
    fn only_the_written_transitions_are_legal() {
        let all = [Running, WaitingForInput, Done, Failed];
        let legal: Vec<(WorkerState, WorkerState)> = all
            .iter()
            .flat_map(|from| all.iter().map(|to| (*from, *to)))
            .filter(|(from, to)| from.can_become(*to))
            .collect();
        let expected = [
            (Running, WaitingForInput),
            (Running, Done),
            (Running, Failed),
            (WaitingForInput, Running),
            (WaitingForInput, Done),
            (WaitingForInput, Failed),
        ];
        assert_eq!(legal, expected);
    }
}
