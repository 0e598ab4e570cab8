//! Journals of version 0: what they do not tell, as far as it follows from what they do.

use serde_json::Value;

use crate::agent::link::ProcessDesk;
use crate::conversation::{Record, Step};
use crate::effect::Effect;
use crate::event::StopReason;
use crate::thread::Cancel;
use crate::tools::speech::Speech;
use crate::tools::{self, Desk, Tool, ToolContext};

/// Stands between a result and a warning.
pub(super) const BETWEEN: &str = "\n\n";

/// Tools that do nothing but tell.
fn only_tells(name: &str) -> Option<Box<dyn Tool>> {
    Some(match name {
        "reply" => Box::new(tools::reply::Reply::new(Speech::default())),
        "react" => Box::new(tools::react::React),
        "skip" => Box::new(tools::skip::Skip),
        "set_status" => Box::new(tools::set_status::SetStatus),
        "set_outcome" => Box::new(tools::set_outcome::SetOutcome::new(Speech::default())),
        _ => return None,
    })
}

/// Tells what the call must have told.
pub(super) fn tell(name: &str, arguments: Value, result: &str, cancel: &Cancel, desk: &mut ProcessDesk<'_>) {
    if let Some(mut tool) = only_tells(name) {
        // The result is the recorded one, whatever this one is.
        tool.call(arguments, &mut ToolContext { cancel, desk, outside: false }).ok();
    }
    if name == "memory_persistence_complete" {
        desk.tell(Effect::Persisted);
    }
    let result: Value = serde_json::from_str(result).unwrap_or_default();
    desk.started += usize::from(result["started"].is_string());
}

/// How much of a result is the tool's own: `before` says whether a warning follows it.
pub(super) fn own_bytes(result: &str, before: &Record) -> usize {
    let warned = before.step == Step::Guard && before.payload["verdict"] == "warned";
    result.rfind(BETWEEN).filter(|_| warned).unwrap_or(result.len())
}

/// Steps that are not in every journal of this version.
pub(super) fn does_not_tell(step: Step, recorded: Option<&Record>) -> bool {
    let is_missing = recorded.is_none_or(|recorded| recorded.step != step);
    matches!(step, Step::Stop | Step::Failed) || step == Step::Wait && is_missing
}

/// Whether a reading ends with whatever the model says last; later ones have to say what they saved.
pub(super) fn ends_freely(records: &[Record]) -> bool {
    records.last().is_some_and(|end| end.payload.get("taken").is_some())
}

/// Whether a message came to a worker that waited for it. The first journals do not tell that it waits: then
/// a reply without a call stands before it.
pub(super) fn came_waiting(records: &[Record], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| records.get(before));
    let calls = |content: &Value| content.get("function").is_some() || content["type"] == "toolcall";
    if records.iter().any(|record| record.step == Step::Wait) {
        return before.is_some_and(|before| before.step == Step::Wait);
    }
    before.is_some_and(|before| {
        before.step == Step::Model
            && !before.payload["response"]["choice"].as_array().into_iter().flatten().any(calls)
    })
}

/// Why a worker that waited was stopped.
pub(super) fn end_of_waiting(end: &Record) -> StopReason {
    if end.payload["outcome"] == "success" { StopReason::Timeout } else { StopReason::Shutdown }
}

/// Model calls that the run may make: as many as it made.
pub(super) fn calls(records: &[Record]) -> usize {
    let made = records.last().and_then(|end| end.payload["model_calls"].as_u64());
    made.and_then(|made| usize::try_from(made).ok()).unwrap_or(usize::MAX / 2)
}
