//! A silent branch over what has left a window: it saves what is worth keeping, and says nothing to
//! anybody. One archive at a time, oldest first; what a crash cuts off is read again.

use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::{Message, ToolDefinition};
use serde_json::json;

use super::decide::Bounds;
use super::{Silent, is_unread, takes_memories, words};
use crate::agent::driver::{Conduct, Counts, Driver, Ended};
use crate::agent::job::Job;
use crate::agent::journal::RunJournal;
use crate::agent::link::{Link, ProcessDesk};
use crate::agent::past::Past;
use crate::agent::toolbox::Toolbox;
use crate::agent::{AgentParts, happening};
use crate::conversation::Unread;
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::event::{How, Origin, StopReason};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::memory::Origin as MemoryOrigin;
use crate::prompts::{self, PromptError, Template};
use crate::tools::{self, Tool};

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

pub(in crate::agent) fn run(parts: &AgentParts, job: &Job, link: &Link<'_>) -> How {
    match read_one(parts, job, link) {
        Ok(how) => how,
        Err(error) => How::Failed(error.kind(), error.to_string()),
    }
}

fn read_one(parts: &AgentParts, job: &Job, link: &Link<'_>) -> Result<How, ExtractionError> {
    let conversation = &job.place.conversation;
    let unread =
        if takes_memories(parts, &job.place)? { parts.conversations.unread(conversation)? } else { None };
    let Some(Unread { archive, lines }) = unread else {
        return Ok(How::Compacted { again: false, unread: false });
    };
    let limits = &parts.config.limits;
    let context = json!({ "name": parts.config.display_name, "max_turns": limits.branch_max_turns });
    let words = words::of_lines(&lines, &parts.config.display_name, Bounds::of(parts, 0).input_tokens());
    let start = json!({
        "kind": "extraction",
        "conversation": conversation.as_str(),
        "archive": archive,
        "prompt": words,
    });
    let mut driver = Driver {
        link,
        model: Box::new(parts.llm.model_for(&parts.config.routing, ProcessKind::Branch).without_offline()),
        toolbox: Box::new(Toolbox::new(extraction_tools(parts, job), &DEFINITIONS)),
        desk: ProcessDesk::new(link, Origin::default()),
        journal: RunJournal::new(&parts.conversations, job.process.number),
        spec: RunSpec {
            preamble: Some(prompts::render(Template::Extraction, &context)?),
            max_turns: Some(limits.branch_max_turns + 1),
            ..RunSpec::new()
        },
        counts: Counts { max_model_calls: limits.branch_max_turns, ..Counts::default() },
        guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Branch)),
    };
    driver.begin(start, &Past::default(), &[]);
    let failed = match read(&mut driver, words, &mut Silent) {
        Ok(()) => None,
        Err(How::Failed(kind, reason)) => Some((kind, reason)),
        Err(how) => return Ok(how),
    };
    parts.conversations.end_reading(archive, failed.is_none(), driver.journal.take())?;
    if let Err(error) = parts.memory.maintain(parts.conversations.now()) {
        log::warn!("the memory index was not tended: {error}");
    }
    match failed {
        Some((kind, reason)) => Ok(How::Failed(kind, reason)),
        None => Ok(How::Compacted { again: false, unread: is_unread(parts, &job.place)? }),
    }
}

/// The run of a reading, from the words to its end.
pub(in crate::agent) fn read(
    driver: &mut Driver<'_>,
    words: String,
    conduct: &mut dyn Conduct,
) -> Result<(), How> {
    let (ended, run) = driver.drive(Message::user(words), Vec::new(), conduct);
    let taken = match ended {
        Ended::Cancelled if driver.link.stop_reason() == StopReason::Timeout => {
            Err(How::Failed(Kind::Transient, "taking memories took too long".to_owned()))
        }
        Ended::Cancelled => return Err(How::Cancelled),
        Ended::Failed(kind, reason) => Err(How::Failed(kind, reason)),
        Ended::Text(_) | Ended::Tools | Ended::Limit | Ended::Repeating => Ok(()),
    };
    let end = json!({ "taken": taken.is_ok() });
    driver.end(end.clone(), &end, &run.full_history());
    taken
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

/// See [`Toolbox::new`].
static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

fn extraction_tools(parts: &AgentParts, job: &Job) -> Vec<Box<dyn Tool>> {
    let origin = MemoryOrigin { conversation: job.place.conversation.clone(), process: job.process };
    let event = happening::memory_saved(parts, job);
    vec![
        Box::new(tools::memory_save::MemorySave::new(parts.memory.clone(), origin).with_event(event)),
        Box::new(tools::memory_recall::MemoryRecall::new(parts.memory.clone())),
    ]
}
