//! Files that are taken into memory: the folder where they come in, their text, the chunks of it, and
//! how far each has come. What reads a chunk and saves memories stands above (`agent::ingestion`).
//!
//! A file is known by the SHA-256 of its content. Its text is kept beside the database until every
//! chunk is in; a chunk counts as in by a row that is written with its memories in one transaction.

mod child;
mod chunk;
mod error;
mod extract;
mod folder;
mod plain;
mod store;
mod take;
mod texts;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::IngestError;
pub use extract::{read_document, run as extract};
pub use folder::{FOLDER, Version, add};
pub use store::{IngestedFile, Status};
pub use take::{Format, format_of};
pub use watch::{Waiting, Watch, run};

use crate::clock::Timestamp;
use crate::db::rusqlite::Connection;
use crate::db::{Db, DbError};
use crate::event::Ingested;
use folder::Folder;
use texts::Texts;

/// Longest file that is taken, in bytes: a thick book with pictures. More would not fit beside the daemon
/// in the memory of a small board while its text is extracted.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longest text of one file, in bytes; at the usual chunk size 16,000 chunks.
const TEXT_BYTES_MAX: u64 = 64 << 20;
/// Tries of one chunk before its file is given up, and the wait before the second; it doubles.
const ATTEMPTS_MAX: usize = 4;
const RETRY_BASE: Duration = Duration::from_secs(1);

/// The files of one agent; clones are the same.
#[derive(Clone)]
pub struct Ingestion {
    db: Db,
    workspace: PathBuf,
    texts: Texts,
}

/// The first chunk of a file that is not in yet.
#[derive(Debug, Clone)]
pub struct Chunk {
    hash: String,
    /// From 0.
    pub index: usize,
    pub text: String,
    from: u64,
    to: u64,
}

impl Ingestion {
    /// The texts are kept beside the database.
    pub fn new(db: Db, workspace: &Path) -> Self {
        let texts = Texts::new(db.path().with_file_name("ingest"));
        Self { db, workspace: workspace.to_owned(), texts }
    }

    /// # Errors
    /// The database cannot be read.
    pub fn file(&self, hash: &str) -> Result<Option<IngestedFile>, DbError> {
        self.db.read(|connection| store::file(connection, hash))
    }

    /// All files that were ever seen, the oldest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn files(&self) -> Result<Vec<IngestedFile>, DbError> {
        self.db.read(store::files)
    }

    /// Names in the folder, in order, as far as a look goes.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn names(&self) -> Result<Vec<String>, IngestError> {
        let Some(folder) = self.folder()? else { return Ok(Vec::new()) };
        Ok(folder.list()?.into_iter().map(|entry| entry.name).collect())
    }

    /// # Errors
    /// The kept text is gone or damaged; the next look at the folder makes it anew.
    pub fn next_chunk(&self, file: &IngestedFile) -> Result<Chunk, IngestError> {
        let text = self.texts.chunk(&file.hash, file.next_offset, file.chunk_size)?;
        let to = file.next_offset + text.len() as u64;
        let (hash, from) = (file.hash.clone(), file.next_offset);
        Ok(Chunk { hash, index: file.done_chunks, text, from, to })
    }

    /// Forgets the kept text, so that it is made anew.
    pub fn drop_text(&self, file: &IngestedFile) {
        self.texts.remove(&file.hash);
    }

    /// True while the file is in the folder as it was when it was taken.
    pub fn is_there(&self, file: &IngestedFile) -> bool {
        let folder = self.folder().ok().flatten();
        folder.and_then(|folder| folder.version(&file.name)) == Some(file.version)
    }

    /// A try of this chunk failed: again later, or never.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn fail(&self, file: &IngestedFile, reason: &str, now: Timestamp) -> Result<Ingested, DbError> {
        let (hash, reason, failures) = (file.hash.clone(), reason.to_owned(), file.failures + 1);
        let over = failures >= ATTEMPTS_MAX;
        self.db.write(move |connection| store::fail(connection, &hash, &reason, over, now))?;
        if over {
            self.texts.remove(&file.hash);
            return Ok(Ingested::Over);
        }
        Ok(Ingested::Again(RETRY_BASE * (1 << (failures - 1))))
    }

    /// The file was taken out of the folder, or changed, before all of it was in.
    ///
    /// # Errors
    /// The database does not take it.
    pub fn mark_removed(&self, file: &IngestedFile, now: Timestamp) -> Result<(), DbError> {
        let hash = file.hash.clone();
        self.db.write(move |connection| store::set_status(connection, &hash, Status::Removed, None, now))?;
        self.texts.remove(&file.hash);
        Ok(())
    }

    /// Every chunk is in: the file goes, if it is still the same.
    ///
    /// # Errors
    /// It could not be deleted.
    pub fn delete(&self, file: &IngestedFile) -> Result<(), IngestError> {
        self.texts.remove(&file.hash);
        match self.folder()? {
            Some(folder) => folder.remove(&file.name, file.version),
            None => Ok(()),
        }
    }

    fn folder(&self) -> Result<Option<Folder>, IngestError> {
        Folder::open(&self.workspace)
    }
}

/// Where in its file a memory comes from, as its provenance has it: `manual.pdf#3f2a9c1b77de/12`.
pub fn reference(file: &IngestedFile, chunk: &Chunk) -> String {
    format!("{}#{}/{}", shown(&file.name), &file.hash[..12.min(file.hash.len())], chunk.index + 1)
}

/// A name for people and models: without signs that mean something where it is shown.
pub fn shown(name: &str) -> String {
    let plain = |character: char| match character {
        '#' | '|' => '_',
        other if other.is_control() => '_',
        other => other,
    };
    name.chars().map(plain).collect()
}

impl Chunk {
    /// Notes that the chunk is in; for the transaction that stores its memories.
    ///
    /// # Errors
    /// It was in already, or the file is no longer being taken: nothing of the transaction may hold.
    pub fn finish(&self, connection: &Connection, memories: usize, now: Timestamp) -> Result<(), DbError> {
        store::finish_chunk(connection, self, memories, now)
    }
}
