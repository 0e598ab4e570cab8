//! What happened lately, for the end of a channel's prompt: events that this conversation does not show
//! itself, and the other conversations of the last hours.

use super::AgentParts;
use super::job::Job;
use crate::clock::Timestamp;
use crate::conversation::Active;
use crate::error::Fault;
use crate::working_memory::{Days, Other, Seen, View, WorkingMemory, render};

/// None when nothing happened. `visible_from` is when the oldest line was said that the prompt shows of
/// this conversation: what happened in it since then stands there already.
pub(super) fn text(parts: &AgentParts, job: &Job, visible_from: Option<Timestamp>) -> Option<String> {
    let config = &parts.config.working_memory;
    if !config.enabled {
        return None;
    }
    // A prompt without it is better than no answer.
    read(parts, job, visible_from)
        .inspect_err(|error| log::warn!("a prompt goes without what happened lately: {error}"))
        .unwrap_or_default()
}

fn read(
    parts: &AgentParts,
    job: &Job,
    visible_from: Option<Timestamp>,
) -> Result<Option<String>, Box<dyn Fault>> {
    let settings = parts.settings(&job.place).map_err(|error| Box::new(error) as Box<dyn Fault>)?;
    if !settings.memory_mode.reads() {
        return Ok(None);
    }
    let (config, zone) = (&parts.config.working_memory, &parts.config.timezone);
    let (here, now) = (&job.place.conversation, parts.conversations.now());
    let seen = visible_from.map(|from| Seen { conversation: here, from });
    let recent = parts
        .working_memory()
        .recent(&Days::of(now, zone), seen, config)
        .map_err(|error| Box::new(error) as Box<dyn Fault>)?;
    let active = parts
        .conversations
        .active(here, now.minus(config.map_inactive), config.map_max_channels)
        .map_err(|error| Box::new(error) as Box<dyn Fault>)?;
    let others: Vec<Other> = active.into_iter().map(other).collect();
    render(&recent, &others, &View { here, now, zone, config })
        .map_err(|error| Box::new(error) as Box<dyn Fault>)
}

fn other(active: Active) -> Other {
    let Active { conversation, direct, last_active, sender, text } = active;
    Other { conversation, direct, last_active, sender, text }
}

impl AgentParts {
    pub(super) fn working_memory(&self) -> WorkingMemory {
        WorkingMemory::new(self.conversations.db().clone())
    }
}
