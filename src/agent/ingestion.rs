//! The reading of one chunk of a file: a fresh process that saves what is worth keeping. Its memories
//! are stored together with the note that the chunk is in, at the very end; whatever cuts it off before,
//! nothing of it stays and the chunk is read again.

use std::sync::OnceLock;

use rig_agent::run::RunSpec;
use rig_core::completion::{Message, ToolDefinition};
use serde_json::json;

use super::driver::{Conduct, Counts, Driver, Ended};
use super::job::Job;
use super::journal::RunJournal;
use super::link::{Link, ProcessDesk};
use super::past::Past;
use super::toolbox::Toolbox;
use super::{AgentParts, persist};
use crate::db::DbError;
use crate::effect::Effect;
use crate::error::{Fault, Kind};
use crate::event::{How, Ingested, Origin, StopReason, What};
use crate::hooks::LoopGuard;
use crate::id::ProcessKind;
use crate::ingest::{self, Chunk, IngestedFile, Ingestion, Status};
use crate::memory::{Draft, Drafted, Origin as MemoryOrigin};
use crate::prompts;
use crate::tools::{self, Tool};
use crate::turn::{self, Part};

/// Model calls for one chunk.
pub(super) const TURNS: usize = 10;
/// Times in a row that a model is told to end properly.
const MAX_NUDGES: usize = 2;

pub(super) fn run(parts: &AgentParts, job: &Job, hash: &str, link: &Link<'_>) -> How {
    let ingestion = ingestion_of(parts);
    let file = match ingestion.file(hash) {
        Ok(Some(file)) if file.status == Status::Processing => file,
        Ok(_) => return How::Ingested(Ingested::Over),
        Err(error) => return How::Failed(error.kind(), error.to_string()),
    };
    if !ingestion.is_there(&file) {
        log::info!("{} is no longer in its folder and is not read on", ingest::shown(&file.name));
        return match ingestion.mark_removed(&file, parts.conversations.now()) {
            Ok(()) => How::Ingested(Ingested::Over),
            Err(error) => How::Failed(error.kind(), error.to_string()),
        };
    }
    let chunk = match ingestion.next_chunk(&file) {
        Ok(chunk) => chunk,
        Err(error) => {
            ingestion.drop_text(&file);
            return How::Failed(error.kind(), error.to_string());
        }
    };
    (link.up)(What::Status(place_of(&file, &chunk)));
    if chunk.text.trim().is_empty() {
        return Reading { parts, ingestion, file, chunk }.store(Vec::new(), link);
    }
    Reading { parts, ingestion, file, chunk }.read(job, link)
}

/// The thread broke: that counts as one try.
pub(super) fn close(parts: &AgentParts, job: &Job, sentence: &str, link: &Link<'_>) -> How {
    let super::Work::Chunk { file: hash } = &job.work else { return How::Panicked(sentence.to_owned()) };
    let ingestion = ingestion_of(parts);
    match ingestion.file(hash) {
        Ok(Some(file)) => failed(parts, &ingestion, &file, sentence, link),
        Ok(None) => How::Ingested(Ingested::Over),
        Err(error) => How::Failed(error.kind(), error.to_string()),
    }
}

fn ingestion_of(parts: &AgentParts) -> Ingestion {
    Ingestion::new(parts.conversations.db().clone(), parts.workspace.path())
}

fn place_of(file: &IngestedFile, chunk: &Chunk) -> String {
    format!("{}, part {} of {}", ingest::shown(&file.name), chunk.index + 1, file.total_chunks)
}

/// Notes that a try failed, when that can be noted.
fn failed(
    parts: &AgentParts,
    ingestion: &Ingestion,
    file: &IngestedFile,
    reason: &str,
    link: &Link<'_>,
) -> How {
    let mut next = Ingested::Over;
    let stored = persist(link.cancel, || {
        next = ingestion.fail(file, reason, parts.conversations.now())?;
        Ok(())
    });
    if stored != How::Finished {
        return stored;
    }
    let name = ingest::shown(&file.name);
    let part = file.done_chunks + 1;
    match next {
        Ingested::Over => log::error!(
            "{name} is given up at part {part} and kept: {reason} (hint: change or touch the file, and it goes on there)"
        ),
        _ => log::warn!("part {part} of {name} is read again: {reason}"),
    }
    How::Ingested(next)
}

struct Reading<'a> {
    parts: &'a AgentParts,
    ingestion: Ingestion,
    file: IngestedFile,
    chunk: Chunk,
}

impl Reading<'_> {
    fn read(self, job: &Job, link: &Link<'_>) -> How {
        let parts = self.parts;
        let reference = ingest::reference(&self.file, &self.chunk);
        let draft = Draft::new(parts.memory.clone(), reference.clone(), job.place.conversation.to_string());
        let mut driver = Driver {
            link,
            model: Box::new(parts.llm.model_for(&parts.config.routing, ProcessKind::Ingestion)),
            toolbox: Box::new(Toolbox::new(reading_tools(parts, job, &draft), &DEFINITIONS)),
            desk: ProcessDesk::new(link, Origin::default()),
            journal: RunJournal::new(&parts.conversations, job.process.number),
            spec: RunSpec {
                preamble: Some(parts.prompts.ingestion()),
                max_turns: Some(TURNS + 1),
                ..RunSpec::new()
            },
            counts: Counts { max_model_calls: TURNS, ..Counts::default() },
            guard: LoopGuard::new(parts.config.loop_guard.of(ProcessKind::Ingestion)),
        };
        let prompt = turn::write(&[Part::Said {
            sender: place_of(&self.file, &self.chunk),
            at: parts.conversations.now(),
            text: self.chunk.text.clone(),
        }]);
        let start = json!({ "kind": "ingestion", "from": reference, "prompt": prompt });
        driver.begin(start, &Past::default(), &[]);
        let ended = take_in(&mut driver, prompt, &mut UntilComplete::default());
        let drafted = draft.take();
        if let Err(error) = parts.conversations.journal(driver.journal.take()) {
            return How::Failed(error.kind(), error.to_string());
        }
        match (ended, drafted) {
            (Ended::Cancelled, _) if link.stop_reason() != StopReason::Timeout => How::Cancelled,
            (_, Some(drafted)) => self.store(drafted, link),
            (ended, None) => failed(parts, &self.ingestion, &self.file, &why(ended), link),
        }
    }

    /// The memories and the note that the chunk is in, or neither.
    fn store(self, drafted: Vec<Drafted>, link: &Link<'_>) -> How {
        let Self { parts, ingestion, file, chunk } = self;
        let to_store = || {
            let (drafted, chunk) = (drafted.clone(), chunk.clone());
            let count = drafted.len();
            parts.memory.save_drafted(drafted, move |connection, now| chunk.finish(connection, count, now))
        };
        // Refused: it is in already, by an earlier commit of which nobody heard.
        let stored = persist(link.cancel, || match to_store() {
            Err(DbError::Refused(reason)) => {
                log::warn!("{}: {reason}", ingest::shown(&file.name));
                Ok(())
            }
            stored => stored,
        });
        if stored != How::Finished {
            return stored;
        }
        if let Err(error) = parts.memory.maintain(parts.conversations.now()) {
            log::warn!("the memory index was not tended: {error}");
        }
        match ingestion.file(&file.hash) {
            Ok(Some(file)) if file.status == Status::Completed => {
                finish(&ingestion, &file);
                How::Ingested(Ingested::Over)
            }
            Ok(_) => How::Ingested(Ingested::More),
            Err(error) => How::Failed(error.kind(), error.to_string()),
        }
    }
}

fn finish(ingestion: &Ingestion, file: &IngestedFile) {
    let name = ingest::shown(&file.name);
    log::info!("{name} is in memory: {} parts, {} memories", file.done_chunks, file.memories);
    if let Err(error) = ingestion.delete(file) {
        log::warn!("{name} was not deleted: {error}");
    }
}

fn why(ended: Ended) -> String {
    match ended {
        Ended::Text(_) | Ended::Tools => "the model did not say what it saved".to_owned(),
        Ended::Repeating => "the model kept repeating the same call".to_owned(),
        Ended::Limit => format!("not read within {TURNS} model calls"),
        Ended::Cancelled => "it took too long".to_owned(),
        Ended::Failed(kind, reason) => {
            if kind == Kind::Bug {
                log::error!("the reading of a file broke: {reason}");
            }
            reason
        }
    }
}

/// The run of a reading, from its text to its end.
pub(super) fn take_in(driver: &mut Driver<'_>, prompt: String, conduct: &mut dyn Conduct) -> Ended {
    let (ended, run) = driver.drive(Message::user(prompt), Vec::new(), conduct);
    let status = if is_complete(&driver.desk) { "done" } else { "failed" };
    driver.end(json!({ "status": status }), &json!({ "status": status }), &run.full_history());
    ended
}

fn is_complete(desk: &ProcessDesk<'_>) -> bool {
    desk.effects.contains(&Effect::Persisted)
}

/// Ends with the tool that says what was saved, and with nothing else.
#[derive(Default)]
pub(super) struct UntilComplete {
    nudges: usize,
}

impl Conduct for UntilComplete {
    fn on_text(&mut self, _text: &str, _desk: &mut ProcessDesk<'_>) -> Option<String> {
        self.nudges += 1;
        (self.nudges <= MAX_NUDGES).then(|| prompts::notice("ingestion_nudge").to_owned())
    }

    fn on_tools(&mut self, desk: &mut ProcessDesk<'_>) -> bool {
        self.nudges = 0;
        is_complete(desk)
    }
}

/// See [`Toolbox::new`].
static DEFINITIONS: OnceLock<Vec<ToolDefinition>> = OnceLock::new();

fn reading_tools(parts: &AgentParts, job: &Job, draft: &Draft) -> Vec<Box<dyn Tool>> {
    let origin = MemoryOrigin { conversation: job.place.conversation.clone(), process: job.process };
    vec![
        Box::new(tools::memory_save::MemorySave::drafting(draft.clone(), origin)),
        Box::new(tools::memory_recall::MemoryRecall::new(parts.memory.clone())),
        Box::new(tools::memory_persistence_complete::MemoryPersistenceComplete::new(draft.clone())),
    ]
}
