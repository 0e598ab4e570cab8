//! From the records of a run back to its conversation: what the model had been told and had said when the
//! last of them was written, and what was used up by then. A pure function; who goes on with a run that
//! was cut off needs it, and who looks at one afterwards.
//!
//! The records follow the driver step by step:
//!
//! | Record | What it does to the history |
//! |---|---|
//! | `start` | nothing: the caller gives what was there before the run, and its prompt |
//! | `model` | a reply, which is [`Rebuilt::pending`] until it is clear what becomes of it |
//! | `tool` | the result of the next call of that reply; with the last one reply and results are history |
//! | `nudge`, `route` | what is pending is history, and behind it these words |
//! | `trim` | the oldest messages leave ([`Trim`]) |
//! | `wait` | what is pending was the result; the run waits for words |
//! | `guard` | nothing, but a call that it refused was not made |
//! | `failed`, `stop`, `resume` | nothing |
//! | `end` | what is pending was the last word |

use rig_agent::run::transcript::assistant_turn;
use rig_core::completion::{CompletionResponse, Message};
use rig_core::message::{ToolCall, ToolResultContent, UserContent};
use serde_json::Value;

use super::room::Trim;
use crate::conversation::{Record, Step};
use crate::error::{Fault, Kind};

/// Why records are no run.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error("record {0} is too long to be in the journal")]
    TooLong(u32),
    #[error("record {0} cannot be read: {1}")]
    Unreadable(u32, serde_json::Error),
    #[error("record {0} does not follow from those before it")]
    Misplaced(u32),
}

impl Fault for RebuildError {
    fn kind(&self) -> Kind {
        Kind::Invalid
    }
}

/// A run as its records leave it.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// All messages, each call in them answered. Behind a prompt, results or words of ours comes a reply.
    pub history: Vec<Message>,
    /// Where the prompt of the run stands in it.
    pub task: usize,
    /// The model's last reply, when it is not history yet: it calls tools that are not all answered, or it
    /// is text, and nothing came after it.
    pub pending: Option<CompletionResponse>,
    /// The results that are recorded for the calls of that reply, in order.
    pub results: Vec<UserContent>,
    pub counts: RebuiltCounts,
    /// Calls that gave a result and no error, in order, since the run was last told something to do.
    pub done: Vec<ToolCall>,
    /// The run has a result and waits for more words.
    pub waits: bool,
    pub ended: bool,
    /// What it was started with holds words from files.
    pub outside: bool,
    /// The number of the next record.
    pub next: u32,
    /// The call that comes next was not made.
    refused: bool,
}

/// What a run has used up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct RebuiltCounts {
    pub model_calls: usize,
    pub tool_calls: usize,
    /// Model calls since the run was last told something to do: its prompt, or words while it waited.
    pub since_input: usize,
}

impl Rebuilt {
    /// The calls of [`Rebuilt::pending`] that have no result.
    pub fn unanswered(&self) -> impl Iterator<Item = &ToolCall> {
        self.pending.iter().flat_map(CompletionResponse::tool_calls).skip(self.results.len())
    }

    /// The last words that the run came to, as text.
    pub fn pending_text(&self) -> Option<String> {
        let reply = self.pending.as_ref().filter(|reply| reply.tool_calls().next().is_none())?;
        Some(reply.text())
    }
}

/// Follows `records`, which are those of one run from its start on, in order. `before` is what was there
/// before the run's `prompt`.
///
/// # Errors
/// They are not the records of a run, or one of them is not there as it was.
pub fn rebuild(before: Vec<Message>, prompt: Message, records: &[Record]) -> Result<Rebuilt, RebuildError> {
    let task = before.len();
    let mut run = Rebuilt { history: before, task, ..Rebuilt::default() };
    run.history.push(prompt);
    for record in records {
        run.follow(record)?;
        run.next = record.number + 1;
    }
    Ok(run)
}

impl Rebuilt {
    fn follow(&mut self, record: &Record) -> Result<(), RebuildError> {
        if record.payload.get("too_long").is_some() {
            return Err(RebuildError::TooLong(record.number));
        }
        match record.step {
            Step::Start => self.outside = record.payload["outside"] == true,
            Step::Failed | Step::Stop | Step::Resume => {}
            Step::Guard => self.refused |= record.payload["verdict"] != "warned",
            Step::Model => self.reply(record)?,
            Step::Tool => self.result(record)?,
            Step::Nudge | Step::Route => {
                self.settle(record)?;
                if self.waits {
                    (self.waits, self.counts.since_input) = (false, 0);
                    self.done.clear();
                }
                let words = record.payload["text"].as_str().unwrap_or_default();
                self.history.push(Message::user(words));
            }
            Step::Trim => {
                let trim: Trim = read(record, &record.payload)?;
                self.history = trim.apply(std::mem::take(&mut self.history));
                self.task = trim.next_task();
            }
            Step::Wait => {
                self.settle(record)?;
                self.waits = true;
            }
            Step::End => {
                self.settle(record).ok(); // a run that was stopped leaves calls without results
                self.ended = true;
            }
        }
        Ok(())
    }

    fn reply(&mut self, record: &Record) -> Result<(), RebuildError> {
        if self.pending.is_some() {
            return Err(RebuildError::Misplaced(record.number));
        }
        self.pending = Some(read(record, &record.payload["response"])?);
        self.counts.model_calls += 1;
        self.counts.since_input += 1;
        Ok(())
    }

    fn result(&mut self, record: &Record) -> Result<(), RebuildError> {
        let Some(call) = self.unanswered().next().cloned() else {
            return Err(RebuildError::Misplaced(record.number));
        };
        let words = record.payload["result"].as_str().unwrap_or_default();
        let content = vec![ToolResultContent::text(words)];
        let failed = record.payload["error"] == Value::Bool(true);
        self.counts.tool_calls += usize::from(!std::mem::take(&mut self.refused));
        self.results.push(UserContent::ToolResult(match failed {
            false => call.result(content),
            true => call.error_result(content),
        }));
        if !failed {
            self.done.push(call);
        }
        if self.unanswered().next().is_none() {
            self.take_pending();
            let results = std::mem::take(&mut self.results);
            self.history.push(Message::User { content: results });
        }
        Ok(())
    }

    /// What is pending becomes history; a call without a result cannot.
    fn settle(&mut self, record: &Record) -> Result<(), RebuildError> {
        if self.unanswered().next().is_some() {
            return Err(RebuildError::Misplaced(record.number));
        }
        self.take_pending();
        Ok(())
    }

    fn take_pending(&mut self) {
        if let Some(reply) = self.pending.take() {
            self.history.extend(assistant_turn(reply.head(), reply.choice));
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(record: &Record, value: &Value) -> Result<T, RebuildError> {
    T::deserialize(value).map_err(|error| RebuildError::Unreadable(record.number, error))
}

#[cfg(test)]
mod tests;
