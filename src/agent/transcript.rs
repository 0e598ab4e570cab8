//! What a run looked like, for `worker_inspect` and for the conclusion of a run without last words.

use rig_core::completion::Message;
use rig_core::message::{AssistantContent, ToolResultContent, UserContent};
use serde_json::{Value, json};

use crate::text;

/// Longest arguments of a tool call in a transcript, in bytes.
const MAX_ARGUMENTS_BYTES: usize = 2_000;
/// Longest tool result in a transcript, in bytes.
const MAX_RESULT_BYTES: usize = 50_000;
/// Longest transcript, in bytes; the oldest steps go first.
const MAX_TRANSCRIPT_BYTES: usize = 1 << 20;

/// JSON list of steps: `{"text"}`, `{"call", "arguments"}`, `{"result"}`, `{"input"}`.
pub(super) fn of(history: &[Message]) -> String {
    let mut steps: Vec<Value> = history.iter().flat_map(steps_of).collect();
    let mut size: usize = steps.iter().map(|step| step.to_string().len() + 1).sum();
    let mut dropped = 0;
    while size > MAX_TRANSCRIPT_BYTES && dropped < steps.len() {
        size -= steps[dropped].to_string().len() + 1;
        dropped += 1;
    }
    steps.drain(..dropped);
    Value::Array(steps).to_string()
}

fn steps_of(message: &Message) -> Vec<Value> {
    match message {
        Message::User { content } => content.iter().filter_map(user_step).collect(),
        Message::Assistant(assistant) => assistant.content.iter().filter_map(assistant_step).collect(),
        Message::System { .. } => Vec::new(),
    }
}

fn user_step(content: &UserContent) -> Option<Value> {
    match content {
        UserContent::Text(text) => Some(json!({ "input": text.text })),
        UserContent::ToolResult(result) => {
            let words: Vec<_> = result
                .content
                .iter()
                .filter_map(|content| match content {
                    ToolResultContent::Text(text) => Some(text.text.as_str()),
                    _ => None,
                })
                .collect();
            Some(json!({ "result": text::shorten(&words.join("\n"), MAX_RESULT_BYTES) }))
        }
        _ => None,
    }
}

fn assistant_step(content: &AssistantContent) -> Option<Value> {
    match content {
        AssistantContent::Text(text) if !text.text.is_empty() => Some(json!({ "text": text.text })),
        AssistantContent::ToolCall(call) => {
            let arguments = call.function.arguments_value().to_string();
            let arguments = text::shorten(&arguments, MAX_ARGUMENTS_BYTES);
            Some(json!({ "call": call.function.name.as_str(), "arguments": arguments }))
        }
        _ => None,
    }
}

/// The last text that the model wrote.
pub(super) fn last_words(history: &[Message]) -> Option<String> {
    history.iter().rev().find_map(|message| match message {
        Message::Assistant(assistant) => assistant.content.iter().rev().find_map(|content| match content {
            AssistantContent::Text(text) if !text.text.trim().is_empty() => Some(text.text.trim().to_owned()),
            _ => None,
        }),
        _ => None,
    })
}
