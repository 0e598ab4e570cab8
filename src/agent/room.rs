//! How much of its model's window a branch or a worker takes, and what leaves its history when that is
//! too much: plain code, no model. What must stay is the task, the newest message, and with a tool's
//! result the call that asked for it.

use rig_core::completion::{Message, ToolDefinition};
use rig_core::message::{AssistantContent, ToolResultContent, UserContent};
use serde::{Deserialize, Serialize};

use super::AgentParts;
use crate::config::RoutingConfig;
use crate::id::ProcessKind;
use crate::llm::tokens;
use crate::prompts;
use crate::text;

/// Percent of the window that the first request of a branch may take; the rest is for what it will do.
const PREFLIGHT_PERCENT: usize = 85;
/// Messages of the history that a pre-flight leaves, however long they are.
const PREFLIGHT_KEPT: usize = 4;
/// Percent of the window from which on a worker's oldest steps become a recap.
const COMPACT_PERCENT: usize = 70;
/// Times that one run is made shorter because its provider says that it is too long.
const OVERFLOW_RETRIES: usize = 2;
/// Longest part of a recap that stands for one argument, result or text, in bytes.
const RECAP_PART_BYTES: usize = 200;
/// Longest recap, in bytes, and as a part of the window; its oldest lines go first.
const RECAP_BYTES: usize = 8_000;
const RECAP_PART_OF_WINDOW: usize = 8;
/// Fewer messages are not worth a recap, which is one itself.
const COMPACT_LEAST: usize = 2;

/// A change of the history of a run, as the journal records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trim {
    /// Where the task stands, which stays.
    pub(super) task: usize,
    /// So many of the oldest other messages leave.
    pub(super) drop: usize,
    /// What stands in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) recap: Option<String>,
}

impl Trim {
    /// The messages that are left.
    pub(super) fn apply(&self, messages: Vec<Message>) -> Vec<Message> {
        let mut left = Vec::with_capacity(messages.len());
        let mut dropped = 0;
        for (index, message) in messages.into_iter().enumerate() {
            if index != self.task && dropped < self.drop {
                dropped += 1;
            } else {
                left.push(message);
            }
        }
        if let Some(recap) = &self.recap {
            // In front of the first message behind the gap.
            let at = if self.drop > self.task { self.task_after() + 1 } else { 0 };
            left.insert(at.min(left.len()), Message::user(recap));
        }
        left
    }

    /// Where the task stands afterwards, but for a recap in front of it.
    fn task_after(&self) -> usize {
        self.task - self.task.min(self.drop)
    }

    /// Where the task stands afterwards.
    pub(super) fn next_task(&self) -> usize {
        let recap_in_front = self.recap.is_some() && self.drop <= self.task;
        self.task_after() + usize::from(recap_in_front)
    }
}

/// How many of the oldest messages leave when about `wanted` should: never the task, never the newest,
/// and no result stays without its call.
fn cut(messages: &[&Message], task: usize, wanted: usize) -> usize {
    let others: Vec<&Message> = messages
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != task)
        .map(|(_, message)| *message)
        .collect();
    let newest_is_task = task + 1 == messages.len();
    let most = if newest_is_task { others.len() } else { others.len().saturating_sub(1) };
    let mut drop = wanted.min(most);
    let orphan = |drop: usize| others.get(drop).is_some_and(|first| holds_results(first));
    while drop < most && orphan(drop) {
        drop += 1;
    }
    while drop > 0 && orphan(drop) {
        drop -= 1;
    }
    drop
}

fn holds_results(message: &Message) -> bool {
    let is_result = |content: &UserContent| matches!(content, UserContent::ToolResult(_));
    matches!(message, Message::User { content } if content.iter().any(is_result))
}

/// What the window has to hold besides the messages.
pub(super) fn fixed_tokens(preamble: Option<&str>, tools: &[ToolDefinition]) -> usize {
    let tool = |tool: &ToolDefinition| {
        let description: &str = &tool.description;
        text::estimate_tokens(description) + text::estimate_tokens(&tool.parameters.to_string())
    };
    preamble.map_or(0, text::estimate_tokens) + tools.iter().map(tool).sum::<usize>()
}

/// The window of one run.
pub(super) struct Room<'a> {
    parts: &'a AgentParts,
    kind: ProcessKind,
    /// The model of this kind is the one that it has room in.
    routing: RoutingConfig,
    fixed: usize,
    task: usize,
    overflows: usize,
}

impl<'a> Room<'a> {
    /// `task` is where the task stands in the history.
    pub(super) fn new(
        parts: &'a AgentParts,
        (kind, routing): (ProcessKind, RoutingConfig),
        fixed: usize,
        task: usize,
    ) -> Self {
        Self { parts, kind, routing, fixed, task, overflows: 0 }
    }

    /// The run begins with something new.
    pub(super) fn begin(&mut self) {
        self.overflows = 0;
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, small
    fn tokens(&self, messages: &[&Message]) -> usize {
        let estimate = self.fixed + tokens::estimate(messages.iter().copied());
        let factor = self.parts.llm.token_factor(&self.routing, self.kind);
        (estimate as f64 * factor) as usize
    }

    fn window(&self) -> usize {
        self.parts.config.limits.context_window
    }

    fn take(&mut self, drop: usize, recap: Option<String>) -> Trim {
        let trim = Trim { task: self.task, drop, recap };
        self.task = trim.next_task();
        trim
    }

    /// For a branch: the oldest half leaves, again and again, until there is room for an answer.
    pub(super) fn preflight(&mut self, messages: &[&Message]) -> Option<Trim> {
        let most = self.window() * PREFLIGHT_PERCENT / 100;
        let drop = preflight(messages, self.task, |left| self.tokens(left) <= most);
        (drop > 0).then(|| self.take(drop, None))
    }

    /// For a worker: the oldest half becomes a recap when the window gets full.
    pub(super) fn compact(&mut self, messages: &[&Message]) -> Option<Trim> {
        if self.tokens(messages) < self.window() * COMPACT_PERCENT / 100 {
            return None;
        }
        let drop = cut(messages, self.task, messages.len().saturating_sub(1).div_ceil(2));
        if drop < COMPACT_LEAST {
            return None;
        }
        let leaving = messages.iter().enumerate().filter(|(index, _)| *index != self.task);
        let leaving: Vec<&Message> = leaving.map(|(_, message)| *message).take(drop).collect();
        let most = RECAP_BYTES.min(self.window() / RECAP_PART_OF_WINDOW * text::CHARACTERS_PER_TOKEN);
        Some(self.take(drop, Some(recap(&leaving, most))))
    }

    /// The provider says that the request is too long: three quarters leave. None: that was tried often
    /// enough, or there is nothing left that could.
    pub(super) fn overflow(&mut self, messages: &[&Message]) -> Option<Trim> {
        if self.overflows >= OVERFLOW_RETRIES {
            return None;
        }
        self.overflows += 1;
        let drop = cut(messages, self.task, (messages.len().saturating_sub(1) * 3).div_ceil(4));
        (drop > 0).then(|| self.take(drop, None))
    }
}

fn preflight(messages: &[&Message], task: usize, fits: impl Fn(&[&Message]) -> bool) -> usize {
    let others = messages.len().saturating_sub(1);
    let (mut kept, mut drop) = (others, 0);
    loop {
        let without: Vec<&Message> = messages
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != task)
            .skip(drop)
            .map(|(_, message)| *message)
            .chain(messages.get(task).copied())
            .collect();
        if fits(&without) || kept <= PREFLIGHT_KEPT {
            return drop;
        }
        kept = (kept / 2).max(PREFLIGHT_KEPT);
        let next = cut(messages, task, others - kept);
        if next <= drop || others - next < PREFLIGHT_KEPT {
            return drop;
        }
        drop = next;
    }
}

/// What was done in these messages, a line for each call and each text. The lines of an earlier recap
/// stay as they are.
fn recap(messages: &[&Message], most: usize) -> String {
    let heading = prompts::notice("worker_recap");
    let mut lines: Vec<String> = Vec::new();
    for message in messages {
        match message {
            Message::User { content } => {
                content.iter().for_each(|content| told(content, heading, &mut lines))
            }
            Message::Assistant(said) => lines.extend(said.content.iter().filter_map(did)),
            Message::System { .. } => {}
        }
    }
    let mut size = heading.len() + lines.iter().map(|line| line.len() + 1).sum::<usize>();
    let mut first = 0;
    while size > most && first < lines.len() {
        size -= lines[first].len() + 1;
        first += 1;
    }
    std::iter::once(heading).chain(lines[first..].iter().map(String::as_str)).collect::<Vec<_>>().join("\n")
}

fn told(content: &UserContent, heading: &str, lines: &mut Vec<String>) {
    match content {
        UserContent::Text(words) => match words.text.strip_prefix(heading) {
            Some(earlier) => lines.extend(earlier.lines().filter(|line| !line.is_empty()).map(str::to_owned)),
            None => lines.push(format!("- told: {}", short(&words.text))),
        },
        UserContent::ToolResult(result) => {
            let words = result.content.iter().filter_map(|content| match content {
                ToolResultContent::Text(text) => Some(text.text.as_str()),
                _ => None,
            });
            lines.push(format!("  -> {}", short(&words.collect::<Vec<_>>().join(" "))));
        }
        _ => {}
    }
}

fn did(content: &AssistantContent) -> Option<String> {
    match content {
        AssistantContent::Text(text) if !text.text.trim().is_empty() => {
            Some(format!("- said: {}", short(&text.text)))
        }
        AssistantContent::ToolCall(call) => {
            let arguments = call.function.arguments_value().to_string();
            Some(format!("- {} {}", call.function.name.as_str(), short(&arguments)))
        }
        _ => None,
    }
}

/// One line of at most so many bytes.
fn short(words: &str) -> String {
    text::one_line(words, RECAP_PART_BYTES)
}

#[cfg(test)]
mod tests;
