//! The worker: a task, a fresh context and tools that act. It ends only after it has said what came
//! of it, or somebody stopped it.

use crossbeam_channel::select;
use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::{Message, ToolDefinition};
use serde_json::json;

use super::driver::{Conduct, Counts, Driver, Ended, Heard};
use super::job::{Job, Work};
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::toolbox::Toolbox;
use super::{AgentParts, bound_task, happening, persist, transcript};
use crate::conversation::{Outcome, Record, Step, WorkerEnd};
use crate::db::rusqlite::Connection;
use crate::effect::Effect;
use crate::error::Kind;
use crate::event::{How, Origin, StopReason, What};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::prompts;
use crate::tasks;
use crate::tools::{self, Tool};

/// Model calls between two looks at the length of the run.
const TURNS_PER_SEGMENT: usize = 15;
/// Times that a worker is asked in a row to say what came of its work.
const MAX_NUDGES: usize = 2;

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
    let begin = || {
        let event = happening::note(happening::worker_spawned(parts, job));
        let (conversation, answers) = (&job.place.conversation, &origin.answers);
        parts.conversations.begin_worker(number, conversation, task, interactive, answers, event)
    };
    let begun = persist(link.cancel, begin);
    if begun != How::Finished {
        return begun;
    }
    work(parts, job, link, None, task.to_owned(), interactive)
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
            Ok(prompt) => work(parts, job, link, Some(task.number), prompt, false),
            Err(error) => {
                log::error!("{} has no prompt: {error}", job.process);
                close(parts, job, prompts::notice("process_broke"), link)
            }
        },
    }
}

fn work(
    parts: &AgentParts,
    job: &Job,
    link: &Link<'_>,
    bound: Option<u64>,
    prompt: String,
    interactive: bool,
) -> How {
    let number = job.process.number;
    let toolbox = match bound {
        Some(task) => Toolbox::new(bound_task::tools(parts, job, task), &bound_task::DEFINITIONS),
        None => Toolbox::new(worker_tools(parts), &DEFINITIONS),
    };
    let limits = &parts.config.limits;
    let mut driver = Driver {
        link,
        model: Box::new(parts.llm.model_for(&parts.config.routing, ProcessKind::Worker)),
        toolbox: Box::new(toolbox),
        desk: ProcessDesk::new(link, Origin::default()),
        journal: RunJournal::new(&parts.conversations, number),
        spec: RunSpec {
            preamble: Some(parts.prompts.worker()),
            max_turns: Some(limits.worker_max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts::default(),
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Worker)),
    };
    let start = json!({
        "kind": "worker",
        "task": prompt,
        "interactive": interactive,
        "budget": limits.worker_max_turns,
    });
    driver.begin(start, &Past::default(), &[]);
    let mut berth = Live { parts, number, link, state: WorkerState::Running };
    let mut worker = Worker::new(driver, limits.worker_max_turns);
    match worker.work(prompt, interactive, &mut berth) {
        Ok(mut end) => {
            let scrubber = parts.llm.scrubber();
            end.result = scrubber.hide_keys(&end.result).to_string();
            end.summary = end.summary.map(|summary| scrubber.hide_keys(&summary).to_string());
            let records: Vec<Record> = worker.driver.journal.take();
            write_end(parts, job, &end, &records, link)
        }
        Err(how) => how,
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

/// What is around a worker while it runs.
pub(super) trait Berth {
    /// Messages for it while it works.
    fn next_message(&mut self) -> Option<String>;

    /// It has a result and waits for a message. None: it was stopped while waiting.
    fn wait(&mut self, result: &str) -> Result<Option<String>, How>;
}

pub(super) struct Worker<'a> {
    driver: Driver<'a>,
    history: Vec<Message>,
    /// Model calls for each input.
    budget: usize,
}

impl<'a> Worker<'a> {
    pub(super) fn new(driver: Driver<'a>, budget: usize) -> Self {
        Self { driver, history: Vec::new(), budget }
    }

    /// The run of a worker, from what it was started with to its end.
    pub(super) fn work(
        &mut self,
        task: String,
        interactive: bool,
        berth: &mut dyn Berth,
    ) -> Result<WorkerEnd, How> {
        let mut prompt = task;
        loop {
            let mut gate = OutcomeGate { nudges: 0, refused: false, berth: &mut *berth };
            let ended = self.segments(prompt, &mut gate);
            let refused = gate.refused;
            let (outcome, result) = self.judge(ended, refused);
            if !interactive || outcome != Outcome::Success {
                let given_up = outcome == Outcome::Success && self.has_given_up();
                return Ok(self.end(if given_up { Outcome::Failed } else { outcome }, result, true));
            }
            match berth.wait(&result)? {
                Some(message) => {
                    self.driver.journal.add(Step::Route, json!({ "text": message, "waited": true }));
                    prompt = message;
                }
                None => return Ok(self.end_waiting(result)),
            }
        }
    }

    /// Drives in segments, so that one drive's history is copied a bounded number of times.
    fn segments(&mut self, task: String, gate: &mut OutcomeGate<'_>) -> Ended {
        let budget = self.budget;
        let first = self.driver.counts.model_calls;
        self.driver.desk.effects.clear();
        self.driver.guard.forget();
        let mut prompt = Message::user(task);
        loop {
            let used = self.driver.counts.model_calls - first;
            if used >= budget {
                return Ended::Limit;
            }
            self.driver.counts.max_model_calls =
                self.driver.counts.model_calls + TURNS_PER_SEGMENT.min(budget - used);
            let (ended, run) = self.driver.drive(prompt, std::mem::take(&mut self.history), gate);
            self.history = run.full_history();
            if !matches!(ended, Ended::Limit) {
                return ended;
            }
            let words = self.driver.journal.nudge(prompts::notice("worker_continue").to_owned());
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

    fn judge(&self, ended: Ended, refused: bool) -> (Outcome, String) {
        let last = || transcript::last_words(&self.history).unwrap_or_default();
        let told = outcome_of(&self.driver.desk).unwrap_or_default();
        match ended {
            Ended::Text(text) if refused => (Outcome::Failed, with_notice("worker_no_outcome", text.trim())),
            Ended::Text(text) if text.trim().is_empty() => (Outcome::Success, told),
            Ended::Text(text) => (Outcome::Success, text.trim().to_owned()),
            Ended::Tools => (Outcome::Success, told),
            Ended::Limit => (Outcome::Partial, with_notice("worker_limit", &last())),
            Ended::Repeating => (Outcome::Partial, with_notice("worker_loop", &last())),
            Ended::Failed(kind, reason) => {
                log::error!("a worker failed: {reason}");
                (Outcome::Failed, with_notice(kind.notice(), &last()))
            }
            Ended::Cancelled => match self.driver.link.stop_reason() {
                StopReason::Timeout => (Outcome::Timeout, with_notice("worker_timeout", &last())),
                StopReason::Asked(reason) => (Outcome::Cancelled, with_notice("process_cancelled", &reason)),
                StopReason::Shutdown => (Outcome::Cancelled, prompts::notice("interrupted").to_owned()),
            },
        }
    }

    /// Ended while waiting: by its idle time-out quietly, on request with a word about it.
    fn end_waiting(&mut self, result: String) -> WorkerEnd {
        self.driver.note_stop(true);
        match self.driver.link.stop_reason() {
            StopReason::Timeout => self.end(Outcome::Success, result, false),
            StopReason::Shutdown => {
                self.end(Outcome::Cancelled, prompts::notice("interrupted").to_owned(), true)
            }
            StopReason::Asked(reason) => {
                self.end(Outcome::Cancelled, with_notice("process_cancelled", &reason), true)
            }
        }
    }

    fn end(&mut self, outcome: Outcome, result: String, tell: bool) -> WorkerEnd {
        let summary = outcome_of(&self.driver.desk);
        let came_to =
            json!({ "outcome": outcome.as_str(), "result": result, "summary": summary, "tell": tell });
        self.driver.end(json!({ "outcome": outcome.as_str() }), &came_to, &self.history);
        let (transcript, tool_calls) = (transcript::of(&self.history), self.driver.counts.tool_calls);
        WorkerEnd { outcome, result, summary, transcript, tool_calls, tell }
    }
}

/// A worker's states in the database, and the hub behind its link.
struct Live<'a> {
    parts: &'a AgentParts,
    number: u64,
    link: &'a Link<'a>,
    state: WorkerState,
}

impl Berth for Live<'_> {
    fn next_message(&mut self) -> Option<String> {
        self.link.messages.try_recv().ok()
    }

    /// Stores the result, tells the hub and waits.
    fn wait(&mut self, result: &str) -> Result<Option<String>, How> {
        let result = self.parts.llm.scrubber().hide_keys(result).to_string();
        self.turn_to(WorkerState::WaitingForInput, Some(&result))?;
        let link = self.link;
        (link.up)(What::Waiting);
        let message = select! {
            recv(link.messages) -> message => message.ok(),
            recv(link.cancel.receiver()) -> _ => None,
        };
        if message.is_some() {
            self.turn_to(WorkerState::Running, None)?;
        }
        Ok(message)
    }
}

impl Live<'_> {
    fn turn_to(&mut self, next: WorkerState, result: Option<&str>) -> Result<(), How> {
        let from = self.state;
        if !from.can_become(next) {
            return Err(How::Failed(Kind::Bug, format!("{} cannot become {}", from.as_str(), next.as_str())));
        }
        let (conversations, number) = (&self.parts.conversations, self.number);
        let moved = persist(self.link.cancel, || {
            conversations.move_worker(number, from.as_str(), next.as_str(), result.map(str::to_owned))
        });
        self.state = next;
        if moved == How::Finished { Ok(()) } else { Err(moved) }
    }
}

pub(super) fn with_notice(notice: &str, words: &str) -> String {
    format!("{}\n{words}", prompts::notice(notice)).trim().to_owned()
}

fn outcome_of(desk: &ProcessDesk<'_>) -> Option<String> {
    desk.effects.iter().rev().find_map(|effect| match effect {
        Effect::Outcome { text, .. } => Some(text.clone()),
        _ => None,
    })
}

/// A worker may not end with text alone: it must have said what came of the work.
struct OutcomeGate<'a> {
    nudges: usize,
    /// It was asked often enough and still did not say.
    refused: bool,
    berth: &'a mut dyn Berth,
}

impl Conduct for OutcomeGate<'_> {
    fn on_text(&mut self, _text: &str, desk: &mut ProcessDesk<'_>) -> Option<String> {
        if outcome_of(desk).is_some() {
            return None;
        }
        if self.nudges >= MAX_NUDGES {
            self.refused = true;
            return None;
        }
        self.nudges += 1;
        Some(prompts::notice("worker_nudge").to_owned())
    }

    fn on_tools(&mut self, _desk: &mut ProcessDesk<'_>) -> bool {
        self.nudges = 0;
        false
    }

    fn next_message(&mut self, _desk: &mut ProcessDesk<'_>, _left: usize) -> Option<Heard> {
        self.berth.next_message().map(Heard::routed)
    }
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
