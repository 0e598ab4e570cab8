//! The reading of one chunk of a file: a fresh process that saves what is worth keeping. Its memories
//! are stored together with the note that the chunk is in, at the very end; whatever cuts it off before,
//! nothing of it stays and the chunk is read again.

use serde_json::json;

use super::driver::Ended;
use super::job::Job;
use super::link::Link;
use super::reading::{self, Read, why};
use super::{AgentParts, persist};
use crate::db::DbError;
use crate::error::{Fault, Kind};
use crate::event::{How, Ingested, StopReason, What};
use crate::id::ProcessKind;
use crate::ingest::{self, Chunk, IngestedFile, Ingestion, Status};
use crate::memory::{Draft, DraftEnd};
use crate::turn::{self, Part};

/// Model calls for one chunk.
pub(super) const TURNS: usize = 10;

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
        return Reading { parts, ingestion, file, chunk }.store(DraftEnd::default(), link);
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
        let words = turn::write(&[Part::Said {
            sender: place_of(&self.file, &self.chunk),
            at: parts.conversations.now(),
            text: self.chunk.text.clone(),
        }]);
        let kind = ProcessKind::Ingestion;
        let reading = reading::Reading {
            kind,
            model: parts.llm.model_for(&parts.config.routing, kind).paid_by(job.payer(&parts.config.id)),
            preamble: parts.prompts.ingestion(),
            words,
            turns: TURNS,
            start: json!({ "kind": "ingestion", "from": reference }),
            may_forget: false,
            draft,
        };
        let Read { ended, drafted, records } = reading.run(parts, job, link);
        if let Err(error) = parts.conversations.journal(records) {
            return How::Failed(error.kind(), error.to_string());
        }
        if let Ended::Failed(Kind::Bug, reason) = &ended {
            log::error!("the reading of a file broke: {reason}");
        }
        match (ended, drafted) {
            (Ended::Cancelled, _) if link.stop_reason() != StopReason::Timeout => How::Cancelled,
            (_, Some(drafted)) => self.store(drafted, link),
            (ended, None) => failed(parts, &self.ingestion, &self.file, &why(ended, TURNS), link),
        }
    }

    /// The memories and the note that the chunk is in, or neither.
    fn store(self, drafted: DraftEnd, link: &Link<'_>) -> How {
        let Self { parts, ingestion, file, chunk } = self;
        let to_store = || {
            let (drafted, chunk) = (drafted.clone(), chunk.clone());
            let count = drafted.saved.len();
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
