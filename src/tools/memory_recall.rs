//! The tool `memory_recall`: what is remembered, found by words or listed.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::memory_save::{number_or_text, tool_error};
use super::{MAX_TOOL_OUTPUT_BYTES, Tool, ToolContext, ToolError, arguments_of, schema_of};
use crate::memory::{
    Hit, LIMIT_DEFAULT, LIMIT_MAX, MemoryStore, MemoryType, Mode, SearchQuery, Sort, Source,
};
use crate::text;

/// Bytes of content in one answer, shared by its hits; the rest of the output is for their other fields.
const CONTENT_BYTES: usize = 40_000;

pub struct MemoryRecall {
    store: MemoryStore,
}

impl MemoryRecall {
    pub fn new(store: MemoryStore) -> Self {
        Self { store }
    }
}

#[derive(Deserialize, JsonSchema)]
struct Arguments {
    /// Plain words to look for; needed in hybrid mode.
    #[serde(default)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    /// 1 to 50; 10 when absent.
    #[serde(default, deserialize_with = "number_or_text")]
    #[schemars(with = "u32", range(min = 1, max = 50), skip_serializing_if = "Option::is_none")]
    max_results: Option<f64>,
    /// Only memories of this type; needed in typed mode.
    #[serde(default)]
    #[schemars(with = "MemoryType", skip_serializing_if = "Option::is_none")]
    memory_type: Option<MemoryType>,
    /// hybrid finds by the query; the others list the newest, the most important, or those of one type. hybrid when absent.
    #[serde(default)]
    #[schemars(with = "Mode", skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// Order of a list, not of hybrid; recent when absent, importance in important mode.
    #[serde(default)]
    #[schemars(with = "Sort", skip_serializing_if = "Option::is_none")]
    sort_by: Option<Sort>,
}

impl Tool for MemoryRecall {
    fn name(&self) -> &'static str {
        "memory_recall"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let query = query_of(arguments_of(arguments)?);
        if context.cancel.is_cancelled() {
            return Err(ToolError::Cancelled);
        }
        let hits = self.store.recall(&query).map_err(|error| tool_error(&error))?;
        Ok(render(&hits, self.store.notice().as_deref()))
    }
}

fn query_of(arguments: Arguments) -> SearchQuery {
    let text = arguments.query.filter(|query| !query.trim().is_empty());
    // Without a query and a mode there is still something sensible to answer.
    let mode = arguments.mode.unwrap_or(match (&text, arguments.memory_type) {
        (Some(_), _) => Mode::Hybrid,
        (None, Some(_)) => Mode::Typed,
        (None, None) => Mode::Recent,
    });
    SearchQuery {
        text,
        memory_type: arguments.memory_type,
        sort: arguments.sort_by,
        // A cast from a finite number saturates.
        limit: arguments.max_results.map_or(LIMIT_DEFAULT, |number| number as usize).clamp(1, LIMIT_MAX),
        ..SearchQuery::of(mode)
    }
}

/// Whole JSON within the output limit: contents are cut, evenly, until it fits.
fn render(hits: &[Hit], notice: Option<&str>) -> String {
    let mut share = CONTENT_BYTES / hits.len().max(1);
    loop {
        let output = render_with(hits, notice, share);
        if output.len() <= MAX_TOOL_OUTPUT_BYTES || share == 0 {
            return output;
        }
        share /= 2;
    }
}

fn render_with(hits: &[Hit], notice: Option<&str>, content_bytes: usize) -> String {
    let memories: Vec<Value> = hits
        .iter()
        .map(|Hit { memory, score, .. }| {
            json!({
                "id": memory.id,
                "type": memory.memory_type,
                "importance": two_digits(memory.importance),
                "relevance": two_digits(score.min(1.0)),
                "created_at": memory.created_at.to_rfc3339(),
                "source": memory.source.as_ref().map(Source::to_string),
                "content": text::shorten(&memory.content, content_bytes),
            })
        })
        .collect();
    let mut answer = json!({ "count": memories.len(), "memories": memories });
    if let Some(notice) = notice {
        // Not everything is found yet; a model should not say that there is nothing.
        answer["incomplete"] = notice.into();
    }
    answer.to_string()
}

fn two_digits(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
