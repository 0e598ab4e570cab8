//! The tool `memory_persistence_complete`: the end of a reading, with everything that was saved.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::memory_save::tool_error;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::effect::Effect;
use crate::memory::Draft;

/// Shortest reason that says something, in characters.
const REASON_CHARACTERS: usize = 3;

pub struct MemoryPersistenceComplete {
    draft: Draft,
}

impl MemoryPersistenceComplete {
    pub fn new(draft: Draft) -> Self {
        Self { draft }
    }
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    outcome: Outcome,
    /// The ids of all memories that you have saved here, as memory_save gave them; empty with no_memories.
    #[serde(default)]
    #[schemars(with = "Vec<String>", skip_serializing_if = "Option::is_none")]
    saved_memory_ids: Option<Vec<String>>,
    /// One sentence on why nothing was worth keeping; needed with no_memories.
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize, JsonSchema, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
enum Outcome {
    Saved,
    NoMemories,
}

impl Tool for MemoryPersistenceComplete {
    fn name(&self) -> &'static str {
        "memory_persistence_complete"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let arguments: Arguments = arguments_of(arguments)?;
        if context.cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        let needs_reason = arguments.outcome == Outcome::NoMemories;
        if needs_reason && arguments.reason.trim().chars().count() < REASON_CHARACTERS {
            return Err(ToolError::Invalid("give a reason".to_owned()));
        }
        let ids = arguments.saved_memory_ids.unwrap_or_default();
        match (arguments.outcome, ids.is_empty()) {
            (Outcome::Saved, true) => {
                return Err(ToolError::Invalid("saved needs saved_memory_ids".to_owned()));
            }
            (Outcome::NoMemories, false) => {
                return Err(ToolError::Invalid(
                    "no_memories and saved_memory_ids contradict each other".to_owned(),
                ));
            }
            _ => {}
        }
        let saved = self.draft.complete(&ids).map_err(|error| tool_error(&error))?;
        context.desk.tell(Effect::Persisted);
        Ok(json!({ "complete": true, "saved": saved }).to_string())
    }
}
