//! The tool `memory_save`: one memory with its associations.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::db::rusqlite::Connection;
use crate::error::Fault;
use crate::memory::{
    Draft, Memory, MemoryError, MemoryStore, MemoryType, NewAssociation, NewMemory, Origin, RelationType,
    Source, WEIGHT_DEFAULT,
};
use crate::working_memory::NewEvent;

pub struct MemorySave {
    origin: Origin,
    to: To,
    event: Option<NewEvent>,
}

/// Where a memory goes.
enum To {
    Store(MemoryStore),
    /// To be stored with all others of the draft.
    Draft(Draft),
}

impl MemorySave {
    pub fn new(store: MemoryStore, origin: Origin) -> Self {
        Self { origin, to: To::Store(store), event: None }
    }

    pub fn drafting(draft: Draft, origin: Origin) -> Self {
        Self { origin, to: To::Draft(draft), event: None }
    }

    /// Every save is an event of the working memory too: this one, with the memory's text and importance.
    /// (Not of a draft, whose memories are not stored yet.)
    #[must_use]
    pub fn with_event(mut self, event: Option<NewEvent>) -> Self {
        self.event = event;
        self
    }
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// What to remember, as one statement that makes sense on its own.
    content: String,
    /// What kind of knowledge it is; fact when absent.
    #[serde(default)]
    #[schemars(with = "MemoryType", skip_serializing_if = "Option::is_none")]
    memory_type: Option<MemoryType>,
    /// From 0 (trivial) to 1 (essential); each type has a default.
    #[serde(default, deserialize_with = "number_or_text")]
    #[schemars(with = "f64", skip_serializing_if = "Option::is_none")]
    importance: Option<f64>,
    /// Who said it or where it is from: a name, or file:NAME, web:ADDRESS, tool:NAME.
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// How it bears on memories that are already there.
    #[serde(default)]
    #[schemars(with = "Vec<AssociationArgument>", skip_serializing_if = "Option::is_none")]
    associations: Option<Vec<AssociationArgument>>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
struct AssociationArgument {
    /// Id of the other memory, from memory_recall.
    target_id: String,
    /// related_to when absent.
    #[serde(default)]
    #[schemars(with = "RelationType", skip_serializing_if = "Option::is_none")]
    relation_type: Option<RelationType>,
    /// From 0 to 1; 0.5 when absent.
    #[serde(default, deserialize_with = "number_or_text")]
    #[schemars(with = "f64", skip_serializing_if = "Option::is_none")]
    weight: Option<f64>,
}

impl Tool for MemorySave {
    fn name(&self) -> &'static str {
        "memory_save"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn changes(&self) -> bool {
        matches!(self.to, To::Store(_))
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let arguments: Arguments = arguments_of(arguments)?;
        if context.cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        let associations = arguments.associations.unwrap_or_default().into_iter().map(|one| NewAssociation {
            target_id: one.target_id.trim().to_owned(),
            relation_type: one.relation_type.unwrap_or(RelationType::RelatedTo),
            weight: one.weight.unwrap_or(WEIGHT_DEFAULT),
        });
        let memory_type = arguments.memory_type.unwrap_or(MemoryType::Fact);
        let memory = NewMemory {
            importance: arguments.importance,
            source: Some(Source::claimed(self.origin.process, arguments.source.as_deref(), context.outside)),
            channel_id: Some(self.origin.conversation.to_string()),
            associations: associations.collect(),
            ..NewMemory::new(memory_type, arguments.content)
        };
        let event = self.event.clone();
        let also = move |connection: &Connection, memory: &Memory| match event {
            Some(event) => {
                let (text, importance) = (memory.content.clone(), Some(memory.importance));
                NewEvent { text, importance, ..event }.insert(connection, memory.updated_at)
            }
            None => Ok(()),
        };
        let saved = match &self.to {
            To::Store(store) => store.save_and(memory, also).map(|saved| saved.id),
            To::Draft(draft) => draft.save(memory),
        };
        let saved = saved.map_err(|error| tool_error(&error))?;
        Ok(json!({ "saved": saved, "type": memory_type }).to_string())
    }
}

pub(super) fn tool_error(error: &MemoryError) -> ToolError {
    match error {
        MemoryError::Invalid(_) => ToolError::Invalid(error.to_string()),
        MemoryError::NotFound(_) => ToolError::NotFound(error.to_string()),
        MemoryError::Database(_)
        | MemoryError::Index { .. }
        | MemoryError::VectorIndex(_)
        | MemoryError::Embedding(_) => {
            log::warn!("{}", crate::error::log_line(error));
            // Only the kind: paths are nothing that a model needs to know.
            ToolError::Failed(format!("the memory store does not work now ({})", error.kind().notice()))
        }
    }
}

/// Models write `10`, `"10"` and `null`.
pub(super) fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let number = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match number {
        Some(number) if number.is_finite() => Ok(Some(number)),
        _ => Err(D::Error::custom("expected a number")),
    }
}
