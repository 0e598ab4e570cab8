//! Pieces of an answer as they arrive, for display: what counts is the whole answer.

use rig_core::message::AssistantContent;
use rig_core::streaming::{PartKind, StreamEvent};

/// One piece of an answer that is not complete yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta<'a> {
    /// A model begins to answer; pieces of an earlier, broken answer are void.
    Begins,
    Text(&'a str),
    Reasoning(&'a str),
    /// A tool is about to be called; its arguments follow. `call` tells calls of one answer apart.
    Call {
        call: usize,
        tool: &'a str,
    },
    /// A piece of the JSON of the arguments.
    Arguments {
        call: usize,
        json: &'a str,
    },
    /// The call is complete.
    Called {
        call: usize,
    },
}

impl<'a> Delta<'a> {
    pub(super) fn of(event: &'a StreamEvent) -> Option<Self> {
        let call = event.part().index();
        Some(match event {
            StreamEvent::Text { text, .. } => Delta::Text(text),
            StreamEvent::Reasoning { text, .. } => Delta::Reasoning(text),
            StreamEvent::Start { kind: PartKind::ToolCall, name: Some(name), .. } => {
                Delta::Call { call, tool: name.as_str() }
            }
            StreamEvent::Arguments { json, .. } => Delta::Arguments { call, json },
            StreamEvent::End { content: AssistantContent::ToolCall(_), .. } => Delta::Called { call },
            StreamEvent::Start { .. } | StreamEvent::End { .. } => return None,
        })
    }
}
