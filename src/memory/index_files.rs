//! The files of the text index: what a document of it holds, and whether what lies in the folder is
//! ours, whole and no older or newer than the database.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tantivy::directory::{Directory, INDEX_WRITER_LOCK, MmapDirectory};
use tantivy::schema::{
    FAST, Field, INDEXED, IndexRecordOption, STRING, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::{Index, IndexSettings, ReloadPolicy, Searcher, TantivyDocument, TantivyError};

use uuid::Uuid;

use super::analysis::Analyzer;
use super::record::Memory;
use super::store;
use crate::db::Db;

/// Raised with every change of the schema below.
const FORMAT: u32 = 2;
/// Name under which the analyzer is known to tantivy.
const TOKENIZER: &str = "memory";
/// The file that makes a folder an index.
const META_FILE: &str = "meta.json";
/// The other file of an index that is not named after a segment.
const MANAGED_FILE: &str = ".managed.json";

/// Nothing is stored: a search answers with ids, the database has the rest.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    pub(super) id: Field,
    /// The id once more, as two numbers: looked up for every hit, which costs a tenth of the text's.
    id_halves: [Field; 2],
    pub(super) text: Field,
    pub(super) memory_type: Field,
    channel: Field,
    created_at: Field,
}

pub(super) const ID_HALVES: [&str; 2] = ["id_high", "id_low"];
pub(super) const CREATED_AT: &str = "created_at";

impl Fields {
    fn schema() -> (Schema, Self) {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(TOKENIZER)
            // Words and how often, no positions: nothing asks for phrases.
            .set_index_option(IndexRecordOption::WithFreqs);
        let mut builder = Schema::builder();
        let fields = Self {
            id: builder.add_text_field("id", STRING),
            id_halves: ID_HALVES.map(|name| builder.add_u64_field(name, FAST)),
            text: builder.add_text_field("text", TextOptions::default().set_indexing_options(indexing)),
            memory_type: builder.add_text_field("memory_type", STRING),
            channel: builder.add_text_field("channel", STRING),
            created_at: builder.add_i64_field(CREATED_AT, INDEXED | FAST),
        };
        (builder.build(), fields)
    }

    /// The fields of an index whose schema was checked when it was opened.
    pub(super) fn of(searcher: &Searcher) -> Self {
        debug_assert_eq!(searcher.schema(), &Self::schema().0);
        Self::schema().1
    }

    /// # Errors
    /// The memory's id is not one of ours.
    pub(super) fn document(
        &self,
        memory: &Memory,
        indexed_text: &str,
    ) -> Result<TantivyDocument, TantivyError> {
        let mut document = TantivyDocument::default();
        document.add_text(self.id, &memory.id);
        for (field, half) in self.id_halves.into_iter().zip(id_halves(&memory.id)?) {
            document.add_u64(field, half);
        }
        document.add_text(self.text, indexed_text);
        document.add_text(self.memory_type, memory.memory_type.as_str());
        if let Some(channel) = &memory.channel_id {
            document.add_text(self.channel, channel);
        }
        document.add_i64(self.created_at, memory.created_at.0);
        Ok(document)
    }
}

fn id_halves(id: &str) -> Result<[u64; 2], TantivyError> {
    let parsed = Uuid::try_parse(id).map_err(|error| TantivyError::InvalidArgument(error.to_string()))?;
    let (high, low) = parsed.as_u64_pair();
    Ok([high, low])
}

/// The id whose halves these are.
pub(super) fn id_of([high, low]: [u64; 2]) -> String {
    Uuid::from_u64_pair(high, low).to_string()
}

/// What a commit says about itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Payload {
    format: u32,
    analysis: u32,
    /// The index holds every change up to this one.
    pub(super) change_seq: i64,
    /// The memory that had this change: a database that does not know it, or has it at an earlier
    /// change, is not the one that was indexed (a restored backup).
    id: String,
}

impl Payload {
    /// `newest` is the memory with the last change that went in.
    pub(super) fn new(newest: &Memory, analyzer: &Analyzer) -> Self {
        Self {
            format: FORMAT,
            analysis: analyzer.version(),
            change_seq: newest.change_seq,
            id: newest.id.clone(),
        }
    }

    pub(super) fn to_text(&self) -> String {
        // A number, a number, a number and a text cannot fail; an empty payload would mean a rebuild.
        serde_json::to_string(self).unwrap_or_default()
    }
}

pub(super) struct Opened {
    pub(super) index: Index,
    pub(super) fields: Fields,
    /// `None` for one that was just made.
    pub(super) payload: Option<Payload>,
}

impl Opened {
    /// The index holds every change up to this one.
    pub(super) fn committed(&self) -> i64 {
        self.payload.as_ref().map_or(0, |payload| payload.change_seq)
    }
}

/// The index as it lies there, if it fits the database. `None` when there is none.
///
/// # Errors
/// In words, why it cannot be used.
pub(super) fn open_current(folder: &Path, db: &Db, analyzer: &Analyzer) -> Result<Option<Opened>, String> {
    if !folder.join(META_FILE).exists() {
        return Ok(None);
    }
    let (schema, fields) = Fields::schema();
    let index = Index::open_in_dir(folder).map_err(|error| error.to_string())?;
    if index.schema() != schema {
        return Err("it has other fields".to_owned());
    }
    index.tokenizers().register(TOKENIZER, analyzer.tokenizer());
    let metas = index.load_metas().map_err(|error| error.to_string())?;
    let Some(payload) = metas.payload else { return Err("it was never finished".to_owned()) };
    let payload: Payload = serde_json::from_str(&payload).map_err(|error| error.to_string())?;
    if payload.format != FORMAT || payload.analysis != analyzer.version() {
        return Err("it was written by another version or for another language".to_owned());
    }
    let change = db
        .read(|connection| store::change_of(connection, &payload.id))
        .map_err(|error| format!("the database does not answer: {error}"))?;
    if change.is_none_or(|change| change < payload.change_seq) {
        return Err("it was made from another state of the database".to_owned());
    }
    Ok(Some(Opened { index, fields, payload: Some(payload) }))
}

/// As [`open_current`], after reading every byte against its checksum, and ready to search.
pub(super) fn open_checked(
    folder: &Path,
    db: &Db,
    analyzer: &Analyzer,
) -> Result<Option<(Searcher, i64)>, String> {
    let Some(opened) = open_current(folder, db, analyzer)? else { return Ok(None) };
    let searcher = searcher(&opened.index).map_err(|error| error.to_string())?;
    let damaged = opened.index.validate_checksum().map_err(|error| error.to_string())?;
    match damaged.iter().next() {
        Some(file) => Err(format!("{} is damaged", file.display())),
        None => Ok(Some((searcher, opened.committed()))),
    }
}

/// Makes an empty index in place of whatever is there.
pub(super) fn create(folder: &Path, analyzer: &Analyzer) -> Result<Opened, TantivyError> {
    fs::create_dir_all(folder)?;
    let directory = MmapDirectory::open(folder)?;
    {
        // Another process that is writing there keeps what it has.
        let _lock = directory
            .acquire_lock(&INDEX_WRITER_LOCK)
            .map_err(|error| TantivyError::LockFailure(error, None))?;
        remove_files(folder)?;
    }
    let (schema, fields) = Fields::schema();
    // The default compresses stored documents on a thread; nothing is stored.
    let settings = IndexSettings { docstore_compress_dedicated_thread: false, ..IndexSettings::default() };
    let index = Index::create(directory, schema, settings)?;
    index.tokenizers().register(TOKENIZER, analyzer.tokenizer());
    Ok(Opened { index, fields, payload: None })
}

/// Removes the files of an index, and nothing else that may have got into the folder.
fn remove_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let stem = name.split('.').next().unwrap_or_default();
        let of_segment = stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
        if of_segment || name == META_FILE || name == MANAGED_FILE {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A reader without a thread, for the state of the last commit.
pub(super) fn searcher(index: &Index) -> Result<Searcher, TantivyError> {
    let reader = index
        .reader_builder()
        .reload_policy(ReloadPolicy::Manual)
        .doc_store_cache_num_blocks(1)
        .try_into()?;
    Ok(reader.searcher())
}
