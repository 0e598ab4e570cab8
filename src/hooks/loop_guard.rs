//! Whether a run repeats itself: a state machine over the hashes of its tool calls and their results.
//! It knows no clock and no model; the same calls get the same verdicts.

use std::collections::VecDeque;

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use serde_json::Value;

use crate::config::LoopLimits;

type Hash = [u8; SHA256_OUTPUT_LEN];

/// Of a result, only its beginning is compared.
const RESULT_BYTES: usize = 1_000;
/// A command that waits for something is short; a longer one does work beside it.
const MAX_POLL_BYTES: usize = 160;
const POLL_WORDS: [&str; 10] =
    ["status", "poll", "wait", "watch", "log", "logs", "tail", "progress", "jobs", "sleep"];
/// They look and change nothing; between two acts they are expected.
const OBSERVATIONS: [&str; 2] = ["browser_snapshot", "browser_tab_list"];
/// From this many rounds of the same two or three calls it is an alternation.
const ROUNDS: usize = 3;

/// One tool call as the guard sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    key: Hash,
    polls: bool,
    observes: bool,
}

impl Call {
    pub fn of(tool: &str, arguments: &Value) -> Self {
        let mut written = String::new();
        write_sorted(arguments, &mut written);
        Self {
            key: hash(format!("{tool}\n{written}").as_bytes()),
            polls: tool == "shell" && polls(&written),
            observes: OBSERVATIONS.contains(&tool),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    SameCall,
    SameResult,
    Alternation,
}

impl Rule {
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::SameCall => "same_call",
            Rule::SameResult => "same_result",
            Rule::Alternation => "alternation",
        }
    }
}

/// What was seen, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    pub count: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// The call runs and its result gets a warning.
    Warn(Finding),
    /// The call does not run.
    Block(Finding),
    /// It does not run, and the run ends.
    Stop(Finding),
}

#[derive(Debug)]
struct Entry {
    call: Call,
    result: Option<Hash>,
    warned: bool,
    blocked: bool,
}

/// Watches one run, from one prompt to the next.
#[derive(Debug)]
pub struct LoopGuard {
    limits: LoopLimits,
    /// Latest last.
    history: VecDeque<Entry>,
}

impl LoopGuard {
    pub fn new(limits: LoopLimits) -> Self {
        Self { limits, history: VecDeque::with_capacity(LoopLimits::HISTORY) }
    }

    pub fn limits(&self) -> LoopLimits {
        self.limits
    }

    /// Somebody has said something new: repeating a call may make sense again.
    pub fn forget(&mut self) {
        self.history.clear();
    }

    /// Notes the call and says whether it may run.
    pub fn before(&mut self, call: Call) -> Verdict {
        if call.observes {
            return Verdict::Go;
        }
        if self.history.len() == LoopLimits::HISTORY {
            self.history.pop_front();
        }
        let same_result = self.same_results(&call);
        self.history.push_back(Entry { call, result: None, warned: false, blocked: false });
        let (calls, rounds) = (self.calls(&call), self.rounds());
        let factor = self.factor(&call);
        let finding = |rule, count| Finding { rule, count };
        let blocked = if same_result >= self.limits.block_results * factor {
            Some(finding(Rule::SameResult, same_result))
        } else if calls >= self.limits.block_calls * factor {
            Some(finding(Rule::SameCall, calls))
        } else {
            rounds
                .filter(|(rounds, factor)| *rounds >= self.limits.block_rounds * factor)
                .map(|(rounds, _)| finding(Rule::Alternation, rounds))
        };
        if let Some(finding) = blocked {
            return self.block(finding);
        }
        let warning = if calls >= self.limits.warn_calls * factor {
            Some(finding(Rule::SameCall, calls))
        } else {
            rounds
                .filter(|(rounds, factor)| *rounds >= ROUNDS * factor)
                .map(|(rounds, _)| finding(Rule::Alternation, rounds))
        };
        match warning.filter(|_| self.may_warn(&call)) {
            Some(finding) => {
                self.note(&call, |entry| entry.warned = true);
                Verdict::Warn(finding)
            }
            None => Verdict::Go,
        }
    }

    /// Notes what came of the latest such call; a finding is a warning, at most one for each call.
    pub fn after(&mut self, call: Call, result: &str) -> Option<Finding> {
        let result = hash(&result.as_bytes()[..result.len().min(RESULT_BYTES)]);
        self.note(&call, |entry| entry.result = Some(result));
        let count = self.same_results(&call);
        let latest = self.history.iter().rev().find(|entry| entry.call == call)?;
        if latest.warned || count < self.limits.warn_results * self.factor(&call) || !self.may_warn(&call) {
            return None;
        }
        self.note(&call, |entry| entry.warned = true);
        Some(Finding { rule: Rule::SameResult, count })
    }

    fn block(&mut self, finding: Finding) -> Verdict {
        if let Some(entry) = self.history.back_mut() {
            entry.blocked = true;
        }
        let blocked = self.history.iter().filter(|entry| entry.blocked).count();
        if blocked >= self.limits.stop_blocked { Verdict::Stop(finding) } else { Verdict::Block(finding) }
    }

    fn factor(&self, call: &Call) -> usize {
        if call.polls { self.limits.poll_factor } else { 1 }
    }

    fn calls(&self, call: &Call) -> usize {
        self.history.iter().filter(|entry| entry.call == *call).count()
    }

    /// How often the call has given what it gave last.
    fn same_results(&self, call: &Call) -> usize {
        let results = || self.history.iter().filter(|entry| entry.call == *call).filter_map(|it| it.result);
        let last = results().next_back();
        results().filter(|result| Some(*result) == last).count()
    }

    fn may_warn(&self, call: &Call) -> bool {
        let warned = self.history.iter().filter(|entry| entry.call == *call && entry.warned).count();
        warned < self.limits.max_warnings
    }

    fn note(&mut self, call: &Call, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.history.iter_mut().rev().find(|entry| entry.call == *call) {
            change(entry);
        }
    }

    /// Whole rounds of two or three calls in turn at the end, and by how much more they may be.
    fn rounds(&self) -> Option<(usize, usize)> {
        let at = |back: usize| &self.history[self.history.len() - 1 - back].call;
        [2, 3].into_iter().find_map(|period| {
            if self.history.len() < period * ROUNDS || (1..period).all(|back| at(back) == at(0)) {
                return None;
            }
            let same = (0..self.history.len() - period).take_while(|back| at(*back) == at(back + period));
            let rounds = (same.count() + period) / period;
            let factor = (0..period).map(|back| self.factor(at(back))).max().unwrap_or(1);
            (rounds >= ROUNDS).then_some((rounds, factor))
        })
    }
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The same for the same arguments, in whatever order the model wrote their fields.
fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in fields {
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write_sorted(value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_sorted(item, out);
                out.push(',');
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

fn polls(arguments: &str) -> bool {
    arguments.len() <= MAX_POLL_BYTES
        && arguments
            .split(|character: char| !character.is_ascii_alphanumeric())
            .any(|word| POLL_WORDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests;
