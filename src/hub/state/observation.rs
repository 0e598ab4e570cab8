//! What the cortex of an agent has seen of its runs since the start: the last signals, how its tools do, how often
//! no model answered. Bounded, and forgotten with the daemon; what is out of the ordinary is noted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::json;

use super::{Hub, ProcessKey};
use crate::command::{Observed, ToolReport};
use crate::cortex::NewCortexEvent;
use crate::event::{DriveEnd, Observation, ToolUse};
use crate::id::ProcessKind;

/// Signals that are kept.
pub const SIGNALS_MAX: usize = 100;
/// Signals that a report shows.
const SIGNALS_SHOWN: usize = 10;
/// Names the breaker of all models together.
const MODELS: &str = "models";
const WORKERS: &str = "workers";
/// Tools that are told apart; agents have fewer.
const TOOLS_MAX: usize = 128;
/// Calls after which a tool's older ones count half: the rate is that of lately.
const WINDOW: u32 = 100;

#[derive(Debug, Default)]
pub(super) struct Seen {
    signals: VecDeque<Signal>,
    tools: BTreeMap<String, Tool>,
    tokens: u64,
    model_calls: u64,
    provider_failures: u64,
    /// Runs in a row without an answer of a model.
    provider_streak: u32,
    /// There were too many of them, and no answer since.
    models_failing: bool,
    /// Workers in a row that failed or repeated themselves.
    worker_streak: u32,
    workers_failing: bool,
    ended_by_limit: u64,
    ended_by_repetition: u64,
}

/// Neighbours of one kind are one.
#[derive(Debug)]
struct Signal {
    kind: String,
    count: u32,
    last: Duration,
}

#[derive(Debug, Default)]
struct Tool {
    calls: u32,
    failures: u32,
    /// Failures in a row up to now.
    streak: u32,
    /// It has failed too often in a row and did not succeed since.
    failing: bool,
}

impl Tool {
    /// True when it fails too often in a row from now on.
    fn add(&mut self, used: &ToolUse, threshold: u32) -> bool {
        (self.calls, self.failures) = (self.calls + used.calls, self.failures + used.failures);
        if self.calls > WINDOW {
            (self.calls, self.failures) = (self.calls / 2, self.failures / 2);
        }
        let all = used.failures == used.calls;
        let longest = (self.streak + used.leading).max(used.longest);
        self.streak = if all { self.streak + used.calls } else { used.trailing };
        let trips = longest >= threshold && !self.failing;
        self.failing = self.streak >= threshold;
        trips
    }
}

impl Seen {
    fn signal(&mut self, kind: String, now: Duration) {
        if let Some(last) = self.signals.back_mut().filter(|last| last.kind == kind) {
            (last.count, last.last) = (last.count + 1, now);
            return;
        }
        if self.signals.len() == SIGNALS_MAX {
            self.signals.pop_front();
        }
        self.signals.push_back(Signal { kind, count: 1, last: now });
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.signals.len()
    }

    /// What fails again and again.
    pub(super) fn tripped(&self) -> Vec<String> {
        let tools = self.tools.iter().filter(|(_, tool)| tool.failing).map(|(name, _)| name.as_str());
        let models = self.models_failing.then_some(MODELS);
        let workers = self.workers_failing.then_some(WORKERS);
        models.into_iter().chain(workers).chain(tools).map(str::to_owned).collect()
    }

    /// Ends of workers that say something: at its limit a worker goes on with a new run, and a stop is nobody's fault.
    fn worker_ended(&mut self, end: DriveEnd, threshold: u32) -> Option<NewCortexEvent> {
        match end {
            DriveEnd::Failed | DriveEnd::Repeating => self.worker_streak += 1,
            DriveEnd::Done => self.worker_streak = 0,
            DriveEnd::Limit | DriveEnd::Cancelled => {}
        }
        let trips = self.worker_streak >= threshold && !self.workers_failing;
        self.workers_failing = self.worker_streak >= threshold;
        let words = format!("{threshold} workers in a row have failed");
        trips.then(|| NewCortexEvent::new("workers_failing", words, serde_json::Value::Null))
    }

    pub(super) fn report(&self, now: Duration) -> Observed {
        let signal = |signal: &Signal| {
            let ago = now.saturating_sub(signal.last).as_secs();
            format!("{} x{}, {ago} s ago", signal.kind, signal.count)
        };
        let tool = |(name, tool): (&String, &Tool)| ToolReport {
            name: name.clone(),
            calls: tool.calls,
            failures: tool.failures,
            failing: tool.failing,
        };
        Observed {
            tripped: self.tripped(),
            signals: self.signals.iter().rev().take(SIGNALS_SHOWN).map(signal).collect(),
            tools: self.tools.iter().map(tool).collect(),
            model_calls: self.model_calls,
            tokens: self.tokens,
            provider_failures: self.provider_failures,
            ended_by_limit: self.ended_by_limit,
            ended_by_repetition: self.ended_by_repetition,
        }
    }

    /// What is out of the ordinary in it.
    fn add(&mut self, kind: &str, run: &Observation, threshold: u32, now: Duration) -> Vec<NewCortexEvent> {
        let end = match run.end {
            DriveEnd::Done => "done",
            DriveEnd::Limit => "at its limit",
            DriveEnd::Repeating => "repeating",
            DriveEnd::Cancelled => "cancelled",
            DriveEnd::Failed => "failed",
        };
        self.signal(format!("{kind} {end}"), now);
        self.tokens = self.tokens.saturating_add(run.tokens);
        self.model_calls += run.model_calls as u64;
        self.ended_by_limit += u64::from(run.end == DriveEnd::Limit);
        self.ended_by_repetition += u64::from(run.end == DriveEnd::Repeating);
        let mut events = Vec::new();
        if run.provider_error.is_some() || run.offline {
            self.provider_failures += 1;
            self.provider_streak += 1;
            if self.provider_streak == threshold {
                let words = format!("{threshold} runs in a row had no answer of a model");
                let details = json!({ "error": run.provider_error.map(|kind| format!("{kind:?}")) });
                events.push(NewCortexEvent::new("models_failing", words, details));
            }
        } else if run.model_calls > 0 {
            self.provider_streak = 0;
        }
        self.models_failing = self.provider_streak >= threshold;
        if kind == ProcessKind::Worker.as_str() {
            events.extend(self.worker_ended(run.end, threshold));
        }
        for used in &run.tools {
            if self.tools.len() >= TOOLS_MAX && !self.tools.contains_key(&used.name) {
                continue;
            }
            let tool = self.tools.entry(used.name.clone()).or_default();
            if tool.add(used, threshold) {
                let words = format!("{} has failed {threshold} times in a row", used.name);
                let details = json!({ "process": kind, "calls": tool.calls, "failures": tool.failures });
                events.push(NewCortexEvent::new("tool_failing", words, details));
            }
        }
        events
    }
}

impl Hub {
    pub(super) fn observed(&mut self, key: &ProcessKey, run: Observation, now: Duration) {
        let Some(agent) = self.agents.get_mut(&key.0) else { return };
        let threshold = agent.limits.cortex.circuit_breaker_threshold;
        let events = agent.cortex.seen.add(key.1.kind.as_str(), &run, threshold, now);
        let any = !events.is_empty();
        events.into_iter().for_each(|event| agent.cortex.note(event));
        if any {
            self.cortex_changed(&key.0, now);
        }
    }
}
