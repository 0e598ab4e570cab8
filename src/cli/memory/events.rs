//! `memory events`: what the working memory holds, the newest first.

use std::io::{self, BufWriter, Write};

use serde_json::json;

use super::CommandError;
use crate::config::AgentConfig;
use crate::memory::MemoryError;
use crate::working_memory::{Event, WorkingMemory};

pub(super) fn run(
    memory: &WorkingMemory,
    agent: &AgentConfig,
    limit: usize,
    json: bool,
) -> Result<bool, CommandError> {
    let events = memory.newest(limit).map_err(MemoryError::from)?;
    let mut out = BufWriter::new(io::stdout().lock());
    for event in &events {
        let line = if json { as_json(event, agent) } else { as_text(event, agent) };
        writeln!(out, "{line}").map_err(CommandError::Output)?;
    }
    if events.is_empty() && !json {
        writeln!(out, "nothing has happened yet").map_err(CommandError::Output)?;
    }
    out.flush().map_err(CommandError::Output)?;
    Ok(true)
}

fn as_json(event: &Event, agent: &AgentConfig) -> String {
    json!({
        "id": event.id,
        "agent": agent.id.as_str(),
        "type": event.kind.as_str(),
        "conversation": event.conversation.as_ref().map(|conversation| conversation.as_str()),
        "direct": event.direct,
        "text": event.text,
        "importance": event.importance,
        "run": event.run,
        "message": event.message,
        "created_at": event.created_at.to_rfc3339_milliseconds(),
    })
    .to_string()
}

/// Times are those of the agent's zone.
fn as_text(event: &Event, agent: &AgentConfig) -> String {
    let time = agent.timezone.format(event.created_at, "%Y-%m-%d %H:%M");
    let place = event.conversation.as_ref().map_or("-", |conversation| conversation.as_str());
    // Names come from outside; a terminal would obey them.
    let place = place.replace(char::is_control, " ");
    let run = event.run.as_deref().map(|run| format!(", {run}")).unwrap_or_default();
    format!("{time} {:.1} {:<16} {place}{run}: {}", event.importance, event.kind.as_str(), event.text)
}
