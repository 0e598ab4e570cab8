//! What an LLM process can do: one type per tool, built with exactly the service that it uses.
//!
//! A tool's description for the model is `prompts/en/tools/<name>.md`; its arguments are a struct
//! whose field comments are the schema's descriptions.

pub mod branch;
pub mod cancel;
pub mod channel_recall;
pub mod cron;
pub mod file_edit;
pub mod file_list;
pub mod file_read;
pub mod file_write;
pub mod memory_delete;
pub mod memory_persistence_complete;
pub mod memory_proposals;
pub mod memory_recall;
pub mod memory_save;
pub mod react;
pub mod read_skill;
pub mod reply;
pub mod route;
pub mod send_agent_message;
pub mod set_outcome;
pub mod set_status;
pub mod shell;
pub mod skip;
pub mod spawn_worker;
pub mod speech;
pub mod task_create;
pub mod task_list;
pub mod task_update;
pub mod worker_inspect;
pub mod workspace;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use crate::effect::{Answer, Ask, Effect};
use crate::id::{ProcessId, ProcessKind};
use crate::thread::Cancel;

/// Longest output that a tool hands to the model, in bytes; the rest is cut with a notice.
pub const MAX_TOOL_OUTPUT_BYTES: usize = 50_000;

pub trait Tool: Send {
    fn name(&self) -> &'static str;

    /// JSON schema of the arguments.
    fn parameters(&self) -> Value;

    /// # Errors
    /// In words for the model, which reads them as the result of its call and can react.
    fn call(&mut self, arguments: Value, context: &mut ToolContext<'_>) -> Result<String, ToolError>;

    /// True when the call acts outside of our database, so that the journal must be on disk first.
    fn is_external(&self) -> bool {
        false
    }

    /// True when the call changes our database: it may not be made twice because nobody knows whether it
    /// was made.
    fn changes(&self) -> bool {
        false
    }

    /// True when what it returns was written by others: files, pages, the output of commands. What a run
    /// saves to memory after that is not taken for the user's or the agent's own word.
    fn reads_outside(&self) -> bool {
        false
    }
}

/// What every tool may use besides its own service.
pub struct ToolContext<'a> {
    /// Every wait of a tool ends when this is cancelled.
    pub cancel: &'a Cancel,
    pub desk: &'a mut dyn Desk,
    /// The run has read words from outside ([`Tool::reads_outside`]).
    pub outside: bool,
}

/// The way up: a tool tells and asks here and never sees who answers.
pub trait Desk {
    fn tell(&mut self, effect: Effect);

    /// Waits for the answer, with a deadline.
    ///
    /// # Errors
    /// Cancelled, or nobody answered in time.
    fn ask(&mut self, ask: Ask) -> Result<Answer, ToolError>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ToolError {
    #[error("invalid arguments: {0}")]
    Invalid(String),
    #[error("not allowed: {0}")]
    Denied(String),
    #[error("not found: {0}")]
    NotFound(String),
    #[error("{0}")]
    Failed(String),
    #[error("not finished within {0} seconds")]
    TimedOut(u64),
    #[error("cancelled")]
    Cancelled,
    /// The call is one of many that were the same, and did not run.
    #[error("{0}")]
    Repeated(&'static str),
}

impl ToolError {
    /// The structured result that the model reads.
    pub fn to_result(&self) -> String {
        let kind = match self {
            ToolError::Invalid(_) => "invalid_arguments",
            ToolError::Denied(_) => "denied",
            ToolError::NotFound(_) => "not_found",
            ToolError::Failed(_) => "failed",
            ToolError::TimedOut(_) => "timed_out",
            ToolError::Cancelled => "cancelled",
            ToolError::Repeated(_) => "repeated",
        };
        json!({ "error": kind, "message": self.to_string() }).to_string()
    }
}

/// Schema of an argument struct, without the noise that costs tokens.
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
    }
    schema
}

/// Reads arguments; the error names the field.
///
/// # Errors
/// [`ToolError::Invalid`] in words for the model.
pub fn arguments_of<T: DeserializeOwned>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(|error| ToolError::Invalid(error.to_string()))
}

/// A number that models also write as text: `10` or `"10"`.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(usize),
        Text(String),
    }
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Text(text)) => text.trim().parse().map(Some).map_err(serde::de::Error::custom),
    }
}

/// A switch that models also write as text: `true` or `"true"`.
fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Switch(bool),
        Text(String),
    }
    match Option::<Written>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Written::Switch(switch)) => Ok(Some(switch)),
        Some(Written::Text(text)) => {
            text.trim().to_lowercase().parse().map(Some).map_err(serde::de::Error::custom)
        }
    }
}

fn process_of(kind: ProcessKind, text: &str) -> Result<ProcessId, ToolError> {
    ProcessId::parse(kind, text)
        .ok_or_else(|| ToolError::Invalid(format!("{text:?} names no {}", kind.as_str())))
}

/// The hub's answer as the model reads it.
fn started(answer: Answer) -> Result<String, ToolError> {
    match answer {
        Answer::Started(process) => Ok(json!({ "started": process.to_string() }).to_string()),
        Answer::Done(what) => Ok(json!({ "done": what }).to_string()),
        Answer::Refused(refusal) => Err(ToolError::Denied(refusal.to_string())),
    }
}
