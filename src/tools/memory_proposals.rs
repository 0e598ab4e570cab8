//! The tools `memory_proposals` and `memory_decide`: pairs of memories that may contradict each other, and what
//! they are. Plain code proposes such a pair and guesses nothing; the cortex and its operator settle it.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::memory_save::tool_error;
use super::{Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::memory::{Decision, Memory, MemoryStore};
use crate::text;

/// Pairs that are shown at a time, the longest waiting first.
const SHOWN: usize = 20;
/// Bytes of each memory that are shown.
const SHOWN_BYTES: usize = 500;

pub struct MemoryProposals(MemoryStore);

impl MemoryProposals {
    pub fn new(store: MemoryStore) -> Self {
        Self(store)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

impl Tool for MemoryProposals {
    fn name(&self) -> &'static str {
        "memory_proposals"
    }

    fn parameters(&self) -> Value {
        schema_of::<Nothing>()
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Nothing {} = arguments_of(arguments)?;
        let proposals = self.0.proposals(SHOWN).map_err(|error| tool_error(&error))?;
        let shown = |memory: &Memory| {
            let content = text::one_line(&memory.content, SHOWN_BYTES).to_string();
            json!({ "id": memory.id, "content": content, "created_at": memory.created_at.to_rfc3339() })
        };
        let proposals: Vec<Value> = proposals
            .iter()
            .map(|proposal| {
                let (older, newer) = (shown(&proposal.older), shown(&proposal.newer));
                json!({ "proposal": proposal.id, "older": older, "newer": newer })
            })
            .collect();
        Ok(json!({ "proposals": proposals }).to_string())
    }
}

pub struct MemoryDecide(MemoryStore);

impl MemoryDecide {
    pub fn new(store: MemoryStore) -> Self {
        Self(store)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Decided {
    /// Number of the proposal, from memory_proposals.
    proposal: i64,
    decision: Decision,
}

impl Tool for MemoryDecide {
    fn name(&self) -> &'static str {
        "memory_decide"
    }

    fn parameters(&self) -> Value {
        schema_of::<Decided>()
    }

    fn changes(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Decided { proposal, decision } = arguments_of(arguments)?;
        if context.cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        match self.0.decide(proposal, decision).map_err(|error| tool_error(&error))? {
            true => Ok(json!({ "decided": true, "proposal": proposal }).to_string()),
            false => Ok(json!({ "decided": false, "proposal": proposal, "why": "not_open" }).to_string()),
        }
    }
}
