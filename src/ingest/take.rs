//! From a file in the folder to a row and a text that can be read chunk by chunk.

use std::fs::File;
use std::io::Seek;

use super::folder::{Entry, Folder};
use super::plain::Looked;
use super::store::{IngestedFile, Status};
use super::texts::Bounded;
use super::{FILE_BYTES_MAX, IngestError, Ingestion, child, plain, shown, store};
use crate::clock::Timestamp;
use crate::thread::Cancel;

/// What a file is, by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Html,
    Pdf,
}

/// Endings that are read as text.
const TEXT_ENDINGS: &str = "txt md markdown json jsonl csv tsv log xml yaml yml toml rst org";

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Html => "html",
            Format::Pdf => "pdf",
        }
    }

    /// The word of [`Format::as_str`].
    pub fn parse(word: &str) -> Option<Self> {
        [Format::Text, Format::Html, Format::Pdf].into_iter().find(|format| format.as_str() == word)
    }
}

/// # Errors
/// The ending is not one of those that are taken.
pub fn format_of(name: &str) -> Result<Format, IngestError> {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "pdf" => Ok(Format::Pdf),
        "html" | "htm" => Ok(Format::Html),
        other if TEXT_ENDINGS.split(' ').any(|known| known == other) => Ok(Format::Text),
        _ => Err(IngestError::left(
            "it is of a kind that is not taken",
            "taken are txt md markdown json jsonl csv tsv log xml yaml yml toml rst org html htm pdf",
        )),
    }
}

pub(super) fn check_size(bytes: u64) -> Result<(), IngestError> {
    if bytes == 0 {
        return Err(IngestError::left("it is empty", "put something into it"));
    }
    if bytes > FILE_BYTES_MAX {
        let reason = format!("it has {bytes} bytes, more than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(IngestError::left(reason, "split it into smaller files"));
    }
    Ok(())
}

/// What became of a file that was looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Its text is ready; known by this hash.
    Ready(String),
    /// The same content is in already; the file was deleted.
    Known,
    /// The same content is being taken under another name.
    Later,
}

impl Ingestion {
    pub(super) fn take(
        &self,
        folder: &Folder,
        entry: &Entry,
        chunk_size: usize,
        now: Timestamp,
        cancel: &Cancel,
    ) -> Result<Taken, IngestError> {
        if !entry.is_regular {
            return Err(IngestError::left(
                "it is no regular file",
                "only files directly in the folder are taken",
            ));
        }
        let format = format_of(&entry.name)?;
        check_size(entry.version.size)?;
        let (mut file, version) = folder.open_file(&entry.name)?;
        if version != entry.version {
            return Err(IngestError::Changed);
        }
        let looked = plain::look(&mut file, cancel)?;
        let known = self.file(&looked.hash)?;
        match &known {
            Some(known) if known.status == Status::Completed => {
                folder
                    .remove(&entry.name, version)
                    .map_err(|_| IngestError::left("it is in memory but cannot be deleted", "delete it"))?;
                log::info!("{} is in memory already, as {}", shown(&entry.name), shown(&known.name));
                return Ok(Taken::Known);
            }
            Some(known)
                if known.status == Status::Processing
                    && known.name != entry.name
                    && folder.version(&known.name) == Some(known.version) =>
            {
                return Ok(Taken::Later);
            }
            _ => {}
        }
        let chunk_size = known.as_ref().map_or(chunk_size, |known| known.chunk_size);
        let kept = known.as_ref().filter(|known| self.texts.length(&known.hash) == Some(known.text_bytes));
        if kept.is_none() {
            self.extract(format, file, &looked, &entry.name, cancel)?;
        }
        let hash = looked.hash;
        let measure = self.texts.measure(&hash, chunk_size)?;
        let refused = if measure.blank {
            Some(("it holds no text", "a scan needs text recognition first"))
        } else if known.is_some_and(|known| known.next_offset > 0 && known.text_bytes != measure.bytes) {
            Some(("its text comes out differently than when it was begun", "give the rest as a new file"))
        } else {
            None
        };
        if folder.version(&entry.name) != Some(version) {
            return Err(IngestError::Changed);
        }
        if let Some((reason, hint)) = refused {
            self.texts.remove(&hash);
            return Err(IngestError::left(reason, hint));
        }
        let row = IngestedFile {
            hash: hash.clone(),
            name: entry.name.clone(),
            version,
            status: Status::Processing,
            reason: None,
            chunk_size,
            total_chunks: measure.chunks,
            text_bytes: measure.bytes,
            next_offset: 0,
            failures: 0,
            done_chunks: 0,
            memories: 0,
            started_at: now,
            completed_at: None,
        };
        self.db.write(move |connection| store::begin(connection, &row))?;
        log::info!("{}: {} chunks are taken into memory", shown(&entry.name), measure.chunks);
        Ok(Taken::Ready(hash))
    }

    fn extract(
        &self,
        format: Format,
        mut file: File,
        looked: &Looked,
        name: &str,
        cancel: &Cancel,
    ) -> Result<(), IngestError> {
        let note =
            self.texts.store(&looked.hash, |target: &mut Bounded| match (format, looked.encoding) {
                (Format::Text, None) => Err(IngestError::left(
                    "it is no text, whatever its name says",
                    "give it the right ending",
                )),
                (Format::Text, Some(encoding)) => {
                    plain::copy(&mut file, encoding, target, cancel)?;
                    let is_guess = encoding == encoding_rs::WINDOWS_1252;
                    Ok(is_guess.then(|| "it is not UTF-8 and was read as Windows-1252".to_owned()))
                }
                (Format::Html | Format::Pdf, _) => {
                    file.rewind().map_err(|error| IngestError::io("reading it", &error))?;
                    child::copy(format, file, target, cancel)
                }
            })?;
        if let Some(note) = note {
            log::warn!("{}: {note}", shown(name));
        }
        Ok(())
    }
}
