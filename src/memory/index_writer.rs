//! One commit of the text index.
//!
//! tantivy's own writer would fill its segments on a new thread with a table for 15 MB of text, however
//! little there is to write, and the allocator keeps much of that. Here the segments are filled on the
//! caller's thread with a small table; tantivy's writer only puts them in place, marks deletions and
//! merges. Measured over 40 commits of 32 memories, three runs each, with glibc's defaults: at most 35 to
//! 59 MiB resident with tantivy's way, 22 to 33 MiB with this one, and no difference in time. What is
//! left is kept by the allocator: MALLOC_MMAP_THRESHOLD_=131072 in the environment makes it 14 to 20.

use tantivy::indexer::{AddOperation, IndexWriterOptions, SegmentWriter};
use tantivy::{IndexWriter, Searcher, Segment, TantivyDocument, TantivyError, Term};

use super::analysis::indexed_text;
use super::index_files::{self, Fields, Opened, Payload};
use super::record::Memory;

/// A segment is finished with this much text, which takes some 15 MB until then; larger ones come from
/// merging. (tantivy's own estimate counts whole pages of 1 MB, several of them for one word.)
const SEGMENT_BYTES: usize = 2_000_000;
/// What a document counts besides its text: id, type, time.
const DOCUMENT_BYTES: usize = 100;
/// The initial table of words is made for this much text; it grows with more.
const TABLE_BYTES: usize = 500_000;
/// Arena of the writer's own indexing thread, which never gets a document; tantivy takes no less.
const ARENA_BYTES: usize = 15_000_000;

pub(super) struct BatchWriter<'a> {
    opened: &'a Opened,
    /// What was committed before, to see which memories are in it.
    before: Searcher,
    writer: IndexWriter,
    /// Memories that are in it and changed since.
    outdated: Vec<Term>,
    filling: Option<(Segment, SegmentWriter)>,
    /// Size of what was put into it.
    filling_bytes: usize,
    filled: Vec<Segment>,
}

impl<'a> BatchWriter<'a> {
    /// Takes the lock of the folder; starts three threads of tantivy's that end with the commit.
    pub(super) fn new(opened: &'a Opened) -> Result<Self, TantivyError> {
        let options = IndexWriterOptions::builder()
            .num_worker_threads(1)
            .num_merge_threads(1)
            .memory_budget_per_thread(ARENA_BYTES)
            .build();
        let writer = opened.index.writer_with_options(options)?;
        let before = index_files::searcher(&opened.index)?;
        Ok(Self {
            opened,
            before,
            writer,
            outdated: Vec::new(),
            filling: None,
            filling_bytes: 0,
            filled: Vec::new(),
        })
    }

    /// Puts a memory in place of what the index holds of it.
    pub(super) fn put(&mut self, memory: &Memory) -> Result<(), TantivyError> {
        let fields: &Fields = &self.opened.fields;
        let id = Term::from_field_text(fields.id, &memory.id);
        if self.before.doc_freq(&id)? > 0 {
            self.outdated.push(id);
        }
        if memory.forgotten {
            return Ok(());
        }
        let (_, filling) = match &mut self.filling {
            Some(filling) => filling,
            none => {
                let segment = self.writer.new_segment();
                none.insert((segment.clone(), SegmentWriter::for_segment(TABLE_BYTES, segment)?))
            }
        };
        let text = indexed_text(memory);
        let document: TantivyDocument = fields.document(memory, &text)?;
        filling.add_document(AddOperation { opstamp: 0, document })?;
        self.filling_bytes += text.len() + DOCUMENT_BYTES;
        if self.filling_bytes >= SEGMENT_BYTES {
            self.finish_segment()?;
        }
        Ok(())
    }

    fn finish_segment(&mut self) -> Result<(), TantivyError> {
        if let Some((segment, filled)) = self.filling.take() {
            self.filling_bytes = 0;
            let documents = filled.max_doc();
            filled.finalize()?;
            self.filled.push(segment.with_max_doc(documents));
        }
        Ok(())
    }

    /// Makes everything put so far visible and durable, and waits for the merges that this begins:
    /// without the wait they would be thrown away each time.
    pub(super) fn commit(mut self, payload: &Payload) -> Result<(), TantivyError> {
        self.finish_segment()?;
        if let Some(before) = &self.opened.payload
            && !self.outdated.is_empty()
        {
            // A commit of its own, because a deletion that waits for a commit also reaches a segment that
            // is added after it. With the old payload: after a crash here the same changes come again.
            for id in self.outdated {
                self.writer.delete_term(id);
            }
            commit(&mut self.writer, before)?;
        }
        for segment in self.filled {
            let meta = segment.meta().clone();
            meta.untrack_temp_docstore();
            self.writer.add_segment(meta)?;
        }
        commit(&mut self.writer, payload)?;
        self.writer.wait_merging_threads()
    }
}

fn commit(writer: &mut IndexWriter, payload: &Payload) -> Result<(), TantivyError> {
    let mut commit = writer.prepare_commit()?;
    commit.set_payload(&payload.to_text());
    commit.commit()?;
    Ok(())
}
