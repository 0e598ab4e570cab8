//! The worker: a task, a fresh context and tools that act. It ends only after it has said what came
//! of it, or somebody stopped it.

mod gate;

use crossbeam_channel::select;
use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::{Message, ToolDefinition};
use serde_json::json;

use super::branch::forked;
use super::driver::{Counts, Driver, Ended};
use super::job::{Job, Work};
use super::journal::{RunJournal, beginning};
use super::link::{Link, ProcessDesk};
use super::resume::{self, Onward, leave, stays};
use super::room::{self, Room};
use super::toolbox::Toolbox;
use super::{AgentParts, bound_task, happening, persist, transcript, worker_log};
use crate::config::WorkerContext;
use crate::conversation::{Outcome, Record, SCHEDULED, Step, WorkerEnd};
use crate::db::rusqlite::Connection;
use crate::effect::Effect;
use crate::error::{Fault, Kind};
use crate::event::{Fork, How, Origin, StopReason, What};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::prompts;
use crate::tasks;
use crate::tools::{self, Tool};
use gate::{OutcomeGate, outcome_of};

/// Model calls between two looks at the length of the run.
const TURNS_PER_SEGMENT: usize = 15;
/// The tool that says what a worker does and what came of it.
const SET_STATUS: &str = "set_status";

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
    task: &str,
    interactive: bool,
    origin: &Origin,
    link: &Link<'_>,
) -> How {
    let number = job.process.number;
    let mut journal = RunJournal::new(&parts.conversations, number);
    let forks = parts.config.limits.worker_context == WorkerContext::Fork;
    let fork = if forks { origin.fork.clone() } else { Fork::default() };
    journal.add(
        Step::Start,
        json!({
            "kind": "worker", "task": task, "interactive": interactive, "turn": origin.turn,
            "summaries": *fork.summaries, "lines": fork.lines, "words": *fork.words,
        }),
    );
    let start = journal.take();
    let begun = persist(link.cancel, || {
        let also = beginning(start.clone(), happening::worker_spawned(parts, job));
        let (conversation, answers) = (&job.place.conversation, &origin.answers);
        parts.conversations.begin_worker(number, conversation, task, interactive, answers, also)
    });
    if begun != How::Finished {
        return begun;
    }
    let history = match forked(parts, job, &fork) {
        Ok(history) => history,
        Err(error) => {
            log::error!("{} could not read the history it forks from: {error}", job.process);
            return close(parts, job, prompts::notice(error.kind().notice()), link);
        }
    };
    let task_at = history.len();
    let driver = driver(parts, job, link, None, journal);
    let worker = Worker { parts, job, driver, state: WorkerState::Running, history, task_at };
    worker.work(Next::Words(task.to_owned()), interactive)
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
    let mut run = match resume::read(parts, job, task) {
        Ok(run) if run.waits == waits => run,
        Ok(_) => return interrupted(),
        Err(error) => {
            log::error!("{} cannot go on: {error}", job.process);
            return interrupted();
        }
    };
    let mut journal = RunJournal::after(&parts.conversations, job.process.number, run.next);
    let mut driver = if waits {
        driver(parts, job, link, None, journal)
    } else {
        journal.add(Step::Resume, json!({}));
        driver(parts, job, link, None, journal)
    };
    driver.counts.model_calls = run.counts.model_calls;
    driver.counts.tool_calls = run.counts.tool_calls;
    driver.toolbox.remember(resume::called(&run.history));
    // What it had said of its state is said again: it opens the gate, and the status block shows it.
    for call in run.done.iter().filter(|call| call.function.name.as_str() == SET_STATUS) {
        let arguments = call.function.arguments_value();
        driver.toolbox.call(SET_STATUS, arguments, link.cancel, &mut driver.desk).ok(); // it was accepted once
    }
    let next = if waits {
        Next::Wait
    } else {
        match Onward::of(&mut run) {
            Some(onward) => Next::Onward(Box::new(onward), run.counts.since_input),
            None => return interrupted(),
        }
    };
    let state = if waits { WorkerState::WaitingForInput } else { WorkerState::Running };
    Worker { parts, job, driver, state, history: run.history, task_at: run.task }.work(next, interactive)
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
    let mut claimed = None;
    let begun = persist(link.cancel, || {
        let note = happening::note(happening::worker_spawned(parts, job));
        let claim = move |connection: &Connection, now| {
            let claimed = tasks::claim(connection, task, revision, number, now)?;
            if claimed.is_some() {
                note(connection, now)?;
            }
            Ok(claimed)
        };
        claimed = parts.conversations.begin_claimed_worker(number, &job.place.conversation, what, claim)?;
        Ok(())
    });
    match claimed {
        _ if begun != How::Finished => begun,
        None => How::Idle,
        Some(task) => match bound_task::prompt(&task, parts.config.limits.task_max_attempts) {
            Ok(prompt) => work_on_task(parts, job, link, task.number, prompt),
            Err(error) => {
                log::error!("{} has no prompt: {error}", job.process);
                close(parts, job, prompts::notice("process_broke"), link)
            }
        },
    }
}

fn work_on_task(parts: &AgentParts, job: &Job, link: &Link<'_>, task: u64, prompt: String) -> How {
    let mut journal = RunJournal::new(&parts.conversations, job.process.number);
    journal.add(Step::Start, json!({ "kind": "worker", "task": prompt, "interactive": false }));
    let driver = driver(parts, job, link, Some(task), journal);
    let (state, history) = (WorkerState::Running, Vec::new());
    Worker { parts, job, driver, state, history, task_at: 0 }.work(Next::Words(prompt), false)
}

fn driver<'a>(
    parts: &AgentParts,
    job: &Job,
    link: &'a Link<'a>,
    bound: Option<u64>,
    journal: RunJournal<'a>,
) -> Driver<'a> {
    let toolbox = match bound {
        Some(task) => Toolbox::new(bound_task::tools(parts, job, task), &bound_task::DEFINITIONS),
        None => Toolbox::new(worker_tools(parts), &DEFINITIONS),
    };
    Driver {
        link,
        model: parts.llm.model_for(&parts.config.routing, ProcessKind::Worker),
        toolbox,
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

struct Worker<'a> {
    parts: &'a AgentParts,
    job: &'a Job,
    driver: Driver<'a>,
    state: WorkerState,
    history: Vec<Message>,
    /// Where the task stands in the history.
    task_at: usize,
}

/// What a worker does next.
enum Next {
    /// It has been told this.
    Words(String),
    /// What it was doing when it was cut off, after so many model calls.
    Onward(Box<Onward>, usize),
    /// It waits, as it did before.
    Wait,
}

impl Worker<'_> {
    fn work(mut self, mut next: Next, interactive: bool) -> How {
        let driver = &self.driver;
        let fixed = room::fixed_tokens(driver.spec.preamble.as_deref(), driver.toolbox.definitions());
        let room = Room::new(self.parts, ProcessKind::Worker, fixed, self.task_at);
        let mut gate = OutcomeGate::new(driver.link.messages, room);
        loop {
            let result = if let Next::Wait = next {
                match self.parts.conversations.worker_result(self.job.process.number) {
                    Ok(result) => result.unwrap_or_default(),
                    Err(error) => return How::Failed(error.kind(), error.to_string()),
                }
            } else {
                gate.begin();
                let ended = self.segments(next, &mut gate);
                if stays(self.job, &ended, self.driver.link) {
                    return leave(self.parts, &mut self.driver);
                }
                let (outcome, result) = self.judge(ended, &gate);
                let result = self.parts.llm.scrubber().hide_keys(&result);
                if !interactive || outcome != Outcome::Success {
                    let given_up = outcome == Outcome::Success && self.has_given_up();
                    return self.end(if given_up { Outcome::Failed } else { outcome }, result, true);
                }
                if let Err(how) = self.begin_to_wait(&result) {
                    return how;
                }
                result
            };
            match self.wait_for_input() {
                Ok(Some(message)) => next = Next::Words(message),
                Ok(None) => return self.end_waiting(result),
                Err(how) => return how,
            }
        }
    }

    /// Drives in segments, so that one drive's history is copied a bounded number of times.
    fn segments(&mut self, next: Next, gate: &mut OutcomeGate<'_>) -> Ended {
        let budget = self.parts.config.limits.worker_max_turns;
        let (mut prompt, mut recorded, before) = match next {
            Next::Onward(onward, before) => (onward.prompt, onward.recorded, before),
            Next::Words(words) => {
                self.driver.desk.effects.clear();
                self.driver.guard.forget();
                (Message::user(words), None, 0)
            }
            Next::Wait => return Ended::Tools,
        };
        let first = self.driver.counts.model_calls - before.min(self.driver.counts.model_calls);
        loop {
            let used = self.driver.counts.model_calls - first;
            if used >= budget && recorded.is_none() {
                return Ended::Limit;
            }
            self.driver.counts.max_model_calls =
                self.driver.counts.model_calls + TURNS_PER_SEGMENT.min(budget.saturating_sub(used));
            let history = std::mem::take(&mut self.history);
            let (ended, run) = self.driver.drive_on(prompt, history, recorded.take(), gate);
            self.history = run.full_history();
            if !matches!(ended, Ended::Limit) {
                return ended;
            }
            if self.driver.counts.model_calls - first >= budget {
                return Ended::Limit;
            }
            let words = prompts::notice("worker_continue");
            self.driver.journal.add(Step::Nudge, json!({ "text": words }));
            prompt = Message::user(words);
        }
    }

    /// It says itself that the work could not be done.
    fn has_given_up(&self) -> bool {
        let outcome = self.driver.desk.effects.iter().rev().find_map(|effect| match effect {
            Effect::Outcome { success, .. } => Some(*success),
            _ => None,
        });
        outcome == Some(false)
    }

    fn judge(&self, ended: Ended, gate: &OutcomeGate<'_>) -> (Outcome, String) {
        let last = || transcript::last_words(&self.history).unwrap_or_default();
        let told = outcome_of(&self.driver.desk).unwrap_or_default();
        match ended {
            Ended::Text(text) if gate.refused => {
                (Outcome::Failed, with_notice("worker_no_outcome", text.trim()))
            }
            Ended::Text(text) if text.trim().is_empty() => (Outcome::Success, told),
            Ended::Text(text) => (Outcome::Success, text.trim().to_owned()),
            Ended::Tools => (Outcome::Success, told),
            Ended::Limit => (Outcome::Partial, with_notice("worker_limit", &last())),
            Ended::Repeating => (Outcome::Partial, with_notice("worker_loop", &last())),
            Ended::Failed(kind, reason) => {
                log::error!("{} failed: {reason}", self.job.process);
                (Outcome::Failed, with_notice(kind.notice(), &last()))
            }
            Ended::Cancelled => match self.driver.link.stop_reason() {
                StopReason::Timeout => (Outcome::Timeout, with_notice("worker_timeout", &last())),
                StopReason::Asked(reason) => (Outcome::Cancelled, with_notice("process_cancelled", &reason)),
                StopReason::Shutdown => (Outcome::Cancelled, prompts::notice("interrupted").to_owned()),
            },
        }
    }

    /// Stores the result and tells the hub.
    fn begin_to_wait(&mut self, result: &str) -> Result<(), How> {
        self.driver.journal.add(Step::Wait, json!({}));
        self.turn_to(WorkerState::WaitingForInput, Some(result))?;
        (self.driver.link.up)(What::Waiting);
        Ok(())
    }

    /// `None`: stopped while waiting.
    fn wait_for_input(&mut self) -> Result<Option<String>, How> {
        let link = self.driver.link;
        let message = select! {
            recv(link.messages) -> message => message.ok(),
            recv(link.cancel.receiver()) -> _ => None,
        };
        if let Some(message) = &message {
            self.driver.journal.add(Step::Route, json!({ "text": message }));
            self.turn_to(WorkerState::Running, None)?;
        }
        Ok(message)
    }

    fn turn_to(&mut self, next: WorkerState, result: Option<&str>) -> Result<(), How> {
        let from = self.state;
        if !from.can_become(next) {
            return Err(How::Failed(Kind::Bug, format!("{} cannot become {}", from.as_str(), next.as_str())));
        }
        let (number, records) = (self.job.process.number, self.driver.journal.take());
        let moved = persist(self.driver.link.cancel, || {
            self.parts.conversations.move_worker(
                number,
                from.as_str(),
                next.as_str(),
                result.map(str::to_owned),
                records.clone(),
            )
        });
        self.state = next;
        if moved == How::Finished { Ok(()) } else { Err(moved) }
    }

    /// Ended while waiting: by its idle time-out quietly, on request with a word about it. After a restart
    /// it waits again.
    fn end_waiting(self, result: String) -> How {
        match self.driver.link.stop_reason() {
            StopReason::Timeout => self.end(Outcome::Success, result, false),
            StopReason::Shutdown if self.job.place.instance.as_str() == SCHEDULED => {
                self.end(Outcome::Cancelled, prompts::notice("interrupted").to_owned(), true)
            }
            StopReason::Shutdown => How::Cancelled,
            StopReason::Asked(reason) => {
                self.end(Outcome::Cancelled, with_notice("process_cancelled", &reason), true)
            }
        }
    }

    fn end(mut self, outcome: Outcome, result: String, tell: bool) -> How {
        self.driver.journal.add(
            Step::End,
            json!({ "outcome": outcome.as_str(), "model_calls": self.driver.counts.model_calls }),
        );
        let end = WorkerEnd {
            outcome,
            result,
            summary: outcome_of(&self.driver.desk)
                .map(|summary| self.parts.llm.scrubber().hide_keys(&summary)),
            transcript: transcript::of(&self.history),
            tool_calls: self.driver.counts.tool_calls,
            tell,
        };
        worker_log::write(self.parts, self.job, self.job.work.task(), &end);
        let records: Vec<Record> = self.driver.journal.take();
        write_end(self.parts, self.job, &end, &records, self.driver.link)
    }
}

pub(super) fn with_notice(notice: &str, words: &str) -> String {
    format!("{}\n{words}", prompts::notice(notice)).trim().to_owned()
}

/// See [`Toolbox::new`].
static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

pub(super) fn worker_tools(parts: &AgentParts) -> Vec<Box<dyn Tool>> {
    let workspace = &parts.workspace;
    vec![
        Box::new(tools::shell::Shell::new(parts.sandbox.clone())),
        Box::new(tools::file_read::FileRead::new(workspace.clone())),
        Box::new(tools::file_write::FileWrite::new(workspace.clone())),
        Box::new(tools::file_edit::FileEdit::new(workspace.clone())),
        Box::new(tools::file_list::FileList::new(workspace.clone())),
        Box::new(tools::set_status::SetStatus),
    ]
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
