//! History that every provider takes: what a crash, a cut or another model has left in it is put right
//! before a model is asked. A request that needs nothing goes out as it came, byte for byte; what the
//! journal keeps is never touched.
//!
//! Rig closes some of these gaps for each wire by itself; here they are closed for all, the offline
//! responder included, together with those that it leaves to the provider.

use std::borrow::Cow;

use rig_core::completion::CompletionRequest;
use rig_core::message::{
    AssistantContent, AssistantMessage, CallId, Message, Text, ToolCall, ToolFunction, ToolResult,
    ToolResultContent, UserContent,
};
use serde_json::Value;

use crate::prompts::notice;
use crate::text::prefix;

/// Bytes of one text, of one tool result and of the arguments of one call. A million is more than the
/// windows of most models hold, and providers refuse a text of some ten million without a look at it.
pub const PART_BYTES_MAX: usize = 1 << 20;
/// Bytes of one text within arguments that are too long as a whole.
const ARGUMENT_BYTES_MAX: usize = 16 << 10;
/// Times that the passes go over a history. What one leaves to the next gets less each time, and two are
/// enough for everything that the tests could think of.
const ROUNDS_MAX: usize = 8;

/// `request`, put right where it has to be.
pub(super) fn repaired(request: &CompletionRequest) -> Cow<'_, CompletionRequest> {
    match repair(&request.chat_history) {
        None => Cow::Borrowed(request),
        Some(chat_history) => {
            log::debug!(
                "a history of {} messages was repaired before it was sent",
                request.chat_history.len()
            );
            let mut request = request.clone();
            request.chat_history = chat_history;
            Cow::Owned(request)
        }
    }
}

/// The history put right; none where nothing has to be done.
pub fn repair(history: &[Message]) -> Option<Vec<Message>> {
    if is_sound(history) {
        return None;
    }
    let mut messages = history.to_vec();
    for _ in 0..ROUNDS_MAX {
        messages = paired(joined(messages.into_iter().filter_map(mended).collect()));
        if !messages.iter().any(|message| !matches!(message, Message::System { .. })) {
            messages.push(Message::user(notice("history_empty")));
        }
        if is_sound(&messages) {
            break;
        }
    }
    Some(messages)
}

// ---- what is sound ----------------------------------------------------------------------------------

/// Whether every provider takes these messages.
fn is_sound(messages: &[Message]) -> bool {
    let mut said = messages.iter().filter(|message| !matches!(message, Message::System { .. })).peekable();
    let neighbours = messages.windows(2).any(|pair| same_role(&pair[0], &pair[1]));
    said.peek().is_some() && !neighbours && messages.iter().all(is_whole) && answers_fit(messages)
}

fn same_role(first: &Message, second: &Message) -> bool {
    matches!(
        (first, second),
        (Message::User { .. }, Message::User { .. }) | (Message::Assistant(_), Message::Assistant(_))
    )
}

fn is_whole(message: &Message) -> bool {
    let text = |text: &str| !text.trim().is_empty() && text.len() <= PART_BYTES_MAX;
    match message {
        Message::System { content } => text(content),
        Message::User { content } => {
            !content.is_empty()
                && content.iter().all(|part| match part {
                    UserContent::Text(part) => text(&part.text),
                    UserContent::ToolResult(result) => is_whole_result(&result.content),
                    _ => true,
                })
        }
        Message::Assistant(turn) => {
            !turn.content.is_empty()
                && turn.content.iter().all(|part| match part {
                    AssistantContent::Text(part) => text(&part.text),
                    AssistantContent::ToolCall(call) => is_whole_call(&call.function),
                    _ => true,
                })
        }
    }
}

fn is_whole_result(content: &[ToolResultContent]) -> bool {
    let size: usize = content.iter().map(result_bytes).sum();
    let says_something = |part: &ToolResultContent| match part {
        ToolResultContent::Text(text) => !text.text.trim().is_empty(),
        _ => true,
    };
    size <= PART_BYTES_MAX && !content.is_empty() && content.iter().all(says_something)
}

/// Pictures are measured by their providers.
fn result_bytes(part: &ToolResultContent) -> usize {
    match part {
        ToolResultContent::Text(text) => text.text.len(),
        ToolResultContent::Json { value } => bytes_of(value),
        ToolResultContent::Image(_) => 0,
    }
}

fn is_whole_call(function: &ToolFunction) -> bool {
    let raw = function.invalid_arguments.as_deref().unwrap_or_default();
    arguments_bytes(function) <= PART_BYTES_MAX
        && raw.len() <= PART_BYTES_MAX
        && lone_surrogate(raw, 0).is_none()
}

fn arguments_bytes(function: &ToolFunction) -> usize {
    function.arguments.iter().map(|(name, value)| name.len() + bytes_of(value)).sum()
}

/// About as long as its JSON is; without writing it.
fn bytes_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| bytes_of(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + bytes_of(value) + 4).sum::<usize>() + 2
        }
        _ => 8,
    }
}

/// Every call is answered once, at the beginning of the next message, and nothing else is.
fn answers_fit(messages: &[Message]) -> bool {
    let mut waiting: Vec<&CallId> = Vec::new();
    for message in messages {
        match message {
            Message::System { .. } => {}
            Message::Assistant(turn) => {
                if !waiting.is_empty() {
                    return false;
                }
                for call in turn.tool_calls() {
                    if waiting.contains(&&call.id) {
                        return false;
                    }
                    waiting.push(&call.id);
                }
            }
            Message::User { content } => {
                let mut results_may_come = true;
                for part in content {
                    let UserContent::ToolResult(result) = part else {
                        results_may_come = false;
                        continue;
                    };
                    let Some(at) = waiting.iter().position(|id| **id == result.call) else { return false };
                    waiting.remove(at);
                    if !results_may_come {
                        return false;
                    }
                }
                if !waiting.is_empty() {
                    return false;
                }
            }
        }
    }
    waiting.is_empty()
}

// ---- parts ------------------------------------------------------------------------------------------

/// The message with parts that can be sent; none when nothing is left of it.
fn mended(message: Message) -> Option<Message> {
    match message {
        Message::System { content } => mended_text(&content).map(|content| Message::System { content }),
        Message::User { content } => {
            let content: Vec<_> = content.into_iter().filter_map(mended_part).collect();
            (!content.is_empty()).then_some(Message::User { content })
        }
        Message::Assistant(mut turn) => {
            turn.content = turn.content.into_iter().filter_map(mended_block).collect();
            (!turn.content.is_empty()).then_some(Message::Assistant(turn))
        }
    }
}

/// None: it says nothing.
fn mended_text(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| cut(text, PART_BYTES_MAX))
}

/// At most `bytes_max` bytes, the notice included.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let notice = notice("history_cut");
    format!("{}\n{notice}", prefix(text, bytes_max.saturating_sub(notice.len() + 1)))
}

fn mended_part(part: UserContent) -> Option<UserContent> {
    match part {
        UserContent::Text(text) if text.text.len() <= PART_BYTES_MAX => {
            (!text.text.trim().is_empty()).then_some(UserContent::Text(text))
        }
        UserContent::Text(text) => mended_text(&text.text).map(UserContent::text),
        UserContent::ToolResult(result) if is_whole_result(&result.content) => {
            Some(UserContent::ToolResult(result))
        }
        UserContent::ToolResult(result) => {
            let content = mended_result(result.content);
            Some(UserContent::ToolResult(ToolResult { content, ..result }))
        }
        other => Some(other),
    }
}

fn mended_result(content: Vec<ToolResultContent>) -> Vec<ToolResultContent> {
    let notice = notice("history_cut");
    let is_too_long = content.iter().map(result_bytes).sum::<usize>() > PART_BYTES_MAX;
    let mut left = if is_too_long { PART_BYTES_MAX - notice.len() - 1 } else { PART_BYTES_MAX };
    let mut kept = Vec::new();
    for part in content {
        let size = result_bytes(&part);
        let text = match &part {
            ToolResultContent::Text(text) if text.text.trim().is_empty() => continue,
            _ if size <= left => {
                left -= size;
                kept.push(part);
                continue;
            }
            ToolResultContent::Text(text) => Cow::Borrowed(text.text.as_str()),
            ToolResultContent::Json { value } => Cow::Owned(value.to_string()),
            ToolResultContent::Image(_) => continue,
        };
        kept.push(ToolResultContent::text(format!("{}\n{notice}", prefix(&text, left))));
        break;
    }
    if kept.is_empty() {
        kept.push(ToolResultContent::text(crate::prompts::notice("history_no_output")));
    }
    kept
}

fn mended_block(block: AssistantContent) -> Option<AssistantContent> {
    match block {
        AssistantContent::Text(Text { text, .. }) if text.trim().is_empty() => None,
        AssistantContent::Text(text) if text.text.len() > PART_BYTES_MAX => {
            Some(AssistantContent::text(cut(&text.text, PART_BYTES_MAX)))
        }
        AssistantContent::ToolCall(call) if !is_whole_call(&call.function) => {
            Some(AssistantContent::ToolCall(mended_call(call)))
        }
        other => Some(other),
    }
}

/// The call as it can be sent. The provider's own copy of it would be sent instead, and goes.
fn mended_call(call: ToolCall) -> ToolCall {
    let mut function = call.function;
    if let Some(raw) = function.invalid_arguments.take() {
        let readable = without_lone_surrogates(prefix(&raw, PART_BYTES_MAX));
        function = ToolFunction::parse(function.name, &readable);
    }
    if arguments_bytes(&function) > PART_BYTES_MAX {
        function.arguments.values_mut().for_each(cut_texts);
    }
    if arguments_bytes(&function) > PART_BYTES_MAX {
        function.arguments.clear();
    }
    ToolCall { id: call.id, function, native: None }
}

fn cut_texts(value: &mut Value) {
    match value {
        Value::String(text) => *text = cut(text, ARGUMENT_BYTES_MAX),
        Value::Array(items) => items.iter_mut().for_each(cut_texts),
        Value::Object(fields) => fields.values_mut().for_each(cut_texts),
        _ => {}
    }
}

/// Where the next `\u` escape stands, from `from` on, that is half of a character.
fn lone_surrogate(json: &str, from: usize) -> Option<usize> {
    let bytes = json.as_bytes();
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = from;
    while at < bytes.len() {
        if bytes[at] != b'\\' {
            at += 1;
            continue;
        }
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => return Some(at),
            Some(_) => at += 6,
            // An escape of one character, a backslash among them.
            None => at += 2,
        }
    }
    None
}

/// Each half of a character becomes the sign for what cannot be read.
fn without_lone_surrogates(json: &str) -> String {
    let mut readable = String::with_capacity(json.len());
    let mut copied = 0;
    while let Some(at) = lone_surrogate(json, copied) {
        readable.push_str(&json[copied..at]);
        readable.push_str("\\ufffd");
        copied = at + "\\ufffd".len();
    }
    readable.push_str(&json[copied..]);
    readable
}

// ---- messages ---------------------------------------------------------------------------------------

/// Neighbours of one role as one message.
fn joined(messages: Vec<Message>) -> Vec<Message> {
    let mut joined: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match (joined.last_mut(), message) {
            (Some(Message::User { content }), Message::User { content: more }) => content.extend(more),
            (Some(Message::Assistant(turn)), Message::Assistant(more)) => join_turns(turn, more),
            (_, message) => joined.push(message),
        }
    }
    joined
}

fn join_turns(turn: &mut AssistantMessage, more: AssistantMessage) {
    if turn.origin != more.origin {
        // What one provider has signed means nothing beside another's words.
        let own = std::mem::take(&mut turn.content);
        let both = own.iter().chain(&more.content);
        let common = both.filter(|block| !matches!(block, AssistantContent::Opaque(_)));
        turn.content = common.map(AssistantContent::canonical).collect();
        turn.origin = None;
    } else {
        turn.content.extend(more.content);
    }
    turn.stop = more.stop;
}

/// Every call with its answer at the beginning of the next message, and no answer without a call.
fn paired(messages: Vec<Message>) -> Vec<Message> {
    let mut paired: Vec<Message> = Vec::with_capacity(messages.len());
    let mut waiting: Vec<ToolCall> = Vec::new();
    // System messages between a call and its answer stay in front of the answer.
    for message in messages {
        match message {
            Message::System { .. } => paired.push(message),
            Message::Assistant(mut turn) => {
                if !waiting.is_empty() {
                    paired.push(Message::User { content: unanswered(&mut waiting) });
                }
                turn.content.retain(|block| match block {
                    AssistantContent::ToolCall(call) => {
                        let is_new = waiting.iter().all(|known| known.id != call.id);
                        if is_new {
                            waiting.push(call.clone());
                        }
                        is_new
                    }
                    _ => true,
                });
                paired.push(Message::Assistant(turn));
            }
            Message::User { content } => {
                let (results, rest): (Vec<_>, Vec<_>) =
                    content.into_iter().partition(|part| matches!(part, UserContent::ToolResult(_)));
                let mut answers: Vec<UserContent> = Vec::new();
                for part in results {
                    let UserContent::ToolResult(result) = &part else { continue };
                    let Some(at) = waiting.iter().position(|call| call.id == result.call) else { continue };
                    waiting.remove(at);
                    answers.push(part);
                }
                answers.extend(unanswered(&mut waiting));
                answers.extend(rest);
                if !answers.is_empty() {
                    paired.push(Message::User { content: answers });
                }
            }
        }
    }
    if !waiting.is_empty() {
        paired.push(Message::User { content: unanswered(&mut waiting) });
    }
    paired
}

/// What stands in for answers that nobody has given.
fn unanswered(waiting: &mut Vec<ToolCall>) -> Vec<UserContent> {
    let lost = |call: ToolCall| {
        UserContent::ToolResult(call.error_result(vec![ToolResultContent::text(notice("history_no_answer"))]))
    };
    waiting.drain(..).map(lost).collect()
}

#[cfg(test)]
mod tests;
