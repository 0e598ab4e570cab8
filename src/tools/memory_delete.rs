//! The tool `memory_delete`: hides one memory, softly.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::memory_save::tool_error;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::memory::{Draft, MemoryStore, Origin};
use crate::text;

/// How much of the forgotten content is shown, so that a mistake is seen.
const SHOWN_BYTES: usize = 200;

pub struct MemoryDelete {
    store: MemoryStore,
    origin: Origin,
    /// Where it is only noted, to be done with all that the draft comes to.
    draft: Option<Draft>,
}

impl MemoryDelete {
    pub fn new(store: MemoryStore, origin: Origin) -> Self {
        Self { store, origin, draft: None }
    }

    pub fn drafting(store: MemoryStore, origin: Origin, draft: Draft) -> Self {
        Self { store, origin, draft: Some(draft) }
    }
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Id of the memory, from memory_recall.
    memory_id: String,
    /// Why, for the record.
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Tool for MemoryDelete {
    fn name(&self) -> &'static str {
        "memory_delete"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn changes(&self) -> bool {
        self.draft.is_none()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let arguments: Arguments = arguments_of(arguments)?;
        if context.cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        let id = arguments.memory_id.trim();
        let reason = match arguments.reason.as_deref().map(str::trim) {
            Some(reason) if !reason.is_empty() => format!("{}: {reason}", self.origin.process),
            _ => self.origin.process.to_string(),
        };
        let memory = self.store.get(id).map_err(|error| tool_error(&error))?;
        let forgotten = match &self.draft {
            Some(draft) => draft.forget(id, &reason).map(|forgotten| forgotten == Some(true)),
            None => self.store.forget(id, Some(&reason)),
        };
        let forgotten = forgotten.map_err(|error| tool_error(&error))?;
        let output = match memory {
            Some(memory) if forgotten => {
                let content = text::one_line(&memory.content, SHOWN_BYTES);
                json!({ "forgotten": true, "id": id, "type": memory.memory_type, "content": content })
            }
            Some(_) => json!({ "forgotten": false, "id": id, "why": "already_forgotten" }),
            None => json!({ "forgotten": false, "id": id, "why": "not_found" }),
        };
        Ok(output.to_string())
    }
}
