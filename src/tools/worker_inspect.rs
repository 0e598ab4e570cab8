//! `worker_inspect`: what the workers of this conversation did, step by step.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Tool, ToolContext, ToolError, arguments_of, number, process_of, schema_of};
use crate::conversation::Conversations;
use crate::id::{ConversationId, ProcessKind};
use crate::text;

const DEFAULT_RUNS: usize = 10;
const MAX_RUNS: usize = 50;
/// Longest result in a listing, in bytes.
const LISTED_RESULT_BYTES: usize = 500;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Arguments {
    /// A worker such as `worker:7`, for its transcript; without it, the latest workers are listed.
    #[serde(default)]
    worker_id: Option<String>,
    /// Workers to list, 1 to 50 (10).
    #[serde(default, deserialize_with = "number")]
    #[schemars(with = "Option<usize>")]
    limit: Option<usize>,
}

pub struct WorkerInspect {
    conversations: Conversations,
    here: ConversationId,
}

impl WorkerInspect {
    pub fn new(conversations: Conversations, here: ConversationId) -> Self {
        Self { conversations, here }
    }
}

impl Tool for WorkerInspect {
    fn name(&self) -> &'static str {
        "worker_inspect"
    }

    fn parameters(&self) -> Value {
        schema_of::<Arguments>()
    }

    fn reads_outside(&self) -> bool {
        true
    }

    fn call(&mut self, arguments: Value, _context: &mut ToolContext<'_>) -> Result<String, ToolError> {
        let Arguments { worker_id, limit } = arguments_of(arguments)?;
        let failed = |error: crate::db::DbError| match error {
            crate::db::DbError::NotFound(what) => ToolError::NotFound(what),
            error => ToolError::Failed(error.to_string()),
        };
        if let Some(worker_id) = worker_id {
            let worker = process_of(ProcessKind::Worker, &worker_id)?;
            let run = self.conversations.worker(&self.here, worker.number).map_err(failed)?;
            let steps = run.transcript.as_deref().and_then(|steps| serde_json::from_str::<Value>(steps).ok());
            return Ok(json!({ "worker": run, "steps": steps }).to_string());
        }
        let limit = limit.unwrap_or(DEFAULT_RUNS).clamp(1, MAX_RUNS);
        let mut runs = self.conversations.workers(&self.here, limit).map_err(failed)?;
        for run in &mut runs {
            run.result =
                run.result.as_deref().map(|result| text::shorten(result, LISTED_RESULT_BYTES).into_owned());
        }
        Ok(json!({ "workers": runs }).to_string())
    }
}
