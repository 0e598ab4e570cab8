//! Silent branches that take memories from what was said: from a conversation while it goes on, and from
//! what has left its window without having been read before. They say nothing to anybody. What one of them
//! saves is stored together with the mark that it has read so far; what a crash cuts off is read again.

use std::time::Duration;

use serde_json::json;

use super::decide::Bounds;
use super::{is_unread, takes_from, takes_memories, words};
use crate::agent::driver::Ended;
use crate::agent::job::Job;
use crate::agent::link::Link;
use crate::agent::reading::{Read, Reading, why};
use crate::agent::{AgentParts, happening};
use crate::clock::Timestamp;
use crate::config::MemoryPersistenceConfig;
use crate::conversation::{
    self, Line, Place, REMEMBER_TRIES, Record, Role, SCHEDULED, Unread, Unremembered, append_records,
};
use crate::db::DbError;
use crate::db::rusqlite::Connection;
use crate::error::{Fault, Kind};
use crate::event::{How, StopReason};
use crate::id::ProcessKind;
use crate::memory::{Draft, DraftEnd};
use crate::prompts::{self, PromptError, Template};
use crate::working_memory::NewEvent;

/// Lines that one run reads at most; what is left is for the next.
const LINES_MAX: usize = 200;
/// Conversations that a start looks at.
const PLACES_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
enum ExtractionError {
    #[error("{0}")]
    Database(#[from] DbError),
    #[error("{0}")]
    Prompt(#[from] PromptError),
}

impl Fault for ExtractionError {
    fn kind(&self) -> Kind {
        match self {
            ExtractionError::Database(error) => error.kind(),
            ExtractionError::Prompt(error) => error.kind(),
        }
    }
}

/// Takes memories from the oldest archive that nobody has read.
pub(in crate::agent) fn run(parts: &AgentParts, job: &Job, link: &Link<'_>) -> How {
    match read_archive(parts, job, link) {
        Ok(how) => how,
        Err(error) => How::Failed(error.kind(), error.to_string()),
    }
}

fn read_archive(parts: &AgentParts, job: &Job, link: &Link<'_>) -> Result<How, ExtractionError> {
    let conversation = &job.place.conversation;
    let unread =
        if takes_memories(parts, &job.place)? { parts.conversations.unread(conversation)? } else { None };
    let Some(Unread { archive, mut lines }) = unread else {
        return Ok(How::Compacted { again: false, unread: false });
    };
    let through = lines.last().map_or(0, |line| line.id);
    let remembered = parts.conversations.remembered(conversation)?;
    lines.retain(|line| !remembered.holds(line.id) && is_of_it(line));
    if lines.is_empty() {
        parts.conversations.end_reading(archive, true, Vec::new())?;
        return Ok(How::Compacted { again: false, unread: is_unread(parts, &job.place)? });
    }
    let start = json!({ "kind": "extraction", "conversation": conversation.as_str(), "archive": archive });
    let read = reading(parts, job, start, &lines)?.run(parts, job, link);
    let place = conversation.clone();
    let mark = move |connection: &Connection, now| {
        conversation::end_reading(connection, archive, true)?;
        conversation::remember(connection, &place, through, now)
    };
    match store(parts, job, link, read, mark)? {
        Ok(()) => Ok(How::Compacted { again: false, unread: is_unread(parts, &job.place)? }),
        Err(Left::Cut) => Ok(How::Cancelled),
        Err(Left::Failed { kind, reason, .. }) => {
            parts.conversations.end_reading(archive, false, Vec::new())?;
            Ok(How::Failed(kind, reason))
        }
    }
}

/// Takes memories from what was said since that was last done.
pub(in crate::agent) fn remember(parts: &AgentParts, job: &Job, link: &Link<'_>) -> How {
    match read_on(parts, job, link) {
        Ok(how) => how,
        Err(error) => How::Failed(error.kind(), error.to_string()),
    }
}

fn read_on(parts: &AgentParts, job: &Job, link: &Link<'_>) -> Result<How, ExtractionError> {
    let conversation = &job.place.conversation;
    if !remembers(parts, &job.place)? {
        return Ok(How::Remembered { next: None });
    }
    let mut lines = parts.conversations.unremembered_lines(conversation, LINES_MAX)?;
    let through = lines.last().map_or(0, |line| line.id);
    lines.retain(is_of_it);
    if lines.iter().all(|line| line.role != Role::User) {
        return Ok(How::Remembered { next: due_in(parts, &job.place)? });
    }
    let start =
        json!({ "kind": "memory_persistence", "conversation": conversation.as_str(), "through": through });
    let read = reading(parts, job, start, &lines)?.run(parts, job, link);
    let place = conversation.clone();
    let mark = move |connection: &Connection, now| conversation::remember(connection, &place, through, now);
    match store(parts, job, link, read, mark)? {
        Ok(()) => Ok(How::Remembered { next: due_in(parts, &job.place)? }),
        Err(Left::Cut) => Ok(How::Cancelled),
        Err(Left::Failed { kind, reason, by_model }) => {
            if by_model && parts.conversations.not_remembered(conversation, through)? {
                log::error!(
                    "memories of {conversation} are given up for now after {REMEMBER_TRIES} tries: {reason}"
                );
                return Ok(How::Remembered { next: due_in(parts, &job.place)? });
            }
            Ok(How::Failed(kind, reason))
        }
    }
}

/// What was said before the conversation began is nobody's word, and nobody has asked the agent to keep it.
fn is_of_it(line: &Line) -> bool {
    line.role != Role::Earlier
}

/// Why nothing was stored.
enum Left {
    /// By a stop; it is read again.
    Cut,
    /// `by_model`: it answered, and did not end as it should.
    Failed { kind: Kind, reason: String, by_model: bool },
}

fn reading(
    parts: &AgentParts,
    job: &Job,
    start: serde_json::Value,
    lines: &[Line],
) -> Result<Reading, ExtractionError> {
    let model = parts.llm.model_for(&*parts.routing(&job.place)?, ProcessKind::Branch);
    let bounds = Bounds::of(parts, &job.place, 0)?;
    let turns = parts.config.limits.branch_max_turns;
    let context = json!({ "name": parts.config.display_name, "max_turns": turns });
    Ok(Reading {
        kind: ProcessKind::Branch,
        model: model.paid_by(job.payer(&parts.config.id)).without_offline(),
        preamble: prompts::render(Template::Extraction, &context)?,
        words: words::of_lines(lines, &parts.config.display_name, bounds.input_tokens()),
        turns,
        start,
        may_forget: true,
        draft: Draft::of_conversation(parts.memory.clone()),
    })
}

/// The memories, their events, the journal and the mark, or nothing of it.
fn store(
    parts: &AgentParts,
    job: &Job,
    link: &Link<'_>,
    read: Read,
    mark: impl FnOnce(&Connection, Timestamp) -> Result<(), DbError> + Send + 'static,
) -> Result<Result<(), Left>, DbError> {
    let Read { ended, drafted, records } = read;
    let Some(drafted) = drafted else {
        parts.conversations.journal(records)?;
        let kind = match &ended {
            Ended::Cancelled if link.stop_reason() != StopReason::Timeout => return Ok(Err(Left::Cut)),
            Ended::Failed(kind, _) => *kind,
            _ => Kind::Transient,
        };
        let by_model = !matches!(ended, Ended::Failed(..) | Ended::Cancelled);
        let reason = why(ended, parts.config.limits.branch_max_turns);
        return Ok(Err(Left::Failed { kind, reason, by_model }));
    };
    let events = events(parts, job, &drafted);
    parts.memory.save_drafted(drafted, move |connection, now| {
        write(connection, now, &records, &events)?;
        mark(connection, now)
    })?;
    if let Err(error) = parts.memory.maintain(parts.conversations.now()) {
        log::warn!("the memory index was not tended: {error}");
    }
    Ok(Ok(()))
}

fn events(parts: &AgentParts, job: &Job, drafted: &DraftEnd) -> Vec<NewEvent> {
    let Some(event) = happening::memory_saved(parts, job) else { return Vec::new() };
    let of = |content: &str, importance| NewEvent {
        text: content.to_owned(),
        importance: Some(importance),
        ..event.clone()
    };
    drafted.saved.iter().map(|memory| of(memory.content(), memory.importance())).collect()
}

fn write(
    connection: &Connection,
    now: Timestamp,
    records: &[Record],
    events: &[NewEvent],
) -> Result<(), DbError> {
    append_records(connection, records, now)?;
    events.iter().try_for_each(|event| event.insert(connection, now))
}

/// Memories are to be taken from this conversation while it goes on.
fn remembers(parts: &AgentParts, place: &Place) -> Result<bool, DbError> {
    Ok(parts.config.memory_persistence.enabled && takes_from(parts, place)?)
}

/// After which time memories are to be taken from a conversation, if nothing more is said in it.
pub(super) fn due_in(parts: &AgentParts, place: &Place) -> Result<Option<Duration>, DbError> {
    if !remembers(parts, place)? {
        return Ok(None);
    }
    let conversation = &place.conversation;
    let Some(said) = parts.conversations.unremembered(conversation)? else { return Ok(None) };
    let config = &parts.config.memory_persistence;
    let counted = config.events > 0 && parts.config.working_memory.enabled;
    let events = if counted { parts.working_memory().happened(conversation, said.since)? } else { 0 };
    Ok(due(config, &said, events, parts.conversations.now()))
}

fn due(
    config: &MemoryPersistenceConfig,
    said: &Unremembered,
    events: usize,
    now: Timestamp,
) -> Option<Duration> {
    let enough = |threshold: usize, count: usize| threshold > 0 && count >= threshold;
    if enough(config.messages, said.messages) || enough(config.events, events) {
        return Some(Duration::ZERO);
    }
    (!config.time.is_zero()).then(|| config.time.saturating_sub(now.since(said.first_at)))
}

/// Conversations from which memories are to be taken, and after which time: for a start.
///
/// # Errors
/// The database cannot be read.
pub(in crate::agent) fn unremembered(parts: &AgentParts) -> Result<Vec<(Place, Duration)>, DbError> {
    let mut found = Vec::new();
    if !parts.config.memory_persistence.enabled {
        return Ok(found);
    }
    for place in parts.conversations.unremembered_places(PLACES_MAX)? {
        if let Some(wait) = due_in(parts, &place)? {
            found.push((place, wait));
        }
    }
    Ok(found)
}

/// Whether a turn of this conversation may lead to memories.
pub(super) fn is_open(job: &Job) -> bool {
    job.place.instance.as_str() != SCHEDULED
}

/// The thread broke: that is a try as well.
pub(in crate::agent) fn close(parts: &AgentParts, job: &Job, sentence: &str) -> How {
    let unread = parts.conversations.unread(&job.place.conversation);
    let noted = unread.and_then(|unread| match unread {
        Some(unread) => parts.conversations.end_reading(unread.archive, false, Vec::new()),
        None => Ok(()),
    });
    if let Err(error) = noted {
        log::warn!("a try to take memories was not noted: {error}");
    }
    How::Panicked(sentence.to_owned())
}

/// The same for a conversation that goes on.
pub(in crate::agent) fn close_remembering(parts: &AgentParts, job: &Job, sentence: &str) -> How {
    let conversation = &job.place.conversation;
    let lines = parts.conversations.unremembered_lines(conversation, LINES_MAX);
    let noted = lines.and_then(|lines| match lines.last() {
        Some(last) => parts.conversations.not_remembered(conversation, last.id).map(drop),
        None => Ok(()),
    });
    if let Err(error) = noted {
        log::warn!("a try to take memories was not noted: {error}");
    }
    How::Panicked(sentence.to_owned())
}

#[cfg(test)]
mod tests;
