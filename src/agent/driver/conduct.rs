//! What a process of some kind decides on its way, and what it hears.

use rig_core::completion::Message;
use serde_json::{Value, json};

use crate::agent::link::ProcessDesk;
use crate::agent::room::Trim;
use crate::message::Attachment;

/// What the driver asks of the kind of process that it drives. Without answers of its own, a process
/// ends with its first text and hears nothing on the way.
pub(in crate::agent) trait Conduct {
    /// A reply without tool calls. `Some` sends these words back to the model, `None` accepts.
    fn on_text(&mut self, _text: &str, _desk: &mut ProcessDesk<'_>) -> Option<String> {
        None
    }

    /// All tools of one step are done; true ends the run.
    fn on_tools(&mut self, _desk: &mut ProcessDesk<'_>) -> bool {
        false
    }

    /// A message that came for the running process, to be read before the next model call, of which
    /// `left` may still be made.
    fn next_message(&mut self, _desk: &mut ProcessDesk<'_>, _left: usize) -> Option<Heard> {
        None
    }

    /// What has to leave the history before the model is asked with these messages.
    fn before_model(&mut self, _messages: &[&Message]) -> Option<Trim> {
        None
    }

    /// What leaves these messages, of which the provider says that they are too long; `None` ends the run.
    fn too_long(&mut self, _messages: &[&Message]) -> Option<Trim> {
        None
    }

    /// Nobody waits for it, and it has come so far that a long wait for its model is worth it.
    fn is_patient(&self) -> bool {
        false
    }

    /// Whether a message that has come sends a reply without tool calls back to the model; else that reply
    /// is the end.
    fn hears_after_text(&self) -> bool {
        true
    }
}

/// A message for a running process.
pub(in crate::agent) struct Heard {
    /// As the model reads it.
    pub(in crate::agent) text: String,
    /// Platform ids of what people wrote, for the journal.
    pub(in crate::agent) messages: Vec<String>,
    /// Pictures and documents that came with it.
    pub(in crate::agent) shown: Vec<Attachment>,
    /// Files came with it: what they say is nobody's word.
    pub(in crate::agent) outside: bool,
}

impl Heard {
    /// Words of another process.
    pub(in crate::agent) fn routed(text: String) -> Self {
        Self { text, messages: Vec::new(), shown: Vec::new(), outside: false }
    }

    pub(super) fn record(&self) -> Value {
        if self.messages.is_empty() {
            return json!({ "text": self.text });
        }
        let mut record = json!({ "text": self.text, "messages": self.messages });
        if !self.shown.is_empty() {
            record["attachments"] = json!(self.shown);
        }
        record
    }
}
