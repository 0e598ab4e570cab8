//! The run of a worker, from what it is told to what came of it; live or from its journal.

use rig_core::completion::Message;
use rig_core::message::AssistantContent;
use serde_json::json;

use super::berth::Berth;
use super::gate::{OutcomeGate, outcome_of};
use super::with_notice;
use crate::agent::driver::{Driver, Ended};
use crate::agent::rebuild::Rebuilt;
use crate::agent::resume::{self, Onward, leave};
use crate::agent::transcript;
use crate::conversation::{Outcome, Step, WorkerEnd};
use crate::effect::Effect;
use crate::event::{How, StopReason};
use crate::prompts;
use crate::tools::set_status::SetStatus;
use crate::tools::{Tool, ToolContext};

/// Model calls between two looks at the length of the run.
const TURNS_PER_SEGMENT: usize = 15;

pub(in crate::agent) struct Worker<'a> {
    pub(super) driver: Driver<'a>,
    history: Vec<Message>,
    /// Model calls for each thing that it is told to do.
    budget: usize,
}

/// What a worker does next.
pub(in crate::agent) enum Next {
    /// It has been told this.
    Words(String),
    /// What it was doing when it was cut off, after so many model calls.
    Onward(Box<Onward>, usize),
    /// It waits, as it did before.
    Wait,
}

/// A worker that was cut off, as it was then, and where it goes on; `None`: nowhere.
pub(in crate::agent) fn take_up(
    mut driver: Driver<'_>,
    budget: usize,
    mut run: Rebuilt,
) -> Option<(Worker<'_>, Next)> {
    resume::take_up(&mut driver, &run);
    driver.go_on(json!({ "budget": budget }));
    // What it had said of its state is said again: it opens the gate, and the status block shows it.
    for call in run.done.iter().filter(|call| call.function.name.as_str() == SetStatus.name()) {
        let arguments = call.function.arguments_value();
        let (cancel, desk) = (driver.link.cancel, &mut driver.desk);
        SetStatus.call(arguments, &mut ToolContext { cancel, desk, outside: false }).ok(); // it was accepted once
    }
    let next = match run.waits {
        true => Next::Wait,
        false => Next::Onward(Box::new(Onward::of(&mut run)?), run.counts.since_input),
    };
    Some((Worker::new(driver, budget, run.history), next))
}

impl<'a> Worker<'a> {
    pub(in crate::agent) fn new(driver: Driver<'a>, budget: usize, history: Vec<Message>) -> Self {
        Self { driver, history, budget }
    }

    pub(in crate::agent) fn work(
        &mut self,
        mut next: Next,
        interactive: bool,
        berth: &mut dyn Berth,
    ) -> Result<WorkerEnd, How> {
        let mut gate = OutcomeGate::new(berth);
        loop {
            let result = if let Next::Wait = next {
                self.waits_with()
            } else {
                gate.begin();
                let ended = self.segments(next, &mut gate);
                if gate.berth.stays(&ended) {
                    return Err(leave(&mut self.driver));
                }
                let (outcome, result) = self.judge(ended, gate.refused);
                if !interactive || outcome != Outcome::Success {
                    let given_up = outcome == Outcome::Success && self.has_given_up();
                    return Ok(self.end(if given_up { Outcome::Failed } else { outcome }, result, true));
                }
                self.driver.journal.add(Step::Wait, json!({}));
                gate.berth.begin_to_wait(&result, self.driver.journal.take())?;
                result
            };
            match gate.berth.wait()? {
                Some(message) => {
                    self.driver.journal.add(Step::Route, json!({ "text": message }));
                    gate.berth.end_to_wait(self.driver.journal.take())?;
                    next = Next::Words(message);
                }
                // After a restart it waits again.
                None if gate.berth.stays(&Ended::Cancelled) => return Err(How::Cancelled),
                None => return Ok(self.end_waiting(result)),
            }
        }
    }

    /// Drives in segments, so that one drive's history is copied a bounded number of times.
    fn segments(&mut self, next: Next, gate: &mut OutcomeGate<'_>) -> Ended {
        let budget = self.budget;
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
            self.driver.counts.goes_on = used + TURNS_PER_SEGMENT < budget;
            let history = std::mem::take(&mut self.history);
            let (ended, run) = self.driver.drive_on(prompt, history, recorded.take(), gate);
            self.history = run.full_history();
            if !matches!(ended, Ended::Limit) {
                return ended;
            }
            if self.driver.counts.model_calls - first >= budget {
                return Ended::Limit;
            }
            let words = self.driver.journal.nudge(prompts::notice("worker_continue").to_owned());
            prompt = Message::user(words);
        }
    }

    /// The result with which it began to wait: its last words, else what it had said came of the work.
    fn waits_with(&self) -> String {
        let words = match self.history.last() {
            Some(Message::Assistant(said)) => said
                .content
                .iter()
                .filter_map(|content| match content {
                    AssistantContent::Text(text) => Some(text.text.as_str()),
                    _ => None,
                })
                .collect::<String>(),
            _ => String::new(),
        };
        match words.trim() {
            "" => outcome_of(&self.driver.desk).unwrap_or_default(),
            words => words.to_owned(),
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
