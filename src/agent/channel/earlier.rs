//! What an earlier try at the same messages had already done when it was cut off, by a crash or a failure.
//! A turn begins anew then; its commands and notes would be doubled if the model did not know of them.

use rig_core::completion::Message;
use rig_core::message::ToolCall;

use super::super::AgentParts;
use super::super::job::Job;
use super::super::rebuild::rebuild;
use super::input::Input;
use crate::clock::Timestamp;
use crate::conversation::Record;
use crate::prompts;
use crate::text;

/// Tools that leave something behind. What a turn has started begins anew with it.
const LASTING: [&str; 6] = ["shell", "file_write", "file_edit", "memory_save", "memory_delete", "cron"];
/// Calls that are told, the last ones, and bytes of each.
const CALLS_MAX: usize = 20;
const CALL_BYTES: usize = 300;
/// A message that is answered sooner had hardly an earlier try: it saves nearly every turn a look at the
/// journal. A channel that acts itself looks always.
const SOON: std::time::Duration = std::time::Duration::from_millis(500);

/// None when there was no earlier try, or nothing of it lasts.
pub(super) fn text(parts: &AgentParts, job: &Job, input: &Input, acts: bool) -> Option<String> {
    let ids: Vec<&str> =
        input.messages.iter().map(|received| received.message.platform_id.as_str()).collect();
    let oldest = input.messages.iter().map(|received| received.message.sent_at).min()?;
    if !acts && is_soon(oldest, parts.conversations.now()) {
        return None;
    }
    // A prompt without it is better than no answer.
    let records = parts
        .conversations
        .cut_off_turn(&job.place.conversation, &ids)
        .inspect_err(|error| log::warn!("{} does not know of earlier tries: {error}", job.process))
        .ok()??;
    let calls = lasting(&records);
    (!calls.is_empty()).then(|| format!("{}\n{}", prompts::notice("turn_cut_off"), calls.join("\n")))
}

fn is_soon(sent: Timestamp, now: Timestamp) -> bool {
    sent <= now && now.since(sent) < SOON
}

fn lasting(records: &[Record]) -> Vec<String> {
    let run = match rebuild(Vec::new(), Message::user(""), records) {
        Ok(run) => run,
        Err(error) => {
            log::warn!("an earlier try cannot be read: {error}");
            return Vec::new();
        }
    };
    let line = |call: &ToolCall, what: &str| {
        let arguments = call.function.arguments_value().to_string();
        format!("- {} {}: {what}", call.function.name, text::one_line(&arguments, CALL_BYTES))
    };
    let lasts = |call: &&ToolCall| LASTING.contains(&call.function.name.as_str());
    let mut calls: Vec<String> = run.done.iter().filter(lasts).map(|call| line(call, "done")).collect();
    calls.extend(run.unanswered().filter(lasts).map(|call| line(call, "begun, the end is unknown")));
    calls.drain(..calls.len().saturating_sub(CALLS_MAX));
    calls
}
