//! The memories that changed after the last commit of the text index, as words in memory.
//!
//! They are read from the database when somebody searches, so a save costs nothing here, and a tail
//! lost in a crash is only read again.

use std::collections::HashMap;
use std::sync::Arc;

use tantivy::fieldnorm::FieldNormReader;
use tantivy::query::Bm25Weight;

use super::analysis::{Analyzer, QueryWord, Words, indexed_text};
use super::record::{Memory, MemoryType};
use super::store;
use crate::db::DbError;
use crate::db::rusqlite::Connection;

/// Most rows held; reached only while the index cannot be written. Then the newest are held.
const ROWS_MAX: usize = 4_096;
/// Most bytes of content whose words are held, likewise.
const CONTENT_BYTES_MAX: usize = 4 << 20;

#[derive(Clone, Default)]
pub(super) struct Tail {
    rows: HashMap<String, Arc<Row>>,
    /// The highest change seen.
    last_change: i64,
}

struct Row {
    change_seq: i64,
    memory_type: MemoryType,
    bytes: usize,
    /// `None` for a forgotten memory, which only hides what the index still holds of it.
    words: Option<Words>,
}

impl Tail {
    /// Takes in what changed since the last call and after `committed`.
    pub(super) fn catch_up(
        &mut self,
        connection: &Connection,
        committed: i64,
        analyzer: &Analyzer,
    ) -> Result<(), DbError> {
        let after = committed.max(self.last_change);
        let mut fresh = Vec::new();
        let mut bytes = 0;
        store::newest_changes(connection, after, |memory| {
            bytes += memory.content.len();
            fresh.push(memory);
            fresh.len() < ROWS_MAX && bytes < CONTENT_BYTES_MAX
        })?;
        for memory in fresh.into_iter().rev() {
            self.last_change = self.last_change.max(memory.change_seq);
            self.put(memory, analyzer);
        }
        self.shrink();
        Ok(())
    }

    fn put(&mut self, memory: Memory, analyzer: &Analyzer) {
        let words = (!memory.forgotten).then(|| analyzer.words(&indexed_text(&memory)));
        let row = Row {
            change_seq: memory.change_seq,
            memory_type: memory.memory_type,
            bytes: memory.content.len(),
            words,
        };
        self.rows.insert(memory.id, Arc::new(row));
    }

    fn shrink(&mut self) {
        let mut bytes: usize = self.rows.values().map(|row| row.bytes).sum();
        if self.rows.len() <= ROWS_MAX && bytes <= CONTENT_BYTES_MAX {
            return;
        }
        let mut oldest: Vec<_> = self.rows.iter().map(|(id, row)| (row.change_seq, id.clone())).collect();
        oldest.sort_unstable();
        for (_, id) in oldest {
            if self.rows.len() <= ROWS_MAX && bytes <= CONTENT_BYTES_MAX {
                break;
            }
            bytes -= self.rows.remove(&id).map_or(0, |row| row.bytes);
        }
    }

    /// Drops what the index holds now.
    pub(super) fn drop_through(&mut self, committed: i64) {
        self.rows.retain(|_, row| row.change_seq > committed);
    }

    /// True when what the index says about this memory is out of date.
    pub(super) fn supersedes(&self, id: &str) -> bool {
        self.rows.contains_key(id)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    fn live(&self) -> impl Iterator<Item = (&String, &Row, &Words)> {
        self.rows.iter().filter_map(|(id, row)| Some((id, &**row, row.words.as_ref()?)))
    }

    /// Adds the tail's part to the statistics by which words are weighed.
    pub(super) fn count_into(&self, statistics: &mut Statistics) {
        for (_, _, words) in self.live() {
            statistics.documents += 1;
            statistics.words += u64::from(words.total);
            for (word, documents) in &mut statistics.documents_with {
                *documents += u64::from(words.counts.contains_key(word));
            }
        }
    }

    /// Every matching memory with its score, unordered.
    pub(super) fn search(
        &self,
        query: &[QueryWord],
        memory_type: Option<MemoryType>,
        statistics: &Statistics,
    ) -> Vec<(String, f32)> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let weights: Vec<_> = query.iter().map(|word| (&word.stem, statistics.weight(&word.stem))).collect();
        self.live()
            .filter(|(_, row, _)| memory_type.is_none_or(|wanted| wanted == row.memory_type))
            .filter_map(|(id, _, words)| {
                let length = FieldNormReader::fieldnorm_to_id(words.total);
                let score: f32 = weights
                    .iter()
                    .filter_map(|(stem, weight)| Some(weight.score(length, *words.counts.get(*stem)?)))
                    .sum();
                (score > 0.0).then(|| (id.clone(), score))
            })
            .collect()
    }
}

/// What BM25 needs to know about all memories, those in the index and those in the tail.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) documents: u64,
    /// Words of all documents together.
    pub(super) words: u64,
    /// For each word of the query, in how many documents it is.
    pub(super) documents_with: HashMap<String, u64>,
}

impl Statistics {
    pub(super) fn average_length(&self) -> f32 {
        (self.words as f32 / self.documents.max(1) as f32).max(1.0)
    }

    fn weight(&self, word: &str) -> Bm25Weight {
        let with = self.documents_with.get(word).copied().unwrap_or(0);
        Bm25Weight::for_one_term_without_explain(with, self.documents.max(with), self.average_length())
    }

    /// What a memory of average length scores that has every word of the query once.
    pub(super) fn full_score(&self, query: &[QueryWord]) -> f32 {
        let length = FieldNormReader::fieldnorm_to_id(self.average_length() as u32);
        query.iter().map(|word| self.weight(&word.stem).score(length, 1)).sum()
    }
}
